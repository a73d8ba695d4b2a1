import os
import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from mtlrank import build, run_folder, train
from mtlrank.build import num_processes
from mtlrank.build_dataset import prepared_folder
from mtlrank.compose import compose_config, select_tasks
from mtlrank.errors import ConfigError
from mtlrank.loop.checkpoints import Checkpoints
from mtlrank.loop.milestones import Milestones, Plan
from mtlrank.loop.stopping import StopSignals
from mtlrank.storage import read_json, write_json
from mtlrank.task.distillation import MarginMSE


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


def test_trainer_settings_that_lightning_refuses_are_named(config, tmp_path):
    monitored = build.Monitored("val/x", "max")
    milestones = Milestones(Checkpoints(tmp_path), monitored, StopSignals(), Plan(), {}, [])
    wrong = {**config, "trainer": {**config["trainer"], "precision": "17"}}
    with pytest.raises(ConfigError, match="Lightning refuses the trainer settings"):
        build.build_trainer(wrong, tmp_path, milestones)


def test_callbacks_of_a_config_come_before_what_writes_checkpoints(config, tmp_path):
    monitored = build.Monitored("val/x", "max")
    milestones = Milestones(Checkpoints(tmp_path), monitored, StopSignals(), Plan(), {}, [])
    trainer = {**config["trainer"], "callbacks": [{"_target_": "pytorch_lightning.callbacks.Timer"}]}
    kinds = [type(each) for each in build.build_trainer({**config, "trainer": trainer}, tmp_path, milestones).callbacks]
    assert kinds.index(pl.callbacks.Timer) < kinds.index(Milestones)
    wrong = {**trainer, "callbacks": [{"_target_": "collections.Counter"}]}
    with pytest.raises(
        ConfigError, match=r"trainer.callbacks is a collections.Counter, expected a pytorch_lightning\."
    ):
        build.build_trainer({**config, "trainer": wrong}, tmp_path, milestones)
    with pytest.raises(ConfigError, match=r"trainer.callbacks is \['a'\], expected null or a list of Lightning"):
        composed("+trainer.callbacks=[a]")


def test_scores_of_a_teacher_that_are_no_logits_are_told(capsys):
    for spread, scale, told in ((2e6, 1.0, True), (2e6, 1e-6, False), (10.0, 1.0, False)):
        task = MarginMSE(["AP"], teacher_scale=scale)
        build._warn_of_wide_scores({"x": SimpleNamespace(name="x", task=task, manifest={"labels": {"std": spread}})})
        assert ("datasets.x.task.teacher_scale=2e-06 would bring" in capsys.readouterr().err) == told


def test_a_folder_with_a_run_of_another_config_is_refused_unless_forced(config, tmp_path):
    config = {**config, "output_dir": str(tmp_path)}
    run_folder.claim(run_folder.output_folder(config), config)
    assert run_folder.output_folder({**config, "test": False}) == tmp_path
    with pytest.raises(ConfigError, match=r"another config \(1 keys differ: seed: 42 there, 7 now\)"):
        run_folder.output_folder({**config, "seed": 7})
    assert run_folder.output_folder({**config, "seed": 7, "force": True}) == tmp_path
    (tmp_path / "metrics.json").touch()
    older = read_json(tmp_path / "run.json")
    assert older.pop("training.max_steps", 1) is None
    write_json(tmp_path / "run.json", older)
    assert run_folder.holds(tmp_path, config)
    assert not run_folder.holds(tmp_path, {**config, "seed": 7})


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_run_is_not_replaced(config, tmp_path, force):
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"is not the folder of a run, and training would replace model there\."):
        run_folder.output_folder({**config, "output_dir": str(tmp_path), "force": force})


