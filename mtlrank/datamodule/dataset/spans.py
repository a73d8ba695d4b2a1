"""Texts with labelled spans: named entities by tags of words, related mentions from JSON lines and GAP."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

from mtlrank.batch import Record, Span
from mtlrank.datamodule.dataset.duplicates import Duplicates
from mtlrank.datamodule.dataset.files import FileDataset, columns_of, columns_of_conll
from mtlrank.datamodule.lines import is_json, read_json, read_lines
from mtlrank.datamodule.parquet import is_parquet, read_objects, read_parquet
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.tags import bio, entities, is_tag
from mtlrank.task import Task

_ONE_LABEL = "one label of a text with its spans"
Tagged = list[tuple[str, str]]  # the tokens of a sentence with their tags


class BIOSpans(FileDataset):
    """Named entities by the BIO tags of tokens (`O`, `B-PER`, `I-PER`), from CoNLL, JSON Lines or Parquet files.

    Tags may also mark the last token (BIOES: `E-PER`; BILOU: `L-PER`) and the only one (`S-PER`; `U-PER`) of an entity.

    CoNLL files have a line for each token, with its tag in the last column, and a blank line between sentences. Columns are
    separated by tabs, or by blanks where there is no tab. By their endings, JSON Lines and Parquet have a sentence in each
    row, as a list of tokens and one of tags; `columns` are their names. Tags are text, or a `ClassLabel` of Parquet.

    A sample is a sentence with its entities as spans; the class is the entity's type. Sentences without one are skipped.
    For a task that finds entities (`Tagging`), the spans are all tokens, and the classes are BIO tags.
    """

    text_keys = ("text",)

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | None = None,
        test: str | None = None,
        columns: Sequence[str] = ("tokens", "ner_tags"),
    ) -> None:
        super().__init__(name, task, preprocessor, train, val, test)
        self.columns = [str(column) for column in columns_of(columns, 2, "tokens and tags, by name")]

    def records(self, split: str) -> Iterable[Record]:
        files = self.reading.each(self.paths(split))
        sentences = chain.from_iterable(self._sentences(path, reading) for path, reading in files)
        for number, (place, sentence) in enumerate(sentences):
            text, words = _joined([token for token, _ in sentence])
            found, doc_id = entities([tag for _, tag in sentence]), f"{split}-{number}"
            if self.task.tags:
                labelled = [*zip(words, bio(len(words), found), strict=True)]
            else:
                self.reading.count("sentences without an entity", not found and self.shard.holds(doc_id))
                labelled = [((words[first][0], words[end - 1][1]), kind) for first, end, kind in found]
            for span, label in labelled:
                yield Record("-", doc_id, None, text, label, (span,), number, place=place)

    def _sentences(self, path: Path, reading: Reading) -> Iterator[tuple[str, Tagged]]:
        """(place, tokens with tags) of each sentence of a file."""
        if is_parquet(path):
            return self._rows(read_parquet(path, self.columns, reading, with_names=True), reading)
        if is_json(path, by_name=True):
            return self._rows(read_json(path, reading), reading)
        return self._lines(path, reading)

    def _rows(self, rows: Iterable[tuple[str, dict[str, Any]]], reading: Reading) -> Iterator[tuple[str, Tagged]]:
        """Sentences of rows with a list of tokens and one of tags."""
        for place, row in rows:
            tokens, tags = (row.get(column) for column in self.columns)
            if isinstance(tags, list) and any(type(tag) is int for tag in tags):
                raise ConfigError(
                    f"{place}: {self.columns[1]} are numbers, and the file does not tell their names. Write tags as text, "
                    "such as B-PER, or as Parquet with the library datasets, where `ClassLabel(names=[...])` gives names."
                )
            try:
                sentence = _tagged(tokens, tags, self.columns)
            except DataError as error:
                reading.reject(place, str(error), str(row))
            else:
                if sentence:
                    yield place, sentence

    def _lines(self, path: Path, reading: Reading) -> Iterator[tuple[str, Tagged]]:
        """Sentences of a CoNLL file, each with the place of its first line; one with a bad line is a bad row."""
        sentence, first, good = Tagged(), "", True
        for place, line in read_lines(path, reading, strict=True):  # what is no text may belong to any sentence
            if not line.strip() or line.startswith("-DOCSTART-"):
                if sentence and good:
                    yield first, sentence
                sentence, good = [], True
                continue
            cells = columns_of_conll(line)
            first = first if sentence else place
            sentence.append((cells[0], cells[-1]))
            if len(cells) < 2 or not _is_tagged(*sentence[-1]):
                reading.reject(
                    place, f"expected 'token<TAB>tag' with a BIO tag (O, B-PER, I-PER), found {line[:60]!r}", line
                )
                good = False
        if sentence and good:
            yield first, sentence


class SpanPairs(FileDataset):
    """JSON Lines or Parquet with `text`, two `spans` as [start, end] characters (end exclusive) and a `label`."""

    text_keys = ("text",)

    def records(self, split: str) -> Iterable[Record]:
        items = Duplicates(self.reading, "items", _ONE_LABEL)
        files = self.reading.each(self.paths(split))
        rows = chain.from_iterable(read_objects(path, ("text", "spans", "label"), reading) for path, reading in files)
        for number, (place, row) in enumerate(rows):
            try:
                spans = tuple((_offset(start), _offset(end)) for start, end in row["spans"])
                text, label = row["text"], row["label"]
                if not isinstance(text, str) or not isinstance(label, str | int | float) or isinstance(label, bool):
                    raise TypeError(f"text is {text!r}, label is {label!r}")
            except (ValueError, KeyError, TypeError) as error:
                reason = f"expected JSON with text, spans and label: {type(error).__name__} {error}"
                self.reading.reject(place, reason, str(row))
                continue
            doc_id = f"{split}-{number}"
            if items.is_new((text, spans), str(label), place, mine=self.shard.holds(doc_id)):
                yield Record("-", doc_id, None, text, label, spans, place=place)


def _offset(value: Any) -> int:
    """A position in a text, as JSON gives it."""
    if type(value) is not int:  # true and false are instances of int
        raise TypeError(f"{value!r} is not a whole number")
    return value


class GAP(FileDataset):
    """GAP's files: a pronoun and two names in a text, and whether each name is whom the pronoun means.

    A sample is a text with two items. The offsets are characters (Webster et al. 2018, "Mind the GAP").
    """

    text_keys = ("text",)
    COLUMNS = ("ID", "Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "A-coref", "B", "B-offset", "B-coref")

    def records(self, split: str) -> Iterable[Record]:
        items = Duplicates(self.reading, "items", _ONE_LABEL)
        rows = self.rows(split, range(len(self.COLUMNS)), "tsv")
        for number, (place, cells) in enumerate(row for row in rows if tuple(row[1]) != self.COLUMNS):
            row = dict(zip(self.COLUMNS, cells, strict=True))
            try:
                pronoun, *names = (_gap_span(row, name) for name in ("Pronoun", "A", "B"))
                labels = [_gap_label(row, name) for name in ("A", "B")]
            except DataError as error:
                self.reading.reject(place, str(error), row["Text"])
                continue
            for span, label in zip(names, labels, strict=True):
                spans = (min(span, pronoun), max(span, pronoun))
                if items.is_new((row["Text"], spans), label, place, mine=self.shard.holds(row["ID"])):
                    yield Record("-", row["ID"], None, row["Text"], label, spans, number, place=place)


def _gap_span(row: dict[str, Any], name: str) -> Span:
    """The span of a mention. Raises `DataError` if the text does not have it at the row's offset."""
    offset, surface = row[f"{name}-offset"], row[name]
    start = int(offset) if offset.isascii() and offset.isdecimal() else -1
    if start < 0 or not surface or not row["Text"].startswith(surface, start):
        raise DataError(f"expected {surface!r} at character {offset} of the text")
    return start, start + len(surface)


