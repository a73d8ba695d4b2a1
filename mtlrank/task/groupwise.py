"""Ranking a group: a sample is a query with documents, and its loss compares them.

In formulas s are scores, y grades, and i, j documents of one group. Losses are means over what they compare, so that large
groups weigh about as small ones do. LambdaLoss is a sum, as in its paper, and grows with the group. A group in which
nothing can be compared costs nothing; only ListNet and distillation ask for equal scores of equal labels.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.checks import ABOVE_ZERO, choice, or_null, whole
from mtlrank.own_parts import name_of, shaped
from mtlrank.task.relevance import Ranking
from mtlrank.task.task import by_sample

_NOTHING = float("-inf")  # a score that no softmax sees
_SCHEMES = ("lambdarank", "ndcg_loss2", "ndcg_loss2++")


class Groupwise(Ranking):
    """Base of losses over a group. A subclass compares scores and grades, a row of documents for each sample."""

    grouped = True

    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        present = by_sample(torch.ones_like(batch.labels), batch).bool()
        scores = shaped(f"{name_of(self)}.scores", self.scores(logits), batch.labels.shape, "one number an item")
        return self.group_loss(by_sample(scores, batch), by_sample(batch.labels, batch), present)

    def compares(self, labels: Tensor) -> bool:
        """Whether there is something to compare in a group with these labels, (documents,)."""
        return bool(labels.min() < labels.max())

    @abstractmethod
    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """The loss of each sample, (samples,). All arguments are (samples, documents); `present` marks documents."""


class PairwiseRelevance(Groupwise):
    """Each relevant document should score `margin` above each other one.

    The mean of max(0, margin - s_i + s_j) over the pairs of a relevant i and another j (the hinge of RankSVM; Joachims
    2002, optimisation problem 1).
    """

    def __init__(self, measures: Sequence[str], relevance_level: int = 1, margin: float = 1.0) -> None:
        super().__init__(measures, relevance_level)
        self.margin = margin

    def compares(self, labels: Tensor) -> bool:
        return _has_both(self.is_relevant(labels))

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        relevant = self.is_relevant(labels)
        pairs = all_pairs(relevant & present, ~relevant & present)
        return mean_over(F.relu(self.margin - differences(scores)), pairs)


class RankNet(Groupwise):
    """The better of two documents should score higher.

    The mean of log(1 + exp(-sigma (s_i - s_j))) over pairs with y_i > y_j (Burges et al. 2005, eq. 3 with a target
    probability of 1; `sigma` as in Burges 2010).
    """

    def __init__(self, measures: Sequence[str], relevance_level: int = 1, sigma: float = 1.0) -> None:
        super().__init__(measures, relevance_level)
        self.sigma = ABOVE_ZERO.check("sigma", sigma)

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        return mean_over(F.softplus(-self.sigma * differences(scores)), _better(labels, present))


class LambdaLoss(Groupwise):
    """RankNet's pairs, weighted by what they cost in nDCG at the current ranks (LambdaLoss; Wang et al. 2018).

    The sum of w_ij log2(1 + exp(-sigma (s_i - s_j))) over pairs with y_i > y_j, where G = (2^y - 1) / maxDCG (0 for grades
    below 0), D(r) = log2(1 + r) and ranks r come from the scores. By `scheme`, w_ij is |G_i - G_j| times

    - `lambdarank`: rho = |1/D(r_i) - 1/D(r_j)| (Burges et al. 2006; here eq. 16);
    - `ndcg_loss2`: delta = 1/D(|r_i - r_j|) - 1/D(|r_i - r_j| + 1) (eq. 14);
    - `ndcg_loss2++`: rho + mu delta (eq. 17).

    With `depth`, only pairs with a document that is ranked so high count, and in rho 1/D(r) is 0 below, as in nDCG@k.
    """

    def __init__(
        self,
        measures: Sequence[str],
        relevance_level: int = 1,
        scheme: str = "lambdarank",
        sigma: float = 1.0,
        mu: float = 10.0,
        depth: int | None = None,
    ) -> None:
        super().__init__(measures, relevance_level)
        self.scheme = choice(_SCHEMES).check("scheme", scheme)
        self.sigma = ABOVE_ZERO.check("sigma", sigma)
        self.mu = ABOVE_ZERO.check("mu", mu)
        self.depth = or_null(whole(1)).check("depth", depth)

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        ranks = _ranks(scores.detach(), present)
        grades = labels.clamp(min=0)
        highest = grades.amax(1, keepdim=True)  # grades go up to 1000: gains are divided by 2^highest
        gains = (2 ** (grades - highest) - 2**-highest) * present
        ideal = gains.sort(descending=True).values / _discounts(
            torch.arange(1, gains.shape[1] + 1, device=gains.device)
        )
        gains = gains / ideal[:, : self.depth].sum(1, keepdim=True).clamp(min=torch.finfo(gains.dtype).tiny)
        weights = differences(gains).abs() * self._discount_differences(ranks)
        pairs = _better(labels, present)
        if self.depth is not None:
            pairs = pairs & (torch.minimum(ranks[:, :, None], ranks[:, None, :]) <= self.depth)
        costs = F.softplus(-self.sigma * differences(scores)) / math.log(2)
        return torch.where(pairs, weights * costs, 0.0).sum((1, 2))

    def _discount_differences(self, ranks: Tensor) -> Tensor:
        """The factor of |G_i - G_j| in the scheme, (samples, documents, documents)."""
        seen = 1 / _discounts(ranks)
        if self.depth is not None:
            seen = seen * (ranks <= self.depth)
        rho = differences(seen).abs()
        if self.scheme == "lambdarank":
            return rho
        apart = differences(ranks).abs().clamp(min=1)  # 0 only on the diagonal, which is no pair
        delta = 1 / _discounts(apart) - 1 / _discounts(apart + 1)
        return delta if self.scheme == "ndcg_loss2" else rho + self.mu * delta


class ListNet(Groupwise):
    """The cross-entropy between the softmaxes of grades and of scores, "top one" (Cao et al. 2007, section 5)."""

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        wanted = masked(labels, present).softmax(1)
        found = masked(scores, present).log_softmax(1)
        return -torch.where(present, wanted * found, 0.0).sum(1)


class ListMLE(Groupwise):
    """How unlikely the ideal ranking is under the scores' Plackett-Luce model (Xia et al. 2008, eq. 9).

    Each place costs -log of its document's share in the softmax of those that are left. Documents of one grade have no
    order: each of them is left where one of them is placed (Breslow 1974, for ties of times), and those of the lowest grade
    cost nothing. The loss is the mean over the other places.
    """

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        left = (differences(labels) >= 0) & all_pairs(present, present)  # j is left where i is placed
        lowest = -torch.finfo(scores.dtype).max  # gradients of -inf would not be finite
        total = torch.where(left, scores[:, None, :], lowest).logsumexp(2)
        beats = _better(labels, present).any(2)
        return torch.where(beats, total - scores, 0.0).sum(1) / beats.sum(1).clamp(min=1)


class LocalizedContrastive(Groupwise):
    """A relevant document against the others of its group, in a softmax (LCE; Gao et al. 2021, section 3).

    The mean of -log(exp s_i / (exp s_i + sum over other j of exp s_j)) over relevant i; other relevant documents are not
    among the j.
    """

    def compares(self, labels: Tensor) -> bool:
        return _has_both(self.is_relevant(labels))

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        relevant = self.is_relevant(labels) & present
        others = scores.masked_fill(relevant | ~present, -torch.finfo(scores.dtype).max).logsumexp(1, keepdim=True)
        counts = relevant.any(1) & (~relevant & present).any(1)
        losses = torch.logaddexp(scores, others) - scores
        return torch.where(relevant, losses, 0.0).sum(1) / relevant.sum(1).clamp(min=1) * counts


def _has_both(relevant: Tensor) -> bool:
    return bool(relevant.any()) and not bool(relevant.all())


def differences(values: Tensor) -> Tensor:
    """x_i - x_j, (samples, documents i, documents j)."""
    return values[:, :, None] - values[:, None, :]


def all_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Whether i is one of the first and j one of the second, (samples, documents i, documents j)."""
    return first[:, :, None] & second[:, None, :]


def _better(labels: Tensor, present: Tensor) -> Tensor:
    """Whether i has a higher grade than j."""
    return (differences(labels) > 0) & all_pairs(present, present)


def mean_over(costs: Tensor, pairs: Tensor) -> Tensor:
    """The mean cost of each sample's pairs, (samples,); 0 without any."""
    return torch.where(pairs, costs, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def masked(values: Tensor, present: Tensor) -> Tensor:
    """The values with -inf, which no softmax sees, where there is no document."""
    return values.masked_fill(~present, _NOTHING)


def _ranks(scores: Tensor, present: Tensor) -> Tensor:
    """The rank of each document by score, from 1; cells without one come last."""
    order = masked(scores, present).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) + 1


def _discounts(ranks: Tensor) -> Tensor:
    return torch.log2(1 + ranks.float())
