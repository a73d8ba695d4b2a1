"""`mtlrank doctor`, on this machine and with things that are wrong."""

import os
import shutil

import pytest
from typer.testing import CliRunner

from mtlrank import doctor
from mtlrank.cli import app


def typed():
    return CliRunner().invoke(app, ["doctor"])


def test_this_machine_is_well():
    done = typed()
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1].startswith("has   packages: torch ")
    assert f"has   MTLRANK_HOME: {os.environ['MTLRANK_HOME']}" in done.stdout
    assert {line.split()[0] for line in lines} <= {"has", "note"}


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MTLRANK_HOME", "/proc/nowhere", "MTLRANK_HOME: Cannot write to the folder '/proc/nowhere'"),
        ("MTLRANK_CONFIG_DIR", "/nowhere", "MTLRANK_CONFIG_DIR is '/nowhere', which is not a folder"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere", "GOOGLE_APPLICATION_CREDENTIALS is '/nowhere'"),
    ],
)
def test_what_every_run_would_stumble_over_is_told(monkeypatch, variable, value, told):
    monkeypatch.setenv(variable, value)
    done = typed()
    assert done.exit_code == 6
    assert f"lacks {told}" in done.stdout
    assert done.stderr.startswith("mtlrank: 1 of ")


def test_packages_that_are_missing_or_too_old_are_told(monkeypatch):
    wanted = ["torch>=99", "no-such-package", 'spacy>=99; extra == "annotate"']
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    done = typed()
    assert done.exit_code == 6
    assert "lacks packages: torch is 2" in done.stdout
    assert "expected >=99; no-such-package is missing" in done.stdout
    assert "pip install 'mtlrank[annotate]'" in done.stdout


@pytest.mark.parametrize(
    ("free", "told"),
    [
        (None, "has   shared memory for worker processes"),
        (64 << 20, "note  less than 256 MiB of /dev/shm are free: datamodule.num_workers=0 is used"),
    ],
)
def test_it_says_of_worker_processes_what_training_does(monkeypatch, free, told):
    """A system without /dev/shm shares memory in its own way; in a container there is too little of it."""

    def usage(folder):
        if str(folder) == "/dev/shm" and free is None:
            raise OSError
        return shutil._ntuple_diskusage(1, 1, free or 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert told in typed().stdout
