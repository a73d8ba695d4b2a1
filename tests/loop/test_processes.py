"""Two processes learn what one learns, and stop together when one of them is asked to."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from mtlrank import prepare, train
from mtlrank.composing.selection import select_tasks
from tests.loop.runs import assert_same, content, finish, run_until, settings, start, wait_for, words
from tests.marks import needs_compiler

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
NO_DROPOUT = [
    "model.body.attention_dropout=0.0",
    "model.heads.trec2019.dropout=0",
    "model.heads.msm_ner.dropout=0",
    "loop.optimizer._target_=torch.optim.SGD",  # Adam would blow up the noise in gradients that are zero in theory
    "+loop.optimizer.momentum=0.9",
    "loop.optimizer.fused=false",
    "loop.optimizer.weight_decay=0.1",
    "loop.optimizer.lr=0.02",
]
TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]
TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node=2", "--standalone"]


@pytest.fixture(scope="module")
def data(data_dir, home):
    prepare.run(select_tasks(settings(data_dir, data_dir / "none")))
    return data_dir


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(data, tmp_path):
    """Batches of half the size, twice as many: the same steps, with heads that are idle here and busy there."""
    limits = "datamodule.train_sampler.limits={trec2019: 60, msm_ner: 60}"
    more = [*NO_DROPOUT, "training.epochs=2", limits]
    train.run(settings(data, tmp_path / "one", *more, "training.batch_size=6"))
    code, said = finish(*words(data, tmp_path / "two", *more, *TWO, "training.batch_size=3"), launcher=TORCHRUN)
    assert code == 0, said
    (line,) = (line for line in said.splitlines() if line.startswith("training "))
    assert " with 2 heads on 2 processes of cpu in 32-true, 40 steps of 6 samples, into " in line
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one["global_step"] == two["global_step"] == 40
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, atol=2e-4, rtol=1e-3, msg=name)
    mine, theirs = (state["callbacks"]["Milestones"]["values"] for state in (one, two))
    assert mine == pytest.approx(theirs, abs=0.02)


@pytest.mark.slow
def test_processes_that_find_different_checkpoints_do_not_start(data, tmp_path):
    """As nodes with disks of their own do; they would learn from other batches, and wait for each other for ever."""
    run_until(settings(data, tmp_path / "out", f"training.checkpoint_dir={tmp_path}/of-0"), 22)
    own = f"training.checkpoint_dir={tmp_path}/of-${{oc.env:RANK}}"
    code, said = finish(*words(data, tmp_path / "out", *TWO, own), launcher=TORCHRUN)
    assert code != 0
    told = (
        r"mtlrank: One process found a checkpoint of step 19 in .*/of-\d, another none: give all nodes the same folder"
    )
    assert len(re.findall(told, said)) == 2, said


@pytest.mark.slow
def test_two_processes_teach_updates_above_frozen_layers_as_one_does(data, tmp_path):
    updates = ["model.body.lora={rank: 4}", "model.body.frozen_layers=1", "loop.layer_decay=0.8"]
    more = [*NO_DROPOUT, *updates, "training.epochs=2"]
    train.run(settings(data, tmp_path / "one", *more, "training.batch_size=6"))
    code, said = finish(*words(data, tmp_path / "two", *more, *TWO, "training.batch_size=3"), launcher=TORCHRUN)
    assert code == 0, said
    one, two = (content(tmp_path / name)["state_dict"] for name in ("one", "two"))
    assert any("lora" in name for name in one)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@needs_compiler
def test_two_processes_learn_with_compiled_layers_what_one_learns_without(data, tmp_path):
    same = [*NO_DROPOUT, "training.epochs=1"]
    train.run(settings(data, tmp_path / "one", *same, "training.batch_size=6"))
    more = [*TWO, "training.batch_size=3", "training.compile=true"]
    code, said = finish(*words(data, tmp_path / "two", *same, *more), launcher=TORCHRUN)
    assert code == 0, said
    assert said.count("are compiled when they are first used") == 1
    one, two = (content(tmp_path / name)["state_dict"] for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dwa", "uncertainty", "random_weights"])
def test_two_processes_weigh_tasks_as_one_does(data, tmp_path, loss):
    """Also in the last step of an epoch, which leaves one of them without a batch: 39 batches for two."""
    limits = "datamodule.train_sampler.limits={trec2019: 57, msm_ner: 60}"
    more = [f"loop/loss={loss}", limits, "loop.diagnose_every_n_steps=7"]
    train.run(settings(data, tmp_path / "one", *NO_DROPOUT, *more, "training.batch_size=6"))
    code, said = finish(
        *words(data, tmp_path / "two", *NO_DROPOUT, *more, *TWO, "training.batch_size=3"), launcher=TORCHRUN
    )
    assert code == 0, said
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one["global_step"] == two["global_step"] == 60
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, atol=5e-4, rtol=2e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_sigterm_to_one_of_two_stops_both_in_seconds_and_they_go_on(data, tmp_path, asked):
    limits = "datamodule.train_sampler.limits={trec2019: 120, msm_ner: 120}"  # not over before it is asked
    settings = [*TWO, "training.batch_size=4", limits, "training.checkpoint_steps=1000", "trainer.log_every_n_steps=1"]
    assert finish(*words(data, tmp_path / "whole", *settings))[0] == 0
    process = start(*words(data, tmp_path / "out", *settings))
    wait_for(process, "GLOBAL_RANK: 1")
    wait_for_steps(tmp_path / "out")
    child = next(pid for pid, parent in processes() if parent == process.pid)
    asked_at = time.monotonic()
    os.kill([process.pid, child][asked], signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert time.monotonic() - asked_at < 20
    while any(pid == child for pid, _ in processes()) and time.monotonic() - asked_at < 20:
        time.sleep(0.1)
    assert not any(pid == child for pid, _ in processes())
    assert "stopped by SIGTERM: the same command continues from here" in said
    code, said = finish(*words(data, tmp_path / "out", *settings))
    assert code == 0, said
    lines = [line for line in said.splitlines() if line.startswith(("resuming at", "prepared ", "validation at"))]
    assert len(lines) == len(set(lines)) >= 4  # each once, not from each process
    assert_same(content(tmp_path / "out")["state_dict"], content(tmp_path / "whole")["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_a_line(data, tmp_path, killed):
    limits = "datamodule.train_sampler.limits={trec2019: 500, msm_ner: 500}"
    process = start(*words(data, tmp_path, *TWO, "training.batch_size=4", limits, "trainer.log_every_n_steps=1"))
    wait_for(process, "GLOBAL_RANK: 1")
    wait_for_steps(tmp_path)
    child = next(pid for pid, parent in processes() if parent == process.pid)
    os.kill([process.pid, child][killed], signal.SIGKILL)
    said = process.communicate(timeout=60)[1]  # of both: it ends when the last of them does
    assert process.returncode == (-signal.SIGKILL if killed == 0 else 6)
    assert said.splitlines()[-1].startswith("mtlrank: Another of the 2 processes ended: ")
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(data, tmp_path):
    """In the same order of samples, and with the schedule where it was."""
    run_until(settings(data, tmp_path), 22)
    before = content(tmp_path)
    code, said = finish(*words(data, tmp_path, *TWO))
    assert code == 0, said
    assert "resuming at epoch 2, step 19" in said
    after = content(tmp_path)
    assert before["callbacks"]["Milestones"]["batches"] == 4
    assert after["callbacks"]["Milestones"]["epoch"] == 3
    assert after["global_step"] == 19 + 6 + 8
    assert after["lr_schedulers"][0]["last_epoch"] == pytest.approx(24, abs=1)


def processes():
    """(pid, parent's pid) of everything that runs here; what is dead and waits for its parent does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(path.parent.name), int(parent)


def wait_for_steps(output):
    """Until training has begun: the log of its losses is written every few steps."""
    for _ in range(600):
        if any(path.stat().st_size for path in output.glob("tensorboard/*/events*")):
            time.sleep(0.5)
            return
        time.sleep(0.1)
    raise AssertionError("training did not begin")
