"""Losses that are no numbers: steps that are skipped, and trainings that diverge."""

import math
import re

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from mtlrank import train
from mtlrank.building import trainer as building
from mtlrank.errors import DivergedError
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.task import SpanClassification
from tests.loop.runs import content, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def poison(monkeypatch, steps):
    """The loss of one sample is NaN in some steps."""
    loss = SpanClassification.item_loss

    def poisoned(self, logits, batch):
        losses = loss(self, logits, batch)
        if next_step() in steps:
            losses = losses.clone()
            losses[0] = float("nan")
        return losses

    step = MultiTaskLoop.training_step
    loops = []

    def noted(self, *args):
        loops[:] = [self]
        return step(self, *args)

    def next_step():
        return loops[0].global_step + 1 if loops else 0

    monkeypatch.setattr(MultiTaskLoop, "training_step", noted)
    monkeypatch.setattr(SpanClassification, "item_loss", poisoned)


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_loss_that_is_no_number_skips_the_step_and_names_the_sample(data_dir, tmp_path, monkeypatch, capsys, device):
    poison(monkeypatch, {3, 20})
    more = ["trainer.log_every_n_steps=10", "training.checkpoint_steps=null"]
    metrics = train.run(settings(data_dir, tmp_path, f"trainer.accelerator={device}", *more))
    said = capsys.readouterr().err
    assert "step 3 is not finite: 1 of" in said
    assert re.search(r"step 20 is not finite: 1 of \d+ losses of 'msm_ner' \(.+\); the step is skipped", said)
    assert "the step is skipped (2 of 10)" in said
    assert all(value == value for value in metrics.values())
    losses = read_curves(tmp_path)["train/msm_ner/loss"]  # of the samples whose loss is a number
    assert [step for step, _ in losses] == [10, 15, 20, 30, 40, 45]
    assert all(math.isfinite(loss) for _, loss in losses)
    assert all(bool(torch.isfinite(w).all()) for w in content(tmp_path)["state_dict"].values())


def test_too_many_end_the_training_and_the_last_checkpoint_is_good(data_dir, tmp_path, monkeypatch):
    poison(monkeypatch, set(range(18, 100)))
    with pytest.raises(DivergedError, match=r"bad step 4, but training.max_bad_steps is 3.*Lower loop.optimizer.lr"):
        train.run(settings(data_dir, tmp_path, "training.max_bad_steps=3"))
    state = content(tmp_path)
    assert state["global_step"] in (19, 20)
    assert all(bool(torch.isfinite(w).all()) for w in state["state_dict"].values())


def test_a_head_that_was_never_finite_has_not_diverged(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(SpanClassification, "item_loss", lambda self, logits, batch: logits.sum(-1) * math.nan)
    monkeypatch.setattr(SpanClassification, "scores", lambda self, logits: logits * math.nan)
    told = "The head 'msm_ner' predicts NaN or infinity. The losses of 'msm_ner' were never finite: look for NaN in its"
    with pytest.raises(DivergedError, match=told):
        train.run(settings(data_dir, tmp_path, "training.max_bad_steps=1000", "training.one_task_per_batch=true"))


def test_a_run_that_goes_on_and_has_learnt_nothing_ends_with_an_error(data_dir, tmp_path, monkeypatch):
    """The steps that were skipped before it was stopped count too."""
    poison(monkeypatch, set(range(100)))
    config = settings(data_dir, tmp_path, "tasks=[msm_ner]", "training.max_bad_steps=100", "training.epochs=1")
    run_until(config, 5)
    with pytest.raises(DivergedError, match=r"Nothing was learnt: all \d+ steps so far were skipped"):
        train.run(config)


def test_a_gradient_scaler_does_not_skip_forever(data_dir, tmp_path, monkeypatch, capsys):
    """On a CPU, where Lightning has none: it halves 16 times before steps are told."""

    def with_scaler(*, precision, plugins=(), **kwargs):
        half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return trainer(plugins=[*plugins, half], **kwargs)

    trainer = building.pl.Trainer
    monkeypatch.setattr(building.pl, "Trainer", with_scaler)
    poison(monkeypatch, set(range(5, 100)))
    with pytest.raises(DivergedError, match=r"of 'msm_ner' .*This is bad step 4, but training.max_bad_steps is 3"):
        train.run(settings(data_dir, tmp_path, "training.max_bad_steps=3", "loop.optimizer.fused=false"))
    assert "the step is skipped (1 of 3)" in capsys.readouterr().err
    assert all(bool(torch.isfinite(w).all()) for w in content(tmp_path)["state_dict"].values())
