"""Rankings: what is learnt from, what is re-ranked, and what may not be."""

import re
from functools import partial
from pathlib import Path

import pytest

from mtlrank.datamodule.dataset import Shard
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import read_manifest
from mtlrank.task import PairwiseRelevance, Relevance
from mtlrank.trec import read_qrels, read_run
from tests.datamodule.dataset.rankings import distilled, groups, ranking, rows
from tests.tiny_collection import write


def test_other_splits_hold_candidates_in_first_stage_order(source):
    assert rows(ranking(source, test=source, num_candidates=2), "test") == [
        ("q1", "d2", 1),
        ("q1", "d1", 2),
        ("q2", "d4", 0),
        ("q2", "d3", 3),
    ]


def test_the_first_stage_is_by_the_settings_of_each_splits_bm25(source):
    files = {part: source[part] for part in ("docs", "queries", "qrels")}
    write(source["queries"], ["q1\tgardens", "q2\tgarden"])
    dataset = ranking(files, test={**files, "bm25": {"stemmer": "porter"}})
    assert {q: len(docs) for q, docs in dataset.candidates("train").items()} == {"q1": 0, "q2": 2}
    assert {q: len(docs) for q, docs in dataset.candidates("test").items()} == {"q1": 2, "q2": 2}
    told = {split: found["first_stage"] for split, found in dataset.describe().items()}
    assert told["train"].startswith("BM25, k1=0.9, b=0.4, stopwords=english, stemmer=none, bm25s index ")
    assert told["test"].startswith("BM25, k1=0.9, b=0.4, stopwords=english, stemmer=porter of PyStemmer ")
    with pytest.raises(ConfigError, match="bm25.b is 2, expected a number from 0 to 1"):
        ranking(files, test={**files, "bm25": {"b": 2}}).check_sources()


def test_negatives_may_come_from_another_run_than_the_first_stage(source, tmp_path):
    mined = write(tmp_path / "mined", ["q1 Q0 d4 1 9 m", "q1 Q0 d1 2 8 m", "q2 Q0 d5 1 9 m"])
    kept = {"judged_negatives": False, "num_negatives": 1, "num_candidates": 2}
    for share in (None, 0.3):
        dataset = ranking(source, PairwiseRelevance(["AP"], 2), val=share, negatives_run=mined, **kept)
        learnt = {"q1": [("d1", 2.0), ("d4", 0.0)], "q2": [("d3", 3.0), ("d5", 0.0)]}
        assert groups(dataset) == [learnt[query_id] for query_id in dataset.query_ids("train")]
        first_stage = {"q1": ["d2", "d1"], "q2": ["d4", "d3"]}
        expected = [(q, d) for q in (dataset.query_ids("val") if share else []) for d in first_stage[q]]
        assert [row[:2] for row in rows(dataset, "val")] == expected
    told = dataset.describe()["train"]
    assert told["negatives_run"]["sha256"] != told["run"]["sha256"]
    other = write(tmp_path / "other", ["q9 Q0 d4 1 9 m"])
    with pytest.raises(DataError, match="ranks none of the training queries"):
        groups(ranking(source, PairwiseRelevance(["AP"], 2), negatives_run=other, **kept))
    with pytest.raises(
        ConfigError, match="negatives_run is for learn_from=judged or annotator, but learn_from is docp"
    ):
        ranking(source, PairwiseRelevance(["AP"], 2), learn_from="docpairs", negatives_run=mined)
    with pytest.raises(ConfigError, match="negatives_run is for training, and train is null"):
        ranking(None, PairwiseRelevance(["AP"], 2), more_tests={"other": source}, negatives_run=mined)


def test_docpairs_are_groups_of_a_better_and_a_worse_document(source, tmp_path):
    write(tmp_path / "pairs", ["q2\td3\td5", "q1\td2\td3", "q9\td1\td2"])
    dataset = ranking(
        {**source, "docpairs": str(tmp_path / "pairs")}, PairwiseRelevance(["AP"], 2), learn_from="docpairs"
    )
    assert groups(dataset) == [[("d3", 2.0), ("d5", 0.0)], [("d2", 2.0), ("d3", 0.0)]]
    assert dataset.reading.counts["train"] == {"triples of queries without a text": 1}


