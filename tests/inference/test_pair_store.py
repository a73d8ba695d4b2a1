"""Pairs and scores on disk: ordered as trec_eval orders, each pair once."""

import pytest

from mtlrank.errors import DataError
from mtlrank.inference.pair_store import PairStore

PAIRS = [("q2", "d1", 1.0, "a:1"), ("q1", "d1", 1.0, "a:2"), ("q2", "d2", 3.0, "a:3"), ("q2", "d10", 3.0, "a:4")]


@pytest.fixture
def store(tmp_path):
    store = PairStore(tmp_path / "pairs.sqlite")
    yield store
    store.close()


def test_the_first_stage_gives_the_best_of_each_query_equal_scores_by_id(store):
    store.order_queries(["q1", "q2"])
    store.add(PAIRS)
    assert [(a.query_id, a.doc_id) for a in store.best(2)] == [("q1", "d1"), ("q2", "d2"), ("q2", "d10")]
    assert len(list(store.best(None))) == len(store) == 4


def test_a_ranking_is_by_score_and_pairs_without_one_are_left_out(store):
    asked = store.add(PAIRS)
    assert [a.number for a in asked] == [0, 1, 2, 3]
    store.put([0, 1, 3], [0.5, 0.25, 0.5])
    assert [tuple(row) for row in store.ranking()] == [
        ("q2", "d10", 1, 0.5),
        ("q2", "d1", 2, 0.5),
        ("q1", "d1", 1, 0.25),
    ]
    assert [tuple(row) for row in store.ranking(1)] == [("q2", "d10", 1, 0.5), ("q1", "d1", 1, 0.25)]
    assert list(store.in_order()) == [("q2", "d1", 0.5), ("q1", "d1", 0.25), ("q2", "d10", 0.5)]


def test_scores_can_be_put_while_pairs_are_read(store):
    store.add([("q", f"d{i}", float(i), f"a:{i}") for i in range(1000)])
    seen = 0
    for asked in store.best(None):
        store.put([asked.number], [1.0])
        seen += 1
    assert seen == len(list(store.in_order())) == 1000


def test_a_pair_or_a_text_that_comes_twice_is_told_with_both_places(store):
    store.add(PAIRS[:2])
    with pytest.raises(DataError, match=r"^b:7: document 'd1' of query 'q1' is given twice, first at a:2\."):
        store.add([("q3", "d1", 0.0, "b:6"), ("q1", "d1", 0.0, "b:7")])
    store.check_texts([("query 'q1'", "one", "a:1"), ("query 'q1'", "one", "a:2")])
    with pytest.raises(DataError, match="^a:3: query 'q1' has a different text at a:1"):
        store.check_texts([("query 'q1'", "two", "a:3")])