def test_a_folder_is_not_claimed_before_training_starts(config, tmp_path):
    run_folder.output_folder({**config, "output_dir": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_prepared_folders_notice_that_a_file_has_changed(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_text("1\ta\tb\n")
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={file}"]
    before = prepared_folder(composed(*words), "msm_sem_sim")
    assert before == prepared_folder(composed(*words), "msm_sem_sim")
    os.utime(file, (0, 0))
    assert before == prepared_folder(composed(*words), "msm_sem_sim")  # what counts is the content, on any machine
    file.write_text("1\ta\tb\n2\tc\td\n")
    assert before != prepared_folder(composed(*words), "msm_sem_sim")


def test_prepared_folders_notice_that_a_file_of_a_folder_has_changed(tmp_path, monkeypatch):
    """Also if the folder's path is a word, which could be any setting."""
    (tmp_path / "b" / "qrels").mkdir(parents=True)
    (tmp_path / "b" / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    monkeypatch.chdir(tmp_path)
    words = ["datamodule/dataset=trec2019", "datamodule.dataset.train={beir: b, split: test}"]
    before = prepared_folder(composed(*words), "trec2019")
    (tmp_path / "b" / "qrels" / "test.tsv").write_text("q1\td1\t0\n")
    assert before != prepared_folder(composed(*words), "trec2019")
    found = prepared_folder(composed(*words), "trec2019")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "big").write_text("not of the dataset: split is a word")
    assert found == prepared_folder(composed(*words), "trec2019")


def test_prepared_folders_do_not_take_words_for_folders(tmp_path, monkeypatch):
    """Of tasks, formats and first stages, whatever the current folder holds."""
    monkeypatch.chdir(tmp_path)
    ranking = composed("tasks=[trec2019,msm_bm25]", "collection.test={id: mtlrank-embedded/test, run: bm25}")
    pairs = composed("datamodule/dataset=msm_sem_sim")
    cases = [(ranking, "trec2019"), (ranking, "msm_bm25"), (pairs, "msm_sem_sim")]
    before = [prepared_folder(*case) for case in cases]
    for name in ("ranking", "regression", "bm25", "tsv", "judged", "annotator"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert before == [prepared_folder(*case) for case in cases]


def test_prepared_folders_notice_other_weights_of_an_annotator_but_not_beside_a_tokenizer(tmp_path):
    """Though a retrained model has as many bytes."""
    for name in ("teacher", "body"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"one")
    words = ["datamodule/dataset=annotated_sem_sim", f"datamodule.dataset.annotator.model={tmp_path}/teacher"]
    config = composed(*words, f"datamodule.dataset.preprocessor.tokenizer={tmp_path}/body")
    before = prepared_folder(config, "annotated_sem_sim")
    (tmp_path / "body" / "model.safetensors").write_bytes(b"two")
    assert before == prepared_folder(config, "annotated_sem_sim")
    (tmp_path / "teacher" / "model.safetensors").write_bytes(b"two")
    assert before != prepared_folder(config, "annotated_sem_sim")


def test_prepared_folders_notice_that_a_class_of_ones_own_has_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "changing_data.py"
    code.write_text("from mtlrank.datamodule.dataset import SentencePairs\n\n\nclass Mine(SentencePairs):\n    pass\n")
    words = ["datamodule/dataset=msm_sem_sim", "datamodule.dataset._target_=changing_data.Mine"]
    before = prepared_folder(composed(*words), "msm_sem_sim")
    assert before == prepared_folder(composed(*words), "msm_sem_sim")
    code.write_text(code.read_text() + "\n    # another way to read\n")
    assert before != prepared_folder(composed(*words), "msm_sem_sim")


def test_more_processes_than_a_machine_without_gpus_has_processors_are_refused():
    with pytest.raises(ConfigError, match="trainer.devices is 999, but this machine has no GPU"):
        num_processes({"devices": 999, "num_nodes": 1, "accelerator": "cpu"})


def test_rates_that_are_too_high_for_a_pretrained_body_are_told(config, datasets, capsys):
    for pretrained, told in ((False, False), (True, True)):
        body = {**config["model"]["body"], "pretrained": pretrained}
        build._warn_of_high_rate({**config, "model": {**config["model"], "body": body}})
        assert ("usually learn with 1e-5 to 1e-4" in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("settings", "has_parsed_once", "told"),
    [
        ({"precision": "bf16-mixed", "deterministic": True}, True, []),
        ({"precision": "32-true", "deterministic": True}, True, ["precision"]),
        ({"precision": "bf16-mixed", "deterministic": True}, False, ["deterministic"]),
        ({"precision": "32-true", "deterministic": False}, False, ["precision"]),
    ],
)
def test_what_makes_a_gpu_slow_is_told(monkeypatch, capsys, settings, has_parsed_once, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.backends.cuda, "cublas_workspace_size", None, raising=False)
    if not has_parsed_once:
        monkeypatch.delattr(torch.backends.cuda, "cublas_workspace_size")
    build._warn_of_slow_settings({**settings, "accelerator": "auto"})
    assert re.findall(r"trainer\.(\w+) (?:is|costs)", capsys.readouterr().err) == told
    build._warn_of_slow_settings({**settings, "accelerator": "cpu"})
    assert capsys.readouterr().err == ""


def test_prepared_folders_tell_apart_what_is_made_differently():
    def folder(*overrides):
        return prepared_folder(composed(*overrides), "msm_bm25")

    assert folder() == folder("training.epochs=9", "datamodule.dataset.datasets.msm_bm25.name=other")
    assert folder() != folder("datamodule.dataset.datasets.msm_bm25.per_query=9")
    assert folder() != folder("model.body.backbone=other")


def test_a_monitor_that_is_never_computed_is_refused(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/nDCG@1"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        build.monitored(wrong, datasets)


def test_a_monitor_in_other_letters_is_found(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/ndcg@10"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        build.monitored(wrong, datasets)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.heads.trec2019.pooler.layers=3", "Head 'trec2019': .*not iterable"),
        ("model.heads.trec2019.dropout=2", "Head 'trec2019': dropout probability has to be between 0 and 1"),
        ("+model.heads.trec2019.nope=1", "Head 'trec2019': mtlrank.model.head.MLP has no setting 'nope'"),
        ("+datamodule.nope=1", "mtlrank.datamodule.multitask.MTLDataModule has no setting 'nope'. It takes: dataset"),
        ("+datamodule.train_sampler.nope=1", "sampler.RandomProportional has no setting 'nope'. It takes: .*limits"),
        ("datamodule.train_sampler.limits=100", "limits is 100, expected whole numbers"),
        (
            "datamodule/sampler@datamodule.val_sampler=uniform",
            "datamodule.val_sampler is Uniform, but judging takes every",
        ),
        ("loop/loss=static_weights loop.loss.weights=3", "loop.loss does not take its settings"),
        ("+loop.nope=1", "^mtlrank.loop.multitask.MultiTaskLoop has no setting 'nope'. It takes: model, [a-z, _]*[.]$"),
        ("+model.nope=1", "^mtlrank.model.multitask.MultiTaskModel has no setting 'nope'. It takes: body, heads.$"),
        ("model.body.pretrained=no", "pretrained of mtlrank.model.body.MTLBody is 'no', expected true or false"),
        ("loop.optimizer.fused=off", "fused of torch.optim.AdamW is 'off', expected true or false"),
        (
            "datamodule.dataset.datasets.msm_ner.preprocessor.max_length=512",
            r"msm_ner.preprocessor.max_length is 512, but mtlrank-embedded/tiny-bert has positions for 256 tokens",
        ),
    ],
)
def test_settings_that_nothing_takes_are_named(datasets, word, message):
    config = composed(*word.split())
    with pytest.raises(ConfigError, match=message):
        datamodule = build.build_datamodule(config, datasets)
        for split in ("train", "val"):
            datamodule.num_batches(split)
        model = build.build_model(config, build.build_body(config), datasets)
        build.build_loop(config, model, datasets, total_steps=1)


@pytest.mark.parametrize(("devices", "count"), [(1, 1), ([1], 1), ([0, 3], 2), (2, 2), ("auto", 1), (-1, 1)])
def test_processes_are_counted_as_lightning_starts_them(devices, count):
    """On a machine without GPUs, "all" is one."""
    trainer = {"devices": devices, "num_nodes": 1, "accelerator": "cpu"}
    assert build.num_processes(trainer) == count
    assert build.num_processes({**trainer, "num_nodes": 2}) == 2 * count


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 20),
        ({"limit_train_batches": 5}, 10),
        ({"limit_train_batches": 0.5}, 10),
        ({"limit_train_batches": 0.05}, 2),
        ({"max_steps": 7}, 7),
        ({"max_steps": 99, "accumulate_grad_batches": 3}, 8),
    ],
)
def test_the_schedule_ends_with_the_training(settings, steps):
    """Two epochs of ten batches, cut as Lightning cuts them. Samplers hear how many epochs that makes."""

    class Ten:
        epochs = 1.0

        def num_batches(self, split, world_size):
            return 10

    datamodule = Ten()

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    assert build.plan_steps({"training": {"epochs": 2}}, datamodule, trainer) == steps
    assert datamodule.epochs == (steps / 10 if settings == {"max_steps": 7} else 2)


