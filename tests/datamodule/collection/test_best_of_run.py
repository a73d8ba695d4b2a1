"""The best documents of each query of a run, whatever its length and order."""

import tracemalloc

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.errors import DataError
from tests.tiny_collection import write


def test_equal_first_stage_scores_are_ordered_as_trec_eval_orders_them(source):
    write(source["run"], ["q1 Q0 d1 1 1.0 x", "q1 Q0 d2 2 1.0 x", "q1 Q0 d3 3 0.5 x"])
    assert [doc.doc_id for doc in Collection(source).candidates(["q1"], 9)["q1"]] == ["d2", "d1", "d3"]


def test_the_best_of_a_long_run_are_kept(source):
    write(source["run"], [f"q1 Q0 d{i} 1 {i} x" for i in range(100)])
    assert [doc.doc_id for doc in Collection(source).candidates(["q1"], 3)["q1"]] == ["d99", "d98", "d97"]


def test_the_best_are_kept_whatever_the_order_of_the_lines(source):
    lines = [f"q{q} Q0 d{i} 1 {i * 37 % 100} x" for i in range(100) for q in (1, 2)]
    for run in (lines, sorted(lines), sorted(lines, key=lambda line: -int(line.split()[4]))):
        write(source["run"], run)
        ranked = Collection(source).candidates(["q1", "q2"], 3)
        assert [[(d.score, d.rank) for d in ranked[q]] for q in ("q1", "q2")] == [[(99, 1), (98, 2), (97, 3)]] * 2


@pytest.mark.parametrize(("asked", "per_query"), [(5, 120), (1000, 1800)])
def test_memory_grows_with_the_queries_that_are_asked_for(source, asked, per_query):
    write(source["queries"], [f"q{q}\tgarden {q}" for q in range(1000)])
    write(source["run"], [f"q{q} Q0 {1_000_000 + d * 7919 + q} 1 {-d} x" for q in range(1000) for d in range(110)])
    collection = Collection(source)
    wanted = [*collection.queries][:asked]
    collection.is_ordered  # noqa: B018
    tracemalloc.start()
    collection.read_run(wanted, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < per_query * 1000 + 100_000  # bytes


@pytest.mark.parametrize("second", [0.5, 98.5])
def test_a_document_with_two_scores_is_found_however_long_the_run_is(source, second):
    lines = [f"q1 Q0 d{i} 1 {i} x" for i in range(100)]
    write(source["run"], [*lines, f"q1 Q0 d0 1 {second} x"])
    if second > 1:  # among the best it must be known
        with pytest.raises(DataError, match="run:1: document 'd0' has two scores for query 'q1'"):
            Collection(source).candidates(["q1"], 3)
    write(source["run"], [f"q1 Q0 d99 1 {second} x", *lines])
    with pytest.raises(DataError, match=r"run:\d+: document 'd99' has two scores for query 'q1'"):
        Collection(source).candidates(["q1"], 3)
