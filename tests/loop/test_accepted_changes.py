"""What differs from a checkpoint is refused, and taken over as far as it fits with `training.accept_changes`."""

import pytest

from mtlrank import embedded, train
from mtlrank.errors import ConfigError
from mtlrank.loop.resume import take_over
from mtlrank.model.body.lora import plain_name
from tests.loop.runs import assert_same, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.mark.slow
def test_other_data_is_refused_unless_it_is_accepted(data_dir, tmp_path, monkeypatch, capsys):
    config = settings(data_dir, tmp_path)
    run_until(config, 22)
    other = settings(data_dir, tmp_path, "prepare.num_shards=2", "training.accept_changes=[tokenizer]")
    with pytest.raises(ConfigError, match="another config .*prepare.num_shards"):
        train.run(other)
    (tmp_path / "run.json").unlink()
    (tmp_path / "checkpoints" / "run.json").unlink()
    with pytest.raises(
        ConfigError, match=r"data.msm_ner: \w+ in the checkpoint, \w+ now; data.trec2019: .*accept_changes=\[data\]"
    ):
        train.run(other)
    capsys.readouterr()
    train.run({**other, "training": {**other["training"], "accept_changes": ["data"]}})
    said = capsys.readouterr().err
    assert "starting over with the weights of" in said
    assert "data changed" in said


def test_other_heads_are_refused_and_taken_over_as_far_as_they_fit_if_accepted(data_dir, tmp_path, monkeypatch, capsys):
    config = settings(data_dir, tmp_path)
    run_until(config, 22)
    few = tmp_path / "coref.jsonl"
    few.write_text("".join((embedded.folder() / "coref" / "train.jsonl").read_text().splitlines(keepends=True)[:60]))
    more = ["tasks=[trec2019,msm_ner,msm_coref]", f"datamodule.dataset.datasets.msm_coref.train={few}"]
    with pytest.raises(ConfigError, match="holds a run of another config"):
        train.run(settings(data_dir, tmp_path, *more))
    with pytest.raises(
        ConfigError, match=r"another config \(it differs in 2 keys: datamodule.seed: 42 there, 7 now; seed"
    ):
        train.run(settings(data_dir, tmp_path, *more, "training.accept_changes=[data,heads]", "seed=7"))
    with pytest.raises(ConfigError, match="another config .*model.heads.msm_coref"):
        train.run(settings(data_dir, tmp_path, *more, "training.accept_changes=[data]"))
    (tmp_path / "run.json").unlink()
    (tmp_path / "checkpoints" / "run.json").unlink()
    with pytest.raises(ConfigError, match="heads.msm_coref: nothing in the checkpoint, MLP SpanAverage"):
        train.run(settings(data_dir, tmp_path, *more, "training.accept_changes=[data]"))
    capsys.readouterr()
    metrics = train.run(settings(data_dir, tmp_path, *more, "training.accept_changes=[data,heads]"))
    assert "val/msm_coref/Accuracy" in metrics
    assert "loaded, data, heads changed" in capsys.readouterr().err


def test_layers_that_are_adapted_now_begin_with_the_checkpoints_weights(data_dir, tmp_path, monkeypatch):
    class TakenError(Exception):
        pass

    def taken(checkpoint, loop):
        told = take_over(checkpoint, loop)
        weights = {plain_name(name): weight for name, weight in loop.state_dict().items() if ".lora_" not in name}
        assert_same(weights, checkpoint["state_dict"])
        assert loop.model.body.lora is not None
        raise TakenError(told)

    run_until(settings(data_dir, tmp_path), 22)
    monkeypatch.setattr("mtlrank.loop.milestones.take_over", taken)
    adapted = ["model.body.lora={rank: 4}", "training.accept_changes=[body]"]
    with pytest.raises(TakenError, match=r"^\d+ of \d+$"):
        train.run(settings(data_dir, tmp_path, *adapted))


@pytest.mark.parametrize("now", [[], ["model.body.lora={rank: 2}"]])
def test_low_rank_updates_of_a_checkpoint_are_not_lost(data_dir, tmp_path, now):
    run_until(settings(data_dir, tmp_path, "model.body.lora={rank: 4}"), 22)
    with pytest.raises(ConfigError, match="has low-rank updates that this run has no place for, such as model.body"):
        train.run(settings(data_dir, tmp_path, *now, "training.accept_changes=[body]"))
