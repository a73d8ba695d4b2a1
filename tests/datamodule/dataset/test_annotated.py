"""Auxiliary datasets that annotators make of a collection."""

import re

import pytest

from mtlrank.annotate.annotator import Annotator
from mtlrank.annotate.lexical import BM25, TermImportance
from mtlrank.batch import Record
from mtlrank.datamodule.dataset import AnnotatedPairs, IRDataset, Shard
from mtlrank.datamodule.dataset.balance import balanced
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.progress import Progress
from mtlrank.task import Regression, Relevance, SpanClassification, SpanRegression, Tagging
from tests.tiny_collection import write

TINY = Preprocessor("mtlrank-embedded/tiny-bert")


class FirstWords(Annotator):
    """Labels the first word of each passage with its number of letters."""

    reads_query = False

    def records(self, pairs, documents):
        for number, pair in enumerate(pairs):
            word = pair.text.split()[0]
            yield Record("-", pair.doc_id, None, pair.text, str(len(word)), ((0, len(word)),), number)

    def describe(self):
        return {"model": "first words"}


class TaggedWords(Annotator):
    """Long words are entities."""

    reads_query = False
    tags = True

    def records(self, pairs, documents):
        for number, pair in enumerate(pairs):
            for word in re.finditer(r"\S+", pair.text):
                label = "B-LONG" if len(word[0]) > 6 else "O"
                yield Record("-", pair.doc_id, None, pair.text, label, (word.span(),), number)

    def describe(self):
        return {"model": "long words"}


def annotated(source, annotator=None, task=None, **kwargs):
    settings = {"per_query": 4, "depth": 3, **kwargs}
    return AnnotatedPairs("x", task or Regression(["MSE"]), TINY, annotator or BM25(), source, **settings)


def test_half_of_a_querys_passages_are_of_its_best_and_half_of_the_whole_collection(source):
    write(source["docs"], [f"d{i}\tgarden {i}" for i in range(60)])
    write(source["queries"], [f"q{i}\tgarden {i}" for i in range(10)])
    ranked = {f"q{i}": [f"d{6 * i + rank}" for rank in range(5)] for i in range(10)}
    write(source["run"], [f"{q} Q0 {d} 1 {-rank} x" for q, docs in ranked.items() for rank, d in enumerate(docs)])
    found = {}
    for record in annotated(source, per_query=4, depth=3).records("train"):
        found.setdefault(record.query_id, []).append(record.doc_id)
    assert found.keys() == ranked.keys()
    for query_id, doc_ids in found.items():
        assert len(doc_ids) == len(set(doc_ids)) == 4
        assert set(doc_ids[:2]) < set(ranked[query_id][:3])
    others = [doc_id for doc_ids in found.values() for doc_id in doc_ids[2:]]
    assert len(set(others)) > 10


def test_queries_are_drawn_by_a_hash(source):
    write(source["queries"], [f"q{i}\tgarden" for i in range(50)])
    write(source["run"], ["q1 Q0 d1 1 1 x"])

    def drawn(**kwargs):
        return list(dict.fromkeys(record.query_id for record in annotated(source, **kwargs).records("train")))

    assert len(drawn(max_queries=7)) == 7
    assert drawn(max_queries=7) != drawn(max_queries=7, seed=1)
    assert set(drawn(max_queries=7)) < set(drawn(max_queries=20))


def test_queries_are_drawn_from_those_that_no_other_split_asks(source, tmp_path):
    write(source["queries"], [f"q{i}\tgarden {i}" for i in range(50)])
    write(source["run"], ["q1 Q0 d1 1 1 x"])
    write(tmp_path / "asked", [f"t{i}\tGarden {i}" for i in range(41)])
    test = {**source, "queries": str(tmp_path / "asked")}
    dataset = annotated(source, test=test, leaked_queries="drop", max_queries=8)
    learnt = {record.query_id for record in dataset.records("train")}
    assert len(learnt) == 8
    assert learnt < {f"q{i}" for i in range(41, 50)}


@pytest.mark.parametrize("shard", [Shard(), Shard(1, 2)])
def test_a_share_holds_out_the_queries_that_a_ranking_holds_out(source, shard):
    write(source["queries"], [f"q{i}\tgarden {i}" for i in range(40)])
    write(source["qrels"], [f"q{i} 0 d1 1" for i in range(40)])
    mine = annotated(source, val=0.2, test=0.3, seed=0)
    ranking = IRDataset("y", Relevance(["AP"]), TINY, source, val=0.2, test=0.3)
    for dataset in (mine, ranking):
        dataset.shard, dataset.reading = shard, Reading()
    split_of = {}
    for split in ("train", "val", "test"):
        found = dict.fromkeys(record.query_id for record in mine.records(split))
        assert list(found) == ranking.query_ids(split)
        split_of |= dict.fromkeys(found, split)
    assert set(split_of.values()) == {"train", "val", "test"}
    assert len(split_of) == sum(shard.holds(f"q{i}") for i in range(40))
    assert (mine.describe()["val"], mine.describe()["test"]) == (0.2, 0.3)


