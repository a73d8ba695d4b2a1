import math
import tracemalloc

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.annotate.bm25_settings import BM25Settings

TEXTS = ["silent harbour", "harbour harbour lights", "garden"]
WORDS = ["silent", "harbour", "lights", "garden", "unheard", "the"]


@pytest.fixture(scope="module")
def index():
    return BM25Index.build(TEXTS)


def test_scores_are_lucenes_by_hand(index):
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # two of three documents hold the term
    norm = 0.9 * (1 - 0.4 + 0.4 * 3 / 2)  # the second text has three words, the average is two
    assert index.scores("harbour")[1] == pytest.approx(idf * 2 / (2 + norm), rel=1e-5)


@pytest.mark.parametrize(
    ("k1", "b", "expected"),
    [
        (1.2, 0.75, [1 / (1 + 1.2 * (0.25 + 0.75 * 2 / 2)), 2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2)), 0]),
        (2, 0, [1 / 3, 2 / 4, 0]),  # lengths do not count
        (0, 1, [1, 1, 0]),  # nor how often a term occurs
    ],
)
def test_scores_with_other_parameters_by_hand(k1, b, expected):
    index = BM25Index.build(TEXTS, BM25Settings(k1, b))
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    assert index.scores("harbour").tolist() == pytest.approx([idf * share for share in expected], rel=1e-5)
    assert index.score_pairs(["harbour"] * 3, [0, 1, 2]).tolist() == index.scores("harbour").tolist()


def test_stems_and_stop_words_decide_what_is_found():
    texts = ["rankings", "ranking of the lights", "der Garten"]
    found = {
        settings: BM25Index.build(texts, settings).retrieve("ranking der", 9)[0].tolist()
        for settings in (BM25Settings(), BM25Settings(stemmer="porter"), BM25Settings(stopwords="german"))
    }
    assert [sorted(positions) for positions in found.values()] == [[1, 2], [0, 1, 2], [1]]


@given(st.lists(st.lists(st.sampled_from([*WORDS, "Harbour", "a", ""]), max_size=9).map(" ".join), min_size=1))
def test_scores_are_those_of_bm25s(texts):
    theirs = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    tokens = bm25s.tokenize([*texts, "garden"], stopwords="en", return_ids=False, show_progress=False)
    theirs.index(tokens, show_progress=False)
    ours = BM25Index.build(iter([*texts, "garden"]))
    for query in (["harbour"], ["garden", "silent", "garden"], ["lights"]):
        known = [word for word in query if word in theirs.vocab_dict]
        expected = theirs.get_scores(known) if known else np.zeros(len(texts) + 1)
        np.testing.assert_allclose(ours.scores(" ".join(query)), expected, rtol=0, atol=1e-6)


def test_texts_of_one_letter_are_an_empty_index(tmp_path):
    index = BM25Index.build(["4", "", "a"])
    assert index.scores("a harbour").tolist() == index.score_pairs(["4", "a", "harbour"], [0, 1, 2]).tolist() == [0] * 3
    assert index.retrieve("a harbour", 3)[0].tolist() == []
    assert BM25Index.build([]).num_docs == 0


def test_building_holds_neither_the_texts_nor_lists_of_their_words():
    tracemalloc.start()
    BM25Index.build(" ".join(f"word{(i * j) % 997}" for j in range(40)) for i in range(5_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000 * 1_200 + 2**21  # bytes


def test_retrieval_is_by_score_and_leaves_out_what_shares_no_term(index):
    positions, scores = index.retrieve("silent harbour", 10)
    assert positions.tolist() == [0, 1]
    assert scores[0] > scores[1]


def test_all_that_tie_with_the_last_place_are_found():
    index = BM25Index.build(["same text", "the same same", *["same text"] * 8, "other words entirely"])
    assert index.retrieve("same", 4)[0].tolist() == [1, 0, *range(2, 10)]
    assert index.retrieve("same", 1)[0].tolist() == [1]


@given(st.lists(st.tuples(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), st.integers(0, 2)), max_size=20))
def test_the_score_of_a_pair_is_its_score_among_all(pairs):
    index = BM25Index.build(TEXTS)
    queries, positions = [query for query, _ in pairs], [position for _, position in pairs]
    expected = [index.scores(query)[position] for query, position in pairs]
    np.testing.assert_allclose(index.score_pairs(queries, positions), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("query", ["", "the of", "unheard"])
def test_a_query_that_loses_all_its_terms_finds_nothing(index, query):
    assert index.retrieve(query, 10)[0].tolist() == []
    assert index.score_pairs([query], [0]).tolist() == [0.0]


@pytest.mark.parametrize("settings", [BM25Settings(), BM25Settings(1.2, 0.75, None, "porter")])
def test_a_saved_index_scores_as_before(settings, tmp_path):
    index = BM25Index.build(TEXTS, settings)
    index.save(tmp_path / "bm25")
    loaded = BM25Index.load(tmp_path / "bm25", settings)
    assert loaded.scores("silent harbour").tolist() == index.scores("silent harbour").tolist()
    assert loaded.score_pairs(["silent harbour"], [1]).tolist() == index.score_pairs(["silent harbour"], [1]).tolist()
    assert loaded.num_docs == 3
