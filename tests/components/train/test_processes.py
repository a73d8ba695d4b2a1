"""Training on several GPUs of one machine, with processes on the CPU in their place."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.train.order import Order
from components.train.processes import train_in_processes
from components.train.settings import train_settings
from mtlrank.model.saved import read_model
from tests.components.train.parameters import parameters

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def order(datasets, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = train_settings(parameters(tasks=["msm_ner"], batch_size=8, epochs=1, seed=7))
    overrides = ["training.max_val_queries=10", "+trainer.limit_train_batches=4", "trainer.accelerator=cpu"]
    return Order(
        settings, overrides, [str(data_dir / "msm_ner")], str(tmp_path / "model"), str(tmp_path / "checkpoints")
    )


def test_the_model_is_where_the_step_expects_it(order, tmp_path):
    values = train_in_processes(order, 2)
    assert any(key.startswith("val/msm_ner/") for key in values)
    config, _ = read_model(tmp_path / "model" / "model")
    assert config["trainer"]["devices"] == 2
    assert list((tmp_path / "checkpoints").glob("*/step-*"))


def test_checkpoints_that_have_no_place_of_their_own_do_not_stay_with_the_model(order, tmp_path):
    train_in_processes(order._replace(checkpoints=""), 2)
    assert (tmp_path / "model" / "model").is_dir()
    assert not (tmp_path / "model" / "checkpoints").exists()


def test_a_mistake_ends_the_step_with_an_error(order, capfd):
    with pytest.raises(SystemExit) as stopped:
        train_in_processes(order._replace(overrides=["no.such=key"]), 2)
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert "Unknown config key 'no'" in said
    assert "Traceback" not in said


STEP = """
import sys
from components.train.order import Order
from components.train.processes import train_in_processes
from mtlrank.guard import guarded

with guarded():
    train_in_processes(Order.loads(sys.argv[1]), 2)
"""


def test_a_step_that_is_stopped_saves_ends_all_processes_and_goes_on(order, tmp_path):
    limits = "datamodule.train_sampler.limits={msm_ner: 1600}"  # 100 steps an epoch
    overrides = ["training.max_val_queries=10", "training.checkpoint_steps=4", "trainer.accelerator=cpu", limits]
    command = [sys.executable, "-c", STEP, order._replace(overrides=overrides).dumps()]
    with (tmp_path / "log").open("w+") as log:
        step = subprocess.Popen(command, stderr=log, stdout=log)
        while not list((tmp_path / "checkpoints").glob("*/step-*")) and step.poll() is None:
            time.sleep(0.1)
        processes = descendants(step.pid)
        step.send_signal(signal.SIGTERM)
        assert step.wait(timeout=200) == 143, (tmp_path / "log").read_text()
    told = (tmp_path / "log").read_text()
    assert told.splitlines()[-1].startswith("mtlrank: stopped by SIGTERM"), told
    assert len(processes) >= 3  # torchrun and two that train
    assert [pid for pid in processes if os.path.exists(f"/proc/{pid}")] == []
    assert "resuming at epoch" in again(command)


def descendants(pid):
    """The ids of all processes that a process has started, and theirs."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in found.splitlines())}
    return [child for child in parents if child != pid and pid in ancestors(child, parents)]


def ancestors(pid, parents):
    while pid in parents:
        yield pid
        pid = parents[pid]


def again(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stderr
