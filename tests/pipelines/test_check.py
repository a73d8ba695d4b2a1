"""What is told before a run starts, and what only the image can know."""

import os
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.train.settings import train_settings
from mtlrank.composing.compose import compose_config, pipeline_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError
from pipelines.check import check, check_for_cluster, check_for_image
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study
from pipelines.parameters import parse
from tests.commands import parameters_of, pipeline_of
from tests.components.train.parameters import parameters

DECLARED = mtl_ranking.component_spec.inputs
BACKBONE = ["model.body.backbone=/a/bert"]  # what the experiments on real data leave to the user


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("MTLRANK_REAL_DATA", raising=False)


def complaint(**parameters):
    with pytest.raises(ConfigError) as caught:
        check_for_image(parameters, DECLARED)
    return str(caught.value)


@pytest.mark.parametrize("pipeline", [mtl_ranking, mtl_ranking_nodes, mtl_study], ids=lambda pipeline: pipeline.name)
def test_the_defaults_are_right(pipeline):
    check({}, pipeline.component_spec.inputs)


@pytest.mark.parametrize("experiment", ["msmarco", "auxiliary", "distilled", "trec2019", "vaswani"])
def test_an_experiment_says_how(experiment, monkeypatch):
    """Parameters that are left alone leave sampler, loss, precision and the rest to it, as on the command line."""
    monkeypatch.setenv("MTLRANK_REAL_DATA", "/data")
    mine = compose_config([f"experiment={experiment}", "test=false", *BACKBONE], trusted=True)
    tasks = list(select_tasks(mine)["model"]["heads"])
    left = train_settings(parameters(tasks=tasks, experiment=experiment))
    assert select_tasks(pipeline_config(left, BACKBONE)) == select_tasks({**mine, "tasks": tasks})


def test_an_experiment_with_other_tasks_needs_them_as_a_parameter(no_data):
    said = complaint(experiment="trec2019", overrides=BACKBONE)
    assert "experiment=trec2019 has the tasks trec2019, msm_bm25, stsb" in said
    assert said.endswith("""Add 'tasks=["trec2019", "msm_bm25", "stsb"]'.""")
    check_for_image(
        {"experiment": "trec2019", "overrides": BACKBONE, "tasks": ["trec2019", "msm_bm25", "stsb"]}, DECLARED
    )
    assert "MTLRANK_REAL_DATA" not in os.environ


def test_some_of_an_experiment_s_tasks_may_be_chosen():
    check_for_image({"experiment": "msmarco", "tasks": ["msm_bm25"]}, DECLARED)


@pytest.mark.parametrize("experiment", ["embedded", "mine"], ids=["here", "in the image"])
def test_each_task_gets_its_steps_once(experiment):
    said = complaint(experiment=experiment, tasks=["msm_ner", "trec2019", "msm_ner"])
    assert said == 'tasks is ["msm_ner", "trec2019", "msm_ner"]: expected each task once.'


@pytest.mark.parametrize(
    "shards",
    [
        ["1/2"],
        ["1/2", "1/2"],
        ["1/2", "2/3"],
        ["0/1"],
        ["2/1"],
        ["1/1", "1/1"],
        ["1"],
        ["1/2", "two"],
        ["01/1"],
        ["x/1"],
    ],
)
def test_shards_are_all_of_one_number(shards):
    said = complaint(shards=shards)
    assert "expected all shards of one number, each once" in said


@pytest.mark.parametrize("shards", [["1/1"], ["2/2", "1/2"], [f"{number}/12" for number in range(1, 13)]])
def test_shards_may_come_in_any_order(shards):
    check({"shards": shards}, DECLARED)


def test_shards_are_not_chosen_by_an_override():
    said = complaint(overrides=["prepare.shard=1/2"])
    assert "prepare.shard is '1/2', but the pipeline prepares the shards" in said


@pytest.mark.parametrize("monitor", ["val/trec2019/nDCG", "val/msm_nre/MacroF1", "test/trec2019/nDCG@10"])
def test_the_monitor_is_a_measure_of_a_task(monitor):
    said = complaint(overrides=[f"training.monitor={monitor}"])
    assert f"training.monitor is {monitor!r}" in said


