from types import SimpleNamespace

import pytest

from mtlrank import train
from mtlrank.loop.progress import PlainProgress
from mtlrank.progress import Progress
from tests.loop.runs import run_until, settings


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_log_tells_where_training_is_and_goes_on_counting_when_it_is_resumed(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS", 0.0)
    config = settings(data_dir, tmp_path, "training.epochs=1")
    run_until(config, 5)
    capsys.readouterr()
    train.run(config)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train epoch")]
    assert lines[0].startswith("train epoch 1/1, loss ")
    assert ": 5/15 steps, " in lines[0]
    assert lines[0].endswith(" left")
    assert ": 15/15 steps, " in lines[-1]


def test_a_run_that_goes_on_with_more_processes_counts_steps_of_their_size(capsys):
    """1,952 steps of one process are 976 of two, of 1,952 in all."""
    schedule = SimpleNamespace(last_epoch=976)
    known = {"is_global_zero": True, "current_epoch": 4, "max_epochs": 8, "global_step": 1952}
    trainer = SimpleNamespace(lr_scheduler_configs=[SimpleNamespace(scheduler=schedule)], **known)
    loop = SimpleNamespace(total_steps=1952, training_log=SimpleNamespace(recent_loss=0.5))
    told = PlainProgress()
    told.on_train_start(trainer, loop)
    told.progress.SECONDS = 0.0
    schedule.last_epoch += 1
    told.on_train_batch_end(trainer, loop)
    assert "train epoch 5/8, loss 0.5000: 977/1,952 steps" in capsys.readouterr().err
