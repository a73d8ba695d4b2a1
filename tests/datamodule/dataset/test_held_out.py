"""Splits that are shares of the training data."""

from pathlib import Path

import pytest

from mtlrank.datamodule.dataset import IRDataset, Shard
from mtlrank.datamodule.dataset.held_out import HeldOut, hashed_fraction
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError
from mtlrank.task import Relevance
from tests.datamodule.dataset.rankings import TINY, distilled, ranking, rows
from tests.tiny_collection import write


def test_few_judged_queries_can_be_learnt_from_and_the_others_stay(fresh_source):
    source = fresh_source("x", 60)
    few, everything = (ranking(source, val=0.3, max_queries=most) for most in (10, None))
    assert set(few.query_ids("train")) < set(everything.query_ids("train"))
    assert len(few.query_ids("train")) == 10
    assert few.query_ids("val") == everything.query_ids("val")
    shards = []
    for number in (1, 2, 3):
        dataset = ranking(source, val=0.3, max_queries=10)
        dataset.shard = Shard(number, 3)
        shards += dataset.query_ids("train")
    assert sorted(shards) == sorted(few.query_ids("train"))


@pytest.mark.parametrize("total", [1, 3])
def test_few_queries_are_drawn_from_those_that_no_other_split_asks(fresh_source, tmp_path, total):
    source = fresh_source("x", 60)
    write(tmp_path / "asked", Path(source["queries"]).read_text().replace("garden", "Garden ").splitlines()[:50])
    learnt, left_out = [], 0
    for number in range(1, total + 1):
        test = {**source, "queries": str(tmp_path / "asked")}
        dataset = ranking(source, test=test, max_queries=9, leaked_queries="drop")
        dataset.shard = Shard(number, total)
        dataset.reading.start("train")
        learnt += {record.query_id for record in dataset.records("train")}
        left_out += dataset.reading.counts["train"]["queries of another split"]
    assert len(learnt) == 9
    assert set(learnt) < {f"x{i}" for i in range(50, 60)}
    assert left_out == 50


def test_a_split_can_be_a_share_of_the_training_queries(source):
    many = [f"q{i}\tgarden" for i in range(200)]
    with open(source["queries"], "w") as file:
        file.write("\n".join(many) + "\n")
    with open(source["qrels"], "w") as file:
        file.write("".join(f"q{i} 0 d3 2\n" for i in range(200)))
    dataset = ranking(source, val=0.2, test=0.3)
    splits = {split: dataset.query_ids(split) for split in ("train", "val", "test")}
    assert sorted(query_id for ids in splits.values() for query_id in ids) == sorted(f"q{i}" for i in range(200))
    assert 25 < len(splits["val"]) < 55
    assert 40 < len(splits["test"]) < 80


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"val": 1.5}, "Expected shares of the training data between 0 and 1"),
        ({"val": 0.6, "test": 0.6}, "Expected shares of the training data"),
        ({"val": 1}, "val is 1: expected a source, or a share of the training data between 0 and 1"),
        ({"train": 0.5}, "train is 0.5, expected the source of the training data"),
        ({"train": None, "test": "x", "more_tests": {"y": "y"}}, "train is None, expected the source"),
        ({"train": None}, "train is None, expected the source"),
    ],
)
def test_impossible_shares_are_refused(source, change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        IRDataset("x", Relevance(["AP"]), TINY, **{"train": source, **change})


def test_as_many_queries_are_learnt_from_as_asked_also_beside_shares(fresh_source):
    source = fresh_source("x", 60)
    dataset = distilled(source, learn_from="run", val=0.5, max_queries=10)
    assert len({record.query_id for record in dataset.records("train")}) == 10


@pytest.mark.parametrize("total", [2, 5])
def test_shares_part_the_records_of_all_splits(source, tmp_path, total):
    names = [f"q{i}" for i in range(30)]
    write(source["queries"], [f"{name}\tgarden {name}" for name in names])
    write(source["qrels"], [f"{name} 0 d3 2" for name in names])
    write(source["run"], [f"{name} Q0 {doc} 1 {score} x" for name in names for doc, score in (("d3", 2), ("d4", 1))])

    def records(shard):
        dataset = ranking(source, val=0.4)
        dataset.shard, dataset.reading = shard, Reading()
        return [(split, *record) for split in ("train", "val") for record in rows(dataset, split)]

    parts = [records(Shard(number, total)) for number in range(1, total + 1)]
    assert sum(bool(part) for part in parts) > 1
    assert sorted(record for part in parts for record in part) == sorted(records(Shard()))


def test_another_seed_holds_out_other_queries():
    held = [HeldOut({"train": "x", "val": 0.5}, seed) for seed in (0, 0, 1)]
    first, again, other = ([each.split_of(f"q{i}") for i in range(50)] for each in held)
    assert first == again != other


def test_a_split_that_is_a_share_is_drawn_by_its_own_hash():
    """Queries that are held out are no more likely to be drawn for anything else that hashes them."""
    held = HeldOut({"train": "x", "val": 0.1}, seed=0)
    names = [f"q{i}" for i in range(2000)]
    held_out = {name for name in names if held.split_of(name) == "val"}
    drawn = sorted(names, key=lambda name: hashed_fraction(f"draw 0 {name}"))[:200]
    assert 150 < len(held_out) < 250
    assert len(held_out & set(drawn)) < 50


def test_a_run_is_read_once_for_all_shares_and_holds_no_other_queries(fresh_source, monkeypatch):
    dataset = distilled(
        fresh_source("x", 60), learn_from="run", val=0.2, max_queries=5, num_candidates=1, negative_ranks=(1, 2)
    )
    collection = dataset.collection("train")
    pair_values, times = collection.source.pair_values, []
    monkeypatch.setattr(
        collection.source, "pair_values", lambda part, to: (times.append(part), pair_values(part, to))[1]
    )
    collection.require_order("x")
    times.clear()
    ranked = {split: dataset.candidates(split) for split in ("train", "val")}
    assert times.count("run") == 1
    assert {split: {len(docs) for docs in found.values()} for split, found in ranked.items()} == {
        "train": {2},
        "val": {1},
    }
    assert set(collection._ranked) == {*dataset.query_ids("train"), *dataset.query_ids("val")}
    assert len(ranked["train"]) == 5
