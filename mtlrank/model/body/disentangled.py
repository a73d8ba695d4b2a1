"""The attention of DeBERTa-v2 and v3 on packed tokens (He et al. 2021, DeBERTa, section 3.1 and equation 4).

A token attends to another by what both are and by how far they are apart: content to content, content to position ("c2p")
and position to content ("p2c").
"""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from mtlrank.model.body.attention import Attending, Bias, Packing, attend


class Distances(NamedTuple):
    """How far apart the tokens of a batch's sequences may be. Distances of one bucket look the same."""

    embeddings: Tensor  # (buckets, hidden), of the buckets that occur
    buckets: Tensor  # (2 * max_seqlen + 1,) int64, of the distances -max_seqlen, ..., max_seqlen


def distances_in(encoder: Any, packing: Packing, device: torch.device) -> Distances:
    """The distances in sequences of up to `max_seqlen` tokens, as an encoder sees them."""
    layers, longest = encoder.encoder, packing.max_seqlen
    limit, span = layers.max_relative_positions, layers.position_buckets
    buckets = torch.arange(-longest, longest + 1)  # on the CPU, which has to know the lowest and the highest
    if span > 0:
        buckets = make_log_bucket_position(buckets, span, limit).long()
    else:
        span = limit
    buckets = (buckets + span).clamp(0, 2 * span - 1)
    first, last = int(buckets.min()), int(buckets.max())
    embeddings: Tensor = layers.get_rel_embedding()
    return Distances(embeddings[first : last + 1], (buckets - first).to(device, non_blocking=True))


def disentangled(attention: Any, hidden: Tensor, packing: Packing, distances: Distances) -> Tensor:
    """What `DisentangledSelfAttention` gives, (1, tokens, hidden), within each sequence."""
    positions, is_shared = attention.pos_dropout(distances.embeddings), attention.share_att_key

    def by_heads(states: Tensor) -> Tensor:
        """(..., heads, tokens, head size)."""
        split: Tensor = states.unflatten(-1, (attention.num_attention_heads, -1))
        return split.transpose(-2, -3)

    terms: list[Bias] = []
    if "c2p" in attention.pos_att_type:
        to_keys = attention.key_proj if is_shared else attention.pos_key_proj
        keys = by_heads(to_keys(positions)).index_select(1, distances.buckets.flip(0))
        terms.append(lambda query, key: _by_distance(query, keys))
    if "p2c" in attention.pos_att_type:
        to_queries = attention.query_proj if is_shared else attention.pos_query_proj
        queries = by_heads(to_queries(positions)).index_select(1, distances.buckets)
        terms.append(lambda query, key: _by_distance(key, queries).transpose(-1, -2))
    scale: float = (attention.attention_head_size * (1 + len(terms))) ** -0.5

    def bias(query: Tensor, key: Tensor) -> Tensor:
        return reduce(torch.add, (term(query, key) for term in terms)) * scale

    projections = attention.query_proj, attention.key_proj, attention.value_proj
    query, key, value = (by_heads(project(hidden)) for project in projections)
    dropout = attention.dropout.p if attention.training else 0.0
    mixed: Tensor = attend(query, key, value, Attending(packing, scale, dropout, bias=bias))
    return mixed.flatten(2)


def _by_distance(states: Tensor, positions: Tensor) -> Tensor:
    """The products of states, (..., heads, tokens, size), with the positions of distances.

    `positions` is (heads, distances, size), of those from -n to n, for n of at least the number of tokens. Returns (...,
    heads, tokens, tokens), in row i and column j of the distance j - i.
    """
    length, middle = states.shape[-2], positions.shape[-2] // 2
    width = max(2 * length - 1, 0)  # distances in a text, which may be empty
    products = states @ positions[:, middle + 1 - length : middle + 1 + length].transpose(-1, -2)
    # A row starts at the distance 1 - length, and what is wanted of it a column earlier than of the row above.
    shifted = products.flatten(-2)[..., length - 1 : length - 1 + length * width]
    return shifted.view(*products.shape[:-1], width)[..., :length]
