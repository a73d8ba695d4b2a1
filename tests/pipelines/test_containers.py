"""What can be told of containers without an engine; tests/images runs the pipeline in them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtlrank.errors import DataError
from pipelines.containers import check_outputs
from pipelines.mtl_ranking import mtl_ranking

ROOT = Path(__file__).parent.parent.parent
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
    with pytest.raises(DataError, match=f"failed, although kfp reported success: {EXECUTORS[0]}"):
        check_outputs(mtl_ranking, [finished])


def test_a_step_that_failed_on_its_way_is_named(finished):
    (finished / EXECUTORS[0] / "executor_output.json").unlink()
    with pytest.raises(DataError, match=f"although kfp reported success: {finished / EXECUTORS[0]}"):
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