def test_a_head_can_have_more_test_sets_of_any_size(source, tmp_path, fresh_source):
    dataset = ranking(source, test=fresh_source("a", 1), more_tests={"b": fresh_source("b", 3)})
    assert dataset.splits == ("train", "val", "test", "test@b")
    shard, whole = tmp_path / "shard", tmp_path / "whole"
    dataset.prepare_shard(shard, Shard(), Reading())
    dataset.merge(whole, [shard])
    dataset.open(whole)
    assert dataset.sets("test") == ["test", "test@b"]
    assert dataset.sets("test@b") == ["test@b"]
    queries = [{q for q, _ in dataset.split(split).ids} for split in ("test", "test@b")]
    assert queries == [{"a0"}, {"b0", "b1", "b2"}]
    assert len(read_qrels(*dataset.split("test@b").files("qrels.txt"))) == 3
    with pytest.raises(DataError, match="has no split 'test@c'. It has: .*test@b"):
        dataset.split("test@c")


@pytest.mark.parametrize("make", [ranking, partial(distilled, learn_from="run")])
def test_a_ranking_that_is_only_judged_needs_nothing_to_learn_from(make, tmp_path, fresh_source):
    dataset = make(None, more_tests={"b": fresh_source("b", 3)})
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    dataset.merge(tmp_path / "whole", [tmp_path / "shard"])
    dataset.open(tmp_path / "whole")
    assert dataset.sets("test") == ["test@b"]
    assert {q for q, _ in dataset.split("test@b").ids} == {"b0", "b1", "b2"}
    with pytest.raises(DataError, match="has no split 'train'. It has: test@b"):
        dataset.split("train")


@pytest.mark.parametrize(
    ("part", "line", "complaint"),
    [
        ("qrels", "a0 0 d1 1", "x/test has no document of grade 2 or more: nothing can be measured"),
        ("run", "b0 Q0 d1 1 1 x", "No query of the split 'test' of x has candidates: the run has none of these"),
    ],
)
def test_a_test_set_that_measures_nothing_is_refused(source, tmp_path, fresh_source, part, line, complaint):
    test = fresh_source("a", 1)
    write(test[part], [line])
    dataset = ranking(source, test=test)
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    with pytest.raises(DataError, match=complaint):
        dataset.merge(tmp_path / "whole", [tmp_path / "shard"])


@pytest.mark.parametrize("total", [1, 2])
def test_judgements_of_other_documents_are_told_as_such(source, tmp_path, fresh_source, total):
    """Else all measures would be 0. Where some lack a text, the measures are as they should be."""
    test = fresh_source("a", 2)
    graded = [f"a{query} 0 {doc} 2" for query in range(2) for doc in ("gone", "lost")]
    write(test["qrels"], graded)
    shards = [tmp_path / f"shard-{number}" for number in range(total)]
    for number, shard in enumerate(shards, 1):
        ranking(source, test=test).prepare_shard(shard, Shard(number, total), Reading())
    with pytest.raises(DataError, match=r"x/test: none of 4 relevant documents, such as 'gone', has a text in "):
        ranking(source, test=test).merge(tmp_path / "whole", shards)
    write(test["qrels"], [*graded, "a0 0 d1 2", "a1 0 worse 1"])
    for number, shard in enumerate(shards, 1):
        ranking(source, test=test).prepare_shard(shard, Shard(number, total), Reading())
    ranking(source, test=test).merge(tmp_path / "whole", shards)
    assert read_manifest(tmp_path / "whole")["counts"]["test"] == {"relevant documents without a text": 4}


@pytest.mark.parametrize("total", [1, 2])
@pytest.mark.parametrize(
    ("part", "lines", "files", "left_out"),
    [
        ("docs", [], "docs (empty), qrels, queries, run", "documents without a text: 5"),
        ("qrels", [], "docs, qrels (empty), queries, run", ""),
        ("qrels", ["x1 0 d1 2"], "docs, qrels, queries, run", "judgements of queries without a text: 1"),
        ("queries", [], "docs, qrels, queries (empty), run", "judgements of queries without a text: 3"),
        ("queries", ["q1", "q2"], "docs, qrels, queries, run", "bad rows of all splits: 2"),
    ],
)
def test_training_data_without_a_record_are_told_with_their_files(
    source, tmp_path, part, lines, files, left_out, total
):
    write(source[part], lines)
    dataset, shards = ranking(source, missing_texts="skip"), [tmp_path / f"{i}" for i in range(1, total + 1)]
    for number, shard in enumerate(shards, 1):
        dataset.prepare_shard(shard, Shard(number, total), Reading("quarantine"))
    with pytest.raises(DataError, match="'x' has no training records. Check its source") as error:
        dataset.merge(tmp_path / "whole", shards)
    (told,) = re.findall(r"source \((.*)\)\.$", str(error.value))
    assert sorted(told.split("; ")[0].split(", ")) == files.split(", ")
    assert left_out in told


