import pytest

from mtlrank import build
from mtlrank.build import check_targets, compose_config, pipeline_config, select_tasks
from mtlrank.errors import ConfigError
from mtlrank.loop.checkpoints import Checkpoints
from tests.conftest import KEYS


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


def test_the_default_config_has_the_five_tasks_in_order():
    config = composed()
    assert list(config["datamodule"]["dataset"]["datasets"]) == KEYS
    assert list(config["model"]["heads"]) == KEYS


def test_tasks_choose_a_subset_in_config_order():
    config = composed("tasks=[msm_bm25,trec2019]")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["trec2019", "msm_bm25"]
    assert list(config["model"]["heads"]) == ["trec2019", "msm_bm25"]


def test_selecting_twice_changes_nothing():
    config = composed("tasks=[msm_ner]")
    assert select_tasks(config) == config


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["~model.heads.msm_ner"], r"Datasets without a head: msm_ner\. .*Heads: trec2019, msm_bm25"),
        (["~datamodule.dataset.datasets.msm_ner"], r"Heads without a dataset: msm_ner\. .*Datasets: trec2019"),
        (["tasks=[trec2091]"], r"Unknown task 'trec2091' in tasks\. Did you mean 'trec2019'\?"),
    ],
)
def test_heads_and_datasets_that_do_not_match_are_listed(overrides, complaint):
    with pytest.raises(ConfigError, match=complaint):
        composed(*overrides)


def test_a_single_dataset_is_a_mixture_of_one_with_its_own_head():
    config = composed("datamodule/dataset=msm_bm25")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["msm_bm25"]
    assert config["model"]["heads"]["msm_bm25"]["_target_"].endswith("MLP")


def test_a_single_dataset_without_a_head_gets_the_default_one():
    assert list(composed("datamodule/dataset=vaswani")["model"]["heads"]) == ["vaswani"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.batchsize=3", "Unknown config key 'training.batchsize'. Did you mean 'training.batch_size'?"),
        ("loop.optimizer.lrr=1", "Did you mean 'loop.optimizer.lr'?"),
        ("datamodule/dataset=vaswanni", "Did you mean 'vaswani'?"),
        ("model/body=bert_base", "model/body has no option 'bert_base'."),
    ],
)
def test_a_slip_of_the_pen_gets_the_nearest_word(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "model.body._target_=os.system",
        "+x={_target_: os.system}",
        "+x=[{a: {_target_: os.system}}]",
        "+loop.optimizer._args_=[1]",
        "+model/heads@_global_=cls",
        "hydra.run.dir=/tmp/x",
        "+hydra/launcher=basic",
        "+experiment@hydra.x=embedded",
        "data_dir=${oc.env:SECRET}",
        r"data_dir=$\{oc.env:SECRET\}",
        r"+a=\{_tar$\{oc.env:NOPE\,get\}_:torch.hub.load\}",
        "experiment=../../../tmp/evil",
        "experiment=/tmp/evil",
        "model/body=[tiny,evil/x]",
        "seed=1,2",
    ],
)
def test_overrides_from_outside_cannot_name_code_secrets_or_files(override):
    with pytest.raises(ConfigError, match="not allowed from a pipeline"):
        compose_config([override], trusted=False)


@pytest.mark.parametrize(
    "override", ["debug=limit", "experiment=embedded", "loop/loss=sum", "training.epochs=2", "~model.heads.msm_ner"]
)
def test_overrides_from_outside_can_choose_and_set(override):
    assert compose_config([override], trusted=False)


@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "torch.load", "mtlrank.storage.write_text"])
def test_a_target_from_outside_must_be_one_that_mtlrank_itself_configures(target, monkeypatch):
    config = {"model": [{"deep": {"_target_": target}}]}
    with pytest.raises(ConfigError, match="is not allowed in a config from outside"):
        check_targets(config)
    monkeypatch.setenv("MTLRANK_ALLOWED_TARGETS", f"other.,{target.rpartition('.')[0]}.")
    check_targets(config)


