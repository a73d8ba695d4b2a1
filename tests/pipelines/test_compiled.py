"""Every compiled pipeline: a valid spec, in which nothing dangles and every step has what it needs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.compile import write
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study

GOLDEN = Path(__file__).parent.parent / "golden"
PIPELINES = [mtl_ranking, mtl_ranking_nodes, mtl_study]


@pytest.fixture(scope="module", params=PIPELINES, ids=lambda pipeline: pipeline.name)
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


def test_credentials_of_loggers_are_given_to_training_alone(platform):
    """The nodes of a TrainJob have them from its manifest, and not its launcher."""
    of_training = {"train", "trial"}
    for name, told in on_kubernetes(platform).items():
        (secret,) = told["secretAsEnv"]
        assert secret["secretName"] == "mtlrank"
        keys = {key["secretKey"] for key in secret["keyToEnv"]}
        assert keys == {key["envVar"] for key in secret["keyToEnv"]}
        credentials = {"WANDB_API_KEY"} | {f"MLFLOW_TRACKING_{word}" for word in ("USERNAME", "PASSWORD", "TOKEN")}
        given = credentials if name.removeprefix("exec-") in of_training else set()
        assert keys == {"HF_TOKEN", "MLFLOW_TRACKING_URI"} | given


def test_training_and_judging_get_gpus_nodes_and_shared_memory(compiled, platform):
    """A launcher only waits: its job has the GPUs."""
    found = executors(compiled).keys() & {"exec-train", "exec-evaluate", "exec-trial"}
    assert found
    for name in found:
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
    assert "gpu_type" in types
    assert any(name.endswith("gpus") for name in types)
    assert set(types.values()) == {"STRING"}
    assert compiled["root"]["inputDefinitions"]["parameters"]["gpus"]["parameterType"] == "STRING"


def test_every_parameter_is_described(compiled):
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    topics = {name: parameter["description"].partition(" - ")[0] for name, parameter in parameters.items()}
    decided = "Comparison" if "seeds" in parameters else "Promotion"
    assert set(topics.values()) == {"Data and model", "Settings", "Storage", decided, "Machine"}


def test_nothing_is_installed_when_a_step_starts(compiled):
    commands = json.dumps([executor["container"]["command"] for executor in executors(compiled).values()])
    assert len(executors(compiled)) >= 5
    assert "pip install" not in commands


def test_no_parameter_is_pasted_into_a_shell_command(compiled):
    for executor in executors(compiled).values():
        assert not re.search(r"\{\{", " ".join(executor["container"]["command"][:4]))


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


def test_only_checks_training_for_use_and_promotion_are_never_answered_from_the_cache(compiled):
    """A study trains to compare: a run with the same inputs, image and settings has the same result."""
    tasks = {
        name: task
        for component in [compiled["root"], *compiled["components"].values()]
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if task["componentRef"]["name"].replace("comp-", "exec-") in executors(compiled)
    }
    fresh = {name for name, task in tasks.items() if not task.get("cachingOptions", {}).get("enableCache")}
    assert fresh == tasks.keys() & {"check", "train", "launch", "promote"}