def test_a_level_that_no_grade_reaches_is_told_as_the_reason_for_no_records(source, tmp_path):
    write(source["qrels"], ["q1 0 d1 1", "q2 0 d3 0"])
    dataset = ranking(source, PairwiseRelevance(["AP"], 2))
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    why = r"no training records\. Check its source .*judged queries without a document of grade 2 or more .*: 2\)"
    with pytest.raises(DataError, match=why):
        dataset.merge(tmp_path / "whole", [tmp_path / "shard"])


def test_what_all_shards_read_is_counted_once(source, tmp_path):
    names = [f"q{i}" for i in range(8)]  # some in each shard
    write(source["docs"], ["d3\ta garden", "d4\tgarden and harbour", "d3\ta garden", "broken"])
    write(source["queries"], [*(f"{name}\tgarden {name}" for name in names), "q1\tgarden q1"])
    write(source["qrels"], [f"{name} 0 d3 2" for name in names])
    write(source["run"], [f"{name} Q0 {doc} 1 {score} x" for name in names for doc, score in (("d3", 2), ("d4", 1))])
    dataset, shards = ranking(source, num_negatives=1), [tmp_path / "1", tmp_path / "2"]
    for number, shard in enumerate(shards, 1):
        dataset.prepare_shard(shard, Shard(number, 2), Reading("quarantine"))
    dataset.merge(tmp_path / "whole", shards)
    manifest = read_manifest(tmp_path / "whole")
    assert manifest["bad_rows"] == 1
    assert manifest["counts"]["train"] == {"documents given twice": 1, "queries given twice": 1}


def test_what_is_learnt_as_relevant_and_what_stays_as_it_is_judged(source):
    write(source["qrels"], ["q1 0 d1 1", "q1 0 d2 0", "q2 0 d3 2"])
    assert ranking(source, train_relevance_level=1).qrels("train") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 3}}


def test_groups_of_one_document_are_refused_where_documents_are_compared(source):
    with pytest.raises(ConfigError, match="a PairwiseRelevance task compares the documents of a group"):
        ranking(source, PairwiseRelevance(["AP"], 2), grouping="pointwise")


def test_judgements_keep_every_judged_document(source, tmp_path):
    with open(source["qrels"], "a") as file:
        file.write("q1 0 gone 2\n")
    dataset = ranking(source, test=source)
    dataset.write_judgements("test", tmp_path)
    qrels = {(q.query_id, q.doc_id, q.relevance) for q in read_qrels(tmp_path / "qrels.txt")}
    assert qrels == {("q1", "d1", 2), ("q1", "d2", 1), ("q1", "gone", 2), ("q2", "d3", 3)}
    assert [d.doc_id for d in read_run(tmp_path / "candidates.run")] == ["d2", "d1", "d5", "d4", "d3"]


def test_a_document_without_a_text_is_an_error_or_is_counted(source):
    with open(source["qrels"], "a") as file:
        file.write("q1 0 gone 2\nq2 0 blank 3\n")
    with open(source["docs"], "a") as file:
        file.write("blank\t  \n")
    way = "++datamodule.dataset.missing_texts=skip (in a mixture, ++datamodule.dataset.datasets.x.missing_texts=skip)"
    with pytest.raises(DataError, match=rf"document 'gone' of query 'q1' has no text.*\. {re.escape(way)} leaves such"):
        rows(ranking(source), "train")
    dataset = ranking(source, missing_texts="skip", num_negatives=1)
    assert not {"gone", "blank"} & {doc_id for _, doc_id, _ in rows(dataset, "train")}
    assert dataset.reading.counts["train"] == {"documents without a text": 2}
    with open(source["run"], "a") as file:
        file.write("q1 Q0 gone 9 -9 x\n")
    with pytest.raises(DataError, match=r"'gone'.*\. missing_texts=skip leaves such documents out"):
        rows(ranking(None, more_tests={"new": source}), "test@new")  # as `evaluate` does


