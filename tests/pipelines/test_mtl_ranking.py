"""The pipeline at work on this machine."""

import json
import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from mtlrank.registry import Registry, model_folder
from pipelines.local import main, run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_runs_whole(tmp_path, home, capsys):
    small = {"tasks": ["trec2019", "msm_ner"], "epochs": 1, "shards": ["1/2", "2/2"], "overrides": ["debug=limit"]}
    kept = {"registry": str(tmp_path / "registry"), "checkpoints": str(tmp_path / "checkpoints")}
    folder = run(tmp_path / "root", **small, **kept, measures=["msm_ner/Accuracy"])
    told = capsys.readouterr().out.splitlines()
    assert {"    preparing trec2019, shard 1/2", "    preparing msm_ner, shard 2/2"} <= set(told)
    assert any("validation at step" in line for line in told)
    steps, pipeline = 1 + 4 + 2 + 1 + 2 + 1 + 1, 1
    assert sum("finished with status SUCCESS" in line for line in told) == steps + pipeline
    assert not [line for line in told if not line.strip() or "KFP Executor" in line or line.strip() in ("{", "}")]
    (page,) = folder.glob("report/page")
    assert "heads beat their baseline" in page.read_text()
    assert "trec2019" in page.read_text()
    assert len(list(folder.rglob("run.trec"))) == 1
    told = [json.loads(path.read_text()) for path in folder.rglob("evaluate/executor_output.json")]
    tables = [each["artifacts"]["confusion"]["artifacts"][0]["metadata"].get("confusionMatrix") for each in told]
    assert sorted(table is None for table in tables) == [False, True]  # entities have one, a ranking has none
    (decision,) = folder.rglob("promote/decision")
    assert "the first model" in decision.read_text()
    assert (model_folder(tmp_path / "registry") / "model.safetensors").exists()
    assert list((tmp_path / "checkpoints").glob("*/step-*"))
    manifests = [json.loads(path.read_text()) for path in folder.rglob("merge/dataset/manifest.json")]
    assert sorted(manifest["key"] for manifest in manifests) == ["msm_ner", "trec2019"]
    assert all(manifest["shards"] == ["shard-1-of-2", "shard-2-of-2"] for manifest in manifests)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dataset_without_a_test_split_is_learnt_and_not_judged(tmp_path, home):
    without = "datamodule.dataset.datasets.msm_ner.test=null"
    registry = tmp_path / "registry"
    small = {"tasks": ["trec2019", "msm_ner"], "epochs": 1, "overrides": ["debug=limit", without]}
    folder = run(tmp_path / "root", **small, registry=str(registry))
    assert sorted(path.read_text() for path in folder.rglob("not_judged.txt")) == [
        "msm_ner has no test split and is not judged.\n"
    ]
    (page,) = folder.glob("report/page")
    assert "trec2019" in page.read_text()
    assert list(folder.glob("train/model/logs"))
    assert not list(folder.glob("train/model/checkpoints"))
    (decision,) = folder.rglob("promote/decision")
    assert "it is worse than its baseline: trec2019/nDCG@10" in decision.read_text()  # after four steps
    assert len(list(registry.glob("models/*/model/model.safetensors"))) == 1
    assert Registry(registry).current() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_target_that_arrives_through_a_parameter_stops_the_pipeline(tmp_path, home, capfd):
    with pytest.raises(RuntimeError):
        run(tmp_path, tasks=["msm_ner"], overrides=["model.body._target_=os.system"])
    assert "not allowed from a pipeline" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (['tasks=["trec2019","msm_bm26"]'], "Unknown task 'msm_bm26' in tasks. Did you mean 'msm_bm25'?"),
        (["experiment=nope"], "experiment has no option 'nope'"),
        (['overrides=["training.batch_size=-1"]'], "training.batch_size is -1, expected a whole number"),
        (['overrides=["training.monitor=val/trec2019/nDCG"]'], "Did you mean 'val/trec2019/nDCG@10'?"),
        (["shards=[]"], "shards is empty: expected at least one"),
        (['overrides=["model.body.backbone=/a/lib/python3.11/bert"]'], "kfp's local runner replaces 'python3' in it"),
        (["--pipeline", "mtl_study", "seeds=[]"], "seeds is empty: expected at least one"),
        (["--pipeline", "mtl_study", 'tasks=["msm_ner"]'], "expected at least two tasks, found msm_ner"),
        (["--pipeline", "mtl_ranking_nodes"], "mtl_ranking_nodes trains on several nodes of a cluster"),
    ],
)
def test_a_mistake_is_one_line_before_any_step_starts(words, complaint, tmp_path, monkeypatch):
    monkeypatch.setenv("MTLRANK_PIPELINE_ROOT", str(tmp_path / "runs"))
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("root", "complaint"),
    [("gs://bucket/runs", "expected a folder of this machine"), ("/a/python3/runs", "replaces 'python3' in it")],
)
def test_results_are_in_a_folder_of_this_machine(root, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTLRANK_PIPELINE_ROOT", root)
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"mtlrank: MTLRANK_PIPELINE_ROOT is {root!r}")
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_fails_is_one_line_after_its_steps_words(tmp_path):
    override = 'overrides=["datamodule.dataset.datasets.msm_ner.train=nowhere"]'
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.local", 'tasks=["msm_ner"]', override],
        capture_output=True,
        text=True,
        env={**os.environ, "MTLRANK_PIPELINE_ROOT": str(tmp_path)},
    )
    assert done.returncode == 8, done.stderr
    told = [re.sub(r"^[0-9:]{8} ", "", line) for line in done.stdout.splitlines()]
    assert re.fullmatch("Running pipeline: 'mtl-ranking-[0-9a-f]{4}'", told.pop(0))
    missing = told.pop(5)
    assert missing.startswith("    mtlrank: The file of split 'train' 'nowhere' does not exist")
    assert told[:6] == [
        "Executing task 'check'",
        "    No mistake found in the parameters.",
        "Task 'check' finished with status SUCCESS",
        "Executing task 'prepare'",
        "    preparing msm_ner, shard 1/1",
        "ERROR - Task 'prepare' finished with status FAILURE",
    ]
    assert all(line.startswith("Skipping task ") for line in told[6:])
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mtlrank:")]
    assert "Inner task failed: 'prepare'" in line
    assert "\033" not in line
