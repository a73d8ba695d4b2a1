"""Heads turn hidden states into logits."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtlrank.batch import TaskBatch, in_rows
from mtlrank.model.head.pooler import Pooler
from mtlrank.own_parts import instance_of, name_of, shaped


class Published(NamedTuple):
    """A classifier of a checkpoint, as which a head can start."""

    backbone: str  # the checkpoint, also the body's
    num_labels: int  # the classifier's outputs
    classes: Sequence[str] = ()  # the outputs' names, if they have some


class MTLHead(nn.Module, ABC):
    """Base of all heads: pool, drop out, project. A subclass gives the projection.

    `pooler` is a function of (body_dim, num_layers); sizes come from the body and the task, never from a config.
    """

    published: Published | None = None
    is_pretrained = False  # whether it starts with trained weights

    def __init__(
        self,
        body_dim: int,
        num_layers: int,
        output_dim: int,
        pooler: Callable[..., Pooler],
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pooler = instance_of("The pooler", pooler(body_dim=body_dim, num_layers=num_layers), Pooler)
        self.output_dim = output_dim
        self.dropout = nn.Dropout(dropout)
        projection = self.project(self.pooler.out_dim, output_dim)
        self.projection = instance_of(f"What {name_of(self)}.project gives", projection, nn.Module)

    @abstractmethod
    def project(self, in_dim: int, out_dim: int) -> nn.Module:
        """The module from pooled vectors to logits."""

    def load_published(self) -> None:
        """Load the published weights, if there are any."""

    def rescale(self, factor: float, shift: float) -> None:
        """Make the logits `factor` times what they are, plus `shift`."""
        layer = self.output_layer
        assert layer is not None, "only a linear layer can be rescaled"
        with torch.no_grad():
            layer.weight *= factor
            layer.bias.mul_(factor).add_(shift)

    @property
    def output_layer(self) -> nn.Linear | None:
        """The linear layer with a bias that gives the logits: the projection, or the last of a sequence."""
        last = self.projection
        while isinstance(last, nn.Sequential):
            last = last[-1]
        return last if isinstance(last, nn.Linear) and last.bias is not None else None

    @property
    def layers(self) -> list[int]:
        """The layers that the head reads."""
        return self.pooler.layers

    def describe(self) -> str:
        """Kinds, layers and sizes: heads with equal ones can take each other's weights."""
        sizes = "x".join(str(size) for size in (self.pooler.out_dim, self.output_dim))
        return f"{type(self).__name__} {type(self.pooler).__name__} {self.layers} {sizes}"

    def forward(self, states: Sequence[Tensor], batch: TaskBatch) -> Tensor:
        """Score a batch: (items, output_dim) from the states of `layers`, as the pooler wants them.

        A document that is read in passages has a vector and a score for each; `of_passages` makes one score of them.
        """
        passages = len(batch.item_sequence)
        pooled = self.pooler(states, batch)
        shaped(f"The pooler {name_of(self.pooler)}", pooled, (passages, self.pooler.out_dim), "(items, out_dim)")
        pooled = self.dropout(pooled)
        with torch.autocast(pooled.device.type, enabled=False):  # bf16 scores would tie documents that differ
            logits = self.projection(pooled.float())
        scores = shaped(f"The head {name_of(self)}", logits, (passages, self.output_dim), "(items, outputs)")
        return scores if batch.passage_item is None else self.of_passages(scores, batch)

    def of_passages(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The logits of items, (items, 1), from those of their passages, (passages, 1): the best one's (MaxP; Dai and
        Callan 2019, section 3).
        """
        assert batch.passage_item is not None
        return in_rows(logits[:, 0], batch.passage_item, (len(batch.labels), batch.max_passages), -math.inf).amax(
            1, True
        )


class Linear(MTLHead):
    """Dropout and one linear layer."""

    def project(self, in_dim: int, out_dim: int) -> nn.Module:
        return nn.Linear(in_dim, out_dim)


class ScaledMean(Linear):
    """A linear layer that starts as `scale` times the mean of the pooled vector, on `PairProduct` of the cosine."""

    def __init__(self, *args: Any, scale: float = 20.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        layer: Any = self.projection
        nn.init.constant_(layer.weight, scale / layer.in_features)
        nn.init.zeros_(layer.bias)


class MLP(MTLHead):
    """Dropout, a hidden layer with GELU, and a linear layer. The hidden layer is as wide as what is pooled."""

    def project(self, in_dim: int, out_dim: int) -> nn.Module:
        return nn.Sequential(nn.Linear(in_dim, in_dim), nn.GELU(), nn.Linear(in_dim, out_dim))
