"""Tokens of many texts, and sequences made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.dataset.arrays import Array, Chained, RowRanges, mapped, offsets, ranges
from mtlrank.datamodule.dataset.split_files import NO_TEXT
from mtlrank.datamodule.preprocessor import Lengths, Template
from mtlrank.dtypes import Ints


class PackedSequences(NamedTuple):
    """Sequences one after another, and where each starts; the last start is the number of tokens.

    A long document takes several, its passages.
    """

    ids: Ints  # (tokens,)
    types: Ints  # (tokens,)
    starts: Ints  # (sequences + 1,)
    second_starts: Ints  # (sequences,), of the second texts; without one, the sequence's end
    pair_starts: Ints  # (pairs + 1,), of the pairs that were asked for, the first sequence of each, and their number

    def batch(self, item_pair: Ints, item_sample: Ints, labels: Tensor, spans: Ints, sample_ids: Ints) -> TaskBatch:
        """The sequences with their items, of which each has a pair, a sample, a label, and spans that count from the start
        of the pair's first sequence.
        """
        first = self.pair_starts[item_pair]
        passages = self.pair_starts[item_pair + 1] - first
        most = int(passages.max(initial=1))
        of_item = np.repeat(np.arange(len(item_pair)), passages) if most > 1 else None
        return TaskBatch(
            input_ids=torch.from_numpy(self.ids),
            token_type_ids=torch.from_numpy(self.types),
            second_starts=torch.from_numpy(self.second_starts),
            cu_seqlens=torch.from_numpy(self.starts.astype(np.int32)),
            max_seqlen=int(np.diff(self.starts).max(initial=0)),
            max_items=int(np.bincount(item_sample).max(initial=0)),
            num_span_tokens=int((spans[..., 1] - spans[..., 0]).sum()),
            labels=labels,
            spans=torch.from_numpy(spans + self.starts[first][:, None, None]),
            item_sequence=torch.from_numpy(ranges(first, passages)),
            item_sample=torch.from_numpy(item_sample),
            sample_ids=torch.from_numpy(sample_ids),
            passage_item=None if of_item is None else torch.from_numpy(of_item),
            max_passages=most,
        )


class Fit(NamedTuple):
    """How the texts of pairs fit into sequences."""

    source: Ints  # (sequences, 3), where what is read of each text begins in the tokens of all texts
    length: Ints  # (sequences, 3), how many tokens of each text are read
    special: Ints  # (sequences,), special tokens around
    passages: Ints  # (pairs,), how many sequences each pair takes

    @property
    def starts(self) -> Ints:
        """Where each sequence starts, (sequences + 1,); the last one is the number of tokens."""
        return offsets(self.special + self.length.sum(1))


class TokenStore:
    """The tokens of many texts, a part for each shard, and how they are joined to sequences.

    `ends` holds, of each part, where each text begins in its tokens, and where the last one ends.
    """

    def __init__(
        self,
        tokens: Sequence[Array],
        ends: Sequence[Ints],
        template: Template,
        lengths: Lengths,
    ) -> None:
        self.tokens = Chained(tokens)
        self.texts = RowRanges(ends)
        self.first_text = offsets([len(part) - 1 for part in ends])  # the number of each part's first text
        self.template = template
        self.limits = lengths

    def pack(self, pairs: Ints) -> PackedSequences:
        """Join texts to sequences.

        `pairs` is (n, 3): rows of the first and the second text, and of a note that stands between them; NO_TEXT for none.
        """
        fit = self._fit(pairs)
        source, length, _, passages = fit
        paired, noted = (np.repeat(pairs[:, column] != NO_TEXT, passages) for column in (1, 2))
        before, between, after = (len(part) for part in self.template[:3])
        starts = fit.starts
        place = np.empty_like(length)
        place[:, 0] = starts[:-1] + before
        middle = place[:, 0] + length[:, 0]
        place[:, 2] = middle + between * noted
        end_of_note = place[:, 2] + length[:, 2]
        place[:, 1] = end_of_note + between * paired

        ids = np.empty(starts[-1], dtype=np.int64)
        _put(ids, starts[:-1], self.template.prefix)
        _put(ids, middle[noted], self.template.middle)
        _put(ids, end_of_note[paired], self.template.middle)
        _put(ids, starts[1:] - after, self.template.suffix)
        ids[ranges(place.ravel(), length.ravel())] = self.tokens[ranges(source.ravel(), length.ravel())]
        second = np.where(paired, starts[1:] - place[:, 1], 0)
        of_types = np.stack([starts[1:] - starts[:-1] - second, second], 1)  # tokens of either type, in turns
        types = np.repeat(np.tile([0, self.template.second_type], len(paired)), of_types.ravel())
        return PackedSequences(ids, types, starts, starts[1:] - second, offsets(passages))

    def lengths(self, pairs: Ints) -> Ints:
        """How many tokens pairs have, (n,), special ones included, in all their passages."""
        fit = self._fit(pairs)
        return np.diff(fit.starts[offsets(fit.passages)])

    def _fit(self, pairs: Ints) -> Fit:
        """Cut texts to what sequences have room for."""
        paired, noted = (pairs[:, column] != NO_TEXT for column in (1, 2))
        source, length = (found.reshape(-1, 3) for found in self.texts[np.maximum(pairs, 0).ravel()])
        before, between, after = (len(part) for part in self.template[:3])
        special = before + after + between * (paired.astype(np.int64) + noted)
        length[:, 2] *= noted
        room = self.limits.max_length - special - length[:, 2]
        length[:, 0] = np.where(
            paired, self.limits.kept(length[:, 0], length[:, 1], room), np.minimum(length[:, 0], room)
        )
        length[:, 1] *= paired
        room -= length[:, 0]
        if self.limits.max_passages > 1:
            return self._cut_into_passages(source, length, special, room)
        length[:, 1] = np.minimum(length[:, 1], room)
        return Fit(source, length, special, np.ones(len(pairs), dtype=np.int64))

    def _cut_into_passages(self, source: Ints, length: Ints, special: Ints, room: Ints) -> Fit:
        """Repeat what is given for each pair for each of its passages, whose second text starts a stride later."""
        strides = self.limits.strides(room)
        more = -(-np.maximum(length[:, 1] - room, 0) // strides)
        passages = 1 + np.minimum(more, self.limits.max_passages - 1)
        begin = ranges(np.zeros_like(passages), passages) * np.repeat(strides, passages)
        source, length, special, room = (np.repeat(each, passages, 0) for each in (source, length, special, room))
        source[:, 1] += begin
        length[:, 1] = np.minimum(length[:, 1] - begin, room)
        return Fit(source, length, special, passages)


class PreparedTokens(TokenStore):
    """The texts of a prepared dataset, mapped into memory; a process that gets them maps the files itself."""

    def __init__(self, folders: Sequence[Path], manifest: dict[str, Any], lengths: Lengths) -> None:
        template = manifest["template"]
        super().__init__(
            [mapped(folder / "tokens.npy") for folder in folders],
            [mapped(folder / "token_offsets.npy") for folder in folders],
            Template(
                tuple(template["prefix"]), tuple(template["middle"]), tuple(template["suffix"]), template["second_type"]
            ),
            lengths,
        )
        self._opened = folders, manifest, lengths

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedTokens, self._opened


def _put(target: Ints, starts: Ints, values: Sequence[int]) -> None:
    for step, value in enumerate(values):
        target[starts + step] = value
