"""A run that was stopped continues with the same command, and ends as if it had not been stopped."""

import os
import signal

import pytest
import torch

from mtlrank import train
from mtlrank.compose import compose_config
from mtlrank.errors import DataError, TerminatedError
from mtlrank.loop.progress import PlainProgress

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


class StoppedError(Exception):
    """Stands for a kill."""


def settings(data_dir, output):
    words = ["tasks=[trec2019]", f"data_dir={data_dir}", f"output_dir={output}", "training.epochs=3", "test=false"]
    return compose_config(
        [*words, "training.limit_val_batches=2", "datamodule.train_sampler.limits={trec2019: 480}"], trusted=True
    )


def weights(output):
    state = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    return {"step": state["global_step"], **state["state_dict"]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, home):
    folder = tmp_path_factory.mktemp("undisturbed")
    return train.run(settings(folder / "data", folder / "out")), folder


def test_a_stopped_run_continues_and_ends_the_same(undisturbed, tmp_path, monkeypatch, capsys):
    metrics, folder = undisturbed
    config = settings(folder / "data", tmp_path)
    per_epoch = weights(folder / "out")["step"] // 3
    assert per_epoch < 40 < 2 * per_epoch

    def stop(self, trainer, *args):
        if trainer.global_step == 40:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(PlainProgress, "on_train_batch_end", stop)
        with pytest.raises(StoppedError):
            train.run(config)
    capsys.readouterr()
    again = train.run(config)
    assert f"resuming at epoch 2, step {per_epoch}" in capsys.readouterr().err
    assert again == metrics
    expected, found = weights(folder / "out"), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(torch.as_tensor(expected[key]), torch.as_tensor(found[key])) for key in expected)


def test_a_finished_run_is_not_run_again_unless_forced(undisturbed, capsys):
    metrics, folder = undisturbed
    config = settings(folder / "data", folder / "out")
    before = (folder / "out" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert train.run(config) == metrics
    assert "already finished" in capsys.readouterr().err
    assert (folder / "out" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    assert train.run({**config, "force": True}) == metrics
    assert (folder / "out" / "checkpoints" / "last.ckpt").stat().st_mtime_ns > before


def test_a_checkpoint_that_cannot_be_read_is_named(undisturbed, tmp_path):
    _, folder = undisturbed
    config = settings(folder / "data", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"this is no checkpoint")
    with pytest.raises(DataError, match=r"last.ckpt is not a checkpoint that can be read"):
        train.run(config)


def test_sigterm_stops_between_two_steps_and_can_go_on(undisturbed, tmp_path, monkeypatch):
    metrics, folder = undisturbed
    config = settings(folder / "data", tmp_path)

    def terminate(self, trainer, *args):
        if trainer.global_step == 40:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PlainProgress, "on_train_batch_end", terminate)
        with pytest.raises(TerminatedError, match="the same command continues"):
            train.run(config)
    assert train.run(config) == metrics


def test_the_best_checkpoint_is_what_is_kept(undisturbed):
    metrics, folder = undisturbed
    state = torch.load(folder / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["mtlrank_values"] == metrics
    from safetensors.torch import load_file

    saved = load_file(folder / "out" / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], state["state_dict"][f"model.{name}"]) for name in saved)
