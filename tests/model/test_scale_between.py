"""When a head that was trained on other labels can be used, and how its logits are rescaled."""

from functools import partial

import pytest
import torch
from torch import nn

from mtlrank.model.head import MLP, Linear, MTLHead
from mtlrank.model.head.pooler import CLSToken
from mtlrank.model.start import facts_of, scale_between
from mtlrank.task import Buckets, Classification, Ordinal, Regression, Relevance

BEFORE, NOW = {"mean": 3.0, "std": 0.5}, {"mean": 1.0, "std": 2.0}


class Without(MTLHead):
    """A projection that no linear layer ends."""

    def project(self, in_dim, out_dim):
        return nn.Sequential(nn.Linear(in_dim, out_dim), nn.Tanh())


class Gated(MTLHead):
    """A projection whose last layer is not the one that gives the logits."""

    def project(self, in_dim, out_dim):
        return Product(nn.Linear(in_dim, out_dim), nn.Linear(in_dim, 1))


class Product(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.out, self.gate = parts

    def forward(self, pooled):
        return self.out(pooled) * self.gate(pooled).sigmoid()


class Logarithm(Regression):
    """Its scores are not those of a scaled label."""

    def scores(self, logits):
        return logits.squeeze(-1).exp()


class Levelled(Regression):
    """Calls something else `levels`."""

    levels = 3


def head(cls=Linear):
    return cls(body_dim=4, num_layers=2, output_dim=1, pooler=partial(CLSToken, layers=[-1]), dropout=0.0)


@pytest.mark.parametrize("cls", [Linear, MLP])
def test_scores_stay(cls):
    made, pooled = head(cls), torch.randn(5, 4)
    before, now = Regression(["MSE"]), Regression(["MSE"])
    before.learn_labels(BEFORE)
    now.learn_labels(NOW)
    expected = before.scores(made.projection(pooled))
    assert scale_between(made, now, NOW, BEFORE) == (0.25, 1.0)
    made.rescale(0.25, 1.0)
    torch.testing.assert_close(now.scores(made.projection(pooled)), expected)


@pytest.mark.parametrize(
    ("cls", "task", "labels", "earlier", "expected"),
    [
        (Linear, Regression(["MSE"]), NOW, NOW, (1.0, 0.0)),
        (Linear, Regression(["MSE"]), NOW, {"classes": ["a"]}, None),
        (Without, Regression(["MSE"]), NOW, NOW, (1.0, 0.0)),
        (Without, Regression(["MSE"]), NOW, BEFORE, None),
        (Gated, Regression(["MSE"]), NOW, BEFORE, None),
        (Linear, Logarithm(["MSE"]), NOW, BEFORE, None),
        (Linear, Levelled(["MSE"]), NOW, NOW, (1.0, 0.0)),
        (Linear, Regression(["MSE"]), NOW, {}, None),
        (Linear, Relevance(["AP"], 1), NOW, BEFORE, (1.0, 0.0)),
        (Linear, Classification(["Accuracy"]), {"classes": ["a", "b"]}, {"classes": ["a", "b"]}, (1.0, 0.0)),
        (Linear, Classification(["Accuracy"]), {"classes": ["a", "b"]}, {"classes": ["b", "a"]}, None),
        (Linear, Buckets(["Accuracy"]), {**NOW, "edges": [1.0]}, {**BEFORE, "edges": [1.0]}, (1.0, 0.0)),
        (Linear, Buckets(["Accuracy"]), {**NOW, "edges": [1.0]}, {**NOW, "edges": [2.0]}, None),
        (Linear, Ordinal(["MSE"]), NOW, {**BEFORE, "levels": [0.0, 1.0, 2.0, 3.0]}, (1.0, 0.0)),
        (Linear, Ordinal(["MSE"]), NOW, {**NOW, "levels": [0.0, 1.0, 2.0, 4.0]}, None),
    ],
)
def test_a_head_is_used_if_its_logits_stand_for_the_same(cls, task, labels, earlier, expected):
    assert scale_between(head(cls), task, facts_of(labels, task), earlier) == expected