def test_something_is_judged():
    without = [f"datamodule.dataset.datasets.{key}.test=null" for key in ("trec2019", "msm_ner")]
    check({"tasks": ["trec2019", "msm_ner"], "overrides": without[1:]}, DECLARED)
    assert "No dataset has a test split" in complaint(tasks=["trec2019", "msm_ner"], overrides=without)


@pytest.mark.parametrize("measure", ["trec2019/nDGC@10", "trec2091/nDCG@10", "test/trec2019/nDCG@10"])
def test_what_decides_on_promotion_is_a_measure_of_a_head(measure):
    said = complaint(registry="gs://bucket/registry", measures=["msm_ner/Accuracy", measure])
    assert f"measures has {measure!r}, by which no head is judged. Did you mean 'trec2019/nDCG@10'?" in said
    check({"measures": [measure]}, DECLARED)  # nothing is promoted


def test_what_decides_on_promotion_may_be_of_a_further_test_set():
    word = "datamodule.dataset.datasets.trec2019.more_tests={again:mtlrank-embedded/val}"
    promotion = {"registry": "r", "measures": ["trec2019@again/nDCG@10"]}
    assert "by which no head is judged" in complaint(**promotion)
    check({**promotion, "overrides": [f"+{word}"]}, DECLARED)


def test_it_is_told_if_the_first_task_is_not_judged_and_its_measure_would_decide_on_promotion(capsys):
    parameters = {"registry": "r", "overrides": ["datamodule.dataset.datasets.trec2019.test=null"]}
    check(parameters, DECLARED)  # a model in use decides by its own
    assert "trec2019, the first task, has no test split" in capsys.readouterr().err
    check({**parameters, "measures": ["msm_bm25/MSE"]}, DECLARED)
    assert "first task" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "parameters",
    [{"experiment": "mine"}, {"body": "mine"}, {"overrides": ["loop/logger=mlflow"]}],
    ids=["experiment", "body", "variable"],
)
def test_what_the_image_may_hold_is_not_refused(parameters, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_for_image(parameters, DECLARED)
    assert capsys.readouterr().err.count("The image may have it.") == 1
    with pytest.raises(ConfigError):
        check(parameters, DECLARED)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("gpus", "-1", "gpus is '-1', expected a whole number, at least 0."),
        ("gpus", "1.5", "gpus is '1.5'"),
        ("gpus", "two", "gpus is 'two'"),
        ("gpus", "\u0663", "gpus is '\u0663'"),  # a three to Python, not to Kubernetes
        ("gpus", "", "gpus is ''"),
        ("judging_gpus", "5", "judging_gpus is 5: expected 0 or 1"),
        ("memory", "lots", "memory is 'lots', expected an amount with its unit, as in 64Gi"),
        ("memory", "64", "memory is '64'"),
        ("memory", "64ki", "memory is '64ki'"),
        ("memory", "", "memory is empty"),
        *(
            (
                "memory",
                amount,
                f"memory is '{amount}', expected an amount with its unit, as in 64Gi, and at least 64Mi.",
            )
            for amount in ("0", "0Gi", "0.0T", "1Mi", "63.9Mi", "65535Ki", "67M", "67108863", "0.05Gi")
        ),
        *(
            ("cpu", amount, f"cpu is '{amount}', expected cores, at least 1m, as in 8 or 500m.")
            for amount in ("0", "0m", "0.0", "0.5m", "0.0001", "1Ki")
        ),
        ("cpu", "zero", "cpu is 'zero', expected cores"),
        ("cpu", "", "cpu is empty"),
        ("gpu_type", "nvidia gpu", "gpu_type is 'nvidia gpu'"),
        ("gpu_type", "nvidia-l4", "gpu_type is 'nvidia-l4', expected DOMAIN/NAME of a resource, as in nvidia.com/gpu"),
        ("gpu_type", "cpu", "gpu_type is 'cpu'"),
        ("gpu_type", "memory", "gpu_type is 'memory'"),
        ("node_selector", {"a b": "c"}, "node_selector is {'a b': 'c'}"),
        ("tolerations", [{"foo": 1}], "tolerations is [{'foo': 1}]"),
        ("tolerations", [{"key": 1}], "tolerations is"),
        ("tolerations", [{"key": "a", "operator": "exists"}], "tolerations is"),
        ("tolerations", [{"value": "a"}], "tolerations is"),
        ("tolerations", [{"key": "a", "tolerationSeconds": 3}], "tolerations is"),
        ("margin", -5.0, "margin is -5.0: expected a finite number that is at least 0"),
    ],
)
def test_what_no_cluster_gives_is_told(name, value, said):
    assert said in complaint(**{name: value})


