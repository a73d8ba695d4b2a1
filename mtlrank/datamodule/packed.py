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
        limits = preprocessor.lengths
        ids = [tokens[: limits.longest_text] for tokens in preprocessor.ids(list(rows))]
        self.pairs = np.array([[rows[pair.query], rows[pair.text]] for pair in pairs], dtype=np.int64).reshape(-1, 2)
        lengths = np.array([len(tokens) for tokens in ids], dtype=np.int64)
        without = np.flatnonzero((lengths[self.pairs] == 0).any(1))
        if len(without):
            raise DataError(f"{pairs[without[0]].place}: expected text, found one without tokens.")
        self.store = TokenStore(
            [np.concatenate([np.zeros(0, np.int32), *ids])],
            [offsets(lengths)],
            preprocessor.template,
            limits,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def longest_first(self) -> Ints:
        """All pairs, those with many tokens first, as evaluation takes them."""
        order: Ints = np.argsort(-self.store.lengths(self.pairs), kind="stable")
        return order

    def collate(self, numbers: Ints) -> TaskBatch:
        """Some pairs as a batch: an item and a sample each, without labels."""
        each = np.arange(len(numbers))
        packed = self.store.pack(self.pairs[numbers])
        return TaskBatch(
            **packed.tensors(),
            **packed.of_items(each),
            max_items=1,
            num_span_tokens=0,
            labels=torch.zeros(len(numbers)),
            spans=torch.zeros(len(numbers), 0, 2, dtype=torch.long),
            item_sample=torch.from_numpy(each),
            sample_ids=torch.from_numpy(numbers),
        )
