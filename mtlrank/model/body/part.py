"""The rows of a packed batch that heads read, and their places while shallow sequences leave."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """A run of sequences that are read at the same layers, such as those of one task."""

    layers: Sequence[int]  # 0 is the embeddings
    num_sequences: int
    num_tokens: int
    first_only: bool = False  # of each sequence, only the first token is read

    @property
    def depth(self) -> int:
        """The deepest layer that is read."""
        return max(self.layers)


class Reader:
    """Takes each part's states out of each layer's. Parts lie deepest first, so those that continue are a prefix."""

    def __init__(self, parts: Sequence[Part], cu_seqlens: Tensor) -> None:
        self.parts = list(parts)
        self.cu_seqlens = cu_seqlens
        self._found: list[dict[int, Tensor]] = [{} for _ in parts]

    @property
    def states(self) -> list[list[Tensor]]:
        """Of each part, the states of its layers in their order."""
        return [[found[layer] for layer in part.layers] for part, found in zip(self.parts, self._found, strict=True)]

    def live(self, layer: int) -> tuple[int, int]:
        """Sequences and tokens that go deeper than a layer."""
        deeper = [part for part in self.parts if part.depth > layer]
        return sum(part.num_sequences for part in deeper), sum(part.num_tokens for part in deeper)

    def rows(self, layer: int) -> Tensor | None:
        """The tokens whose states of a layer anybody needs, in order; None for those of all parts that reach it."""
        if not any(part.first_only and part.depth == layer for part in self.parts):
            return None
        device = self.cu_seqlens.device
        sequences, tokens = self.live(layer)
        needed = [torch.arange(tokens, device=device)]
        for part in self.parts:
            if part.depth == layer:
                everything = torch.arange(tokens, tokens + part.num_tokens, device=device)
                firsts = self.cu_seqlens[sequences : sequences + part.num_sequences].long()
                needed.append(firsts if part.first_only else everything)
                sequences, tokens = sequences + part.num_sequences, tokens + part.num_tokens
        return torch.cat(needed)

    def read(self, layer: int, state: Tensor, is_partial: bool = False) -> None:
        """Take what is read of a layer; `is_partial` if its states are those at `rows`."""
        sequence = row = 0
        for part, found in zip(self.parts, self._found, strict=True):
            is_short = is_partial and part.first_only and part.depth == layer
            size = part.num_sequences if is_short else part.num_tokens
            if layer in part.layers:
                mine = state[row : row + size]
                if part.first_only and not is_short:
                    starts = self.cu_seqlens[sequence : sequence + part.num_sequences]
                    mine = mine[(starts - self.cu_seqlens[sequence]).long()]
                found[layer] = mine
            sequence, row = sequence + part.num_sequences, row + size