def test_by_default_the_first_measure_of_the_first_dataset_is_monitored(config, datasets):
    assert build.monitored(config, datasets) == ("val/trec2019/nDCG@10", "max")
    assert build.monitored(config, {"msm_bm25": datasets["msm_bm25"]}) == ("val/msm_bm25/MSE", "min")


def test_a_layer_deeper_than_the_body_is_named_with_its_head(config):
    heads = {**config["model"]["heads"]}
    heads["msm_ner"] = {**heads["msm_ner"], "pooler": {**heads["msm_ner"]["pooler"], "layers": [7]}}
    with pytest.raises(ConfigError, match="Head 'msm_ner': layer 7 is deeper than the body, which has 3 layers"):
        build.build_body({**config, "model": {**config["model"], "heads": heads}})


def test_a_pooler_without_spans_on_a_span_dataset_is_refused(config, datasets):
    heads = {**config["model"]["heads"], "msm_ner": config["model"]["heads"]["trec2019"]}
    wrong = {**config, "model": {**config["model"], "heads": heads}}
    with pytest.raises(ConfigError, match="Head 'msm_ner' pools no spans, but its dataset labels 1 spans"):
        build.build_model(wrong, build.build_body(config), datasets)


def test_a_pooler_that_compares_two_texts_on_single_texts_is_refused(config, datasets):
    compare = {**config["model"]["heads"]["trec2019"]["pooler"], "_target_": "mtlrank.model.head.pooler.PairProduct"}
    heads = {**config["model"]["heads"], "msm_ner": {**config["model"]["heads"]["trec2019"], "pooler": compare}}
    wrong = {**config, "model": {**config["model"], "heads": heads}}
    with pytest.raises(ConfigError, match="Head 'msm_ner' pools with PairProduct, which compares two texts"):
        build.build_model(wrong, build.build_body(config), datasets)


def test_datasets_of_another_tokenizer_are_refused(config, datasets):
    other = {**config, "model": {**config["model"], "body": {**config["model"]["body"], "backbone": "other"}}}
    with pytest.raises(ConfigError, match="The body is 'other', but datasets were prepared for other tokenizers"):
        build.check_tokenizers(other, datasets)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["training.monitor=val/msm_bm25/Mse"], "Did you mean 'val/msm_bm25/MSE'"),
        (["loop/loss=static_weights", "loop.loss.weights={nope: 2}"], "names unknown tasks: nope"),
    ],
)
def test_a_name_that_is_wrong_is_told_before_data_is_prepared(tmp_path, words, complaint):
    config = composed("tasks=[msm_bm25]", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/run", *words)
    with pytest.raises(ConfigError, match=complaint):
        train.run(config)
    assert not (tmp_path / "data").exists()
