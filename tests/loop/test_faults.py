"""What breaks in practice, made to break here: the table in docs/reliability.md names these tests."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlrank import evaluate, train
from mtlrank.errors import ConfigError, DataError, ResourceError, SigTerm, StorageError, TerminatedError
from mtlrank.loop.checkpoints import Checkpoint, Checkpoints, VerifiedIO, read_checkpoint, write_checkpoint
from mtlrank.loop.milestones import Milestones
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import PlainProgress
from mtlrank.storage import list_files
from tests.loop.runs import assert_same, content, finish, run_until, settings, start, wait_for, words

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


OFTEN = ["trainer.log_every_n_steps=1", "training.checkpoint_steps=3"]


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """An undisturbed run: its metrics and content."""
    output = tmp_path_factory.mktemp("whole")
    return train.run(settings(data_dir, output)), content(output)


@pytest.fixture(scope="module")
def whole_process(data_dir, tmp_path_factory):
    """The weights of an undisturbed run in a process of its own, with as many threads as the disturbed ones."""
    output = tmp_path_factory.mktemp("process")
    code, said = finish(*words(data_dir, output, *OFTEN))
    assert code == 0, said
    return content(output)["state_dict"]


@pytest.fixture
def stopped(whole, data_dir, tmp_path, monkeypatch):
    """A run that was stopped at step 22, with checkpoints at the steps 15 and 19."""
    run_until(settings(data_dir, tmp_path), 22)
    assert Checkpoints(tmp_path / "checkpoints").all("step") == [Checkpoint("step", 19), Checkpoint("step", 15)]
    return settings(data_dir, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB, as a function of its options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(options):
        if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 1 if options == "ro" else 0, b"size=1m"):
            pytest.skip(f"this process may not mount: {os.strerror(ctypes.get_errno())}")
        return folder

    yield mount
    libc.umount2(str(folder).encode(), 2)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_costs_nothing_but_time(whole_process, data_dir, tmp_path, number):
    overrides = words(data_dir, tmp_path, *OFTEN)
    process = start(*overrides)
    wait_for(process, "validation at step 15")
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    code = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert process.returncode == code, said
    if number != signal.SIGKILL:
        name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
        assert said.strip().splitlines()[-1] == f"mtlrank: stopped by {name}: the same command continues from here."
    code, said = finish(*overrides)
    assert code == 0, said
    assert "resuming at epoch" in said
    assert_same(content(tmp_path)["state_dict"], whole_process)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_to_all_processes_is_that_to_the_main_one(data_dir, tmp_path, number, name):
    """As `timeout`, terminals and schedulers send it: also to the processes that assemble batches."""
    overrides = words(data_dir, tmp_path, *OFTEN, "datamodule.num_workers=2")
    process = start(*overrides, launcher=["setsid", sys.executable])
    wait_for(process, "validation at step 15")
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert said.strip().splitlines()[-1] == f"mtlrank: stopped by {name}: the same command continues from here."
    assert process.returncode == 128 + number


@pytest.mark.parametrize("at", [15, pytest.param(45, marks=pytest.mark.slow)])
def test_sigterm_while_it_validates_stops_at_once_and_the_validation_is_done_later(
    whole, data_dir, tmp_path, monkeypatch, at
):
    validate = Milestones._validate

    def terminate(self, *args):
        if self.position.step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        validate(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Milestones, "_validate", terminate)
        with pytest.raises(TerminatedError, match="the same command continues"):
            train.run(settings(data_dir, tmp_path))
    assert Checkpoints(tmp_path / "checkpoints").newest()[0] == Checkpoint("step", at)
    assert train.run(settings(data_dir, tmp_path)) == whole[0]
    if at != 45:
        assert_same(content(tmp_path), whole[1])


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_while_the_last_checkpoint_is_written_stops_before_the_test(
    whole, data_dir, tmp_path, monkeypatch, number, name
):
    """Nothing looks at signals after it, and a study would go on to its next run."""
    save = Milestones._save

    def interrupted(self, trainer):
        save(self, trainer)
        if trainer.global_step == 45:
            signal.raise_signal(number)

    def never(self, *args):
        raise AssertionError("there is nothing left to learn")

    with monkeypatch.context() as patch:
        patch.setattr(Milestones, "_save", interrupted)
        with pytest.raises(TerminatedError, match=f"stopped by {name}: the same command continues from here"):
            train.run(settings(data_dir, tmp_path))
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.setattr(MultiTaskLoop, "training_step", never)
    assert train.run(settings(data_dir, tmp_path)) == whole[0]


@pytest.mark.parametrize(("signalled", "name"), [(SigTerm, "SIGTERM"), (KeyboardInterrupt, "Ctrl-C")])
def test_a_signal_in_the_test_says_how_the_run_goes_on(whole, data_dir, tmp_path, monkeypatch, signalled, name):
    """With force=true the same command would train again."""

    def stopped(*args):
        raise signalled

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "judge_all", stopped)
        with pytest.raises(TerminatedError, match=f"stopped by {name}: the same command without force=true continues"):
            train.run(settings(data_dir, tmp_path, "test=true", "force=true"))

    def never(self, *args):
        raise AssertionError("there is nothing left to learn")

    monkeypatch.setattr(MultiTaskLoop, "training_step", never)
    assert train.run(settings(data_dir, tmp_path)) == whole[0]


def test_stopping_is_quick_even_if_steps_are_not(data_dir, tmp_path, monkeypatch):
    """The signal only sets a flag: a step that is under way ends first."""
    seen, before = [], signal.getsignal(signal.SIGTERM)

    def ask(self, trainer, *args):
        if trainer.global_step == 5 and not seen:
            seen.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PlainProgress, "on_train_batch_end", ask)
    with pytest.raises(TerminatedError):
        train.run(settings(data_dir, tmp_path))
    assert Checkpoints(tmp_path / "checkpoints").newest()[0] == Checkpoint("step", 5)
    assert signal.getsignal(signal.SIGTERM) == before


# -- checkpoints -------------------------------------------------------------------------------------------------------


def damage(path, how):
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "removed":
        path.unlink()
    else:
        bytes_ = bytearray(path.read_bytes())
        bytes_[len(bytes_) // 2] ^= 1
        path.write_bytes(bytes_)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("state.pt", "flipped"),
        ("manifest.json", "truncated"),
        pytest.param("state.pt", "truncated", marks=pytest.mark.slow),
        pytest.param("state.pt", "removed", marks=pytest.mark.slow),
        pytest.param("manifest.json", "flipped", marks=pytest.mark.slow),
        pytest.param("manifest.json", "removed", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(stopped, whole, tmp_path, capsys, how, file):
    damage(tmp_path / "checkpoints" / "step-00000019" / file, how)
    capsys.readouterr()
    assert train.run(stopped) == whole[0]
    said = capsys.readouterr().err
    if (file, how) != ("manifest.json", "removed"):  # then it is no checkpoint at all
        assert "checkpoints/step-00000019 cannot be used: " in said
    assert "resuming at epoch 2, step 15 (" in said
    assert_same(content(tmp_path), whole[1])


def test_if_all_are_damaged_it_says_so(stopped, tmp_path):
    for step in (15, 19):
        damage(tmp_path / "checkpoints" / f"step-000000{step}" / "state.pt", "flipped")
    with pytest.raises(
        DataError, match=r"No checkpoint in .* can be read\..*state.pt was changed or damaged.*force=true"
    ):
        train.run(stopped)


def test_if_the_best_weights_are_damaged_the_best_from_here_on_are_kept(stopped, tmp_path, capsys):
    damage(tmp_path / "checkpoints" / "best-00000015" / "state.pt", "flipped")
    capsys.readouterr()
    train.run(stopped)
    assert "the best weights so far are lost: " in capsys.readouterr().err
    assert Checkpoints(tmp_path / "checkpoints").all("best")[0].step > 15


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    write_checkpoint({"x": 1}, str(tmp_path / "step-00000001"))
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    from mtlrank.storage import new_folder, write_manifest

    with new_folder(tmp_path / "step-00000002") as part:
        torch.save({"x": Payload()}, part / "state.pt")
        write_manifest(part, {"kind": "checkpoint"})
    with pytest.raises(DataError, match="cannot read it"):
        read_checkpoint(str(tmp_path / "step-00000002"))
    assert not marker.exists()


def test_what_a_killed_process_has_written_of_a_checkpoint_is_removed(tmp_path):
    """Also one with this process's number, as in a container that was started again, and one of another pod."""
    unfinished = [f".step-00000008.{socket.gethostname()}-{os.getpid()}.a1", ".best-00000005.pod-2-1.b2"]
    replaced = ".step-00000004.pod-2-1.c3"  # killed between the renames: the old folder was moved aside
    for name in (*unfinished, replaced, f"{replaced}.old", ".step-x.pod-1.d4", "step-00000002"):
        (tmp_path / name).mkdir()
    Checkpoints(tmp_path).take()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"owner", "step-00000002", "step-00000004", ".step-x.pod-1.d4"}