def test_passages_without_queries_are_in_one_split_also_if_splits_are_shares(source):
    write(source["docs"], [f"d{i}\tgarden{i} gate" for i in range(60)])
    write(source["queries"], [f"q{i}\tgarden{i}" for i in range(40)])
    dataset = annotated(source, FirstWords(), val=0.2, test=0.3)
    dataset.reading = Reading()
    found = [{record.text for record in dataset.records(split)} for split in ("train", "val", "test")]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))


def test_queries_that_are_asked_twice_are_told_also_if_splits_are_shares(source):
    write(source["queries"], [f"q{i}\tgarden" for i in range(40)])
    with pytest.raises(DataError, match="asked in"):
        list(annotated(source, val=0.5).records("train"))


@pytest.mark.parametrize("annotator", [BM25(), FirstWords()])
def test_shares_part_the_records(source, annotator):
    write(source["queries"], [f"q{i}\tgarden" for i in range(20)])

    def records(shard):
        dataset = annotated(source, annotator)
        dataset.shard, dataset.reading = shard, Reading()
        return [record[:3] + record[4:6] for sample in dataset._samples("train") for record in sample]

    parts = [records(Shard(number, 3)) for number in (1, 2, 3)]
    assert sum(bool(part) for part in parts) > 1
    assert sorted(map(str, (record for part in parts for record in part))) == sorted(map(str, records(Shard())))


def test_a_passage_is_labelled_once_by_what_does_not_read_queries(source):
    dataset = annotated(source, FirstWords(), SpanClassification(["Accuracy"]))
    doc_ids = [record.doc_id for record in dataset.records("train")]
    assert len(doc_ids) == len(set(doc_ids)) > 3


@pytest.mark.parametrize("total", [1, 3])
def test_a_passage_that_is_labelled_by_itself_is_in_one_split(source, tmp_path, total):
    write(source["docs"], [f"d{i}\t{'a' * (i % 7 + 1)} garden {i}" for i in range(60)])
    write(tmp_path / "docs2", [f"e{i}\t{'A' * (i % 7 + 1)}  garden {i}" for i in range(60)])
    write(source["run"], [f"{q} Q0 d{d} 1 {d} x" for q in ("q1", "q2") for d in range(9)])
    others = {}
    for split, docs in (("val", source["docs"]), ("test", str(tmp_path / "docs2"))):
        write(tmp_path / split, [f"{split}{i}\tgarden {split} {i}" for i in range(4)])
        others[split] = {"docs": docs, "queries": str(tmp_path / split)}
    texts, left_out = {"train": [], "val": [], "test": []}, 0
    for number in range(1, total + 1):
        dataset = annotated(source, FirstWords(), SpanClassification(["Accuracy"]), per_query=8, **others)
        dataset.shard, dataset.reading = Shard(number, total), Reading()
        for split, found in texts.items():
            dataset.reading.split = split
            found += [" ".join(record.text.lower().split()) for record in dataset.records(split)]
        left_out += dataset.reading.counts["train"]["passages of another split left out"]
    alone = annotated(source, FirstWords(), SpanClassification(["Accuracy"]), per_query=8)
    assert len(texts["train"]) + left_out == len(list(alone.records("train")))
    assert not set(texts["train"]) & {*texts["val"], *texts["test"]}
    assert not set(texts["val"]) & set(texts["test"])
    assert all(texts.values())


