"""Poolers make one vector for each item out of hidden states. They see a sequence's own tokens and nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlrank.batch import TaskBatch, text_starts
from mtlrank.errors import ConfigError
from mtlrank.model.body.part import OneToken
from mtlrank.model.layer import resolve_layer

_QUARTERS = (0.25, 0.5, 0.75, -1)  # layers of a body of any depth


class Pooler(nn.Module, ABC):
    """Base of all poolers.

    `layers` names what is read: an int counts layers (0 is the embeddings, -1 the last one), a float between 0 and 1 is a
    share of the depth, so that 0.5 is layer 6 of 12. Several layers are averaged unless the pooler says otherwise.
    """

    num_spans = 0  # spans that an item must have
    needs_pairs = False  # whether a sequence must hold two texts
    only: OneToken | None = (
        None  # "first" or "last", if one token is read: states are (sequences, hidden), and cost less
    )

    def __init__(self, body_dim: int, num_layers: int, layers: Sequence[int | float] = (-1,)) -> None:
        super().__init__()
        if not layers:
            raise ConfigError("A pooler needs at least one layer, as in layers=[-1].")
        if self.only not in (None, "first", "last"):
            raise ConfigError(f"{type(self).__name__}.only is {self.only!r}, expected None, 'first' or 'last'.")
        self.layers = [resolve_layer(layer, num_layers) for layer in layers]
        self.body_dim = body_dim

    @property
    def out_dim(self) -> int:
        """Size of a pooled vector."""
        return self.body_dim

    @abstractmethod
    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        """(items, out_dim) from (layers, tokens, hidden), or from (layers, sequences, hidden) with `only`."""

    def forward(self, states: Sequence[Tensor], batch: TaskBatch) -> Tensor:
        """Pool the states of `self.layers`, each (tokens, hidden) or, with `only`, (sequences, hidden)."""
        return self.pool(torch.stack(list(states)), batch)


class CLSToken(Pooler):
    """The first token of the sequence."""

    only = "first"

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        return states.mean(0)[batch.item_sequence]


class LastToken(Pooler):
    """The last token of the sequence: in a decoder, the one that has read all of it (Ma et al. 2023, RankLLaMA)."""

    only = "last"

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        return states.mean(0)[batch.item_sequence]


class Average(Pooler):
    """The average of the sequence's tokens."""

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        return sequence_mean(states.mean(0), batch.cu_seqlens)[batch.item_sequence]


class PairProduct(Pooler):
    """The product of the two texts' averages, element by element, each average scaled to a root mean square of 1.

    The matching feature of Mou et al. 2016 (section 3.2.2) on the two texts of one sequence, which attend to each other.
    With equal weights, a linear head on it gives the cosine of the two averages: a body that was trained as a bi-encoder
    ranks from the start.
    """

    needs_pairs = True

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        averages = sequence_mean(states.mean(0), text_starts(batch.cu_seqlens, batch.second_starts))
        first, second = F.rms_norm(averages, (self.body_dim,)).view(-1, 2, self.body_dim).unbind(1)
        return (first * second)[batch.item_sequence]


class SpanAverage(Pooler):
    """The average of a span's tokens; those of an item's spans are concatenated. `num_spans` is 1, or 2 for pairs."""

    def __init__(
        self, body_dim: int, num_layers: int, layers: Sequence[int | float] = (-1,), num_spans: int = 1
    ) -> None:
        super().__init__(body_dim, num_layers, layers)
        self.num_spans = num_spans

    @property
    def out_dim(self) -> int:
        return self.body_dim * self.num_spans

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        spans = batch.spans.reshape(-1, 2)
        lengths = spans[:, 1] - spans[:, 0]
        numbers = torch.arange(len(spans), device=spans.device)
        group = torch.repeat_interleave(numbers, lengths, output_size=batch.num_span_tokens)
        ends = lengths.cumsum(0)
        positions = torch.arange(len(group), device=spans.device) + (spans[:, 0] - (ends - lengths))[group]
        means = _mean_by(states.mean(0)[positions], group, len(spans), lengths)
        return means.view(len(batch.labels), self.out_dim)


class AttentionAverage(Pooler):
    """A learnt softmax over the layers weighs them for each token; the tokens are averaged.

    The scalar mix of ELMo (Peters et al. 2018, eq. 1) with weights that depend on the token.
    """

    def __init__(self, body_dim: int, num_layers: int, layers: Sequence[int | float] = _QUARTERS) -> None:
        super().__init__(body_dim, num_layers, layers)
        self.layers = _several(self)
        self.score = nn.Linear(body_dim, 1, bias=False)  # a softmax does not see what all layers have in common

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        weights = self.score(states).softmax(0)  # (layers, tokens, 1)
        return sequence_mean((weights * states).sum(0), batch.cu_seqlens)[batch.item_sequence]


class SelfAttentionAverage(Pooler):
    """Each layer's average attends to the other layers' (Vaswani et al. 2017); the results are averaged."""

    def __init__(
        self, body_dim: int, num_layers: int, layers: Sequence[int | float] = _QUARTERS, num_heads: int = 4
    ) -> None:
        super().__init__(body_dim, num_layers, layers)
        self.layers = _several(self)
        if type(num_heads) is not int or num_heads < 1 or body_dim % num_heads:
            raise ConfigError(
                f"num_heads is {num_heads!r}, expected a divisor of {body_dim}, the size of a hidden state."
            )
        self.attention = nn.MultiheadAttention(body_dim, num_heads, batch_first=True)

    def pool(self, states: Tensor, batch: TaskBatch) -> Tensor:
        averages = torch.stack([sequence_mean(layer, batch.cu_seqlens) for layer in states], dim=1)
        mixed, _ = self.attention(averages, averages, averages, need_weights=False)
        pooled: Tensor = mixed.mean(1)[batch.item_sequence]
        return pooled


def _several(pooler: Pooler) -> list[int]:
    """The layers of a pooler that weighs them, each once: in a shallow body, several shares of the depth are one layer."""
    layers = list(dict.fromkeys(pooler.layers))
    if len(layers) < 2:
        raise ConfigError(
            f"{type(pooler).__name__} weighs layers against each other, but layers names only layer {pooler.layers[0]} of "
            "this body. Expected two or more, as in pooler.layers=[0.25,0.5,0.75,-1]; for one, take pooler=average."
        )
    return layers


def sequence_mean(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The mean of each sequence's tokens, (sequences, hidden)."""
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
    group = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=len(tokens))
    return _mean_by(tokens, group, len(lengths), lengths)


def _mean_by(values: Tensor, group: Tensor, num_groups: int, counts: Tensor) -> Tensor:
    totals = values.new_zeros(num_groups, values.shape[-1]).index_add(0, group, values)
    return totals / counts[:, None]
