"""Attention within each sequence of a packed batch, for any Hugging Face encoder that lets its attention be chosen."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

PACKED = "mtlrank_packed"


class Packing(NamedTuple):
    """How packed tokens lie in a padded grid of (sequences, longest)."""

    cells: Tensor  # (tokens,) int64, the cell of each token in the flattened grid
    mask: Tensor  # (sequences, 1, 1, longest) bool, cells that hold a token
    num_sequences: int
    longest: int

    @classmethod
    def of(cls, cu_seqlens: Tensor, longest: int) -> "Packing":
        """The grid for sequences that start at `cu_seqlens` and have at most `longest` tokens."""
        num_sequences = len(cu_seqlens) - 1
        lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
        mask = torch.arange(longest, device=cu_seqlens.device) < lengths[:, None]
        cells = torch.nonzero(mask.flatten()).squeeze(1)
        return cls(cells, mask[:, None, None, :], num_sequences, longest)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention interface on packed tokens: everything is (1, heads, tokens, head size).

    The tokens are laid out in a padded grid for `scaled_dot_product_attention` alone; whatever is linear in them never
    sees padding. Returns (1, tokens, heads, head size).
    """
    assert packing is not None, "packed attention needs packing=..."
    qkv = torch.stack([query[0], key[0], value[0]]).transpose(1, 2)  # (3, tokens, heads, head size)
    grid = qkv.new_zeros(3, packing.num_sequences * packing.longest, *qkv.shape[2:])
    grid = grid.index_copy(1, packing.cells, qkv)
    grid = grid.view(3, packing.num_sequences, packing.longest, *qkv.shape[2:]).transpose(2, 3)
    q, k, v = grid.unbind()
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=packing.mask, dropout_p=dropout, scale=scaling)
    return mixed.transpose(1, 2).flatten(0, 1)[packing.cells][None], None


AttentionInterface.register(PACKED, packed_attention)
