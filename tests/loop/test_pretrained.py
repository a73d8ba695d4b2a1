"""A body that comes with weights is trained as one from scratch is."""

import pytest

from mtlrank import train
from mtlrank.loop.multitask import MultiTaskLoop
from tests.loop.runs import assert_same, content, pretrained, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_a_pretrained_body_learns_with_dropout_in_all_steps_also_after_it_was_stopped(tmp_path, monkeypatch):
    modes, step = [], MultiTaskLoop.training_step

    def noted(self, *args):
        modes.append({module.training for module in self.modules()})
        return step(self, *args)

    monkeypatch.setattr(MultiTaskLoop, "training_step", noted)
    more = [
        *pretrained(tmp_path / "bert"),
        "tasks=[msm_ner]",
        "datamodule.train_sampler.limits={msm_ner: 60}",
        "training.epochs=2",
    ]
    whole, parts = (settings(tmp_path / "data", tmp_path / name, *more) for name in ("whole", "parts"))
    train.run(whole)
    run_until(parts, 11)
    train.run(parts)
    assert len(modes) == 2 * 16 + 11 - 8  # it goes on from a checkpoint after the eighth step
    assert all(mode == {True} for mode in modes)
    assert_same(content(tmp_path / "whole"), content(tmp_path / "parts"))
