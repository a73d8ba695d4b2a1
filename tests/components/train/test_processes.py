"""Training on several GPUs of one machine, with processes on the CPU in their place."""

import pytest

from components.train.order import Order
from components.train.processes import train_in_processes
from components.train.settings import train_settings
from mtlrank.model.saved import read_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def order(datasets, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = train_settings(
        ["msm_ner"], "embedded", "", 8, 0.0, 1, "random_proportional", "example_mean", 7, "32-true"
    )
    overrides = ["training.limit_val_batches=1", "+trainer.limit_train_batches=4", "trainer.accelerator=cpu"]
    return Order(
        settings, overrides, [str(data_dir / "msm_ner")], str(tmp_path / "model"), str(tmp_path / "checkpoints")
    )


def test_the_model_is_where_the_step_expects_it(order, tmp_path):
    values = train_in_processes(order, 2)
    assert any(key.startswith("val/msm_ner/") for key in values)
    config, _ = read_model(tmp_path / "model" / "model")
    assert config["trainer"]["devices"] == 2
    assert list((tmp_path / "checkpoints").glob("*/step-*"))


def test_a_mistake_ends_the_step_with_an_error(order, capfd):
    with pytest.raises(SystemExit) as stopped:
        train_in_processes(order._replace(overrides=["no.such=key"]), 2)
    assert stopped.value.code != 0
    assert "Unknown config key 'no.such'" in capfd.readouterr().err
