"""Coreference in CoNLL-2012's format: documents whose mentions have the number of their entity."""

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mtlrank.annotate.mentions import mention_pairs
from mtlrank.batch import Record, Span
from mtlrank.checks import whole
from mtlrank.datamodule.dataset.duplicates import Duplicates
from mtlrank.datamodule.dataset.files import FileDataset, columns_of_conll
from mtlrank.datamodule.lines import read_lines
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.task import Task

_BRACKETS = re.compile(r"(\()?(\d+)(\))?")


class Sentence(NamedTuple):
    """The words of a sentence, and its mentions as (first word, one past the last, entity)."""

    words: list[str]
    mentions: list[tuple[int, int, str]]
    place: str


class CoNLLCoreference(FileDataset):
    """Whether two mentions mean the same, from files in the CoNLL-2012 format (OntoNotes, LitBank).

    A split is a file, all that match a name with `*`, or a share of the training documents, as in `val=0.2`. Documents are
    cut into passages of whole sentences with up to `max_words` words; a passage's pairs are neighbouring mentions of an
    entity and as many pairs of different ones. The word is in the fourth column, the brackets are in the last.
    """

    text_keys = ("text",)

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | float | None = None,
        test: str | float | None = None,
        max_words: int = 120,
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor, train, val, test)
        self.held_out = self.hold_out(seed)
        self.max_words = whole(1).check("max_words", max_words)
        self.seed = seed

    def records(self, split: str) -> Iterable[Record]:
        passages, documents = 0, Duplicates(self.reading, "documents", "one text of a document, with its mentions")
        for path, reading in self.reading.each(self.paths(split)):
            for document, sentences in self._documents(path, reading):
                whole = document.partition(";")[0]  # parts of one document stay together
                if not self.held_out.holds(split, whole):
                    continue
                says = [sentence[:2] for sentence in sentences]
                place = sentences[0].place if sentences else path.name
                if documents.is_new(document, says, place, mine=self.shard.holds(document)):
                    for records in self._passages(document, sentences):
                        yield from (record._replace(group=passages) for record in records)
                        passages += 1

    def _passages(self, document: str, sentences: list[Sentence]) -> Iterator[list[Record]]:
        for number, passage in enumerate(_up_to(sentences, self.max_words)):
            name = re.sub(r"\s+", "_", f"{document}-{number}")
            text, clusters = _join(passage)
            draw = random.Random(f"{self.seed} {name}")
            yield [
                Record("-", name, None, text, label, (first, second), place=passage[0].place)
                for first, second, label in mention_pairs(clusters, draw)
            ]

    def _documents(self, path: Path, reading: Reading) -> Iterator[tuple[str, list[Sentence]]]:
        """(id, sentences) of each document of a file."""
        document, sentences = "", list[Sentence]()
        rows, good = list[tuple[str, str]](), True
        first = ""
        for place, line in read_lines(path, reading, strict=True):
            if line.startswith("#begin document"):
                if sentences or rows:
                    raise DataError(
                        f"{place}: expected '#end document' before the next document. Is the file complete?"
                    )
                document = line.removeprefix("#begin document").strip()
            elif line.strip() and not line.startswith("#"):
                cells = columns_of_conll(line)
                first = first if rows else place
                wrong = f"at least 5 columns, found {len(cells)}" if len(cells) < 5 else ""
                if not wrong and not cells[3]:
                    wrong = "a word in the fourth column, found none"
                if wrong:
                    self.reading.reject(place, f"expected {wrong}: {line[:60]!r}", line)
                    good = False
                else:
                    rows.append((cells[3], cells[-1]))
            else:
                if rows and good:  # a sentence with a bad line is left out whole
                    sentences.append(self._sentence(rows, first))
                rows, good = [], True
                if line.startswith("#end document"):
                    yield document, sentences
                    document, sentences = "", []
        if sentences or rows:
            raise DataError(f"{path.name}: expected '#end document' at the end. Is the file complete?")

    def _sentence(self, rows: list[tuple[str, str]], place: str) -> Sentence:
        """A sentence with its mentions; brackets that do not match are a bad row, and the mention is left out."""
        open_at, mentions = dict[str, list[int]](), list[tuple[int, int, str]]()
        for position, (_, brackets) in enumerate(rows):
            for opens, entity, closes in _BRACKETS.findall(brackets):
                if opens:
                    open_at.setdefault(entity, []).append(position)
                if closes and open_at.get(entity):
                    mentions.append((open_at[entity].pop(), position + 1, entity))
                elif closes:
                    self.reading.reject(place, f"expected '({entity}' before '{entity})' in the sentence")
        for entity in (entity for entity, starts in open_at.items() if starts):
            self.reading.reject(place, f"expected '{entity})' after '({entity}' in the sentence")
        return Sentence([word for word, _ in rows], mentions, place)


def _up_to(sentences: list[Sentence], words: int) -> Iterator[list[Sentence]]:
    """Runs of sentences with at most `words` words together; a longer sentence is a run by itself."""
    passage, total = list[Sentence](), 0
    for sentence in sentences:
        if passage and total + len(sentence.words) > words:
            yield passage
            passage, total = [], 0
        passage.append(sentence)
        total += len(sentence.words)
    if passage:
        yield passage


def _join(sentences: list[Sentence]) -> tuple[str, list[list[Span]]]:
    """The words joined by blanks, and each entity's mentions in it, in the order of their first one."""
    text, clusters = "", dict[str, list[Span]]()
    for sentence in sentences:
        starts, ends = list[int](), list[int]()
        for word in sentence.words:
            text += f" {word}" if text else word
            starts.append(len(text) - len(word))
            ends.append(len(text))
        for first, last, entity in sentence.mentions:
            clusters.setdefault(entity, []).append((starts[first], ends[last - 1]))
    return text, list(clusters.values())
