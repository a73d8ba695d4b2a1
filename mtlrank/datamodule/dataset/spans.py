"""Texts with labelled spans: named entities from BIO files, related mentions from JSON lines and GAP."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mtlrank.batch import Record, Span
from mtlrank.datamodule.dataset.duplicates import Duplicates
from mtlrank.datamodule.dataset.files import FileDataset, columns_of_conll
from mtlrank.datamodule.lines import read_lines
from mtlrank.datamodule.parquet import read_objects
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError

_ONE_LABEL = "one label of a text with its spans"


class BIOSpans(FileDataset):
    """CoNLL files: a line for each token, its tag in the last column (`O`, `B-PER`, `I-PER`).

    A blank line is between sentences. Columns are separated by tabs, or by blanks where there is no tab. A sample is a
    sentence with its entities as spans; the class is the entity's type. Sentences without one are skipped.
    """

    text_keys = ("text",)

    def records(self, split: str) -> Iterable[Record]:
        files = self.reading.each(self.paths(split))
        sentences = chain.from_iterable(self._sentences(path, reading) for path, reading in files)
        for number, (place, sentence) in enumerate(sentences):
            text, spans = _entities(sentence)
            for span, label in spans:
                yield Record("-", f"{split}-{number}", None, text, label, (span,), number, place=place)

    def _sentences(self, path: Path, reading: Reading) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """(place of the first line, tokens with tags) of each sentence; one with a bad line is a bad row."""
        sentence, first, good = list[tuple[str, str]](), "", True
        for place, line in read_lines(path, reading, strict=True):  # the sentence of what is no text may be any
            if not line.strip() or line.startswith("-DOCSTART-"):
                if sentence and good:
                    yield first, sentence
                sentence, good = [], True
                continue
            cells = columns_of_conll(line)
            first = first if sentence else place
            sentence.append((cells[0], cells[-1]))
            if len(cells) < 2 or not cells[0] or not _is_tag(cells[-1]):
                reading.reject(place, f"expected 'token<TAB>tag' with a BIO tag, found {line[:60]!r}", line)
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
    """Where a mention is, if it is where the row says."""
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


def _is_tag(tag: str) -> bool:
    return tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def _entities(sentence: list[tuple[str, str]]) -> tuple[str, list[tuple[Span, str]]]:
    """The tokens joined by blanks, and the entities among them. An I- that continues nothing starts an entity."""
    text, entities = "", list[tuple[Span, str]]()
    previous = "O"
    for token, tag in sentence:
        start = len(text) + bool(text)
        text += f" {token}" if text else token
        if tag.startswith("B-") or (tag.startswith("I-") and previous[2:] != tag[2:]):
            entities.append(((start, len(text)), tag[2:]))
        elif tag.startswith("I-"):
            (first, _), label = entities[-1]
            entities[-1] = ((first, len(text)), label)
        previous = tag
    return text, entities
