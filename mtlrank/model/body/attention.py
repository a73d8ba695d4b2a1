"""Attention within each sequence of a packed batch, for any Hugging Face body whose attention can be replaced."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

PACKED = "mtlrank_packed"
_capability = cache(torch.cuda.get_device_capability)  # called by each layer in each step


class Packing:
    """The sequences of a packed batch. What kernels need is computed once for all layers."""

    def __init__(self, cu_seqlens: Tensor, num_tokens: int, max_seqlen: int) -> None:
        self.cu_seqlens = cu_seqlens  # (sequences + 1,) int32
        self.num_tokens = num_tokens
        self.max_seqlen = max_seqlen  # tokens of the longest sequence

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sequence. On a GPU this waits for the device."""
        lengths: list[int] = self.cu_seqlens.diff().tolist()
        return lengths

    @cached_property
    def positions(self) -> Tensor:
        """(tokens,) int64, the position of each token in its sequence."""
        return torch.arange(self.num_tokens, device=self.cu_seqlens.device) - self.cu_seqlens[self._sequences]

    @cached_property
    def cells(self) -> Tensor:
        """(tokens,) int64, the cell of each token in a flattened grid of (sequences, max_seqlen)."""
        return self._sequences * self.max_seqlen + self.positions

    @cached_property
    def mask(self) -> Tensor:
        """(sequences, 1, 1, max_seqlen) bool, the cells that hold a token."""
        cells = torch.arange(self.max_seqlen, device=self.cu_seqlens.device)
        return (cells < self.cu_seqlens.diff()[:, None])[:, None, None]

    @cached_property
    def _sequences(self) -> Tensor:
        """(tokens,) int64, the sequence of each token."""
        numbers = torch.arange(len(self.cu_seqlens) - 1, device=self.cu_seqlens.device)
        return torch.repeat_interleave(numbers, self.cu_seqlens.diff().long(), output_size=self.num_tokens)


class Reach(NamedTuple):
    """Which tokens of its sequence a token attends to."""

    tokens: int | None = None  # at most so far away; None: at any distance
    is_causal: bool = False  # not those after it

    @property
    def window(self) -> tuple[int, int]:
        """The tokens before and after, -1 for all, as FlashAttention takes them."""
        before = -1 if self.tokens is None else self.tokens
        return before, 0 if self.is_causal else before

    def mask(self, length: int, device: torch.device) -> Tensor:
        """(length, length) bool, true where the token of a row attends to that of a column."""
        positions = torch.arange(length, device=device)
        distance = positions[:, None] - positions
        near = distance.abs() <= (length if self.tokens is None else self.tokens)
        return near & (distance >= 0) if self.is_causal else near


EVERYTHING = Reach()
# What the scores of queries and keys, (..., heads, length, head size), are raised by: (..., heads, length, length).
Bias = Callable[[Tensor, Tensor], Tensor]


class Attending(NamedTuple):
    """How the tokens of a packed batch attend to each other."""

    packing: Packing
    scale: float | None = None  # None: by the root of the head size
    dropout: float = 0.0
    reach: Reach = EVERYTHING
    bias: Bias | None = None  # of tokens that attend to everything


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packing: Packing | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention interface on packed tokens: everything is (1, heads, tokens, head size).

    A token attends to the tokens of its own sequence that are less than `sliding_window` away and, if `is_causal`, not
    after it. False, not None, is of decoders that are bidirectional: there the window includes those just so far away. Keys
    and values may have fewer heads, each for several of the queries (Ainslie et al. 2023, GQA). Returns (1, tokens, heads,
    head size).

    On a GPU in half precision torch's kernel for sequences of any length does it all at once. It has no dropout, so with
    dropout, in full precision, on GPUs before Ampere, or with heads of a size that the kernel does not take, the tokens are
    laid out in a padded grid for the attention alone.
    """
    assert packing is not None, "packed attention needs packing=..."
    within = packing.max_seqlen if sliding_window is None else sliding_window + (is_causal is False)
    if (sharing := query.shape[1] // key.shape[1]) > 1:
        key, value = (states.repeat_interleave(sharing, dim=1) for states in (key, value))
    reach = Reach(None if within >= packing.max_seqlen else within - 1, bool(is_causal))
    if dropout == 0.0 and _has_kernel(query.device, query.dtype, query.shape[-1]):
        q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
        ends, longest = packing.cu_seqlens, packing.max_seqlen
        mixed = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=reach.window)
        assert isinstance(mixed, Tensor)
        return mixed.unsqueeze(0), None
    return attend(query, key, value, Attending(packing, scaling, dropout, reach)), None


@torch.compiler.assume_constant_result
def _has_kernel(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether FlashAttention, which is the kernel of `varlen_attn`, supports this."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or head_size % 8 or head_size > 256:
        return False
    return _capability(device) >= (8, 0)


@torch.compiler.disable
def attend(query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
    """Attention of packed states, (1, heads, tokens, head size), without a kernel for them: (1, tokens, heads, head size).

    Not compiled: it would be compiled again for each layout of sequences in a batch.
    """
    return (in_a_grid if query.is_cuda else one_by_one)(query, key, value, how)


def one_by_one(query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
    """`attend`, one sequence after another. On a CPU a call is cheap and padding is not: measured, nothing beats it."""
    packing, scale, dropout, reach, bias = how
    parts = zip(*(states.split(packing.lengths, dim=2) for states in (query, key, value)), strict=True)
    mixed = []
    for q, k, v in parts:
        mask = None if reach.tokens is None else reach.mask(q.shape[2], q.device)
        causal = reach.is_causal and mask is None
        mask = bias(q, k) if bias else mask
        mixed.append(F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=scale))
    return torch.cat(mixed, dim=2).transpose(1, 2)


def in_a_grid(query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
    """`attend`, all sequences at once, padded to the length of the longest."""
    packing, scale, dropout, reach, bias = how
    num_sequences, longest = len(packing.cu_seqlens) - 1, packing.max_seqlen
    qkv = torch.stack([query[0], key[0], value[0]]).transpose(1, 2)  # (3, tokens, heads, head size)
    grid = qkv.new_zeros(3, num_sequences * longest, *qkv.shape[2:]).index_copy(1, packing.cells, qkv)
    q, k, v = grid.view(3, num_sequences, longest, *qkv.shape[2:]).transpose(2, 3).unbind()
    mask = packing.mask if reach == EVERYTHING else packing.mask & reach.mask(longest, query.device)
    if bias:  # the least number, not infinity: an empty sequence has no key
        scores = bias(q, k)
        mask = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return mixed.transpose(1, 2).flatten(0, 1).index_select(0, packing.cells)[None]


AttentionInterface.register(PACKED, packed_attention)