@pytest.mark.parametrize(("level", "lost"), [(1, 0), (2, 0), (3, 1), (4, 2)])
def test_judged_queries_that_no_ranking_can_serve_are_counted(source, tmp_path, level, lost):
    dataset = ranking(source, Relevance(["AP"], level), test=source)
    dataset.reading.start("test")
    dataset.write_judgements("test", tmp_path)
    expected = {"judged queries without a relevant document, which count as 0": lost} if lost else {}
    assert dict(dataset.reading.counts.get("test", {})) == expected


def test_documents_of_another_collection_are_told_as_such(source):
    """Leaving them out would leave none."""
    write(source["docs"], ["x1\tanother text", "x2\tand one more"])
    with pytest.raises(
        DataError, match=r"none of \d documents, such as '\w+', has a text in .*Give the documents that the"
    ):
        rows(ranking(source), "train")
    write(source["docs"], ["d1\ta text", "x2\tand one more"])
    with pytest.raises(DataError, match=r"missing_texts=skip .* leaves such documents out"):
        rows(ranking(source), "train")


@pytest.mark.parametrize("lack", ["missing", "rejected"])
def test_a_head_and_the_first_stage_rank_the_same_documents(source, tmp_path, lack):
    with open(source["docs"], "a") as file:
        file.write("gone\t  \n" if lack == "missing" else "gone\tone\ttwo\n")
    write(source["qrels"], ["q1 0 gone 2", "q1 0 d1 2"])
    write(source["run"], ["q1 Q0 gone 1 9 x", "q1 Q0 d1 2 8 x", "q1 Q0 d2 3 7 x"])
    other = write(tmp_path / "asked", ["q2\tgarden"])
    graded = write(tmp_path / "graded", ["q2 0 d3 2"])
    train = {**source, "queries": other, "qrels": graded, "run": write(tmp_path / "run2", ["q2 Q0 d4 1 9 x"])}
    dataset = ranking(train, test=source, missing_texts="skip")
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading("quarantine"))
    dataset.merge(tmp_path / "whole", [tmp_path / "shard"])
    dataset.open(tmp_path / "whole")
    test = dataset.split("test")
    assert [doc.doc_id for doc in test.first_stage()] == ["d1", "d2"] == [doc_id for _, doc_id in test.ids]


