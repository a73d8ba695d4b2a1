"""Pairs of texts as packed batches, without a prepared dataset."""

from collections.abc import Sequence

import numpy as np
import torch

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.candidates import Candidate
from mtlrank.datamodule.dataset.arrays import offsets
from mtlrank.datamodule.dataset.token_store import TokenStore
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.dtypes import Ints
from mtlrank.errors import DataError


class PackedPairs:
    """Some pairs, each distinct text of them tokenised once, cut and joined as preparation does it."""

    def __init__(self, pairs: Sequence[Candidate], preprocessor: LoadedPreprocessor) -> None:
        rows = {text: row for row, text in enumerate(dict.fromkeys(t for pair in pairs for t in pair[2:]))}
        ids = [tokens[: preprocessor.max_length] for tokens in preprocessor.ids(list(rows))]
        self.sequences = np.array([[rows[pair.query], rows[pair.text]] for pair in pairs], dtype=np.int64).reshape(
            -1, 2
        )
        lengths = np.array([len(tokens) for tokens in ids], dtype=np.int64)
        without = np.flatnonzero((lengths[self.sequences] == 0).any(1))
        if len(without):
            raise DataError(f"{pairs[without[0]].place}: expected text, found one without tokens.")
        self.store = TokenStore(
            [np.concatenate([np.zeros(0, np.int32), *ids])],
            [offsets(lengths)],
            preprocessor.template,
            preprocessor.max_length,
            preprocessor.max_query_length,
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def longest_first(self) -> Ints:
        """All pairs, those with many tokens first, as evaluation takes them."""
        order: Ints = np.argsort(-self.store.lengths(self.sequences), kind="stable")
        return order

    def collate(self, numbers: Ints) -> TaskBatch:
        """Some pairs as a batch: an item and a sample each, without labels."""
        each = torch.arange(len(numbers))
        return TaskBatch(
            **self.store.pack(self.sequences[numbers]).tensors(),
            max_items=1,
            num_span_tokens=0,
            labels=torch.zeros(len(numbers)),
            spans=torch.zeros(len(numbers), 0, 2, dtype=torch.long),
            item_sequence=each,
            item_sample=each,
            sample_ids=torch.from_numpy(numbers),
        )
