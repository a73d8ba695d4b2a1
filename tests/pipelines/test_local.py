"""Runs of pipelines on this machine, with the real runner."""

import os
import signal
import subprocess
import sys
from itertools import islice

import psutil
import pytest
from kfp import dsl

from components.base import step
from pipelines.local import run


@step
def begin_another(beside: str):
    """As if somebody started the same pipeline with the same root meanwhile."""
    from pathlib import Path

    Path(beside, "tiny-2026-11-28-19-28-23-507083", "begin-another").mkdir(parents=True)


@dsl.pipeline(name="tiny")
def tiny(beside: str):
    begin_another(beside=beside)


@pytest.mark.filterwarnings("ignore")
def test_a_run_is_told_from_another_that_began_meanwhile(tmp_path):
    folder = run(tmp_path, pipeline=tiny, beside=str(tmp_path))
    assert folder.name.startswith("tiny-")
    assert (folder / "begin-another" / "executor_output.json").exists()
    assert len(list(tmp_path.glob("tiny-*"))) == 2


STOPPED = {
    signal.SIGTERM: (143, "mtlrank: stopped by SIGTERM, and the steps too."),
    signal.SIGINT: (130, "mtlrank: stopped by Ctrl-C, and the steps too."),
}


def stop(command, root, number, begun, times=1):
    """Send a signal to a run alone, not to its steps, at some line of its output; check its end, and return the rest."""
    environment = {**os.environ, "MTLRANK_PIPELINE_ROOT": str(root)}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        seen = islice((line for line in run.stdout if begun in line), times)
        assert len(list(seen)) == times
        steps = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(number)
        rest, told = run.stdout.read(), run.stderr.read()
    code, line = STOPPED[number]
    assert (run.returncode, told.splitlines()[-1]) == (code, line)
    assert len(steps) >= 2 * times  # a shell and Python
    assert psutil.wait_procs(steps, timeout=1)[1] == []
    return rest


SLEEPING = """
import pipelines.local
from components.base import step
from kfp import dsl

@step
def sleep(seconds: int):
    import time

    print("sleeping", flush=True)
    time.sleep(seconds)

@dsl.pipeline(name="sleeping")
def sleeping():
    if IN_LOOP:
        with dsl.ParallelFor([60, 61, 62]) as seconds:  # kfp runs two at a time
            sleep(seconds=seconds)
    else:
        sleep(seconds=61).after(sleep(seconds=60))

if __name__ == "__main__":
    pipelines.local.load = lambda name: sleeping
    pipelines.local.check = lambda values, declared: None
    pipelines.local.main([], "subprocess", "", "mtl_ranking", False)
"""


@pytest.mark.parametrize(("number", "in_loop"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_run_that_is_stopped_ends_its_steps_and_starts_no_others(tmp_path, home, number, in_loop):
    script = tmp_path / "sleeping.py"
    script.write_text(SLEEPING.replace("IN_LOOP", str(in_loop)))
    rest = stop([sys.executable, script], tmp_path / "root", number, "    sleeping", times=1 + in_loop)
    assert "    sleeping" not in rest


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPPED)
def test_a_pipeline_that_is_stopped_ends_its_steps(tmp_path, home, number):
    command = [sys.executable, "-m", "pipelines.local", 'tasks=["msm_ner"]', 'shards=["1/2", "2/2"]']
    assert "Executing task 'merge'" not in stop(command, tmp_path, number, "preparing msm_ner")
