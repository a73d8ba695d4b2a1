import numpy as np
import pytest
from ir_measures import Qrel, ScoredDoc

from mtlrank.evaluation.depths import by_depth, depths_to, joined
from mtlrank.evaluation.measures import means, ranking_values


def run_of(query_id, *doc_ids):
    """A ranking, the best document first."""
    return [ScoredDoc(query_id, doc_id, float(-rank)) for rank, doc_id in enumerate(doc_ids)]


@pytest.mark.parametrize(
    ("most", "depths"),
    [
        (1, [1]),
        (5, [5]),
        (6, [5, 6]),
        (30, [5, 10, 20, 30]),
        (100, [5, 10, 20, 50, 100]),
        (1000, [5, 10, 20, 50, 100, 200, 500, 1000]),
    ],
)
def test_depths_end_at_the_number_of_candidates(most, depths):
    assert depths_to(most) == depths


def test_what_is_not_re_ranked_keeps_its_place_below():
    """The head puts the relevant d7 first, which the first stage has at rank 7, and d2 last, which it has at rank 2."""
    first_stage = run_of("q", "d1", "d2", "d3", "d4", "d5", "d6", "d7")
    run = run_of("q", "d7", "d6", "d5", "d4", "d3", "d1", "d2")
    only_last, both = [Qrel("q", "d7", 1)], [Qrel("q", "d7", 1), Qrel("q", "d2", 1)]
    assert by_depth("RR", only_last, run, first_stage) == pytest.approx({5: 1 / 7, 7: 1})
    assert by_depth("AP", both, run, first_stage) == pytest.approx({5: (1 / 5 + 2 / 7) / 2, 7: (1 + 2 / 7) / 2})
    assert by_depth("RR", [Qrel("q", "d2", 1)], run, first_stage) == pytest.approx({5: 1 / 5, 7: 1 / 7})


def test_queries_with_few_candidates_and_judged_ones_without_any_count():
    """a has six candidates, b has one, c has none; d is not judged."""
    first_stage = [*run_of("a", *"uvwxyz"), *run_of("b", "u"), *run_of("d", "u")]
    run = [*run_of("a", *"zyxwvu"), *run_of("b", "u"), *run_of("d", "u")]
    qrels = [Qrel("a", "z", 1), Qrel("b", "u", 1), Qrel("c", "u", 1)]
    assert by_depth("RR", qrels, run, first_stage) == pytest.approx({5: (1 / 6 + 1 + 0) / 3, 6: (1 + 1 + 0) / 3})


@pytest.mark.parametrize(
    "measure",
    [
        "nDCG@10",
        "nDCG",
        "AP(rel=2)",
        "AP@7",
        "RR@10",
        "P@5",
        "R@20",
        "Rprec",
        "Judged@10",
        "ERR@10",
        "nDCG(judged_only=True)@5",
        "P(judged_only=True)@5",
    ],
)
def test_the_last_depth_is_the_run_and_each_is_that_of_the_whole_merged_ranking(measure):
    draw = np.random.default_rng(0)
    pairs = [(f"q{query}", f"d{number}") for query in range(4) for number in range(23)]
    new, old = (dict(zip(pairs, map(float, scores), strict=True)) for scores in draw.integers(9, size=(2, len(pairs))))
    run, first_stage = ([ScoredDoc(*pair, score) for pair, score in scores.items()] for scores in (new, old))
    qrels = [Qrel(*pair, int(draw.integers(4))) for pair in pairs if draw.integers(2)]
    found = by_depth(measure, qrels, run, [*first_stage, ScoredDoc("q0", "no-candidate", 99.0)])
    assert list(found) == [5, 10, 20, 23]
    assert found[23] == pytest.approx(means(ranking_values([measure], qrels, run))[measure])
    merged = []
    for start in range(0, len(pairs), 23):
        ranked = sorted(pairs[start : start + 23], key=lambda pair: (old[pair], pair[1]), reverse=True)
        best = sorted(ranked[:10], key=lambda pair: (new[pair], pair[1]), reverse=True)
        merged += [ScoredDoc(*pair, float(-rank)) for rank, pair in enumerate(best + ranked[10:])]
    assert found[10] == pytest.approx(means(ranking_values([measure], qrels, merged))[measure])


def test_a_part_with_fewer_candidates_has_its_last_value_at_greater_depths():
    parts = [{5: np.array([0.5]), 10: np.array([0.75])}, {5: np.array([0.0]), 7: np.array([0.25])}]
    assert joined(parts, [3, 1]) == {5: pytest.approx([0.375]), 10: pytest.approx([0.625])}
    assert joined([parts[0], {}], [3, 1]) == {}
