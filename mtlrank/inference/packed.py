"""Pairs of texts, or single texts, as packed batches, without a prepared dataset."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mtlrank.batch import Span, TaskBatch
from mtlrank.datamodule.dataset.arrays import offsets, ranges
from mtlrank.datamodule.dataset.split_files import NO_TEXT
from mtlrank.datamodule.dataset.token_store import TokenStore
from mtlrank.datamodule.preprocessor import LoadedPreprocessor, Tokens
from mtlrank.dtypes import Ints
from mtlrank.errors import DataError
from mtlrank.inference.candidates import Candidate


class PackedPairs:
    """Pairs as preparation makes them: each distinct text is tokenised once, cut, and joined with the other one.

    As in preparation, an item is left out if one of its spans is cut off or holds no token.
    """

    def __init__(self, pairs: Sequence[Candidate], preprocessor: LoadedPreprocessor) -> None:
        texts = (text for pair in pairs for text in (pair.query, pair.text, pair.note) if text is not None)
        kept, places = preprocessor.kept(texts, (pair.located for pair in pairs if any(pair.items)))
        rows = {text: row for row, text in enumerate(kept)} | {None: NO_TEXT}
        pair_rows = [
            (rows[pair.text], NO_TEXT, NO_TEXT)
            if pair.query is None
            else (rows[pair.query], rows[pair.text], rows[pair.note])
            for pair in pairs
        ]
        self.pairs = np.array(pair_rows, dtype=np.int64).reshape(-1, 3)
        lengths = np.array([len(tokens) for tokens in kept.values()], dtype=np.int64)
        empty = np.flatnonzero(((lengths[self.pairs] == 0) & (self.pairs != NO_TEXT)).any(1))
        if len(empty):
            raise DataError(f"{pairs[empty[0]].place}: expected text, found one without tokens.")
        tokens = np.concatenate([np.zeros(0, np.int32), *kept.values()])
        self.store = TokenStore([tokens], [offsets(lengths)], preprocessor.template, preprocessor.lengths)
        of_pairs = np.where(self.pairs == NO_TEXT, 0, lengths[self.pairs]).tolist()
        spans = [_placed(pair, places, each, preprocessor) for pair, each in zip(pairs, of_pairs, strict=True)]
        self._take_items([item for items in spans for item in items], [len(items) for items in spans])

    def _take_items(self, spans: Sequence[Sequence[Span] | None], counts: Sequence[int]) -> None:
        """Keep the spans of items; `spans` is None for an item that is left out, `counts` are the items of each pair."""
        is_kept = np.array([item is not None for item in spans], dtype=bool)
        self.num_items = len(spans)  # of all pairs, with those that are left out
        self._numbers = np.flatnonzero(is_kept)  # of kept items, among all
        self._first = offsets(is_kept)[offsets(counts)]  # by pair: its first item among the kept ones
        width = max((len(item) for item in spans if item), default=0)
        kept = [item for item in spans if item is not None]
        self._spans = np.array(kept, dtype=np.int64).reshape(len(kept), width, 2)

    def __len__(self) -> int:
        return len(self.pairs)

    def longest_first(self) -> Ints:
        """The pairs that have items, those with most tokens first, as in evaluation."""
        order: Ints = np.argsort(-self.store.lengths(self.pairs), kind="stable")
        return order[np.diff(self._first)[order] > 0]

    def items(self, numbers: Ints) -> Ints:
        """The items of some pairs, pair by pair, as numbers among the items of all pairs."""
        return self._numbers[self._rows(numbers)]

    def _rows(self, numbers: Ints) -> Ints:
        return ranges(self._first[numbers], self._first[numbers + 1] - self._first[numbers])

    def collate(self, numbers: Ints) -> TaskBatch:
        """Some pairs as a batch: a sample each, without labels."""
        rows = self._rows(numbers)
        item_pair = np.repeat(np.arange(len(numbers)), np.diff(self._first)[numbers])
        packed = self.store.pack(self.pairs[numbers])
        return packed.batch(item_pair, item_pair, torch.zeros(len(rows)), self._spans[rows], numbers)


def _placed(
    pair: Candidate, places: Mapping[str, Tokens], lengths: Sequence[int], preprocessor: LoadedPreprocessor
) -> list[list[Span] | None]:
    """The spans of each item as tokens of the pair's sequence, whose texts have so many tokens."""
    if pair.items == ((),):
        return [[]]
    if pair.query is None:
        room = preprocessor.room()
    else:
        of_query, of_text = preprocessor.rooms(*lengths)
        room = of_query if pair.spans_in == "query" else of_text
    return [places[pair.located].positions(spans, room) for spans in pair.items]