@pytest.mark.parametrize(
    "parameters",
    [
        {"gpus": "8", "judging_gpus": "1", "cpu": "500m", "memory": "1.5Ti"},
        *({"memory": amount} for amount in ("64Mi", "65536Ki", "68M", "67108864", "0.1G", "1P", "1Pi", "0.5Ti")),
        *({"cpu": amount} for amount in ("1m", "0.001", "0.5", "1500m", "64")),
        {"memory": "128974848", "node_selector": {"example.com/gpu": "", "zone": "a"}},
        {"tolerations": [{"operator": "Exists"}, {"key": "a"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]},
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]},
    ],
)
def test_what_a_cluster_gives_may_be_asked_for(parameters):
    check(parameters, DECLARED)


NODES = {"checkpoints": "gs://bucket/checkpoints"}


@pytest.mark.parametrize(
    ("parameters", "root", "said"),
    [
        ({}, None, "checkpoints would be at ''"),
        ({"checkpoints": "/mnt/disk"}, None, "checkpoints would be at '/mnt/disk'"),
        (NODES, "s3://bucket/runs", "the model would be at 's3://bucket/runs'"),
        ({**NODES, "num_nodes": 0}, None, "num_nodes is 0, expected at least 1"),
        ({**NODES, "deadline_hours": 0}, None, "deadline_hours is 0"),
        ({**NODES, "runtime": ""}, None, "runtime is ''"),
        ({**NODES, "service_account": "Has_Upper"}, None, "service_account is 'Has_Upper'"),
        ({**NODES, "overrides": ["trainer.devices=4"]}, None, "the pipeline's parameter gpus sets trainer.devices"),
    ],
)
def test_what_nodes_cannot_have_is_told_before_data_is_prepared(parameters, root, said):
    declared = mtl_ranking_nodes.component_spec.inputs
    with pytest.raises(ConfigError) as caught:
        check_for_cluster(parameters, declared, root)
    assert said in str(caught.value)
    check_for_cluster({**NODES, "cpu": "", "memory": ""}, declared, "gs://bucket/runs")  # as the runtime says


@pytest.mark.parametrize("name", ["prepared", "checkpoints", "registry"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://bucket/x", "expected a local path or gs://bucket/name"),
        ("gs://My Bucket/x", "has no valid bucket"),
        ("gs:/bucket/x", "has lost a slash"),
        ("relative/path", "is on a pod's own disk and gone with it: expected gs://bucket/name"),
    ],
)
def test_what_outlives_a_pod_is_in_a_bucket(name, place, said):
    with pytest.raises(ConfigError) as caught:
        check_for_cluster({name: place}, DECLARED)
    assert str(caught.value).startswith(name)
    assert said in str(caught.value)


def test_a_path_that_the_cluster_may_mount_is_used_with_a_warning(capsys):
    check_for_cluster({"registry": "/mnt/registry", "checkpoints": "gs://bucket/checkpoints"}, DECLARED)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("mtlrank: registry is '/mnt/registry': without a volume")


@pytest.mark.parametrize(
    ("parameters", "asked"),
    [({"gpus": "1"}, "gpus=1"), ({"gpus": "2", "judging_gpus": "1"}, "gpus=2 judging_gpus=1"), ({}, None)],
)
def test_gpus_on_an_image_for_cpus_are_told(parameters, asked, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.check.IMAGE", "r.example.com/mtlrank:0.1.0-g1a2b3c4")
    check_for_cluster(parameters, DECLARED)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == bool(asked)
    assert not asked or warnings[0].startswith(
        f"mtlrank: {asked}, but the image r.example.com/mtlrank:0.1.0-g1a2b3c4 is for CPUs"
    )
    monkeypatch.setattr("pipelines.check.IMAGE", "r.example.com/mtlrank:0.1.0-g1a2b3c4-cuda")
    check_for_cluster(parameters, DECLARED)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=3", "the pipeline's parameter seed sets seed. Give that one instead."),
        ("tasks=[msm_ner]", "the pipeline's parameter tasks sets tasks"),
        ("test=true", "the pipeline sets test itself. Leave it out."),
        ("output_dir=/tmp/x", "the pipeline sets output_dir itself"),
    ],
)
def test_an_override_of_what_the_pipeline_sets_is_told(override, said):
    assert complaint(overrides=[override]).startswith(f"overrides has {override!r}, but {said}")