def test_progress_is_told_while_an_annotator_is_at_work(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS", 0.0)
    dataset = annotated(source, BM25())
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading(what="x"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prepare x/train: ")]
    assert len(lines) == len(list(dataset.records("train"))) > 1  # though all are written at once
    assert lines[0].startswith("prepare x/train: 1 rows, ")


def test_terms_of_queries_can_be_prepared(source, tmp_path):
    dataset = annotated(source, TermImportance(), SpanRegression(["MSE"], 0, 1))
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    dataset.merge(tmp_path / "x", [tmp_path / "shard"])
    dataset.open(tmp_path / "x")
    tokenizer = dataset.preprocessor.load().tokenizer
    split, records = dataset.split("train"), list(dataset.records("train"))
    batch = split.collate(range(len(split)))
    assert len(batch.spans) == len(records)
    for record, [[first, last]] in zip(records, batch.spans.tolist(), strict=True):
        assert tokenizer.decode(batch.input_ids[first:last]) == record.query[slice(*record.spans[0])]
    assert dataset.manifest["source"]["annotator"]["model"].startswith("BM25")


def test_the_manifest_tells_how_bm25_scored_each_split(source):
    dataset = annotated({**source, "bm25": {"k1": 1.2, "b": 0.75, "stopwords": None}}, val=source)
    told = dataset.describe()
    assert told["train"]["bm25"] == "k1=1.2, b=0.75, stopwords=none, stemmer=none"
    assert told["val"]["bm25"] == "k1=0.9, b=0.4, stopwords=english, stemmer=none"
    assert told["annotator"]["model"] == "BM25, lucene"


def test_balanced_records_have_as_many_of_each_class_as_the_rarest_has(tmp_path):
    records = [Record("-", f"d{i}", None, "text", "AAAB"[i % 4], ((0, 4),), i) for i in range(40)]
    kept = list(balanced(records, seed=0))
    assert sorted(record.label for record in kept) == ["A"] * 10 + ["B"] * 10
    assert [record for record in records if record in kept] == kept
    assert kept == list(balanced(records, seed=0)) != list(balanced(records, seed=1))
    assert list(balanced([], seed=0)) == []


def test_only_training_is_balanced(source, tmp_path):
    val = {**source, "queries": str(tmp_path / "others")}
    write(tmp_path / "others", ["v1\tlights", "v2\tnothing"])
    write(source["docs"], [f"d{i}\t{'a' * (i % 3 + 1)} garden {i}" for i in range(40)])
    write(source["queries"], [f"q{i}\tgarden {i}" for i in range(2)])
    write(source["run"], [f"{q} Q0 d{d} 1 {d} x" for q in ("q0", "q1", "v1", "v2") for d in range(4)])
    dataset = annotated(source, FirstWords(), SpanClassification(["Accuracy"]), val=val, balance=True, per_query=12)
    labels = {split: [record.label for record in dataset.records(split)] for split in ("train", "val")}
    assert len(set(map(labels["train"].count, labels["train"]))) == 1
    assert len(labels["train"]) < len(labels["val"])


def test_tags_of_an_annotator_are_learnt_to_find_entities(source, tmp_path):
    dataset = annotated(source, TaggedWords(), Tagging(["EntityF1"]))
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    dataset.merge(tmp_path / "whole", [tmp_path / "shard"])
    dataset.open(tmp_path / "whole")
    split, records = dataset.split("train"), list(dataset.records("train"))
    batch = split.collate(range(len(split)))
    assert dataset.task.classes == ["O", "B-LONG", "I-LONG"]
    assert [dataset.task.classes[int(label)] for label in batch.labels] == [record.label for record in records]
    assert len(split) == len({record.doc_id for record in records})


@pytest.mark.parametrize(
    ("annotator", "task", "fix"), [(FirstWords, Tagging, "true"), (TaggedWords, SpanClassification, "false")]
)
def test_an_annotator_tags_words_if_the_task_finds_entities(source, annotator, task, fix):
    with pytest.raises(
        ConfigError, match=rf"'x': the task {task.__name__} labels .*\. Set datamodule.dataset.annotator.tags={fix}"
    ):
        annotated(source, annotator(), task(["Accuracy"]))


@pytest.mark.parametrize("setting", ["per_query", "depth", "max_queries"])
def test_settings_of_the_wrong_kind_are_named(source, setting):
    with pytest.raises(ConfigError, match=f"{setting} is 0, expected (null or )?a whole number, at least 1"):
        annotated(source, **{setting: 0})


def test_a_query_in_two_splits_is_an_error_or_is_dropped(source):
    with pytest.raises(DataError, match="2 training queries are also asked in another split"):
        list(annotated(source, val=source).records("train"))
    assert list(annotated(source, val=source, leaked_queries="drop").records("train")) == []


def test_balance_counts_all_records_and_needs_classes(source):
    with pytest.raises(ConfigError, match="balance=true needs classes"):
        annotated(source, balance=True)
    with pytest.raises(ConfigError, match="balance=true would leave words out"):
        annotated(source, TaggedWords(), Tagging(["EntityF1"]), balance=True)
    dataset = annotated(source, FirstWords(), SpanClassification(["Accuracy"]), balance=True)
    dataset.shard = Shard(1, 2)
    with pytest.raises(ConfigError, match="balance=true needs all records in one shard. Set prepare.num_shards=1"):
        list(dataset.records("train"))