@pytest.mark.parametrize("state", [np.float64(0.5), {"seen": {Path("x")}}])
def test_a_state_that_could_not_be_read_again_is_refused_when_it_is_written(tmp_path, state):
    """As that of an optimizer, a schedule or a callback of the user's."""
    with pytest.raises(ConfigError, match=r"The state of training has .*(numpy|pathlib)\..*, which is not read"):
        write_checkpoint({"callbacks": {"mine": state}}, str(tmp_path / "step-00000001"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(small_disk):
    folder = small_disk("")
    checkpoints = Checkpoints(folder)
    small = {"weights": torch.arange(100_000)}  # 0.8 MiB
    write_checkpoint(small, checkpoints.path(Checkpoint("step", 1)))
    with pytest.raises(
        StorageError,
        match=r"Cannot write the checkpoint .*It needs 3 MiB, 0 MiB are free.*Earlier checkpoints are kept",
    ):
        write_checkpoint({"weights": torch.arange(400_000)}, checkpoints.path(Checkpoint("step", 2)))
    assert checkpoints.newest()[0] == Checkpoint("step", 1)
    assert_same(checkpoints.read(Checkpoint("step", 1)), small)
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]


@pytest.mark.slow
def test_a_full_disk_ends_training_with_a_line(data_dir, tmp_path, small_disk):
    code, said = finish(*words(data_dir, tmp_path / "out", f"training.checkpoint_dir={small_disk('')}"))
    assert code == 4
    assert "mtlrank: Cannot write the checkpoint" in said.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(data_dir, tmp_path, small_disk, monkeypatch):
    folder = small_disk("ro")
    monkeypatch.setattr("mtlrank.prepare.run", lambda *_: pytest.fail("data were prepared"))
    monkeypatch.setattr(MultiTaskLoop, "training_step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(StorageError, match="training.checkpoint_dir: Cannot write to the folder"):
        train.run(settings(data_dir, tmp_path / "out", f"training.checkpoint_dir={folder}/checkpoints"))


def test_an_error_of_the_process_that_writes_is_kept_for_all(tmp_path):
    io = VerifiedIO()
    (tmp_path / "file").write_text("")
    io.save_checkpoint({"x": 1}, tmp_path / "file" / "step-00000001")
    assert isinstance(io.error, StorageError)


def test_checkpoints_on_google_cloud_storage_go_on_on_another_machine(whole, bucket, data_dir, tmp_path, monkeypatch):
    place = ["training.checkpoint_dir=gs://bucket/runs/1"]
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "first"))
    run_until(settings(data_dir, tmp_path / "a", *place), 22)
    assert {name.split("/")[0] for name in list_files("gs://bucket/runs/1")} == {
        "best-00000015",
        "run.json",
        "step-00000015",
        "step-00000019",
        "writable",
        "owner",
    }
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "second"))
    assert train.run(settings(data_dir, tmp_path / "b", *place)) == whole[0]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_gpu_without_enough_memory_is_told_what_to_change(data_dir, tmp_path, monkeypatch):
    def exhausted(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(MultiTaskLoop, "training_step", exhausted)
    with pytest.raises(ResourceError, match=r"ran out of memory in step 1: .*2.00 GiB\. Lower training.batch_size"):
        train.run(settings(data_dir, tmp_path))


@pytest.mark.slow
def test_a_tiny_shared_memory_does_not_stop_worker_processes(data_dir, tmp_path):
    """/dev/shm as a container has it, in a namespace of its own."""
    overrides = words(data_dir, tmp_path, "datamodule.num_workers=2", "training.epochs=1")
    command = " ".join(f"'{word}'" for word in [sys.executable, "-m", "mtlrank.train", *overrides])
    script = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec {command}"
    ran = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip("this process may not have namespaces of its own")
    assert ran.returncode == 0, ran.stderr
    assert "datamodule.num_workers=0 is used" in ran.stderr
