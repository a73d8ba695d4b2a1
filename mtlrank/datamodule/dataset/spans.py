"""Texts with labelled spans: named entities from BIO files, related mentions from JSON lines."""

import json
import operator
from collections.abc import Iterable, Iterator

from mtlrank.batch import Record, Span
from mtlrank.datamodule.dataset.files import lines
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import DataError
from mtlrank.task import Task


class _Files(PreparedDataset):
    """A dataset of one file a split."""

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | None = None,
        test: str | None = None,
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.files = {"train": train, "val": val, "test": test}


class BIOSpans(_Files):
    """CoNLL files: a token, a tab and its tag (`O`, `B-PER`, `I-PER`), a blank line between sentences.

    A sample is a sentence with its entities as spans; the class is the entity's type. Sentences without one are skipped.
    """

    def records(self, split: str) -> Iterable[Record]:  # noqa: D102
        for number, sentence in enumerate(self._sentences(split)):
            text, spans = _entities(sentence)
            for span, label in spans:
                name = f"{split}-{number}"
                yield Record("-", name, None, text, label, (span,), group=number)

    def _sentences(self, split: str) -> Iterator[list[tuple[str, str]]]:
        sentence: list[tuple[str, str]] = []
        for place, line in lines(self.files, split):
            if line.strip():
                cells = line.split("\t")
                if len(cells) != 2 or (cells[1] != "O" and (cells[1][:2] not in ("B-", "I-") or len(cells[1]) < 3)):
                    raise DataError(f"{place}: expected 'token<TAB>tag' with a BIO tag, found {line[:60]!r}")
                sentence.append((cells[0], cells[1]))
            elif sentence:
                yield sentence
                sentence = []
        if sentence:
            yield sentence


class SpanPairs(_Files):
    """JSON lines with `text`, two `spans` as [start, end] characters (end exclusive) and a `label`."""

    def records(self, split: str) -> Iterable[Record]:  # noqa: D102
        for number, (place, line) in enumerate(lines(self.files, split)):
            try:
                row = json.loads(line)
                spans = tuple((operator.index(start), operator.index(end)) for start, end in row["spans"])
                text, label = row["text"], row["label"]
                if not isinstance(text, str) or not isinstance(label, str | int | float):
                    raise TypeError(f"text is {text!r}, label is {label!r}")
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{place}: expected JSON with text, spans and label: {error!r}") from error
            yield Record("-", f"{split}-{number}", None, text, label, spans)


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
