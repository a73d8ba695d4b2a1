"""Candidates come a chunk at a time, whatever the size of the input."""

import tracemalloc
from contextlib import closing

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.inference.candidates import pairs_of_files, pairs_of_run
from mtlrank.inference.pair_store import PairStore
from tests.tiny_collection import write

NUMBER = 30_000


def peak_of(chunks):
    """The largest number of bytes in use while chunks come and go, and how many pairs they held."""
    tracemalloc.start()
    try:
        number = sum(len(chunk) for chunk in chunks)
        return tracemalloc.get_traced_memory()[1], number
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_a_file_of_pairs(tmp_path):
    write(tmp_path / "pairs.tsv", [f"q{i // 10}\td{i}\tquery {i // 10}\t{'a word ' * 60}{i}" for i in range(NUMBER)])
    with closing(PairStore(tmp_path / "pairs.sqlite")) as store:
        peak, number = peak_of(pairs_of_files([tmp_path / "pairs.tsv"], Reading(), store, 500))
    assert number == NUMBER
    assert peak < (tmp_path / "pairs.tsv").stat().st_size / 4


@pytest.mark.parametrize("header", ["query_id\tdoc_id\tquery\ttext", "qid\tpid\tquestion\tpassage_text"])
def test_a_header_of_a_file_of_pairs_is_named(tmp_path, header):
    write(tmp_path / "pairs.tsv", [header, "q1\td1\tquery\ttext"])
    with (
        closing(PairStore(tmp_path / "pairs.sqlite")) as store,
        pytest.raises(DataError, match=":1: found a header, but"),
    ):
        list(pairs_of_files([tmp_path / "pairs.tsv"], Reading(), store, 500))
    write(tmp_path / "pairs.tsv", ["q1\td1\tquery\ttext"])
    with closing(PairStore(tmp_path / "others.sqlite")) as store:
        assert len(list(pairs_of_files([tmp_path / "pairs.tsv"], Reading(), store, 500))) == 1


def test_rows_with_named_fields_have_no_header(tmp_path):
    write(tmp_path / "pairs.jsonl", ['{"query_id": "query_id", "doc_id": "doc_id", "query": "query", "text": "text"}'])
    with closing(PairStore(tmp_path / "pairs.sqlite")) as store:
        ((pair,),) = pairs_of_files([tmp_path / "pairs.jsonl"], Reading(), store, 500)
    assert (pair.query, pair.text) == ("query", "text")


def test_memory_does_not_grow_with_a_run(tmp_path):
    write(tmp_path / "docs", [f"d{i}\t{'a word ' * 60}{i}" for i in range(200)])
    write(tmp_path / "queries", [f"q{i}\tquery {i}" for i in range(NUMBER // 200)])
    write(tmp_path / "run", [f"q{i // 200} Q0 d{i % 200} 1 {-i} a-tag-of-some-length" for i in range(NUMBER)])
    collection = Collection({part: str(tmp_path / part) for part in ("docs", "queries", "run")})
    with closing(PairStore(tmp_path / "pairs.sqlite")) as store:
        peak, number = peak_of(pairs_of_run(collection, store, 500, None, "stop"))
    assert number == NUMBER
    assert peak < (tmp_path / "run").stat().st_size * 0.75


def test_the_best_of_a_run_are_those_of_the_float32_that_trec_eval_reads(source, tmp_path):
    write(source["run"], ["q1 Q0 d1 1 1.000000001 x", "q1 Q0 d2 2 1.0 x", "q1 Q0 d5 3 0.5 x"])
    with closing(PairStore(tmp_path / "pairs.sqlite")) as store:
        (chunk,) = pairs_of_run(Collection(source), store, 500, 1, "stop")
    assert [pair.text for pair in chunk] == ["harbour lights"]
