"""Rows of a query with relevant and other passages, the form in which rerankers' training data are often published."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank.batch import Record
from mtlrank.checks import whole
from mtlrank.datamodule.dataset.files import Column, FileDataset, checked_distinct, layout_of, read_columns
from mtlrank.datamodule.dataset.leaks import LeakedQueries, hash_of_words
from mtlrank.datamodule.dataset.negatives import Negatives
from mtlrank.datamodule.lines import read_json
from mtlrank.datamodule.parquet import read_parquet
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.datamodule.short_hash import short_hash
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Task
from mtlrank.words import counted

Columns = Column | Sequence[Column]
_LIST = re.compile(r"""\s*\[\s*(".*"|'.*')\s*\]\s*""", re.DOTALL)  # as JSON or as Python writes it
_NAMES = ("query", "question", "anchor", "positive", "pos", "negative", "neg")  # of columns, in a header


class _Row(NamedTuple):
    place: str
    query_id: str
    query: str
    positives: list[str]
    negatives: list[str]
    scores: dict[str, float]  # a teacher's, by passage; empty if none are read

    def record(self, text: str, label: float, group: int | None) -> Record:
        """One of its passages, with a place of its own."""
        number = [*self.positives, *self.negatives].index(text) + 1
        place = f"{self.place}, passage {number}"
        return Record(self.query_id, f"d-{short_hash(text).hex()}", self.query, text, label, group=group, place=place)


class QueryPassages(FileDataset):
    """Rows with a query, its relevant passages and others: JSON Lines, Parquet, CSV or TSV, as of `SentencePairs`.

    `query` names a column, `positives` and `negatives` one or several. A cell of the latter is a passage, a list of them,
    or a list of objects with `text` (and `title`); an empty one holds none. A ranking: a training group is a relevant
    passage with `num_negatives` others of its row, `groups_per_positive` times; a task on single documents learns each of
    them by itself. Of val and test, all passages of a query are candidates, and the first stage that they are compared with
    is BM25 among all passages of the split, which are held in memory for that. `val` and `test` may be shares of the
    training queries, as in 0.1.

    A distillation learns the teacher's scores in the columns `scores`: numbers or lists of them, one for each passage of
    the row, first of the positives, then of the negatives. Other splits are judged by what is relevant, without scores.
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
        scores: Columns | None = None,
        format: str | None = None,
        num_negatives: int = 4,
        groups_per_positive: int = 1,
        leaked_queries: str = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor, train, val, test)
        self.held_out = self.hold_out(seed)
        if task.kind != "ranking":
            raise ConfigError(
                f"Dataset {name!r}: rows of a query with passages are a ranking, and the task is {type(task).__name__}. "
                "Expected one such as task=relevance_contrastive."
            )
        if task.distils != (scores is not None):
            raise ConfigError(
                f"Dataset {name!r}: scores is {scores!r}, and the task is {type(task).__name__}. A distillation needs the "
                "columns of the teacher's scores, as in scores=[pos_scores,neg_scores], and other tasks take none."
            )
        (self.query,) = _listed("query", query)
        self.positives, self.negatives = _listed("positives", positives), _listed("negatives", negatives)
        self.scores = [] if scores is None else _listed("scores", scores)
        checked_distinct(
            [query, *self.positives, *self.negatives, *self.scores], "query, positives, negatives or scores"
        )
        self.format = format
        self.text_keys = (query if isinstance(query, str) and query != "text" else "query", "text")
        self.leaked = LeakedQueries(name, leaked_queries)
        self.drawn = Negatives(
            grouping="pairwise" if task.grouped else "pointwise",
            relevance_level=1,
            num_negatives=whole(1 if task.grouped else 0).check("num_negatives", num_negatives),
            max_negatives=None,
            negative_ranks=(1, 1),
            judged_negatives=False,
            groups_per_positive=groups_per_positive,
            seed=seed,
        )

    def records(self, split: str) -> Iterable[Record]:
        return self._groups() if split == "train" else self._candidates(split)

    def _groups(self) -> Iterator[Record]:
        """What is learnt: groups of passages, or single ones."""
        queries, relevant = dict[str, str](), dict[str, set[bytes]]()
        for row in self._rows("train"):
            if self.shard.holds(row.query_id):
                queries.setdefault(row.query_id, row.query)
                relevant.setdefault(row.query_id, set()).update(map(hash_of_words, row.positives))
        elsewhere = (row.query for split in ("val", "test") if split not in self.held_out for row in self._rows(split))
        wanted, number = set(self.leaked.without(queries, elsewhere, self.reading)), 0
        for row in self._rows("train"):
            if row.query_id not in wanted:
                continue
            others = [text for text in row.negatives if hash_of_words(text) not in relevant[row.query_id]]
            self.reading.count("negatives that are positives too", len(row.negatives) - len(others))
            self.reading.count("rows without a negative", int(not others))
            same = row._replace(query=queries[row.query_id])
            for group in self.drawn.groups(row.query_id, dict.fromkeys(row.positives, 1), others):
                for text in group:
                    grade = float(self.task.level if text in row.positives else 0)
                    label = row.scores[text] if self.scores else grade
                    yield same.record(text, label, number if self.task.grouped else None)
                number += 1

    def _candidates(self, split: str) -> Iterator[Record]:
        """All passages of a split's queries, whose rows may be several; what is relevant in one of them is relevant."""
        judged = dict[str, dict[bytes, tuple[_Row, str]]]()
        relevant = dict[str, set[bytes]]()
        for row in self._rows(split):
            passages = judged.setdefault(row.query_id, {})
            for text in [*row.positives, *row.negatives]:
                passages.setdefault(hash_of_words(text), (row, text))
            relevant.setdefault(row.query_id, set()).update(map(hash_of_words, row.positives))
        for query_id, passages in judged.items():
            query = next(iter(passages.values()))[0].query
            for words, (row, text) in passages.items():
                label = float(self.task.level if words in relevant[query_id] else 0)
                yield row._replace(query=query).record(text, label, None)

    def _rows(self, split: str) -> Iterator[_Row]:
        """The usable rows of a split, of all shards. Queries that differ in case and blanks only are one."""
        for place, query, *cells in self._cells(split):
            try:
                row = self._row(split, place, query, cells)
            except DataError as error:
                self.reading.reject(place, str(error), str(query or ""))
                continue
            if row:
                yield row

    def _row(self, split: str, place: str, query: Any, cells: Sequence[Any]) -> _Row | None:
        """A row, if its query is of this split. Raises `DataError` for one that cannot be used."""
        if not isinstance(query, str) or not query.strip():
            raise DataError(f"expected text as {self.query}, found {query!r:.60}")
        num_texts = len(self.positives) + len(self.negatives)
        found = [texts_of(cell) for cell in cells[:num_texts]]
        texts = [text for each in found for text in each]
        sides = found[: len(self.positives)], found[len(self.positives) :]
        positives, negatives = (list(dict.fromkeys(t for each in side for t in each if t.strip())) for side in sides)
        if not positives:
            names = " or ".join(map(str, self.positives))
            raise DataError(f"expected a relevant passage as {names}, found none")
        query_id = f"q-{hash_of_words(query).hex()}"
        if not self.held_out.holds(split, query_id):
            return None
        return _Row(place, query_id, query, positives, negatives, self._scores_of(texts, cells[num_texts:]))

    def _scores_of(self, texts: Sequence[str], cells: Sequence[Any]) -> dict[str, float]:
        """The teacher's score of each text that is not blank. Raises `DataError` for what is no score."""
        if not cells:
            return {}
        scores = [score for cell in cells for score in _items_of(cell)]
        if len(scores) != len(texts):
            raise DataError(f"expected a score for each of {counted(len(texts), 'passage')}, found {len(scores)}")
        scored = dict[str, float]()
        for text, score in zip(texts, scores, strict=True):
            if isinstance(score, bool | list | dict):
                raise DataError(f"expected a number as a score, found {score!r:.60}")
            if text.strip() and text not in scored:
                scored[text] = float(self.task.parse_label(score))
        return scored

    def _cells(self, split: str) -> Iterator[list[Any]]:
        """The place and the wanted cells of each row; scores are for training only."""
        texts = [self.query, *self.positives, *self.negatives]
        columns = [*texts, *(self.scores if split == "train" else ())]
        for path, reading in self.reading.each(self.paths(split)):
            layout = layout_of(path, self.format)
            if layout in ("jsonl", "parquet"):
                yield from _named_cells(path, layout, columns, 1 + len(self.positives), reading)
                continue
            for number, (place, cells) in enumerate(
                read_columns(path, columns, self.format, reading, with_names=False)
            ):
                if number == 0 and all(map(_is_name, cells[: len(texts)])):
                    found = ", ".join(cells)
                    reading.reject(place, f"expected a query and passages, found a header ({found}): remove it", found)
                else:
                    yield [place, *cells]


