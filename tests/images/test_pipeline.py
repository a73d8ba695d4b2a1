"""The pipeline's steps in real containers, against the same steps as processes."""

import json

import pytest

from mtlrank.errors import ConfigError, DataError
from pipelines.containers import docker_runner
from pipelines.local import run

pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore")]

PARAMETERS = {"epochs": 1, "overrides": ["debug=limit"]}


def test_a_missing_image_is_told(image, tmp_path):
    with pytest.raises(ConfigError, match="no image 'mtlrank:0.0.0'"):
        docker_runner("mtlrank:0.0.0", tmp_path)


@pytest.fixture(scope="module")
def runs(image, home, tmp_path_factory):
    """The folders of the whole pipeline, run in containers and in processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # sums in the same order
        patch.delenv("HF_HUB_OFFLINE", raising=False)  # saved tokenizers tell whether it was set
        root = tmp_path_factory.mktemp("pipeline")
        contained = run(root / "containers", "docker", image, **PARAMETERS)
        return contained, run(root / "processes", **PARAMETERS)


def relative(folder, pattern):
    return {path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file()}


def test_containers_give_what_processes_give(runs):
    """To the byte: prepared datasets, weights, rankings, what each query and item got, measures."""
    contained, processes = runs
    for pattern, least in {
        "part/**/*": 50,
        "dataset/**/*": 50,
        "*.safetensors": 1,
        "run.trec": 1,
        "*.tsv": 5,
        "metrics.json": 6,
        "summary": 1,
    }.items():
        names = relative(processes, pattern)
        assert len(names) >= least
        assert relative(contained, pattern) == names
        assert [str(name) for name in names if not same(contained / name, processes / name)] == []


def same(first, second):
    return first.read_bytes() == second.read_bytes()


def test_steps_leave_files_of_the_user_they_ran_as(runs):
    contained, _ = runs
    assert {path.stat().st_uid for path in contained.rglob("*")} == {contained.parent.stat().st_uid}
    assert contained.stat().st_uid != 0
    about = json.loads((contained / "train" / "model" / "about.json").read_text())
    assert about["commit"] != "unknown"


def test_a_step_that_fails_stops_the_pipeline(image, tmp_path, capfd):
    with pytest.raises((RuntimeError, DataError)):
        run(tmp_path, "docker", image, tasks=["msm_ner"], overrides=["model.body._target_=os.system"])
    assert "not allowed from a pipeline" in "".join(capfd.readouterr())