def _gap_label(row: dict[str, Any], name: str) -> str:
    labels = {"TRUE": "coreferent", "FALSE": "distinct"}
    found = row[f"{name}-coref"]
    if found.upper() not in labels:
        raise DataError(f"expected TRUE or FALSE as {name}-coref, found {found!r}")
    return labels[found.upper()]


def _tagged(tokens: Any, tags: Any, columns: Sequence[str]) -> Tagged:
    """The tokens of a row with their tags. Raises `DataError` if these are not two lists of the same length."""
    if not isinstance(tokens, list) or not isinstance(tags, list):
        found = " and ".join(f"{value!s:.40}" for value in (tokens, tags))
        raise DataError(f"expected a list of tokens and one of tags as {' and '.join(columns)}, found {found}")
    if len(tokens) != len(tags):
        raise DataError(f"expected a tag for each token, found {len(tokens)} {columns[0]} and {len(tags)} {columns[1]}")
    sentence = Tagged()
    for token, tag in zip(tokens, tags, strict=True):
        word, tag = (value.strip(" \r") if isinstance(value, str) else value for value in (token, tag))
        if not _is_tagged(word, tag):
            raise DataError(f"expected tokens of text with BIO tags (O, B-PER, I-PER), found {token!r} with {tag!r}")
        sentence.append((word, tag))
    return sentence


def _is_tagged(token: Any, tag: Any) -> bool:
    """Whether a token is a word, and its tag one of BIO, BIOES or BILOU."""
    if not isinstance(token, str) or not isinstance(tag, str) or not token:
        return False
    return is_tag(tag)


def _joined(tokens: Sequence[str]) -> tuple[str, list[Span]]:
    """The tokens joined by blanks, and the span of each."""
    ends = list(accumulate((len(token) + 1 for token in tokens), initial=0))
    return " ".join(tokens), [(start, end - 1) for start, end in pairwise(ends)]