def test_an_interpolation_that_would_come_later_is_refused():
    with pytest.raises(ConfigError, match="interpolations are not allowed"):
        check_targets({"backbone": "${oc.env:SECRET}"})


def test_the_default_config_itself_passes_as_one_from_outside():
    assert compose_config([], trusted=False) == compose_config([], trusted=True)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.epochs=-1", "training.epochs is -1, expected a whole number, at least 1."),
        ("training.batch_size=abc", "training.batch_size is 'abc'"),
        ("loop.optimizer.lr=fast", "loop.optimizer.lr is 'fast', expected a number above 0."),
        ("seed=-5", "seed is -5"),
        ("tasks=msm_ner", "tasks is 'msm_ner', expected a list, as in [a,b]."),
        ("training.patience=-1", "training.patience is -1"),
        ("output_dir=5", "output_dir is 5, expected a path."),
    ],
)
def test_values_of_the_wrong_kind_are_named(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)


def test_trainer_settings_that_lightning_refuses_are_named(config, tmp_path):
    checkpoints = Checkpoints(tmp_path, build.Monitored("val/x", "max"))
    wrong = {**config, "trainer": {**config["trainer"], "precision": "17"}}
    with pytest.raises(ConfigError, match="Lightning refuses the trainer settings"):
        build.build_trainer(wrong, tmp_path, checkpoints)


def test_a_folder_with_a_run_of_another_config_is_refused_unless_forced(config, tmp_path):
    config = {**config, "output_dir": str(tmp_path)}
    build.claim(build.output_folder(config), config)
    assert build.output_folder({**config, "test": False}) == tmp_path
    with pytest.raises(ConfigError, match=r"another config \(1 keys differ: seed: 42 there, 7 now\)"):
        build.output_folder({**config, "seed": 7})
    assert build.output_folder({**config, "seed": 7, "force": True}) == tmp_path


def test_a_folder_is_not_claimed_before_training_starts(config, tmp_path):
    build.output_folder({**config, "output_dir": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_prepared_folders_notice_that_a_file_has_changed(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_text("1\ta\tb\n")
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={file}"]
    before = build.prepared_folder(composed(*words), "msm_sem_sim")
    assert before == build.prepared_folder(composed(*words), "msm_sem_sim")
    file.write_text("1\ta\tb\n2\tc\td\n")
    assert before != build.prepared_folder(composed(*words), "msm_sem_sim")


def test_pipeline_parameters_become_overrides_and_win_over_free_ones():
    config = pipeline_config({"seed": 7, "tasks": ["msm_ner"], "data_dir": "/a b/c'd"}, ["seed=3", "trainer.devices=2"])
    assert (config["seed"], config["tasks"], config["data_dir"]) == (7, ["msm_ner"], "/a b/c'd")
    assert config["trainer"]["devices"] == 2


@pytest.mark.parametrize("value", ["tiny,bert", "../tiny", "tiny seed=3", "${x}"])
def test_the_name_of_a_config_must_look_like_one(value):
    with pytest.raises(ConfigError):
        pipeline_config({"model/body": value}, [])


def test_prepared_folders_tell_apart_what_is_made_differently():
    def folder(*overrides):
        return build.prepared_folder(composed(*overrides), "msm_bm25")

    assert folder() == folder("training.epochs=9", "datamodule.dataset.datasets.msm_bm25.name=other")
    assert folder() != folder("datamodule.dataset.datasets.msm_bm25.per_query=9")
    assert folder() != folder("model.body.backbone=other")


def test_a_monitor_that_is_never_computed_is_refused(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/nDCG@1"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        build.monitored(wrong, datasets)


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


def test_datasets_of_another_tokenizer_are_refused(config, datasets):
    other = {**config, "model": {**config["model"], "body": {**config["model"]["body"], "backbone": "other"}}}
    with pytest.raises(ConfigError, match="The body is 'other', but datasets were prepared for other tokenizers"):
        build.check_tokenizers(other, datasets)
