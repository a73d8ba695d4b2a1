"""Rows of a query with relevant and other passages, the form in which rerankers' training data are often published."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mtlrank.batch import Record
from mtlrank.checks import at_least
from mtlrank.datamodule.dataset.files import Column, FileDataset, checked_distinct, layout_of, read_columns
from mtlrank.datamodule.dataset.held_out import HeldOut
from mtlrank.datamodule.dataset.leaks import LeakedQueries, hash_of_words
from mtlrank.datamodule.dataset.negatives import Negatives
from mtlrank.datamodule.parquet import read_objects
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.short_hash import short_hash
from mtlrank.errors import ConfigError
from mtlrank.task import Task

Columns = Column | Sequence[Column]


class _Row(NamedTuple):
    place: str
    query_id: str
    query: str
    positives: list[str]
    negatives: list[str]


class QueryPassages(FileDataset):
    """Rows with a query, its relevant passages and others: JSON Lines, Parquet, CSV or TSV, as of `SentencePairs`.

    `query` names a column, `positives` and `negatives` one or several. A cell of the latter is a passage, a list of them,
    or a list of objects with `text` (and `title`); an empty one holds none. A ranking: a training group is a relevant
    passage with `num_negatives` others of its row, `groups_per_positive` times; a task on single documents learns each of
    them by itself. Of val and test, all passages of a query are candidates, and the first stage that they are compared with
    is BM25 among all passages of the split, which are held in memory for that. `val` and `test` may be shares of the
    training queries, as in 0.1.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | float | None = None,
        test: str | float | None = None,
        query: Column = "query",
        positives: Columns = "positive",
        negatives: Columns = "negative",
        format: str | None = None,
        num_negatives: int = 4,
        groups_per_positive: int = 1,
        leaked_queries: str = "stop",
        seed: int = 0,
    ) -> None:
        sources = {"train": train, "val": val, "test": test}
        self.held_out = HeldOut(sources, seed)
        files: Any = {split: train if split in self.held_out else source for split, source in sources.items()}
        super().__init__(name, task, preprocessor, **files)
        if task.kind != "ranking" or task.distils:
            raise ConfigError(
                f"Dataset {name!r}: rows of a query with passages are a ranking, without scores of a teacher, and the task "
                f"is {type(task).__name__}. Expected one such as task=relevance_contrastive."
            )
        self.query = query
        self.positives, self.negatives = _listed("positives", positives), _listed("negatives", negatives)
        checked_distinct((query, *self.positives, *self.negatives))
        self.format = format
        self.text_keys = (query if isinstance(query, str) else "query", "text")
        self.level: int = task.relevance_level or 1
        self.leaked = LeakedQueries(name, leaked_queries)
        self.drawn = Negatives(
            grouping="pairwise" if task.grouped else "pointwise",
            relevance_level=1,
            num_negatives=at_least("num_negatives", num_negatives, 1 if task.grouped else 0),
            max_negatives=None,
            negative_ranks=(1, 1),
            judged_negatives=False,
            groups_per_positive=groups_per_positive,
            seed=seed,
        )

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self.held_out.shares}

    def records(self, split: str) -> Iterable[Record]:
        return self._groups() if split == "train" else self._candidates(split)

    def _groups(self) -> Iterator[Record]:
        """What is learnt: groups of passages, or single ones."""
        elsewhere = (row.query for split in ("val", "test") if split not in self.held_out for row in self._rows(split))
        mine = {row.query_id: row.query for row in self._rows("train") if self.shard.holds(row.query_id)}
        wanted, number = set(self.leaked.without(mine, elsewhere, self.reading)), 0
        for row in self._rows("train"):
            if row.query_id not in wanted:
                continue
            self.reading.count("negatives that are positives too", len({*row.positives}.intersection(row.negatives)))
            groups = list(self.drawn.groups(row.query_id, dict.fromkeys(row.positives, 1), row.negatives))
            self.reading.count("queries without a negative", not groups)
            for group in groups:
                for text in group:
                    yield self._record(row, text, text in row.positives, number if self.task.grouped else None)
                number += 1

    def _candidates(self, split: str) -> Iterator[Record]:
        """All passages of a split's queries, whose rows may be several; what is relevant in one of them is relevant."""
        judged = dict[str, tuple[_Row, dict[str, bool]]]()
        for row in self._rows(split):
            _, passages = judged.setdefault(row.query_id, (row, {}))
            for text in row.negatives:
                passages.setdefault(text, False)
            passages.update(dict.fromkeys(row.positives, True))
        for row, passages in judged.values():
            for text, is_relevant in passages.items():
                yield self._record(row, text, is_relevant, None)

    def _record(self, row: _Row, text: str, is_relevant: bool, group: int | None) -> Record:
        label, doc_id = float(self.level if is_relevant else 0), f"d-{short_hash(text).hex()}"
        return Record(row.query_id, doc_id, row.query, text, label, group=group, place=row.place)

    def _rows(self, split: str) -> Iterator[_Row]:
        """The usable rows of a split, of all shards. Queries that differ in case and blanks only are one."""
        for place, query, *cells in self._cells(split):
            found = [passages_of(cell) for cell in cells]
            wrong = [cell for cell, passages in zip(cells, found, strict=True) if passages is None]
            sides = found[: len(self.positives)], found[len(self.positives) :]
            positives, negatives = ([text for passages in side for text in passages or ()] for side in sides)
            if not isinstance(query, str):
                self.reading.reject(place, f"expected text as {self.query}, found {query!r:.60}")
            elif wrong:
                self.reading.reject(place, f"expected passages, found {wrong[0]!r:.60}", query)
            elif not positives:
                names = " or ".join(map(str, self.positives))
                self.reading.reject(place, f"expected a relevant passage as {names}, found none", query)
            else:
                query_id = f"q-{hash_of_words(query).hex()}"
                if split not in self.held_out or self.held_out.split_of(query_id) == split:
                    yield _Row(place, query_id, query, list(dict.fromkeys(positives)), list(dict.fromkeys(negatives)))

    def _cells(self, split: str) -> Iterator[list[Any]]:
        """The place and the wanted cells of each row."""
        columns = [self.query, *self.positives, *self.negatives]
        for path, reading in self.reading.each(self.paths(split)):
            if layout_of(path, self.format) in ("tsv", "csv"):
                for place, cells in read_columns(path, columns, self.format, reading, with_names=False):
                    yield [place, *cells]
                continue
            if not all(isinstance(column, str) for column in columns):
                raise ConfigError(
                    f"Columns of {path.name} are names, found {columns}. Give query, positives and negatives."
                )
            for place, row in read_objects(path, [str(column) for column in columns], reading):
                yield [place, *(row.get(str(column)) for column in columns)]


def passages_of(cell: Any) -> list[str] | None:
    """The passages in a cell, without blank ones; None if it is none of what `QueryPassages` reads."""
    listed = cell if isinstance(cell, list) else [] if cell is None else [cell]
    texts = [_text_of(item) for item in listed]
    return None if None in texts else [text for text in texts if text and text.strip()]


def _text_of(item: Any) -> str | None:
    """The text of a passage, after its title, if it has one; None if it is neither a text nor an object with one."""
    title, text = (item.get("title"), item.get("text")) if isinstance(item, dict) else (None, item)
    if not isinstance(text, str) or not isinstance(title, str | None):
        return None
    return f"{title} {text}" if title else text


def _listed(name: str, columns: Columns) -> list[Column]:
    """The columns of a setting, which names one or several."""
    listed = [columns] if isinstance(columns, int | str) else list(columns)
    if not listed or not all(isinstance(column, int | str) for column in listed):
        raise ConfigError(f"{name} is {columns!r}, expected a column or a list of columns.")
    return listed
