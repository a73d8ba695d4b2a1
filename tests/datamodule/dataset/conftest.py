import pytest

from tests.tiny_collection import write


@pytest.fixture
def fresh_source(source, tmp_path):
    """A collection with the same documents and queries of its own."""

    def make(name, number):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "queries", [f"{name}{i}\tgarden {name} {i}" for i in range(number)])
        write(folder / "qrels", [f"{name}{i} 0 d1 2" for i in range(number)])
        write(folder / "run", [f"{name}{i} Q0 d{d} {d} {9 - d} bm25" for i in range(number) for d in (1, 2)])
        return {**source, **{part: str(folder / part) for part in ("queries", "qrels", "run")}}

    return make
