"""The first step tells what later ones would, of parameters that nobody has checked before."""

import json

import pytest
import yaml

from components.check.component import check
from components.check.parameters import mounted_above
from mtlrank.errors import ConfigError
from pipelines.compile import write
from pipelines.local import run
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.delenv("KFP_POD_NAME", raising=False)


@pytest.fixture
def in_a_pod(monkeypatch):
    monkeypatch.setenv("KFP_POD_NAME", "pod")


def checked(pipeline=mtl_ranking, **changes):
    defaults = {name: spec.default for name, spec in pipeline.component_spec.inputs.items()}
    more = {"on_nodes": True} if "num_nodes" in defaults else {}
    check.python_func(**{**defaults, **changes, **more})


def complaint(pipeline=mtl_ranking, **changes):
    with pytest.raises(ConfigError) as caught:
        checked(pipeline, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "tempreture"}, "datamodule/sampler has no option 'tempreture'. Did you mean 'temperature'?"),
        (
            {"registry": "/tmp/r", "measures": ["msm_sem_sim/spearman"]},
            "measures has 'msm_sem_sim/spearman', by which no head is judged. Did you mean 'msm_sem_sim/Spearman'?",
        ),
        ({"tasks": ["msm_ner", "msm_bm26"]}, "Unknown task 'msm_bm26' in tasks."),
        ({"tasks": []}, "tasks is empty: expected at least one."),
        ({"shards": []}, "shards is empty: expected at least one."),
        ({"overrides": [None]}, 'overrides is [null]: expected a list of texts, as in ["training.max_steps=100"].'),
        ({"overrides": ["seed=1", ["a=1"]]}, 'overrides is ["seed=1", ["a=1"]]: expected a list of texts'),
        ({"overrides": None}, "overrides is null: expected a list of texts"),
        ({"tasks": [["msm_ner"]]}, 'tasks is [["msm_ner"]]: expected a list of texts'),
        ({"shards": [None, "1/2"]}, 'shards is [null, "1/2"]: expected a list of texts'),
        ({"measures": [1]}, "measures is [1]: expected a list of texts"),
        ({"shards": ["1/2"]}, "expected all shards of one number"),
        ({"overrides": ["training.monitor=val/trec2019/nDCG"]}, "training.monitor is 'val/trec2019/nDCG'."),
        ({"overrides": ["model.body._target_=os.system"]}, "not allowed from a pipeline"),
        ({"gpus": "2", "overrides": ["trainer.devices=1"]}, "the pipeline's parameter gpus sets trainer.devices"),
        ({"gpus": "1", "overrides": ["trainer.devices=auto"]}, "the pipeline's parameter gpus sets trainer.devices"),
        ({"gpus": "0", "overrides": ["trainer.devices=2"]}, "the pipeline's parameter gpus sets trainer.devices"),
        ({"memory": "lots"}, "memory is 'lots', expected an amount with its unit"),
        ({"registry": "s3://bucket/registry"}, "registry: 's3://bucket/registry' cannot be used"),
        ({"prepared": "gs://"}, "prepared: 'gs://' has no valid bucket"),
        ({"registry": "gs://bucket/r "}, "registry is 'gs://bucket/r ': expected a folder without blanks around it"),
        ({"checkpoints": "/mnt/a\n"}, "checkpoints is '/mnt/a\\n': expected a folder without blanks around it"),
        (
            {"prepared": "gs://bucket/\u200bp"},
            "expected a folder without blanks around it and without signs that cannot",
        ),
        ({"checkpoints": "/dev/null"}, "checkpoints is '/dev/null', which is no folder here."),
        ({"margin": -1.0}, "margin is -1.0: expected a finite number that is at least 0"),
        ({"margin": float("inf")}, "margin is inf: expected a finite number that is at least 0"),
    ],
)
def test_a_mistake_is_one_line(changes, said):
    assert said in complaint(**changes)
    assert said in complaint(mtl_ranking_nodes, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checkpoints": "checkpoints", "registry": "registry"},  # a folder, where a pipeline runs on one machine
        {"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 3.0}]},  # as a step gets it
    ],
)
def test_what_is_right_passes(changes, capsys):
    checked(**changes)
    assert capsys.readouterr().out == "No mistake found in the parameters.\n"


