"""Writing a prepared dataset: every distinct text tokenised once, and rows that point at texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtlrank.batch import Record, Span
from mtlrank.datamodule.preprocessor import LoadedPreprocessor, Tokens
from mtlrank.errors import DataError
from mtlrank.storage import write_text
from mtlrank.task import Task

NO_TEXT = -1


class TextTable:
    """The distinct texts of a dataset, in order of arrival."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The row of the text."""
        return self.rows.setdefault(text, len(self.rows))

    def write(self, folder: Path, preprocessor: LoadedPreprocessor) -> list[Tokens]:
        """Tokenise all texts and write `tokens.npy` with `token_offsets.npy`, a row a text."""
        tokens = preprocessor.encode(list(self.rows))
        dtype = np.uint16 if len(preprocessor.tokenizer) <= 2**16 else np.uint32
        kept = [text.ids[: preprocessor.max_length] for text in tokens]
        np.save(folder / "tokens.npy", np.concatenate([np.zeros(0, np.int64), *kept]).astype(dtype))
        np.save(folder / "token_offsets.npy", offsets([len(ids) for ids in kept]))
        return tokens


class SplitWriter:
    """Collects the records of one split as rows."""

    def __init__(self, where: str, task: Task) -> None:
        self.where = where
        self.task = task
        self.texts: list[tuple[int, int]] = []  # of each sequence: rows of its first and second text
        self.ids: list[tuple[str, str]] = []  # of each sequence: query_id, doc_id
        self.samples: list[int] = []  # of each sequence: its sample
        self.items: list[tuple[int, float, tuple[Span, ...]]] = []  # sequence, label, spans
        self.group: int | None = None
        self._text_of: dict[str, int] = {}

    def add(self, record: Record, texts: TextTable) -> None:
        """Check a record and add it; an error says which record it was."""
        try:
            self._check(record)
            label = self.task.encode_label(record.label)
            self._add_sequence(record, texts)
        except DataError as error:
            raise DataError(f"{place(self.where, len(self.items) + 1, record)}: {error}") from error
        self.items.append((len(self.texts) - 1, label, record.spans))

    def _check(self, record: Record) -> None:
        for what, text in (("query", record.query), ("text", record.text)):
            if text is not None and not text.strip():
                raise DataError(f"the {what} is empty")
        for what, name in (("query_id", record.query_id), ("doc_id", record.doc_id)):
            if not name or name.split() != [name]:
                raise DataError(f"{what} {name!r} is empty or has a blank, which TREC files cannot hold")
        if len(record.spans) != self.task.num_spans:
            raise DataError(f"expected {self.task.num_spans} spans, found {len(record.spans)}")
        for start, end in record.spans:
            if not 0 <= start < end <= len(record.text):
                raise DataError(f"span {start}:{end} lies outside the text, which has {len(record.text)} characters")

    def _add_sequence(self, record: Record, texts: TextTable) -> None:
        """A record of the running group continues its sample; with equal ids too it continues its sequence."""
        ids = (record.query_id, record.doc_id)
        continues = record.group is not None and record.group == self.group
        if not (continues and self.ids[-1] == ids):
            first = NO_TEXT if record.query is None else self._row(f"query {record.query_id}", record.query, texts)
            second = self._row(f"doc {record.doc_id}", record.text, texts)
            self.texts.append((second, NO_TEXT) if first == NO_TEXT else (first, second))
            self.ids.append(ids)
            self.samples.append(self.samples[-1] + (not continues) if self.samples else 0)
        self.group = record.group

    def _row(self, name: str, text: str, texts: TextTable) -> int:
        """The row of the text that an id stands for in this split: always the same one."""
        row = texts.add(text)
        if self._text_of.setdefault(name, row) != row:
            raise DataError(f"{name} stands for two different texts, one of them {text[:40]!r}")
        return row

    def write(self, folder: Path, tokens: Sequence[Tokens], preprocessor: LoadedPreprocessor) -> dict[str, int]:
        """Write the rows; items whose span no token holds or that truncation cuts are left out and counted."""
        folder.mkdir()
        items, dropped = [], 0
        for sequence, label, spans in self.items:
            positions = [self._position(sequence, span, tokens, preprocessor) for span in spans]
            if None in positions:
                dropped += 1
            else:
                items.append((sequence, label, positions))
        kept = sorted({sequence for sequence, _, _ in items})  # a sequence without items teaches nothing
        renumbered = {sequence: i for i, sequence in enumerate(kept)}
        item_sequence = np.array([renumbered[sequence] for sequence, _, _ in items], dtype=np.int64)
        _, per_sample = np.unique([self.samples[sequence] for sequence in kept], return_counts=True)
        np.save(folder / "sequences.npy", np.array([self.texts[s] for s in kept], dtype=np.int32).reshape(-1, 2))
        np.save(folder / "sample_offsets.npy", offsets(per_sample))
        np.save(folder / "item_offsets.npy", offsets(np.bincount(item_sequence, minlength=len(kept))))
        np.save(folder / "labels.npy", np.array([label for _, label, _ in items], dtype=np.float32))
        token_spans = np.array([positions for _, _, positions in items], dtype=np.int32)
        np.save(folder / "spans.npy", token_spans.reshape(len(items), self.task.num_spans, 2))
        write_text(folder / "ids.tsv", "".join("\t".join(self.ids[sequence]) + "\n" for sequence in kept))
        counts = {"samples": len(per_sample), "sequences": len(kept), "items": len(items)}
        return {**counts, "items_dropped": dropped}

    def _position(
        self, sequence: int, span: Span, tokens: Sequence[Tokens], preprocessor: LoadedPreprocessor
    ) -> Span | None:
        """First and one past the last token of a span, counted from the start of the text that it is in."""
        first, second = self.texts[sequence]
        template = preprocessor.template
        if second == NO_TEXT:
            text, room = first, preprocessor.max_length - len(template.prefix) - len(template.suffix)
        else:
            query_length = min(len(tokens[first].ids), preprocessor.max_query_length)
            text, room = second, preprocessor.max_length - template.num_special - query_length
        found = tokens[text].span(*span)
        return found if found and found[1] <= room else None


def place(where: str, number: int, record: Record) -> str:
    """How an error names a record of a split."""
    return f"{where}, record {number} (query {record.query_id!r}, doc {record.doc_id!r})"


def offsets(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several runs of the given lengths starts; the last entry is where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
