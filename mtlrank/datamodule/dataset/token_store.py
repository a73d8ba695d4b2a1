"""Tokens of many texts, and sequences made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mtlrank.datamodule.dataset.arrays import Array, Chained, RowRanges, mapped, offsets, ranges
from mtlrank.datamodule.dataset.split_files import NO_TEXT
from mtlrank.datamodule.preprocessor import Template
from mtlrank.dtypes import Ints


class PackedSequences(NamedTuple):
    """Sequences one after another, and where each starts; the last start is the number of tokens."""

    ids: Ints  # (tokens,)
    types: Ints  # (tokens,)
    starts: Ints  # (sequences + 1,)
    second_starts: Ints  # (sequences,), of the second texts; without one, the sequence's end

    def tensors(self) -> dict[str, Any]:
        """The fields of a `TaskBatch` that say what its sequences are."""
        return {
            "input_ids": torch.from_numpy(self.ids),
            "token_type_ids": torch.from_numpy(self.types),
            "second_starts": torch.from_numpy(self.second_starts),
            "cu_seqlens": torch.from_numpy(self.starts.astype(np.int32)),
            "max_seqlen": int(np.diff(self.starts).max(initial=0)),
        }


class TokenStore:
    """The tokens of many texts, a part for each shard, and how they are joined to sequences.

    `ends` holds, of each part, where each text begins in its tokens, and where the last one ends.
    """

    def __init__(
        self,
        tokens: Sequence[Array],
        ends: Sequence[Ints],
        template: Template,
        max_length: int,
        max_query_length: int,
    ) -> None:
        self.tokens = Chained(tokens)
        self.texts = RowRanges(ends)
        self.first_text = offsets([len(part) - 1 for part in ends])  # the number of each part's first text
        self.template = template
        self.max_length = max_length
        self.max_query_length = max_query_length

    def pack(self, sequences: Ints) -> PackedSequences:
        """Join texts to sequences.

        `sequences` is (n, 2): rows of the first and the second text, NO_TEXT for none.
        """
        paired = sequences[:, 1] != NO_TEXT
        source, length, special = self._fit(sequences, paired)
        before, between, after = (len(part) for part in self.template[:3])
        starts = offsets(special + length.sum(1))
        place = np.empty_like(length)
        place[:, 0] = starts[:-1] + before
        middle = place[:, 0] + length[:, 0]
        place[:, 1] = middle + between * paired

        ids = np.empty(starts[-1], dtype=np.int64)
        _put(ids, starts[:-1], self.template.prefix)
        _put(ids, middle[paired], self.template.middle)
        _put(ids, starts[1:] - after, self.template.suffix)
        ids[ranges(place.ravel(), length.ravel())] = self.tokens[ranges(source, length.ravel())]
        second = np.where(paired, starts[1:] - place[:, 1], 0)
        of_types = np.stack([starts[1:] - starts[:-1] - second, second], 1)  # tokens of either type, in turns
        types = np.repeat(np.tile([0, self.template.second_type], len(sequences)), of_types.ravel())
        return PackedSequences(ids, types, starts, starts[1:] - second)

    def lengths(self, sequences: Ints) -> Ints:
        """How many tokens sequences have, special ones included, (n,)."""
        _, length, special = self._fit(sequences, sequences[:, 1] != NO_TEXT)
        total: Ints = special + length.sum(1)
        return total

    def _fit(self, sequences: Ints, paired: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
        """Where the texts of sequences begin, (2n,), how much of each fits, (n, 2), and the special tokens around, (n,)."""
        source, length = self.texts[np.maximum(sequences, 0).ravel()]  # of first and second texts, in turns
        length = length.reshape(-1, 2)
        before, between, after = (len(part) for part in self.template[:3])
        special = before + after + between * paired
        room = self.max_length - special
        length[:, 0] = np.minimum(length[:, 0], np.where(paired, self.max_query_length, room))
        length[:, 1] = np.minimum(length[:, 1], room - length[:, 0]) * paired
        return source, length, special


class PreparedTokens(TokenStore):
    """The texts of a prepared dataset, mapped into memory; a process that gets them maps the files itself."""

    def __init__(self, folders: Sequence[Path], manifest: dict[str, Any]) -> None:
        template = manifest["template"]
        super().__init__(
            [mapped(folder / "tokens.npy") for folder in folders],
            [mapped(folder / "token_offsets.npy") for folder in folders],
            Template(
                tuple(template["prefix"]), tuple(template["middle"]), tuple(template["suffix"]), template["second_type"]
            ),
            manifest["max_length"],
            manifest["max_query_length"],
        )
        self._opened = folders, manifest

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedTokens, self._opened


def _put(target: Ints, starts: Ints, values: Sequence[int]) -> None:
    for step, value in enumerate(values):
        target[starts + step] = value
