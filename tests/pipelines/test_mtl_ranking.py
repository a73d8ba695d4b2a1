"""The compiled pipeline, and the pipeline at work on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from mtlrank.registry import model_folder
from pipelines.compile import write
from pipelines.local import main, run
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes

GOLDEN = Path(__file__).parent.parent / "golden"
TRAINING = {mtl_ranking: "train", mtl_ranking_nodes: "launch"}


@pytest.fixture(scope="module", params=TRAINING, ids=lambda pipeline: pipeline.name)
def pipeline(request):
    return request.param


@pytest.fixture(scope="module")
def documents(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    write(path, pipeline)
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def compiled(documents):
    """The pipeline's spec."""
    return documents[0]


@pytest.fixture(scope="module")
def platform(documents):
    """What Kubernetes is told of each executor, beside the spec."""
    return documents[1]


def executors(spec):
    return spec["deploymentSpec"]["executors"]


def on_kubernetes(platform):
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_compiled_pipeline_is_the_golden_one(pipeline, compiled, platform):
    """`make golden` rewrites it; the SDK's version may differ."""
    golden, golden_platform = yaml.safe_load_all((GOLDEN / f"{pipeline.name.replace('-', '_')}.yaml").read_text())
    assert {**compiled, "sdkVersion": ""} == {**golden, "sdkVersion": ""}
    assert platform == golden_platform


def test_the_spec_is_valid(compiled, platform):
    """No field that the protocol buffers do not know, in any part."""
    spec = {key: value for key, value in compiled.items() if key != "deploymentSpec"}
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == compiled["pipelineInfo"]["name"]
    for executor in executors(compiled).values():
        json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for told in on_kubernetes(platform).values():
        json_format.ParseDict(told, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_every_step_says_what_it_needs_and_how_long_it_may_take(compiled, platform):
    for name, executor in executors(compiled).items():
        resources, told = executor["container"]["resources"], on_kubernetes(platform)[name]
        assert {"resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"} <= resources.keys()
        assert int(told["activeDeadlineSeconds"]) >= 3600
        assert told["imagePullPolicy"] == "IfNotPresent"
        assert told["secretAsEnv"][0]["optional"]
    tasks = [
        (task["componentRef"]["name"], task)
        for component in [compiled["root"], *compiled["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    steps = {f"comp-{name.removeprefix('exec-')}" for name in executors(compiled)}
    retried = {name for name, task in tasks if task.get("retryPolicy", {}).get("maxRetryCount", 0) >= 2}
    assert retried == steps
    for name, task in tasks:
        if name in steps:  # Argo tries nothing again that fails later than this after its first start
            latest = int(task["retryPolicy"]["backoffMaxDuration"].removesuffix("s"))
            timeout = int(on_kubernetes(platform)[name.replace("comp-", "exec-")]["activeDeadlineSeconds"])
            assert latest >= timeout * (task["retryPolicy"]["maxRetryCount"] + 1)


def test_training_and_judging_get_gpus_nodes_and_shared_memory(compiled, platform):
    """A launcher only waits: its job has the GPUs."""
    for name in executors(compiled).keys() & {"exec-train", "exec-evaluate"}:
        accelerator = executors(compiled)[name]["container"]["resources"]["accelerator"]
        assert "gpus" in accelerator["resourceCount"]
        assert "gpu_type" in accelerator["resourceType"]
        told = on_kubernetes(platform)[name]
        assert told["emptyDirMounts"][0] | {"mountPath": "/dev/shm", "medium": "Memory"} == told["emptyDirMounts"][0]
        assert told["nodeSelector"]["nodeSelectorJson"] == {"componentInputParameter": "node_selector"}
        assert told["tolerations"][0]["tolerationJson"] == {"componentInputParameter": "tolerations"}


def test_every_parameter_behind_resources_is_a_text(compiled):
    """Kubeflow Pipelines reads a parameter there as a text: a number becomes an empty one, and nothing is set."""
    types = {}
    for component in [compiled["root"], *compiled["components"].values()]:
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        for task in component.get("dag", {}).get("tasks", {}).values():
            step = executors(compiled).get(task["componentRef"]["name"].replace("comp-", "exec-"))
            resources = json.dumps(step["container"]["resources"]) if step else ""
            for name in re.findall(r"parameters\['([^']+)'\]", resources):
                source = task["inputs"]["parameters"][name]["componentInputParameter"]
                types[source] = declared[source]["parameterType"]
    assert types.keys() >= {"judging_gpus", "gpu_type"}
    assert set(types.values()) == {"STRING"}
    assert compiled["root"]["inputDefinitions"]["parameters"]["gpus"]["parameterType"] == "STRING"


def test_every_parameter_is_described(compiled):
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    topics = {name: parameter["description"].partition(" - ")[0] for name, parameter in parameters.items()}
    assert set(topics.values()) == {"Data and model", "Settings", "Storage", "Promotion", "Machine"}


def test_nothing_is_installed_when_a_step_starts(compiled):
    commands = json.dumps([executor["container"]["command"] for executor in executors(compiled).values()])
    assert len(executors(compiled)) == 6
    assert "pip install" not in commands


def test_no_parameter_is_pasted_into_a_shell_command(compiled):
    for executor in executors(compiled).values():
        assert not re.search(r"\{\{", " ".join(executor["container"]["command"][:4]))


def test_training_and_promotion_are_never_answered_from_the_cache(pipeline, compiled):
    for name, component in (
        (TRAINING[pipeline], compiled["root"]),
        ("promote", compiled["components"]["comp-judging"]),
    ):
        assert "enableCache" not in component["dag"]["tasks"][name].get("cachingOptions", {})
    assert compiled["components"]["comp-preparing"]["dag"]["tasks"]["merge"]["cachingOptions"]["enableCache"]


def test_every_parameter_reference_is_declared(compiled):
    """Each componentInputParameter or Artifact is an input of the component that refers to it."""
    checked = 0
    for component in [compiled["root"], *compiled["components"].values()]:
        declared = component.get("inputDefinitions", {})
        names = {*declared.get("parameters", {}), *declared.get("artifacts", {})}
        text = json.dumps(component.get("dag", {}))
        for reference in re.findall(r'"componentInput(?:Parameter|Artifact)": "([^"]+)"', text):
            assert reference in names
            checked += 1
    assert checked > 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_runs_whole(tmp_path, home):
    small = {"tasks": ["trec2019", "msm_ner"], "epochs": 1, "shards": ["1/2", "2/2"], "overrides": ["debug=limit"]}
    folder = run(
        tmp_path / "root", **small, registry=str(tmp_path / "registry"), checkpoints=str(tmp_path / "checkpoints")
    )
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
    assert (model_folder(registry) / "model.safetensors").exists()


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


def test_a_run_that_fails_is_one_line_after_its_steps_words(tmp_path):
    override = 'overrides=["datamodule.dataset.datasets.msm_ner.train=nowhere"]'
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.local", 'tasks=["msm_ner"]', override],
        capture_output=True,
        text=True,
        env={**os.environ, "MTLRANK_PIPELINE_ROOT": str(tmp_path)},
    )
    assert done.returncode == 8, done.stderr
    assert "mtlrank: The file of split 'train' 'nowhere' does not exist" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mtlrank:")]
    assert "Inner task failed: 'prepare'" in line
    assert "\033" not in line