def _named_cells(
    path: Path, layout: str, columns: Sequence[Column], needed: int, reading: Reading
) -> Iterator[list[Any]]:
    """The place and the wanted fields of each row, which may lack some, but not all rows the same one.

    The first row must have the query and a positive, which are among the first `needed` columns: else names are misspelt.
    """
    names = [str(column) for column in columns]
    if list(columns) != names:
        raise ConfigError(
            f"Columns of {path.name} are names, found {list(columns)}. Give query, positives, negatives and scores."
        )
    rows = read_parquet(path, names, reading) if layout == "parquet" else read_json(path, reading)
    query, *positives = names[:needed]
    missing, found = set(names), ""
    for number, (place, row) in enumerate(rows):
        if number == 0 and not (query in row and any(name in row for name in positives)):
            lacking = query if query not in row else " or ".join(positives)
            raise ConfigError(f"The first row of {path.name} has no {lacking!r}. It has: {', '.join(row)}.")
        missing.difference_update(row)
        found = ", ".join(row)
        yield [place, *(row.get(name) for name in names)]
    if missing and found:
        raise ConfigError(f"No row of {path.name} has {sorted(missing)[0]!r}. The last one has: {found}.")


def _is_name(cell: str) -> bool:
    """Whether a cell is the name of a column, as in a header, and no text."""
    name = cell.casefold().rstrip("0123456789_")
    return name in _NAMES or name.removesuffix("s") in _NAMES


