import pytest

from mtlrank import train
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
