"""Cross-validation: the queries of a collection in folds."""

import json
from collections import Counter

import pytest

from mtlrank.datamodule.dataset import Shard
from mtlrank.datamodule.dataset.folds import read_folds
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Regression
from tests.datamodule.dataset.rankings import distilled, ranking, rows
from tests.tiny_collection import write

SPLITS = ("train", "val", "test")


def parts(source, fold, **options):
    dataset = ranking(source, fold=fold, **options)
    return {split: dataset.query_ids(split) for split in SPLITS}


@pytest.mark.parametrize("folds", [3, 4, 5, 10])
def test_folds_part_the_queries_and_each_is_tested_and_validates_once(fresh_source, folds):
    source = fresh_source("x", 43)
    everything = [f"x{i}" for i in range(43)]
    times = {split: Counter() for split in SPLITS}
    divided = [parts(source, fold, folds=folds) for fold in range(folds)]
    for each in divided:
        assert sorted(query_id for ids in each.values() for query_id in ids) == sorted(everything)
        assert len(each["test"]) in (43 // folds, 43 // folds + 1)
        for split, ids in each.items():
            times[split].update(ids)
    assert times["test"] == times["val"] == dict.fromkeys(everything, 1)
    assert times["train"] == dict.fromkeys(everything, folds - 2)
    assert [each["val"] for each in divided] == [divided[fold - 1]["test"] for fold in range(folds)]


def test_the_same_folds_on_every_machine_and_others_with_another_seed(fresh_source):
    source, known = fresh_source("x", 6), [["x2", "x4"], ["x1", "x3"], ["x0", "x5"]]
    assert [parts(source, fold, folds=3)["test"] for fold in range(3)] == known
    assert [parts(source, fold, folds=3, seed=1)["test"] for fold in range(3)] != known


@pytest.mark.parametrize("total", [2, 3])
def test_folds_do_not_depend_on_shards(fresh_source, total):
    source = fresh_source("x", 20)

    def records(shard):
        dataset = ranking(source, folds=4, fold=1)
        dataset.shard, dataset.reading = shard, Reading()
        return [(split, *record) for split in SPLITS for record in rows(dataset, split)]

    found = [record for number in range(1, total + 1) for record in records(Shard(number, total))]
    assert sorted(found) == sorted(records(Shard()))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("folds.tsv", ["x0\t1", "x1\t2", "x2\t3", "x3\t1", "x4\t2", "x5\t3", "gone\t3"]),
        ("folds.tsv", ["x0\t0", "x1\t1", "x2\t2", "x3\t0", "x4\t1", "x5\t2"]),
        ("folds.json", [json.dumps([["x0", "x3"], ["x1", "x4"], ["x2", "x5", "gone"]])]),
    ],
)
def test_published_folds_are_read_from_a_file(fresh_source, tmp_path, name, lines):
    source, file = fresh_source("x", 6), write(tmp_path / name, lines)
    assert parts(source, 0, folds=file) == {"train": ["x1", "x4"], "val": ["x2", "x5"], "test": ["x0", "x3"]}
    assert parts(source, 2, folds=file) == {"train": ["x0", "x3"], "val": ["x1", "x4"], "test": ["x2", "x5"]}


def test_numbers_as_ids_in_json(tmp_path):
    assert read_folds(write(tmp_path / "folds.json", ["[[301], [302], [303]]"])) == {"301": 0, "302": 1, "303": 2}


def test_queries_without_judgements_are_only_learnt_from(fresh_source):
    source = fresh_source("x", 12)
    write(source["qrels"], [f"x{i} 0 d1 2" for i in range(9)])
    for fold in range(3):
        dataset = distilled(source, learn_from="run", folds=3, fold=fold)
        found = {split: set(dataset.query_ids(split)) for split in SPLITS}
        assert {"x9", "x10", "x11"} < found["train"]
        assert [len(found[split]) for split in SPLITS] == [6, 3, 3]


def test_a_training_query_that_another_fold_asks_too_is_a_leak(fresh_source, tmp_path):
    source = fresh_source("x", 6)
    write(source["queries"], [f"x{i}\tgarden {i // 2}" for i in range(6)])
    file = write(tmp_path / "folds.tsv", [f"x{i}\t{fold}" for i, fold in enumerate((0, 1, 1, 2, 2, 2))])
    with pytest.raises(DataError, match="training queries are also asked in another split, the first is 'x1'"):
        list(ranking(source, folds=file, fold=0).records("train"))


