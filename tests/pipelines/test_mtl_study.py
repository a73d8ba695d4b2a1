"""A study as a pipeline: its runs as texts, and its result beside that of `mtlrank study`."""

import json

import pytest

from components.plan.runs import plan_runs, read_run, run_settings, study_settings
from mtlrank import study
from mtlrank.composing.compose import pipeline_config
from mtlrank.errors import ConfigError
from mtlrank.storage import list_files, read_bytes
from pipelines.local import run
from pipelines.mtl_study import mtl_study
from tests.pipelines.pods import kill_after_a_checkpoint, published, whole
from tests.test_study import vary_with

TASKS = ["msm_sem_sim", "msm_ner"]
SMALL = ["training.max_val_queries=20", "datamodule.train_sampler.limits={msm_sem_sim: 80, msm_ner: 80}"]


def parameters(**given):
    defaults = {name: spec.default for name, spec in mtl_study.component_spec.inputs.items()}
    return {**defaults, "tasks": TASKS, **given}


def settings(seeds):
    return {"experiment": "embedded", **study_settings(parameters(seeds=seeds))}


def test_runs_travel_as_texts():
    config = pipeline_config(settings([2, 4]), [], name="study")
    same = run_settings(parameters(batch_size=32))
    texts = plan_runs(config, same, ["training.epochs=7"])
    runs, varies = zip(*map(read_run, texts), strict=True)
    assert list(runs) == study.plan(config)
    training = varies[0]({"seed": 3})["training"]
    assert (training["batch_size"], training["epochs"]) == (32, 7)
    assert runs[-1] == study.Run(("msm_sem_sim", "msm_ner"), 4)
    assert len(runs) == 6


def test_seeds_that_a_server_sends_as_floats_are_whole_numbers():
    config = pipeline_config(settings([2.0]), [], name="study")
    assert [read_run(text)[0].seed for text in plan_runs(config, {}, [])] == [2, 2, 2]
    with pytest.raises(ConfigError, match=r"study.seeds is \[2.5\], expected a list of different seeds"):
        pipeline_config(settings([2.5]), [], name="study")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_gives_what_the_command_gives(tmp_path, home, monkeypatch):
    """To the bit: the steps train and judge each run by itself, the command one after the other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["debug=limit", "study.resamples=500", "datamodule.dataset.datasets.msm_sem_sim.name=model"]
    folder = run(
        tmp_path / "root",
        pipeline=mtl_study,
        tasks=TASKS,
        seeds=[1, 2],
        heads=["msm_sem_sim"],
        epochs=1,
        overrides=words,
    )
    assert len(list(folder.rglob("trial/model/model/model.safetensors"))) == 4
    (page,) = folder.glob("transfer/page")
    assert "msm_sem_sim+msm_ner" in page.read_text()
    told = json.loads((folder / "transfer" / "executor_output.json").read_text())

    mine = [f"tasks=[{','.join(TASKS)}]", "study.seeds=[1,2]", "study.heads=[msm_sem_sim]", "training.epochs=1", *words]
    study.run(vary_with(*mine, f"output_dir={tmp_path / 'study'}", f"data_dir={tmp_path / 'data'}"))
    (expected,) = json.loads((tmp_path / "study" / "transfer" / "comparison.json").read_text())["comparisons"]
    (found,) = json.loads((folder / "transfer" / "tables" / "comparison.json").read_text())["comparisons"]
    assert found == expected
    assert found["baseline_runs"] == 2
    metrics = told["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics == {"msm_sem_sim+msm_ner/model/Spearman": expected["difference"]}  # called as a folder of a run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_run_goes_on_in_another_pod_and_all_are_compared(cluster, datasets, data_dir):
    what = {"experiment": "embedded", "body": "tiny", "overrides": [*SMALL, "training.checkpoint_steps=2"]}
    how = {
        "batch_size": 16,
        "learning_rate": 1e-3,
        "epochs": 1,
        "sampler": "",
        "loss": "",
        "precision": "",
        "gpus": "0",
    }
    compared = {"tasks": TASKS, "seeds": [1.0], "mixtures": [], "heads": ["msm_ner"], "measures": [], "margin": 0.01}
    machine = {"gpu_type": "nvidia.com/gpu", "cpu": "2", "memory": "16Gi", "node_selector": {}, "tolerations": []}
    plan = cluster(
        "plan", **compared, **how, **what, **machine, shards=["1/1"], prepared="", checkpoints="gs://bucket/checkpoints"
    )
    config = whole(plan)["config"]
    single, both = json.loads(plan.told.read_text())["parameterValues"]["Output"]
    prepared = [published(data_dir / task) for task in TASKS]

    def trial(run, checkpoints):
        return cluster("trial", run=run, datasets=prepared, checkpoints=checkpoints)

    kill_after_a_checkpoint(trial(both, "gs://bucket/checkpoints"), "gs://bucket/checkpoints")
    again = trial(both, "gs://bucket/checkpoints")
    results = [whole(again)["result"], whole(trial(single, ""))["result"]]
    assert "resuming at epoch" in again.log()
    assert not any(name.endswith(".safetensors") for result in results for name in list_files(result.uri))
    undisturbed = whole(trial(both, ""))["result"]
    place = "msm_sem_sim+msm_ner/seed-1/metrics.json"
    assert read_bytes(f"{results[0].uri}/{place}") == read_bytes(f"{undisturbed.uri}/{place}")

    last = whole(cluster("transfer", results=results, config=config))
    assert list(last["metrics"].metadata) == ["msm_sem_sim+msm_ner/msm_ner/Accuracy"]
    assert b"1 comparison" in read_bytes(last["page"].uri)
    assert "comparison.csv" in list_files(last["tables"].uri)
