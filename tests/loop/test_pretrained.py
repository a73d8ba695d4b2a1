"""A body that comes with weights is trained as one from scratch is."""

import shutil

import pytest

from mtlrank import train
from mtlrank.backbone import load_tokenizer
from mtlrank.errors import ConfigError
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.model.body import MTLBody
from tests.loop.runs import assert_same, content, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.fixture
def pretrained(tmp_path):
    """Words for a body that comes with weights, which are loaded for use: without dropout."""
    folder, name = tmp_path / "bert", "mtlrank-embedded/tiny-bert"
    MTLBody(name, pretrained=False).encoder.save_pretrained(folder)
    load_tokenizer(name).save_pretrained(folder)
    return ["model/body=pretrained", f"model.body.backbone={folder}", "model.body.attention_dropout=0.1"]


def test_a_pretrained_body_learns_with_dropout_in_all_steps_also_after_it_was_stopped(
    pretrained, tmp_path, monkeypatch
):
    modes, step = [], MultiTaskLoop.training_step

    def noted(self, *args):
        modes.append({module.training for module in self.modules()})
        return step(self, *args)

    monkeypatch.setattr(MultiTaskLoop, "training_step", noted)
    more = [*pretrained, "tasks=[msm_ner]", "datamodule.train_sampler.limits={msm_ner: 60}", "training.epochs=2"]
    whole, parts = (settings(tmp_path / "data", tmp_path / name, *more) for name in ("whole", "parts"))
    train.run(whole)
    run_until(parts, 11)
    train.run(parts)
    assert len(modes) == 2 * 16 + 11 - 8  # it goes on from a checkpoint after the eighth step
    assert all(mode == {True} for mode in modes)
    assert_same(content(tmp_path / "whole"), content(tmp_path / "parts"))


def test_a_run_of_other_pretrained_weights_is_no_answer(pretrained, tmp_path):
    more = [*pretrained, "tasks=[msm_ner]", "datamodule.train_sampler.limits={msm_ner: 60}", "training.epochs=1"]
    finished, killed = (settings(tmp_path / "data", tmp_path / name, *more) for name in ("finished", "killed"))
    metrics = train.run(finished)
    run_until(killed, 5)
    MTLBody("mtlrank-embedded/tiny-bert", pretrained=False).encoder.save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"made from has changed since: model\.body\.backbone"):
        train.run(finished)
    with pytest.raises(ConfigError, match=r"does not fit this run\. body\.backbone: .*accept_changes=\[body\]"):
        train.run(killed)
    shutil.rmtree(tmp_path / "finished" / "checkpoints")
    assert train.run({**finished, "force": True}) != metrics
