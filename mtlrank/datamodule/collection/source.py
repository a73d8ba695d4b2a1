"""Where a collection's parts come from: an ir_datasets id, a BEIR folder, files, or a mixture of them."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_datasets
from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload

from mtlrank import embedded
from mtlrank.annotate.bm25_settings import BM25Settings
from mtlrank.datamodule import hub
from mtlrank.datamodule.collection.rows import (
    PairValue,
    Text,
    Triple,
    float32,
    read_grades,
    read_scores,
    read_texts,
    read_triples,
)
from mtlrank.datamodule.named_files import describe_files, locate_all
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import local

PARTS = ("docs", "queries", "qrels", "run", "docpairs")
RETRIEVED = "bm25"  # as a run: BM25 retrieves


class Source(ABC):
    """The five parts of a collection, as rows in the order of their files."""

    name: str
    bm25_settings = BM25Settings()  # of BM25 wherever it ranks or scores these documents

    @abstractmethod
    def has(self, part: str) -> bool:
        """Whether the source has one of `PARTS`."""

    @abstractmethod
    def texts(self, part: str, reading: Reading) -> Iterator[Text]:
        """The rows of `docs` or `queries`."""

    @abstractmethod
    def pair_values(self, part: str, reading: Reading) -> Iterator[PairValue]:
        """The rows of `qrels` or `run`."""

    @abstractmethod
    def docpairs(self, reading: Reading) -> Iterator[Triple]:
        """The rows of `docpairs`."""

    @abstractmethod
    def identity(self, part: str) -> list[Any]:
        """Values that change with the content of a part, and differ from those of other parts."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the manifest: ids with the version of ir_datasets, files with their hash."""


def open_source(source: str | Mapping[str, Any]) -> Source:
    """The source that a config names.

    A string is an ir_datasets id. A mapping has files: `docs` and `queries` (TSV with id and text, JSON Lines or Parquet),
    `qrels` (TREC, or BEIR's TSV or Parquet), `run` (TREC) and `docpairs` (TSV with query, better and worse document,
    perhaps after a teacher's two scores), all but Parquet also gzipped. A `*` in the name of a file stands for all that
    match, which are read as one. What it lacks is taken from `id`, an ir_datasets id, or from `beir`, a folder, with
    `split` of its qrels and the queries that are judged there.
    `run: bm25` stands for no file: BM25 retrieves, even if the id comes with a ranking of its own. `bm25` is a mapping
    with settings of BM25 other than the defaults (see `BM25Settings`).
    """
    if isinstance(source, str):
        return IRSource(source)
    if not isinstance(source, Mapping):
        raise ConfigError(
            f"Expected a collection as an ir_datasets id or a mapping with docs, queries and more, found {source!r}."
        )
    bm25_settings = BM25Settings.of(source.get("bm25"))
    wrong = {key: value for key, value in source.items() if key != "bm25" and not isinstance(value, str)}
    if wrong:
        raise ConfigError(f"Expected paths and names as the parts of a collection, found {wrong}.")
    unknown = set(source) - {*PARTS, "id", "beir", "split", "bm25"}
    if unknown:
        raise ConfigError(
            f"Expected {', '.join(PARTS)}, id, beir, split or bm25 in a collection, found {', '.join(sorted(unknown))}."
        )
    if "split" in source and "beir" not in source:
        raise ConfigError(
            f"A collection's split belongs to a beir folder, found split {source['split']!r} without one. Leave it out, or "
            "name the split's files or ir_datasets id."
        )
    left_out = ["run"] if source.get("run") == RETRIEVED else []
    files = {part: str(path) for part, path in source.items() if part in PARTS and part not in left_out}
    if "beir" in source:
        if hub.is_uri(source["beir"]):
            raise ConfigError(
                f"Expected a folder on this machine as beir, found {source['beir']!r}. Of the hub, name the files: docs, "
                "queries and qrels."
            )
        folder = Path(source["beir"])
        qrels = str(folder / "qrels" / f"{source.get('split', 'test')}.tsv")
        files = {"docs": str(folder / "corpus.jsonl"), "queries": str(folder / "queries.jsonl"), "qrels": qrels} | files
    of_split = "beir" in source and "queries" not in source
    return FileSource(files, IRSource(source["id"]) if "id" in source else None, left_out, of_split, bm25_settings)


