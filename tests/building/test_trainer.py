import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl

from mtlrank.building.trainer import build_trainer, check_trainer, monitored, plan_steps
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.checkpoints import Checkpoints
from mtlrank.loop.milestones import Milestones, Monitored, Plan
from mtlrank.loop.stopping import StopSignals


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


def test_trainer_settings_that_lightning_refuses_are_named(config, tmp_path):
    monitored = Monitored(("x/AP",), "AP")
    milestones = Milestones(Checkpoints(tmp_path), monitored, StopSignals(), Plan(), {}, [])
    wrong = {**config, "trainer": {**config["trainer"], "precision": "17"}}
    with pytest.raises(ConfigError, match="Lightning refuses the trainer settings"):
        build_trainer(wrong, tmp_path, milestones)


def test_callbacks_of_a_config_come_before_what_writes_checkpoints(config, tmp_path):
    monitored = Monitored(("x/AP",), "AP")
    milestones = Milestones(Checkpoints(tmp_path), monitored, StopSignals(), Plan(), {}, [])
    trainer = {**config["trainer"], "callbacks": [{"_target_": "pytorch_lightning.callbacks.Timer"}]}
    kinds = [type(each) for each in build_trainer({**config, "trainer": trainer}, tmp_path, milestones).callbacks]
    assert kinds.index(pl.callbacks.Timer) < kinds.index(Milestones)
    wrong = {**trainer, "callbacks": [{"_target_": "collections.Counter"}]}
    with pytest.raises(
        ConfigError, match=r"trainer.callbacks is a collections.Counter, expected a pytorch_lightning\."
    ):
        build_trainer({**config, "trainer": wrong}, tmp_path, milestones)
    with pytest.raises(ConfigError, match=r"trainer.callbacks is \['a'\], expected null or a list of Lightning"):
        composed("+trainer.callbacks=[a]")


def test_half_precision_without_a_gpu_is_refused(config):
    """Lightning would take another one."""
    with pytest.raises(ConfigError, match="trainer.precision is 16-mixed, which needs a GPU"):
        check_trainer({**config, "trainer": {**config["trainer"], "accelerator": "cpu", "precision": "16-mixed"}})
    with pytest.raises(ConfigError, match="trainer.strategy is ddp_spawn, .* expected auto or ddp"):
        check_trainer({**config, "trainer": {**config["trainer"], "strategy": "ddp_spawn"}})


def test_another_number_of_processes_than_torchrun_has_started_is_refused(config, monkeypatch):
    """Each would train by itself, in the same folder."""
    started = {
        "TORCHELASTIC_RUN_ID": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "2",
    }
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    on_cpu = {**config["trainer"], "accelerator": "cpu"}
    for devices, nodes in ((1, 1), (4, 1), (1, 4)):
        told = f"2 processes on each of 2 nodes: .* found trainer.devices={devices} trainer.num_nodes={nodes}."
        with pytest.raises(ConfigError, match=f"torchrun has started {told}"):
            check_trainer({**config, "trainer": {**on_cpu, "devices": devices, "num_nodes": nodes}})
    check_trainer({**config, "trainer": {**on_cpu, "devices": 2, "num_nodes": 2}})


def test_what_is_logged_is_on_the_disk_at_once(config, tmp_path):
    milestones = Milestones(Checkpoints(tmp_path), Monitored(("x/AP",), "AP"), StopSignals(), Plan(), {}, [])
    csv, _ = build_trainer(config, tmp_path, milestones).loggers
    for step in (50, 100):
        csv.log_metrics({"train/loss": 1 / step}, step=step)
        assert read_curves(tmp_path)["train/loss"][-1] == (step, 1 / step)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EarlyStopping", "validates, stops and saves by itself"),
        ("ModelCheckpoint", "validates, stops and saves by itself"),
        ("EMAWeightAveraging", "judges and saves the weights that are trained"),
        ("StochasticWeightAveraging", "judges and saves the weights that are trained"),
        ("LearningRateFinder", "plans batches, steps and rates"),
    ],
)
def test_callbacks_that_would_do_our_work_or_nothing_are_refused(config, name, reason):
    own = {"_target_": f"pytorch_lightning.callbacks.{name}"}
    with pytest.raises(ConfigError, match=f"trainer.callbacks has {name}, but mtlrank {reason}"):
        check_trainer({**config, "trainer": {**config["trainer"], "callbacks": [own]}})


def test_a_monitor_that_is_never_computed_is_refused(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/nDCG@1"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        monitored(wrong, datasets)


def test_a_monitor_in_other_letters_is_found(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/ndcg@10"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        monitored(wrong, datasets)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (["val/trec2019/nDCG@10", "val/trec2019/nDCG@1"], "training.monitor is 'val/trec2019/nDCG@1'. Did you mean"),
        (["val/trec2019/nDCG@10", "val/msm_bm25/MSE"], "has 'val/msm_bm25/MSE' among others, an error, and a mean"),
    ],
)
def test_a_mean_that_is_never_computed_or_has_errors_is_refused(config, datasets, keys, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        monitored({**config, "training": {**config["training"], "monitor": keys}}, datasets)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 20),
        ({"limit_train_batches": 5}, 10),
        ({"limit_train_batches": 0.5}, 10),
        ({"limit_train_batches": 0.15}, 2),
        ({"max_steps": 7}, 7),
        ({"max_steps": 99, "accumulate_grad_batches": 3}, 8),
    ],
)
def test_the_schedule_ends_with_the_training(settings, steps):
    """Two epochs of ten batches, cut as Lightning cuts them. Samplers hear how many epochs that makes."""

    class Ten:
        epochs = 1.0

        def num_batches(self, split, world_size):
            return 10

    datamodule = Ten()

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    assert plan_steps({"training": {"epochs": 2}}, datamodule, trainer) == steps
    assert datamodule.epochs == (steps / 10 if settings == {"max_steps": 7} else 2)


def test_a_share_that_leaves_no_batch_is_refused():
    datamodule = SimpleNamespace(num_batches=lambda split, world_size: 10)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, limit_train_batches=0.05)
    with pytest.raises(ConfigError, match=r"limit_train_batches is 0\.05, which leaves none of the 10 batches"):
        plan_steps({"training": {"epochs": 2}}, datamodule, trainer)


def test_by_default_the_first_measure_of_the_first_dataset_is_monitored(config, datasets):
    gain, error = monitored(config, datasets), monitored(config, {"msm_bm25": datasets["msm_bm25"]})
    assert (gain, error) == ((("trec2019/nDCG@10",), "nDCG@10"), (("msm_bm25/MSE",), "MSE"))
    assert (gain.key, error.key) == ("val/trec2019/nDCG@10", "val/msm_bm25/MSE")
    assert (gain.is_better(1.0, 2.0), error.is_better(1.0, 2.0)) == (False, True)
