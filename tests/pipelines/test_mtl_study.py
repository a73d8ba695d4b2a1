"""A study as a pipeline: its runs as texts, and its result beside that of `mtlrank study`."""

import json

import pytest

from components.plan.runs import plan_runs, read_run, study_settings
from mtlrank import study
from mtlrank.compose import pipeline_config
from mtlrank.errors import ConfigError
from pipelines.local import run
from pipelines.mtl_study import mtl_study
from tests.test_study import vary_with

TASKS = ["msm_sem_sim", "msm_ner"]


def settings(seeds):
    return {"experiment": "embedded", **study_settings(TASKS, seeds, [], [], [], 0.01)}


def test_runs_travel_as_texts():
    config = pipeline_config(settings([2, 4]), [], name="study")
    runs = [read_run(text) for text in plan_runs(config)]
    assert runs == study.plan(config)
    assert runs[-1] == study.Run(("msm_sem_sim", "msm_ner"), 4)
    assert len(runs) == 6


def test_seeds_that_a_server_sends_as_floats_are_whole_numbers():
    config = pipeline_config(settings([2.0]), [], name="study")
    assert [read_run(text).seed for text in plan_runs(config)] == [2, 2, 2]
    with pytest.raises(ConfigError, match=r"study.seeds is \[2.5\], expected a list of different seeds"):
        pipeline_config(settings([2.5]), [], name="study")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_gives_what_the_command_gives(tmp_path, home, monkeypatch):
    """To the bit: the steps train and judge each run by itself, the command one after the other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["debug=limit", "study.resamples=500"]
    folder = run(
        tmp_path / "root", pipeline=mtl_study, tasks=TASKS, seeds=[1, 2], heads=["msm_ner"], epochs=1, overrides=words
    )
    assert len(list(folder.rglob("trial/model/model/model.safetensors"))) == 4
    (page,) = folder.glob("transfer/page")
    assert "msm_sem_sim+msm_ner" in page.read_text()
    told = json.loads((folder / "transfer" / "executor_output.json").read_text())

    mine = [f"tasks=[{','.join(TASKS)}]", "study.seeds=[1,2]", "study.heads=[msm_ner]", "training.epochs=1", *words]
    study.run(vary_with(*mine, f"output_dir={tmp_path / 'study'}", f"data_dir={tmp_path / 'data'}"))
    (expected,) = json.loads((tmp_path / "study" / "transfer" / "comparison.json").read_text())["comparisons"]
    (found,) = json.loads((folder / "transfer" / "tables" / "comparison.json").read_text())["comparisons"]
    assert found == expected
    assert found["baseline_runs"] == 2
    metrics = told["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics == {"msm_sem_sim+msm_ner/msm_ner/Accuracy": expected["difference"]}