class FileSource(Source):
    """A user's own files, with the rest from another source if there is one."""

    def __init__(
        self,
        files: Mapping[str, str],
        rest: Source | None,
        left_out: Sequence[str],
        only_judged: bool,
        bm25_settings: BM25Settings,
    ) -> None:
        self.given = files  # as the config names them
        self.files = {part: locate_all(name, f"collection's {part} file") for part, name in files.items()}
        self.rest = rest
        self.left_out = left_out  # parts of the rest that are not wanted
        self.only_judged = only_judged  # leave out queries without a judgement: they belong to another split
        self.bm25_settings = bm25_settings
        self.name = "+".join([*([rest.name] if rest else []), *(Path(name).name for name in files.values())])

    def has(self, part: str) -> bool:
        in_rest = self.rest is not None and part not in self.left_out and self.rest.has(part)
        return part in self.files or in_rest

    def texts(self, part: str, reading: Reading) -> Iterator[Text]:
        if part == "queries" and self.only_judged:
            judged = {row.query_id for row in self.pair_values("qrels", Reading.silent())}
            yield from (text for text in self._texts(part, reading) if text.name in judged)
        else:
            yield from self._texts(part, reading)

    def _texts(self, part: str, reading: Reading) -> Iterator[Text]:
        if part not in self.files:
            yield from self._rest.texts(part, reading)
            return
        for path, each in reading.each(self.files[part]):
            yield from read_texts(path, each)

    def pair_values(self, part: str, reading: Reading) -> Iterator[PairValue]:
        if part not in self.files:
            yield from self._rest.pair_values(part, reading)
            return
        read = {"qrels": read_grades, "run": read_scores}[part]
        for path, each in reading.each(self.files[part]):
            yield from read(path, each)

    def docpairs(self, reading: Reading) -> Iterator[Triple]:
        if "docpairs" not in self.files:
            yield from self._rest.docpairs(reading)
            return
        for path, each in reading.each(self.files["docpairs"]):
            yield from read_triples(path, each)

    def identity(self, part: str) -> list[Any]:
        if part not in self.files:
            return self._rest.identity(part) if self.has(part) else []
        is_on_hub = hub.is_uri(self.given[part])
        return [value for file in self.files[part] for value in _state(file, is_on_hub=is_on_hub)]

    def describe(self) -> dict[str, Any]:
        files = {part: describe_files(self.given[part], paths) for part, paths in self.files.items()}
        bm25 = {"bm25": str(self.bm25_settings)} if self.bm25_settings != BM25Settings() else {}
        return {**(self.rest.describe() if self.rest else {}), **files, **bm25}

    @property
    def _rest(self) -> Source:
        assert self.rest is not None, "`has` comes first"
        return self.rest


class IRSource(Source):
    """A dataset of ir_datasets, by its id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dataset = _load(name)

    def has(self, part: str) -> bool:
        return bool(getattr(self.dataset, f"has_{'scoreddocs' if part == 'run' else part}")())

    def texts(self, part: str, reading: Reading) -> Iterator[Text]:
        for row, place in self._rows(part):
            yield Text(row[0], row.default_text(), place)

    def pair_values(self, part: str, reading: Reading) -> Iterator[PairValue]:
        for row, place in self._rows("scoreddocs" if part == "run" else part):
            value = row.relevance if part == "qrels" else float32(row.score)
            yield PairValue(row.query_id, row.doc_id, value, place)

    def docpairs(self, reading: Reading) -> Iterator[Triple]:
        for row, place in self._rows("docpairs"):
            yield Triple(row.query_id, row.doc_id_a, row.doc_id_b, place)

    def identity(self, part: str) -> list[Any]:
        if self.name.startswith(embedded.NAME):
            return [embedded.NAME, embedded.VERSION, self.name if part != "docs" else ""]
        base = ir_datasets.docs_parent_id(self.name) if part == "docs" else self.name
        return [base, ir_datasets.__version__, str(ir_datasets.util.home_path())]

    def describe(self) -> dict[str, Any]:
        return {"id": self.name, "ir_datasets": ir_datasets.__version__}

    def _rows(self, part: str) -> Iterator[tuple[Any, str]]:
        """Pass rows on; an error in reading them is reported with the name of the source."""
        rows: Iterable[Any] = getattr(self.dataset, f"{part}_iter")()
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                yield row, f"{self.name} {part}, row {number}"
        except (OSError, ValueError, IndexError, RuntimeError, UnicodeError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"  # that of a failed download is long
            raise DataError(
                f"Cannot read {part} of the collection {self.name!r} after row {number}: {reason}"
            ) from error


def _state(file: Path, *, is_on_hub: bool) -> list[Any]:
    """A file's name, size and times: they change with its content."""
    path = file.resolve()
    # In the hub's cache, a link leads to a file that is named after its content.
    name = path / file.name if is_on_hub else path
    return [str(name), *local.stamp(path)]


def _load(name: str) -> Any:
    for split in embedded.SPLITS:
        if name == f"{embedded.NAME}/{split}" and name not in ir_datasets.registry:
            ir_datasets.registry.register(name, _embedded_split(split))
    try:
        return ir_datasets.load(name)
    except KeyError as error:
        near = difflib.get_close_matches(name, list(ir_datasets.registry), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"Unknown ir_datasets id {name!r}.{hint} Your own files: a mapping with docs, queries, qrels and run."
        ) from error


def _embedded_split(split: str) -> Any:
    formats: dict[str, Callable[[Any], Any]] = {
        "docs.tsv": TsvDocs,
        f"{split}/queries.tsv": TsvQueries,
        f"{split}/qrels.txt": lambda file: TrecQrels(file, {}),
        f"{split}/bm25.run": TrecScoredDocs,
    }
    files = {name: LocalDownload(Path(embedded.locate(f"{embedded.NAME}/{name}"))) for name in formats}
    return ir_datasets.Dataset(*(formats[name](file) for name, file in files.items()))