def test_the_manifest_says_which_fold_it_is(fresh_source, tmp_path):
    source = fresh_source("x", 6)
    assert ranking(source, folds=3, fold=2).describe()["folds"] == {"fold": 2, "of": 3}
    file = write(tmp_path / "folds.tsv", [f"x{i}\t{i % 3}" for i in range(6)])
    told = ranking(source, folds=file, fold=2).describe()["folds"]
    assert (told["fold"], told["of"], told["file"], len(told["sha256"])) == (2, 3, "folds.tsv", 64)
    assert "folds" not in ranking(source, val=0.2).describe()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"folds": 2, "fold": 0}, "folds is 2, expected a file, or at least 3: one to test, one to validate"),
        ({"folds": True, "fold": 0}, "folds is True, expected a file"),
        ({"folds": 2.5, "fold": 0}, "folds is 2.5, expected a file"),
        ({"folds": 5}, "fold is None, expected 0 to 4: the fold that is the test. `mtlrank study` trains one model"),
        ({"folds": 5}, r"For this one alone, `mtlrank train -m ... \+\+datamodule.dataset.fold=0,1,2` does"),
        ({"folds": 5, "fold": 5}, "fold is 5, expected 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold is -1, expected 0 to 4"),
        ({"folds": "x.tsv", "fold": None}, "fold is None, expected a number from 0"),
        ({"fold": 1}, "fold is 1, but folds is null"),
        (
            {"folds": 3, "fold": 0, "train_relevance_level": 1},
            "train_relevance_level is 1, .* but folds are judged on train's own. Set train_relevance_level=null",
        ),
        ({"folds": 5, "fold": 0, "val": 0.1}, "folds divide the queries of train, found val=0.1 too. Set val=null"),
        ({"folds": 5, "fold": 0, "val": 0.1, "test": "x"}, "val=0.1 and test='x' too. Set val=null and test=null"),
    ],
)
def test_impossible_folds_are_refused(source, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ranking(source, **options)


def test_folds_are_of_rankings_with_a_source(source):
    with pytest.raises(ConfigError, match="folds divide the queries of train, expected a ranking"):
        ranking(source, Regression(["MSE"]), learn_from="run", folds=3, fold=0)
    with pytest.raises(ConfigError, match="folds divide the queries of train, expected a source for train"):
        ranking(None, more_tests={"x": source}, folds=3, fold=0)


@pytest.mark.parametrize(
    ("lines", "fold", "complaint"),
    [
        (["x0\t0", "x1\t1", "x2\t2"], 0, "1 judged queries are in no fold of .*, such as 'x3'"),
        (["x0\t0", "x1\t1", "x2\t2", "x3\t0", "x3\t1"], 0, r"folds.tsv:5: query 'x3' is in two folds"),
        (["x0\t0", "x1\t1", "x2\t0", "x3\t1"], 0, "the file .*folds.tsv has 2 folds, expected at least 3"),
        (["x0\t0", "x1\t1", "x2\t3", "x3\t3"], 0, "has the folds 0, 1, 3: expected all numbers from 0 or 1 on"),
        (["x0\t2", "x1\t3", "x2\t4", "x3\t4"], 0, "has the folds 2, 3, 4: expected all numbers from 0 or 1 on"),
        (["x0\t0", "x1\t1", "x2\t1", "x3\t1", "y\t2"], 0, "fold 2 of .* has no judged query of the collection"),
        (["x0\t0", "x1\t1", "x2\t2", "x3\t2"], 3, "fold is 3, but the last one of .* is 2"),
        (["x0 0"], 0, r"folds.tsv:1: expected query_id<TAB>number of its fold, found 'x0 0'"),
        (["x0\t" + "1" * 5000], 0, r"folds.tsv:1: expected query_id<TAB>number"),
        (["x0\tf1"], 0, r"folds.tsv:1: expected query_id<TAB>number"),
        ([], 0, "has 0 folds, expected at least 3"),
    ],
)
def test_files_that_do_not_divide_the_collection_are_refused(fresh_source, tmp_path, lines, fold, complaint):
    source, file = fresh_source("x", 4), write(tmp_path / "folds.tsv", lines)
    with pytest.raises((ConfigError, DataError), match=complaint):
        parts(source, fold, folds=file)


@pytest.mark.parametrize("text", ["{}", "[1, 2]", "[[], [1], [2]]", "[[", "[" * 100_000])
def test_json_that_is_no_list_of_folds_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="JSON"):
        read_folds(write(tmp_path / "folds.json", [text]))


def test_more_folds_than_queries_are_refused(fresh_source):
    with pytest.raises(DataError, match="folds is 5, but only 4 queries are judged"):
        parts(fresh_source("x", 4), 0, folds=5)


def test_a_file_that_is_not_there_is_told_before_anything_is_read(source):
    with pytest.raises(DataError, match="The folds 'gone.tsv' does not exist"):
        ranking(source, folds="gone.tsv", fold=0).check_sources()
