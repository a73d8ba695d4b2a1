"""Collecting the states that heads read, while shallow sequences leave the packed batch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

OneToken = Literal["first", "last"]


class Part(NamedTuple):
    """Consecutive sequences that are read at the same layers, such as those of one task."""

    layers: Sequence[int]  # 0 is the embeddings
    num_sequences: int
    num_tokens: int
    only: OneToken | None = None  # the one token of each sequence that is read; None: all

    @property
    def depth(self) -> int:
        """The deepest layer that is read."""
        return max(self.layers)


class Reader:
    """Collects the states of each part, layer by layer. Parts lie deepest first, so those that continue are a prefix."""

    def __init__(self, parts: Sequence[Part], cu_seqlens: Tensor) -> None:
        self.parts = list(parts)
        self.cu_seqlens = cu_seqlens
        self._states: list[dict[int, Tensor]] = [{} for _ in parts]

    @property
    def states(self) -> list[list[Tensor]]:
        """The states of each part's layers, in their order."""
        return [[kept[layer] for layer in part.layers] for part, kept in zip(self.parts, self._states, strict=True)]

    def live(self, layer: int) -> tuple[int, int]:
        """The numbers of sequences and tokens that go deeper than a layer."""
        deeper = [part for part in self.parts if part.depth > layer]
        return sum(part.num_sequences for part in deeper), sum(part.num_tokens for part in deeper)

    def rows(self, layer: int) -> Tensor | None:
        """The tokens whose states of a layer are needed, in order; None for all tokens of the parts that reach it."""
        if not any(part.only and part.depth == layer for part in self.parts):
            return None
        device = self.cu_seqlens.device
        sequences, tokens = self.live(layer)
        needed = [torch.arange(tokens, device=device)]
        for part in self.parts:
            if part.depth == layer:
                everything = torch.arange(tokens, tokens + part.num_tokens, device=device)
                needed.append(self._single(part, sequences) if part.only else everything)
                sequences, tokens = sequences + part.num_sequences, tokens + part.num_tokens
        return torch.cat(needed)

    def read(self, layer: int, state: Tensor, is_partial: bool = False) -> None:
        """Keep the states of a layer that parts read; `is_partial` if `state` holds only those at `rows`."""
        sequence = row = 0
        for part, kept in zip(self.parts, self._states, strict=True):
            is_short = is_partial and part.only is not None and part.depth == layer
            size = part.num_sequences if is_short else part.num_tokens
            if layer in part.layers:
                mine = state[row : row + size]
                if part.only and not is_short:
                    mine = mine[self._single(part, sequence) - self.cu_seqlens[sequence]]
                kept[layer] = mine
            sequence, row = sequence + part.num_sequences, row + size

    def _single(self, part: Part, sequence: int) -> Tensor:
        """The first or last tokens of a part's sequences, of which the first is `sequence`."""
        ends = self.cu_seqlens[sequence : sequence + part.num_sequences + 1].long()
        return ends[:-1] if part.only == "first" else ends[1:] - 1
