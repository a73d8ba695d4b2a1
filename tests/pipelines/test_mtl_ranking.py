"""The compiled pipeline, and the pipeline at work on this machine."""

import json
import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.compile import write
from pipelines.local import run

GOLDEN = Path(__file__).parent.parent / "golden" / "mtl_ranking.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "mtl_ranking.yaml"
    write(path)
    return yaml.safe_load(path.read_text())


def executors(spec):
    return spec["deploymentSpec"]["executors"]


def test_the_compiled_pipeline_is_the_golden_one(compiled):
    """`make golden` rewrites it; the SDK's version may differ."""
    golden = yaml.safe_load(GOLDEN.read_text())
    for spec in (compiled, golden):
        spec.pop("sdkVersion", None)
    assert compiled == golden


def test_the_spec_is_valid(compiled):
    spec = {key: value for key, value in compiled.items() if key != "deploymentSpec"}
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == "mtl-ranking"
    for executor in executors(compiled).values():
        json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())


def test_every_parameter_is_described(compiled):
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    shape = {"tasks", "experiment", "sampler", "loss", "overrides"}
    assert set(parameters) == shape | {"body", "batch_size", "learning_rate", "epochs", "seed", "precision", "shards"}
    assert all(parameter.get("description") for parameter in parameters.values())


def test_nothing_is_installed_when_a_step_starts(compiled):
    commands = json.dumps([executor["container"]["command"] for executor in executors(compiled).values()])
    assert len(executors(compiled)) == 5
    assert "pip install" not in commands


def test_no_parameter_is_pasted_into_a_shell_command(compiled):
    for executor in executors(compiled).values():
        assert not re.search(r"\{\{", " ".join(executor["container"]["command"][:4]))


def test_training_is_never_answered_from_the_cache(compiled):
    tasks = compiled["root"]["dag"]["tasks"]
    assert "enableCache" not in tasks["train"].get("cachingOptions", {})


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
    folder = run(tmp_path, tasks=["trec2019", "msm_ner"], epochs=1, shards=["1/2", "2/2"], overrides=["debug=limit"])
    (page,) = folder.glob("report/page")
    assert "heads beat their baseline" in page.read_text()
    assert "trec2019" in page.read_text()
    assert len(list(folder.rglob("run.trec"))) == 1
    manifests = [json.loads(path.read_text()) for path in folder.rglob("merge/dataset/manifest.json")]
    assert sorted(manifest["key"] for manifest in manifests) == ["msm_ner", "trec2019"]
    assert all(manifest["shards"] == ["shard-1-of-2", "shard-2-of-2"] for manifest in manifests)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_target_that_arrives_through_a_parameter_stops_the_pipeline(tmp_path, home, capfd):
    with pytest.raises(RuntimeError):
        run(tmp_path, tasks=["msm_ner"], overrides=["model.body._target_=os.system"])
    assert "not allowed from a pipeline" in "".join(capfd.readouterr())
