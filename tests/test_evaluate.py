"""Judging heads on any number of test sets."""

import copy
import shutil

import pytest

from mtlrank import build, compare, evaluate, prepare, rank
from mtlrank.compose import compose_config, select_tasks
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import MANIFEST, new_folder, read_json, write_json, write_manifest
from mtlrank.trec import read_run
from tests.saved_models import save_random, settings


def test_each_test_set_has_a_run_of_its_own_queries(data_dir, tmp_path):
    words = [
        f"data_dir={data_dir}",
        "tasks=[trec2019]",
        "+datamodule.dataset.datasets.trec2019.more_tests={held: mtlrank-embedded/val}",
        "datamodule.dataset.datasets.trec2019.val=null",
    ]
    config = select_tasks(compose_config(words, trusted=True))
    datasets = prepare.run(config)
    model = build.build_model(config, build.build_body(config), datasets)
    metrics = evaluate.judge_all(model, datasets, tmp_path, evaluate.Scoring(batch_size=128))
    assert {key.split("/")[0] for key in metrics} == {"test", "test@held"}

    sizes = {}
    for folder, split in (("trec2019", "test"), ("trec2019@held", "test@held")):
        judged = {line.split("\t")[0] for line in (tmp_path / folder / "per_query.tsv").read_text().splitlines()[1:]}
        ranked = {(doc.query_id, doc.doc_id) for doc in read_run(tmp_path / folder / "run.trec")}
        assert ranked == set(datasets["trec2019"].split(split).ids)
        assert {query_id for query_id, _ in ranked} == judged
        assert read_json(tmp_path / folder / "metrics.json")["split"] == split
        sizes[split] = len(judged)
    assert sizes == {"test": 100, "test@held": 50}


def test_a_task_without_the_split_is_left_out_unless_it_is_asked_for(config, datasets, data_dir, tmp_path, capsys):
    """As in training, which learns from such a task and does not judge it."""
    saved = copy.deepcopy(config)
    saved["datamodule"]["dataset"]["datasets"]["msm_ner"]["test"] = None
    save_random(tmp_path / "model", saved, datasets)
    words = {"model_dir": tmp_path / "model", "data_dir": data_dir, "output_dir": tmp_path / "judged"}
    metrics = evaluate.run(settings("evaluate", **words))
    assert {key.split("/")[1] for key in metrics} == set(datasets) - {"msm_ner"}
    assert "msm_ner has no test split and is not judged" in capsys.readouterr().err
    with pytest.raises(DataError, match="msm_ner.* has no split 'test'"):
        evaluate.run(settings("evaluate", **words, tasks="[msm_ner,msm_sem_sim]"))
    with pytest.raises(ConfigError, match="trec2019 is a ranking: its training documents are a sample"):
        evaluate.run(settings("evaluate", **words, tasks="[trec2019]", split="train"))


def test_the_test_sampler_is_asked_for_its_order(config, datasets, data_dir, tmp_path):
    """Either of the two that take every sample once gives the same measures; others are refused."""
    found = []
    for name in ("Sequential", "LongestFirst", "Uniform"):
        saved = copy.deepcopy(config)
        saved["datamodule"]["test_sampler"]["_target_"] = f"mtlrank.datamodule.sampler.{name}"
        save_random(tmp_path / name / "model", saved, datasets)
        words = settings("evaluate", model_dir=tmp_path / name / "model", tasks="[msm_ner]", data_dir=data_dir)
        if name == "Uniform":
            with pytest.raises(ConfigError, match="test_sampler is Uniform, but judging takes every sample once"):
                evaluate.run(words)
        else:
            found.append(evaluate.run(words))
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_the_folder_of_a_run_stands_for_its_model(config, datasets, data_dir, tmp_path, capsys):
    save_random(tmp_path / "run" / "model", config, datasets)
    wanted = settings("evaluate", model_dir=tmp_path / "run", tasks="[msm_ner]")
    metrics = evaluate.run(wanted, {"msm_ner": data_dir / "msm_ner"})
    assert set(metrics) == {"test/msm_ner/Accuracy", "test/msm_ner/MacroF1"}
    assert f"results: {tmp_path / 'run' / 'evaluation-test'}" in capsys.readouterr().out.replace("\n", "")


def test_an_evaluation_is_compared_wherever_it_lies(config, datasets, data_dir, tmp_path):
    """Also without the model, as that of a registry lies in another place."""
    for name, seed, lr in (("a1", 1, 1e-3), ("a2", 2, 1e-3), ("b", 1, 1e-4)):
        saved = copy.deepcopy(config)
        saved["seed"], saved["loop"]["optimizer"]["lr"] = seed, lr
        save_random(tmp_path / "model", saved, datasets)
        words = settings("evaluate", model_dir=tmp_path / "model", tasks="[trec2019]", output_dir=tmp_path / name)
        evaluate.run(words, {"trec2019": data_dir / "trec2019"})
        shutil.rmtree(tmp_path / "model")
    rows = compare.run([str(tmp_path / name) for name in ("a1", "a2", "b")], resamples=100)
    assert {(row.baseline, row.baseline_runs, row.system) for row in rows} == {
        ("lr=0.001", 2, "lr=0.0001"),
        ("first stage", 1, "lr=0.001"),
        ("first stage", 1, "lr=0.0001"),
    }
    shutil.copytree(tmp_path / "b", tmp_path / "b2")
    with pytest.raises(ConfigError, match="have the same config and seed 1, so they count once"):
        compare.run([str(tmp_path / name) for name in ("a1", "b", "b2")])


def test_a_saved_model_that_names_code_anywhere_is_not_trusted(config, datasets, tmp_path):
    """Also where samplers are named, which evaluation builds too."""
    sampler = {"_target_": "pathlib.Path.write_text", "_args_": [str(tmp_path / "evil"), "x"]}
    saved = {**config, "datamodule": {**config["datamodule"], "test_sampler": sampler}}
    save_random(tmp_path / "model", config, datasets)
    with new_folder(tmp_path / "evil_model") as folder:
        shutil.copytree(tmp_path / "model", folder, dirs_exist_ok=True)
        write_json(folder / "config.json", saved, sort_keys=False)
        write_manifest(folder, {k: v for k, v in read_json(folder / MANIFEST).items() if k != "files"})
    with pytest.raises(ConfigError, match="'pathlib.Path.write_text' is not allowed"):
        evaluate.run(settings("evaluate", model_dir=tmp_path / "evil_model"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("step", [evaluate, rank])
def test_a_model_must_be_named(step, tmp_path):
    words = {"model_dir": None} | ({"input": "x.tsv", "output": tmp_path / "y.tsv"} if step is rank else {})
    with pytest.raises(ConfigError, match="model_dir has no value"):
        step.run(settings(step.__name__.rpartition(".")[2], **words))
