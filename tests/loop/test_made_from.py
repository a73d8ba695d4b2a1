"""A run whose data, or the weights that it started from, are others by now is no answer to the same command."""

import shutil
from functools import partial

import pytest
from safetensors.torch import load_file

from mtlrank import promote, train
from mtlrank.composing.compose import compose_config
from mtlrank.errors import ConfigError, DataError
from mtlrank.loop.progress import PlainProgress
from mtlrank.registry import Registry
from tests.loop.runs import assert_same, pretrained, run_until, settings

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


def afterwards(function, event):
    """A function that lets something happen after each call."""

    def called(*args):
        result = function(*args)
        event()
        return result

    return called


def test_a_model_that_is_replaced_while_a_run_reads_it_is_told(data_dir, tmp_path, monkeypatch):
    first = settings(data_dir, tmp_path / "first", "tasks=[msm_ner]", "training.epochs=0")
    train.run(first)
    later = settings(data_dir, tmp_path / "later", "tasks=[msm_ner]", f"model.start_from={tmp_path / 'first'}")
    build = train.build_body

    def replace():
        monkeypatch.setattr(train, "build_body", build)
        train.run({**first, "seed": 2, "force": True})

    monkeypatch.setattr(train, "build_body", afterwards(build, replace))
    with pytest.raises(DataError, match=r"weights that model\.start_from names changed while they were read"):
        train.run(later)
    assert not (tmp_path / "later" / "run.json").exists()


def test_a_promotion_while_a_run_begins_changes_nothing_for_it(data_dir, tmp_path, monkeypatch):
    registry, words = Registry(tmp_path / "registry"), ["tasks=[msm_ner]", "training.epochs=0"]
    for seed in (1, 2):
        train.run(settings(data_dir, tmp_path / str(seed), *words, f"seed={seed}", "test=true"))
    promote.of_run(tmp_path / "1", registry, force="the first")
    later = settings(data_dir, tmp_path / "later", *words, f"model.start_from={tmp_path / 'registry'}")
    put_in_use = partial(promote.of_run, tmp_path / "2", registry, force="another")
    monkeypatch.setattr(train, "build_body", afterwards(train.build_body, put_in_use))
    train.run(later)
    weights = {name: load_file(tmp_path / name / "model" / "model.safetensors") for name in ("1", "2", "later")}
    assert_same(weights["later"], weights["1"])
    assert len(registry.history()) == 2