def texts_of(cell: Any) -> list[str]:
    """The passages in a cell, also blank ones. Raises `DataError` if it is none of what `QueryPassages` reads."""
    texts = [_text_of(item) for item in _items_of(cell)]
    if None in texts:
        raise DataError(f"expected passages, found {cell!r:.60}")
    return [text for text in texts if text is not None]


def _items_of(cell: Any) -> list[Any]:
    """What a cell holds: a list, one thing, or nothing."""
    return cell if isinstance(cell, list) else [] if cell is None else [cell]


def _text_of(item: Any) -> str | None:
    """The text of a passage, after its title, if it has one; None if it is neither a text nor an object with one.

    Nor is it the text of a list, which CSV files have of columns of lists.
    """
    title, text = (item.get("title"), item.get("text")) if isinstance(item, dict) else (None, item)
    if not isinstance(text, str) or not isinstance(title, str | None) or _LIST.fullmatch(text):
        return None
    return f"{title} {text}" if title else text


def _listed(name: str, columns: Columns) -> list[Column]:
    """The columns of a setting, which names one or several."""
    listed: list[Any] = list(columns) if isinstance(columns, list | tuple) else [columns]
    if not listed or not all(type(column) in (int, str) for column in listed):
        raise ConfigError(f"{name} is {columns!r}, expected a column or a list of columns.")
    return listed
