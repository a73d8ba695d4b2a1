"""Runs of pipelines on this machine, with the real runner and a pipeline of one step."""

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
