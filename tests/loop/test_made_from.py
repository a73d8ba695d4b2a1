"""A run whose data, or the weights that it started from, are others by now is no answer to the same command."""

import shutil

import pytest

from mtlrank import train
from mtlrank.composing.compose import compose_config
from mtlrank.errors import ConfigError
from mtlrank.loop.progress import PlainProgress
from tests.loop.runs import pretrained, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_a_finished_run_of_other_data_is_no_answer(tmp_path, monkeypatch):
    pairs = tmp_path / "pairs.tsv"
    rows = [f"{i % 5}\tthe harbour number {i}\ta garden of {i}\n" for i in range(60)]
    pairs.write_text("".join(rows))
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={pairs}", f"datamodule.dataset.val={pairs}"]
    words += [
        "datamodule.dataset.test=null",
        f"data_dir={tmp_path / 'data'}",
        f"output_dir={tmp_path / 'run'}",
        "test=false",
    ]
    config = compose_config([*words, "training.epochs=1"], trusted=True)
    metrics = train.run(config)
    assert train.run(config) == metrics
    pairs.write_text("".join(rows[:50]))
    with pytest.raises(ConfigError, match="is finished, but what it was made from has changed since: msm_sem_sim"):
        train.run(config)
    # Files that change while a run goes on: it is made from those that were there when it began.
    learn = PlainProgress.on_train_batch_end

    def change(*args):
        pairs.write_text("".join(rows[:40]))
        learn(*args)

    pairs.write_text("".join(rows[:30]))
    monkeypatch.setattr(PlainProgress, "on_train_batch_end", change)
    metrics = train.run({**config, "force": True})
    with pytest.raises(ConfigError, match="is finished, but what it was made from has changed since: msm_sem_sim"):
        train.run(config)
    pairs.write_text("".join(rows[:30]))
    assert train.run(config) == metrics


def test_a_run_that_started_from_other_weights_is_no_answer(data_dir, tmp_path):
    first = settings(data_dir, tmp_path / "first", "tasks=[msm_ner]", "training.epochs=1")
    train.run(first)
    more = ["tasks=[msm_ner]", "training.epochs=2", f"model.start_from={tmp_path / 'first'}"]
    finished, killed = (settings(data_dir, tmp_path / name, *more) for name in ("finished", "killed"))
    metrics = train.run(finished)
    assert train.run(finished) == metrics
    run_until(killed, 10)
    train.run({**first, "seed": 2, "force": True})
    with pytest.raises(ConfigError, match=r"made from has changed since: model\.start_from"):
        train.run(finished)
    with pytest.raises(ConfigError, match=r"does not fit this run\. body\.start_from: .*accept_changes=\[body\]"):
        train.run(killed)
    shutil.rmtree(tmp_path / "first")
    assert train.run(finished) == metrics  # what is gone is not known to have changed


def test_a_run_of_other_pretrained_weights_is_no_answer(tmp_path):
    more = [
        *pretrained(tmp_path / "bert"),
        "tasks=[msm_ner]",
        "datamodule.train_sampler.limits={msm_ner: 60}",
        "training.epochs=1",
    ]
    finished, killed = (settings(tmp_path / "data", tmp_path / name, *more) for name in ("finished", "killed"))
    metrics = train.run(finished)
    run_until(killed, 5)
    pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"made from has changed since: model\.body\.backbone"):
        train.run(finished)
    with pytest.raises(ConfigError, match=r"does not fit this run\. body\.backbone: .*accept_changes=\[body\]"):
        train.run(killed)
    shutil.rmtree(tmp_path / "finished" / "checkpoints")
    assert train.run({**finished, "force": True}) != metrics