@pytest.mark.parametrize(
    ("settings", "measure"),
    [
        (["val=null", "test=null", "folds=3", "fold=0"], "trec2019/nDCG@10"),
        (["test=null", "more_tests={new: mtlrank-embedded/test}"], "trec2019@new/nDCG@10"),
    ],
    ids=["a fold", "only further test sets"],
)
def test_a_head_may_be_judged_without_a_source_for_test(settings, measure, capsys):
    overrides = [f"++datamodule.dataset.datasets.trec2019.{setting}" for setting in settings]
    checked(tasks=["trec2019"], overrides=overrides, registry="registry", measures=[measure])
    assert capsys.readouterr().out == "No mistake found in the parameters.\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_nodes": 0}, "num_nodes is 0, expected at least 1"),
        ({"deadline_hours": 0}, "deadline_hours is 0"),
        ({"deadline_hours": 701}, "deadline_hours is 701, expected from 1 to 700"),
        ({"runtime": ""}, "runtime is ''"),
        ({"overrides": ["trainer.num_nodes=4"]}, "the pipeline's parameter num_nodes sets trainer.num_nodes"),
    ],
)
def test_what_nodes_cannot_have_is_told(changes, said):
    assert said in complaint(mtl_ranking_nodes, **changes)


@pytest.mark.parametrize("gpus", ["0", "1", "2"])
def test_a_single_node_does_not_wait_for_another(gpus):
    said = complaint(gpus=gpus, overrides=["trainer.num_nodes=2"])
    assert said.startswith(
        "overrides has 'trainer.num_nodes=2', but training has one node here: the pipeline mtl_ranking"
    )


@pytest.mark.parametrize(
    ("pipeline", "changes", "said"),
    [
        (mtl_ranking, {"registry": "registry"}, "registry is 'registry', which is on a pod's own disk"),
        (mtl_ranking, {"registry": "s3://bucket/registry"}, "registry: "),
        (mtl_ranking_nodes, {}, "checkpoints would be at ''"),
    ],
)
def test_what_would_be_gone_with_its_pod_is_told_in_a_pod(pipeline, changes, said, in_a_pod):
    assert said in complaint(pipeline, **changes)
    checked(pipeline, checkpoints="gs://bucket/checkpoints", registry="gs://bucket/registry")


@pytest.mark.parametrize("pipeline", [mtl_ranking, mtl_ranking_nodes], ids=lambda pipeline: pipeline.name)
def test_every_other_step_waits_for_it(pipeline, tmp_path):
    write(tmp_path / "pipeline.yaml", pipeline)
    tasks = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))["root"]["dag"]["tasks"]
    waiting = {"check"}
    for _ in tasks:
        waiting |= {name for name, task in tasks.items() if waiting.intersection(task.get("dependentTasks", []))}
    assert waiting == tasks.keys()
    assert "dependentTasks" not in tasks["check"]
    assert "enableCache" not in json.dumps(tasks["check"])
    given = tasks["check"]["inputs"]["parameters"].keys()
    assert given - {"on_nodes"} == pipeline.component_spec.inputs.keys()


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_prepared_for_a_run_that_cannot_be_trained(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="check"):
        run(tmp_path, tasks=["msm_ner"], sampler="tempreture")
    told = capsys.readouterr().out
    assert "mtlrank: datamodule/sampler has no option 'tempreture'." in told
    assert "preparing" not in told


@pytest.mark.parametrize(
    ("path", "mounts", "expected"),
    [
        ("/data/registry", ["/data"], ["/data"]),
        ("/data/registry", [], []),
        ("/data/registry", ["/"], []),
        ("/gcs/bucket/registry", ["/gcs"], []),  # Kubeflow Pipelines mounts an empty folder there
        ("gs://bucket/registry", ["/data"], []),
        ("", ["/data"], []),
    ],
)
def test_what_lies_on_a_volume_outlives_the_pod(monkeypatch, path, mounts, expected):
    monkeypatch.setattr("components.check.parameters.Path.is_mount", lambda folder: str(folder) in mounts)
    assert mounted_above(path) == expected


def test_a_margin_too_large_for_what_decides_is_refused():
    kept = {"registry": "gs://bucket/registry"}
    assert "margin is 2, but trec2019/nDCG@10 is at most 1" in complaint(margin=2.0, **kept)
    checked(margin=0.1, **kept)
    checked(margin=3.0, measures=["msm_bm25/MSE"], **kept)
