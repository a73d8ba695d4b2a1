"""The pipeline's steps in real containers, against the same steps as processes."""

import json
import subprocess
import sys

import pytest

from mtlrank.errors import ConfigError, DataError
from pipelines.containers import check_outputs, docker_runner
from pipelines.local import run
from pipelines.mtl_ranking import mtl_ranking
from tests.images.conftest import ROOT, image  # noqa: F401

PARAMETERS = {"epochs": 1, "overrides": ["debug=limit"]}
EXECUTORS = [name.removeprefix("exec-") for name in mtl_ranking.pipeline_spec.deployment_spec["executors"]]


@pytest.fixture
def finished(tmp_path):
    """A run's folder in which each step, some of them in loops, said that it was done."""
    for number, name in enumerate(EXECUTORS):
        step = tmp_path / "run" / ("for-loop-1-iteration-0/for-loop-2-iteration-0" if number % 2 else "") / name
        step.mkdir(parents=True)
        (step / "executor_output.json").write_text("{}")
    return tmp_path / "run"


def test_a_run_whose_steps_all_ended_well_passes(finished):
    (finished / EXECUTORS[0] / "result" / EXECUTORS[0]).mkdir(parents=True)  # an output may be called anything
    check_outputs(mtl_ranking, [finished])


def test_a_step_that_vanished_is_named(finished):
    (finished / EXECUTORS[0] / "executor_output.json").unlink()
    (finished / EXECUTORS[0]).rmdir()
    with pytest.raises(DataError, match=f"failed, though kfp called them done: {EXECUTORS[0]}"):
        check_outputs(mtl_ranking, [finished])


def test_a_step_that_failed_on_its_way_is_named(finished):
    (finished / EXECUTORS[0] / "executor_output.json").unlink()
    with pytest.raises(DataError, match=f"called them done: {finished / EXECUTORS[0]}"):
        check_outputs(mtl_ranking, [finished])


def test_a_run_of_which_nothing_is_there_failed():
    with pytest.raises(DataError, match=", ".join(EXECUTORS)):
        check_outputs(mtl_ranking, [])


def test_a_missing_engine_is_told_in_one_line(tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "pipelines.local", "--runner", "docker", "seed=7"],
        cwd=ROOT,
        env={"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock", "MTLRANK_PIPELINE_ROOT": str(tmp_path / "root")},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert told.stderr.startswith("mtlrank: No Docker engine answers")
    assert told.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.docker
def test_a_missing_image_is_told(image, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="no image 'mtlrank:0.0.0'"):
        docker_runner("mtlrank:0.0.0", tmp_path)


@pytest.fixture(scope="module")
def runs(image, home, tmp_path_factory):  # noqa: F811
    """The folders of the whole pipeline, run in containers and in processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # sums in the same order
        root = tmp_path_factory.mktemp("pipeline")
        contained = run(root / "containers", "docker", image, **PARAMETERS)
        return contained, run(root / "processes", **PARAMETERS)


def relative(folder, pattern):
    return {path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file()}


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore")
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


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore")
def test_steps_leave_files_of_the_user_they_ran_as(runs):
    contained, _ = runs
    assert {path.stat().st_uid for path in contained.rglob("*")} == {contained.parent.stat().st_uid}
    assert contained.stat().st_uid != 0
    about = json.loads((contained / "train" / "model" / "about.json").read_text())
    assert about["commit"] != "unknown"


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore")
def test_a_step_that_fails_stops_the_pipeline(image, tmp_path, capfd):  # noqa: F811
    with pytest.raises((RuntimeError, DataError)):
        run(tmp_path, "docker", image, tasks=["msm_ner"], overrides=["model.body._target_=os.system"])
    assert "not allowed from a pipeline" in "".join(capfd.readouterr())
