import math

import pytest

from mtlrank.annotate.bm25 import BM25Index

TEXTS = {"d1": "silent harbour", "d2": "harbour harbour lights", "d3": "garden"}


@pytest.fixture(scope="module")
def index():
    return BM25Index(list(TEXTS), list(TEXTS.values()), k1=0.9, b=0.4)


def test_scores_are_lucenes_by_hand(index):
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # two of three documents hold the term
    norm = 0.9 * (1 - 0.4 + 0.4 * 3 / 2)  # d2 has three words, the average is two
    assert index.score("harbour", ["d2"])[0] == pytest.approx(idf * 2 / (2 + norm), rel=1e-5)


def test_retrieval_is_by_score_and_leaves_out_what_shares_no_term(index):
    found = index.retrieve(["q"], ["silent harbour"], 10)
    assert [(doc.query_id, doc.doc_id, doc.rank) for doc in found] == [("q", "d1", 1), ("q", "d2", 2)]
    assert found[0].score > found[1].score


def test_scores_are_in_the_order_that_is_asked(index):
    both = index.score("silent harbour", ["d2", "d1"])
    assert both.tolist() == [index.scores("silent harbour")[i] for i in (1, 0)]


@pytest.mark.parametrize("query", ["", "the of", "unheard"])
def test_a_query_that_loses_all_its_terms_finds_nothing(index, query):
    assert index.retrieve(["q"], [query], 10) == []
    assert index.score(query, ["d1"]).tolist() == [0.0]
