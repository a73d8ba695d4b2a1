"""The documents on disk: positions, lookups, and that they are read once."""

import pytest

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.datamodule.collection.source import open_source
from mtlrank.datamodule.collection.store import DocStore
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from tests.tiny_collection import FILES, write


def store(source):
    return DocStore(open_source(source), Reading())


def test_positions_and_names_are_each_others_inverse(source):
    docs = store(source)
    names = [name for name, _ in docs]
    assert docs.positions(["d5", "gone", "d1"]) == {"d5": 4, "d1": 0}
    assert docs.names(list(docs.positions(names).values())) == names
    assert len(docs) == 5


def test_positions_stay_whole_when_documents_are_merged(source):
    write(source["docs"], ["a\tone", "a\tone", "b\ttwo", "a\tone", "c\tthree"])
    docs = store(source)
    assert docs.names([0, 1, 2]) == ["a", "b", "c"]
    assert docs.twice == 2


def test_a_store_is_made_once_and_again_when_its_file_changes(source):
    first, again = store(source), store(source)
    assert first.path == again.path
    with open(source["docs"], "a") as file:
        file.write("d6\tmore\n")
    assert store(source).path != first.path
    assert len(store(source)) == 6


def test_a_file_that_is_rewritten_at_the_same_length_is_read_again(source):
    assert ("d3", "a garden") in list(store(source))
    write(source["docs"], [line.replace("garden", "meadow") for line in FILES["docs"]])
    assert ("d3", "a meadow") in list(store(source))


def test_bad_rows_are_told_again_by_a_store_that_is_there(source):
    with open(source["docs"], "a") as file:
        file.write("broken\n")
    for _ in range(2):
        with pytest.raises(DataError, match="docs:6: expected 2 tab-separated columns"):
            store(source)


def test_nothing_is_left_behind_when_reading_fails(source, monkeypatch):
    from mtlrank.datamodule.collection import store as module

    monkeypatch.setattr(module, "_merge_duplicates", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store(source)
    monkeypatch.undo()
    assert len(store(source)) == 5


def test_the_index_is_kept_beside_the_store(source):
    docs = store(source)
    scores = docs.bm25.scores("harbour").tolist()
    assert (docs.folder / f"bm25-{BM25Index.FORMAT}").is_dir()
    assert store(source).bm25.scores("harbour").tolist() == scores


def test_indexes_of_other_settings_are_kept_beside_each_other(source):
    settings = [None, {"k1": 1.2}, {"stopwords": None}, {"stemmer": "porter"}]
    stores = [store({**source, "bm25": each}) for each in settings]
    assert len({each.path for each in stores}) == 1  # the documents are the same
    found = [each.bm25.scores("the silent harbours").tolist() for each in stores]
    assert len(set(map(tuple, found))) == 4
    assert [store({**source, "bm25": each}).bm25.scores("the silent harbours").tolist() for each in settings] == found
    names = [path.name for path in stores[0].folder.glob("bm25-*")]
    assert f"bm25-{BM25Index.FORMAT}" in names
    assert len(names) == 4


@pytest.mark.parametrize("lines", [["a\t ", "b\t"], ["a\tA", "b\tB 4"]])
def test_a_collection_without_any_words_cannot_be_retrieved_from(source, lines):
    write(source["docs"], lines)
    with pytest.raises(DataError, match="has no documents with text to retrieve from"):
        store(source).bm25  # noqa: B018
