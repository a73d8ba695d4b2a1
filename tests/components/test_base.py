"""What every component has because it is made with `step`."""

import pytest
import yaml

from pipelines.compile import write
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from tests.pipelines.pods import Pod


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    write(path, mtl_ranking_nodes)
    return next(yaml.safe_load_all(path.read_text()))


def run(spec, folder, step, **inputs):
    """Run a step as a cluster does; gives its exit code and what it said."""
    pod = Pod(spec, "gs://bucket/root", folder, step, **inputs)
    return pod.ends(), pod.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "inputs", "complaint"),
    [
        ("prepare", {"shard": "3/2"}, "mtlrank: The shard is '3/2', expected i/n with i from 1 to n, as in 3/8."),
        ("prepare", {"task": "msm_nre"}, "mtlrank: Unknown task 'msm_nre' in tasks. Did you mean 'msm_ner'?"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(spec, tmp_path, monkeypatch, step, inputs, complaint):
    monkeypatch.delenv("MTLRANK_TRACEBACK", raising=False)
    usual = {"task": "msm_ner", "shard": "1/1", "experiment": "embedded", "body": "", "overrides": [], "prepared": ""}
    code, said = run(spec, tmp_path, step, **{**usual, **inputs})
    assert code == 2, said
    assert said.splitlines()[-1].startswith(complaint)
    assert "Traceback" not in said


def test_every_component_is_guarded(spec):
    """Each one's source makes a module in which the guard stands around the function."""
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 7
    for name, executor in executors.items():
        function = name.removeprefix("exec-")
        module = dict[str, object]()
        exec(executor["container"]["command"][-1], module)
        assert module[function].__wrapped__.__name__ == function

    assert "components.base" not in str(executors)