def examples():
    """The words of each submission and schedule that the documentation shows."""
    for page in sorted((Path(__file__).parents[2] / "docs").glob("*.md")):
        for line in page.read_text().replace("\\\n", " ").splitlines():
            if line.startswith(("python -m pipelines.submit", "python -m pipelines.schedule create")):
                yield shlex.split(line, comments=True)[3:]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"tasks": ["msm_ner"]}, "expected at least two tasks, found msm_ner"),
        ({"mixtures": [["trec2019", "msm_nr"]]}, "study.mixtures names unknown tasks: msm_nr. Did you mean 'msm_ner'"),
        ({"heads": ["msm_nr"]}, "study.heads names unknown heads: msm_nr"),
        ({"measures": ["nDCG"]}, "study.measures names unknown measures: nDCG"),
        ({"seeds": [None]}, "seeds is [null]: expected a list of whole numbers, as in [1, 2, 3]."),
        ({"seeds": ["a"]}, 'seeds is ["a"]: expected a list of whole numbers'),
        ({"overrides": [None]}, "overrides is [null]: expected a list of texts"),
        ({"seeds": [1, 1]}, "expected a list of different seeds"),
        ({"margin": 0.0}, "study.margin is 0.0, expected a finite number above 0"),
        ({"gpus": "2"}, "gpus is 2: expected 0 or 1"),
        ({"memory": ""}, "memory is empty"),
        ({"shards": ["1/2"]}, "expected all shards of one number"),
        ({"experiment": "msmarco", "tasks": ["trec2019", "msm_ner"], "checkpoints": "here"}, "checkpoints is 'here'"),
        ({"overrides": ["test=false"]}, "leave out test=false"),
        ({"overrides": ["seed=3"]}, "the pipeline's parameter seeds sets seed"),
        ({"overrides": ["study.seeds=[4]"]}, "the pipeline's parameter seeds sets study.seeds"),
        ({"overrides": ["study.shard=1/2"]}, "each run has a step of its own"),
        ({"overrides": ["trainer.devices=2"]}, "Each run of a study has one device"),
        ({"overrides": ["trainer.num_nodes=2"]}, "Each run of a study has one device"),
        ({"overrides": ["prepare.shard=1/2"]}, "Leave prepare.shard out"),
        (
            {"overrides": ["+datamodule.dataset.datasets.trec2019={folds: 3, val: null, test: null}"]},
            "The study is cross-validated, but the pipeline prepares each dataset once",
        ),
    ],
)
def test_a_study_that_cannot_be_is_told(parameters, said):
    with pytest.raises(ConfigError) as caught:
        check_for_cluster(parameters, mtl_study.component_spec.inputs)
    assert said in str(caught.value)


def test_what_the_documentation_shows_is_right():
    checked = 0
    for words in examples():
        declared = pipeline_of(words).component_spec.inputs
        given = parse(parameters_of(words), declared)
        check_for_cluster(given, declared)
        checked += bool(given)
    assert checked >= 9


@pytest.mark.parametrize(("loss", "is_refused"), [("uncertainity", True), ("my_uncertainty", False)])
def test_a_name_with_a_slip_is_not_left_to_the_image(monkeypatch, loss, is_refused):
    monkeypatch.delenv("MTLRANK_CONFIG_DIR", raising=False)
    refused = pytest.raises(ConfigError, match="Did you mean 'uncertainty'.* set MTLRANK_CONFIG_DIR to its configs")
    with refused if is_refused else nullcontext():
        check_for_image({"loss": loss}, DECLARED)
