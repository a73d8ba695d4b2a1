"""Runs of pipelines on this machine, with the real runner."""

import os
import signal
import subprocess
import sys

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


@pytest.mark.slow
def test_a_run_that_is_terminated_ends_its_steps(tmp_path, home):
    command = [sys.executable, "-m", "pipelines.local", 'tasks=["msm_ner"]', 'shards=["1/2", "2/2"]']
    environment = {**os.environ, "MTLRANK_PIPELINE_ROOT": str(tmp_path)}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert any("preparing msm_ner" in line for line in run.stdout)
        steps = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGTERM)
        told = run.communicate()[1]
    assert run.returncode == 143
    assert told.endswith("mtlrank: stopped by SIGTERM, and the steps too.\n")
    assert len(steps) >= 2  # a shell and Python
    assert psutil.wait_procs(steps, timeout=20)[1] == []
