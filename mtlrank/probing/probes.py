"""Small classifiers on frozen vectors: one for each layer, all trained side by side."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlrank.probing.vectors import Vectors

_CHUNK = 1024  # items that are judged at once


class Training(NamedTuple):
    """How probes are trained."""

    hidden_dim: int = 128  # 0: linear probes
    epochs: int = 30
    patience: int = 3  # epochs without improvement on the held-out items
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0


class Probes(nn.Module):
    """A probe for each layer: linear, or with a hidden layer. None sees another's vectors, weights or gradients.

    All start from the same weights. Those of the last layer are zero, so that an untrained probe outputs `bias`,
    (out_dim,), for any input.
    """

    def __init__(self, num_layers: int, in_dim: int, bias: Tensor, hidden_dim: int, seed: int = 0) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        if hidden_dim:
            bound = in_dim**-0.5  # as nn.Linear
            random = torch.Generator().manual_seed(seed)
            first = (torch.rand(in_dim, hidden_dim, generator=random) * 2 - 1) * bound
            self.first = nn.Parameter(first.repeat(num_layers, 1, 1))
            self.first_bias = nn.Parameter(torch.zeros(num_layers, 1, hidden_dim))
        self.last = nn.Parameter(torch.zeros(num_layers, hidden_dim or in_dim, len(bias)))
        self.last_bias = nn.Parameter(bias.float().repeat(num_layers, 1, 1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits, (layers, items, out_dim), of vectors (items, layers, dim)."""
        states = vectors.float().transpose(0, 1)
        if self.hidden_dim:
            states = F.gelu(torch.baddbmm(self.first_bias, states, self.first))
        return torch.baddbmm(self.last_bias, states, self.last)


def class_costs(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, (layers, items), of logits (layers, items, classes)."""
    return F.cross_entropy(logits.transpose(1, 2), targets.long().expand(len(logits), -1), reduction="none")


def squared_errors(logits: Tensor, targets: Tensor) -> Tensor:
    """(layers, items) of logits (layers, items, 1)."""
    return (logits.squeeze(-1) - targets) ** 2


Costs = Callable[[Tensor, Tensor], Tensor]


def fit(
    learnt: Vectors, targets: Tensor, held: Vectors, held_targets: Tensor, bias: Tensor, costs: Costs, how: Training
) -> Probes:
    """Train probes on vectors and keep each one's best weights by its mean cost on the held-out vectors.

    Probes start with the constant output `bias`, and keep it if learning does not help. A probe that has run out of
    patience keeps its weights while others go on: each is what it would be alone.
    """
    num_items, num_layers, dim = learnt.values.shape
    probes = Probes(num_layers, dim, bias, how.hidden_dim, how.seed).to(learnt.values.device)
    optimizer = torch.optim.Adam(probes.parameters(), lr=how.lr)
    random = torch.Generator().manual_seed(how.seed)
    size = min(how.batch_size, max(8, num_items // 8))
    best = [weight.detach().clone() for weight in probes.parameters()]
    lowest, waited = mean_costs(probes, held, held_targets, costs), torch.zeros(num_layers)
    for _ in range(how.epochs):
        for rows in torch.randperm(num_items, generator=random).to(learnt.values.device).split(size):
            optimizer.zero_grad(set_to_none=True)
            costs(probes(learnt.values[rows]), targets[rows]).mean(1).sum().backward()
            optimizer.step()
        current = mean_costs(probes, held, held_targets, costs)
        better = (current < lowest) & (waited < how.patience)
        lowest, waited = torch.where(better, current, lowest), torch.where(better, 0, waited + 1)
        for kept, weight in zip(best, probes.parameters(), strict=True):
            kept[better] = weight.detach()[better]
        if bool((waited >= how.patience).all()):
            break
    for kept, weight in zip(best, probes.parameters(), strict=True):
        weight.data = kept
    return probes


@torch.inference_mode()
def logits_of(probes: Probes, vectors: Vectors) -> Tensor:
    """(layers, items, out_dim), on the CPU."""
    return torch.cat([probes(chunk).cpu() for chunk in vectors.values.split(_CHUNK)], dim=1)


def mean_costs(probes: Probes, vectors: Vectors, targets: Tensor, costs: Costs) -> Tensor:
    """The mean cost of an item, (layers,), on the CPU."""
    return costs(logits_of(probes, vectors), targets.cpu()).mean(1)