@pytest.mark.parametrize("text", ["Silent  Harbour", "silent\x07harbour"])
def test_a_query_in_two_splits_is_an_error_or_is_dropped_from_training(source, tmp_path, text):
    write(tmp_path / "asked", [f"other\t{text}"])
    write(tmp_path / "grades", ["other 0 d1 2"])
    broken = tmp_path / "broken"
    write(broken, [*Path(source["run"]).read_text().splitlines(), "q1 Q0 d4"])
    test = {"docs": source["docs"], "queries": str(tmp_path / "asked"), "qrels": str(tmp_path / "grades")}
    with pytest.raises(DataError, match=r"1 training queries are also asked in another split, the first is 'q1'"):
        rows(ranking(source, test=test), "train")
    with pytest.raises(DataError, match="also asked in another split"):  # before candidates are looked for
        rows(ranking({**source, "run": str(broken)}, test=test), "train")
    dataset = ranking(source, test=test, leaked_queries="drop", num_negatives=1)
    assert {query_id for query_id, _, _ in rows(dataset, "train")} == {"q2"}
    assert dataset.reading.counts["train"] == {"queries of another split": 1}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"num_candidates": -1}, "num_candidates is -1, expected a whole number, at least 1"),
        ({"num_negatives": "many"}, "num_negatives is 'many'"),
        ({"num_negatives": 0, "grouping": "pairwise"}, "num_negatives is 0, expected a whole number, at least 1"),
        ({"negative_ranks": 5}, "negative_ranks is 5, expected the first and the last"),
        ({"negative_ranks": [5, 2]}, r"negative_ranks\[1\] is 2, expected a whole number, at least 5"),
        ({"learn_from": "clicks"}, "learn_from is 'clicks', expected one of judged, docpairs, run"),
        ({"grouping": "tribal"}, "grouping is 'tribal', expected one of pointwise, pairwise, listwise"),
        ({"missing_texts": "cry"}, "missing_texts is 'cry'"),
        ({"leaked_queries": "hide"}, "leaked_queries is 'hide'"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(source, setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ranking(source, **setting)


def test_a_judged_query_without_candidates_is_in_some_shard(source, tmp_path):
    write(source["queries"], [f"q{i}\tgarden {i}" for i in range(8)])
    write(source["qrels"], [f"q{i} 0 d3 2" for i in range(8)])
    write(source["run"], [f"q{i} Q0 {doc} 1 {score} x" for i in range(4) for doc, score in (("d3", 2), ("d4", 1))])
    train = {**source, "queries": str(tmp_path / "train")}
    write(tmp_path / "train", [f"q{i}\tharbour {i}" for i in range(8)])
    judged, without = set(), 0
    for number in range(1, 5):
        dataset = ranking(train, test=source)
        dataset.prepare_shard(tmp_path / f"{number}", Shard(number, 4), Reading())
        without += dataset.reading.counts.get("test", {}).get("judged queries without candidates", 0)
        judged |= {qrel.query_id for qrel in read_qrels(tmp_path / f"{number}" / "test" / "qrels.txt")}
    assert judged == {f"q{i}" for i in range(8)}
    assert without == 4


def test_a_judged_query_without_candidates_is_in_a_part_of_the_queries_as_often_as_others(source, tmp_path):
    """It counts as 0, as in the whole; a part that has no candidate at all is refused."""
    write(tmp_path / "val.queries", [f"r{i}\tgarden {i}" for i in range(8)])
    write(tmp_path / "val.qrels", [f"r{i} 0 d3 2" for i in range(8)])
    write(tmp_path / "val.run", [f"r{i} Q0 d{doc} 1 {doc} x" for i in range(4) for doc in (3, 4)])
    val = {"docs": source["docs"], **{part: str(tmp_path / f"val.{part}") for part in ("queries", "qrels", "run")}}
    ranking(source, val=val).prepare_shard(tmp_path / "shard", Shard(), Reading())
    parts = set()
    for most in range(1, 9):
        dataset = ranking(source, val=val)
        dataset.merge(tmp_path / "whole", [tmp_path / "shard"])
        dataset.open(tmp_path / "whole")
        judged = {qrel.query_id for qrel in dataset.split("val").part(most).qrels}
        assert len(judged) == most
        found = len(judged & {f"r{i}" for i in range(4)})
        parts.add((found > 0, most - found > 0))
        if found:
            dataset.limit("val", most)
            assert len(dataset.split("val")) == 2 * found
        else:
            with pytest.raises(ConfigError, match=f"None of the {most} queries .* split 'val' of x has candidates"):
                dataset.limit("val", most)
    assert (True, True) in parts


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        ({"run": "val.run"}, "No query of the split 'val' of x has candidates: the run has none of these queries."),
        ({}, "No query of the split 'val' of x has candidates: BM25 finds no document with a word of theirs."),
    ],
)
def test_a_split_whose_queries_find_nothing_says_why(source, tmp_path, run, complaint):
    write(tmp_path / "val.queries", ["v1\t港湾"])
    write(tmp_path / "val.qrels", ["v1 0 d3 2"])
    write(tmp_path / "val.run", ["q1 Q0 d3 1 1 x"])
    files = {"docs": source["docs"], "queries": str(tmp_path / "val.queries"), "qrels": str(tmp_path / "val.qrels")}
    dataset = ranking(source, val=files | {part: str(tmp_path / name) for part, name in run.items()})
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    with pytest.raises(DataError, match=complaint):
        dataset.merge(tmp_path / "whole", [tmp_path / "shard"])


def test_a_triple_that_lacks_a_text_is_left_out_whole(source, tmp_path):
    write(tmp_path / "pairs", ["q2\td3\tgone", "q1\td2\td3"])
    task = PairwiseRelevance(["AP"], 2)
    files = {**source, "docpairs": str(tmp_path / "pairs")}
    assert groups(ranking(files, task, learn_from="docpairs", missing_texts="skip")) == [[("d2", 2.0), ("d3", 0.0)]]
    write(tmp_path / "pairs", ["q2\td3\td3"])
    with pytest.raises(DataError, match="pairs:1: expected two documents, found 'd3' twice"):
        groups(ranking(files, task, learn_from="docpairs"))
