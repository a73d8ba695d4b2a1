import math

import pytest
import torch

from mtlrank.task import (
    KLDistillation,
    LambdaLoss,
    ListMLE,
    ListNet,
    LocalizedContrastive,
    MarginMSE,
    PairwiseRelevance,
    RankNet,
)
from tests.batches import batch
from tests.task.tasks import TASKS, one, softmax


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.grouped], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_group_with_nothing_to_tell_apart_costs_no_nan(task, label):
    loss = task.loss(torch.tensor([[5.0], [-5.0]]), batch([1, 1], [label, label], item_sample=[0, 0]))
    assert torch.isfinite(loss).all()
    if not isinstance(task, ListNet | MarginMSE | KLDistillation):
        assert loss.item() == 0


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.grouped], ids=lambda t: type(t).__name__)
def test_large_scores_of_half_precision_stay_numbers(task):
    logits = torch.tensor([[200.0], [-200.0], [3.0]], dtype=torch.bfloat16)
    assert torch.isfinite(task.loss(logits, batch([1, 1, 1], [0, 1, 1], item_sample=[0, 0, 1]))).all()


def test_pairwise_loss_by_hand():
    task = PairwiseRelevance(["nDCG@10"], margin=1.0)
    data = batch([1] * 5, [1, 0, 0, 1, 0], item_sample=[0, 0, 0, 1, 1])
    losses = task.loss(torch.tensor([[0.5], [0.0], [2.0], [3.0], [0.0]]), data)
    assert losses.tolist() == pytest.approx([(0.5 + 2.5) / 2, 0.0])


def test_ranknet_by_hand():
    """Pairs: 1 above 0 (scores 2, 1), 1 above 2 (2, 4), 2 above 0 (4, 1)."""
    expected = [math.log(1 + math.exp(-0.5 * d)) for d in (1, -2, 3)]
    assert one(RankNet(["AP"], sigma=0.5)) == pytest.approx(sum(expected) / 3)


def test_lambdarank_by_hand():
    """Ranks 3, 2, 1; gains 0, 3, 1 over a best DCG of 3 / 1 + 1 / log2(3)."""
    best = 3 + 1 / math.log2(3)
    discount = [1 / math.log2(1 + rank) for rank in (3, 2, 1)]
    pairs = [(1, 0, 3, 1.0), (1, 2, 2, -2.0), (2, 0, 1, 3.0)]  # better, worse, difference of gains, of scores
    costs = [
        gain / best * abs(discount[i] - discount[j]) * math.log2(1 + math.exp(-score)) for i, j, gain, score in pairs
    ]
    assert one(LambdaLoss(["AP"])) == pytest.approx(sum(costs))
    top = [gain / 3 * math.log2(1 + math.exp(-score)) for _, _, gain, score in pairs[1:]]  # best DCG@1 is 3
    assert one(LambdaLoss(["AP"], depth=1)) == pytest.approx(sum(top))


def test_ndcg_loss2_by_hand():
    best, at = 3 + 1 / math.log2(3), lambda rank: 1 / math.log2(1 + rank)
    discount = [at(rank) for rank in (3, 2, 1)]
    pairs = [(1, 0, 3, 1.0, 1), (1, 2, 2, -2.0, 1), (2, 0, 1, 3.0, 2)]  # the last: ranks apart
    delta = [at(apart) - at(apart + 1) for *_, apart in pairs]
    costs = [gain / best * math.log2(1 + math.exp(-score)) for _, _, gain, score, _ in pairs]
    assert one(LambdaLoss(["AP"], scheme="ndcg_loss2")) == pytest.approx(
        sum(map(math.prod, zip(costs, delta, strict=True)))
    )
    rho = [abs(discount[i] - discount[j]) for i, j, *_ in pairs]
    both = [r + 10 * d for r, d in zip(rho, delta, strict=True)]
    assert one(LambdaLoss(["AP"], scheme="ndcg_loss2++")) == pytest.approx(
        sum(map(math.prod, zip(costs, both, strict=True)))
    )


def test_listnet_by_hand():
    wanted, found = softmax(0, 2, 1), softmax(1, 2, 4)
    expected = -sum(w * math.log(f) for w, f in zip(wanted, found, strict=True))
    assert one(ListNet(["AP"])) == pytest.approx(expected)


def test_listmle_by_hand():
    """The ideal order has scores 2, 4, 1."""
    first = -math.log(softmax(2, 4, 1)[0])
    second = -math.log(softmax(4, 1)[0])
    assert one(ListMLE(["AP"])) == pytest.approx((first + second) / 2)  # the last place costs nothing


def test_listmle_takes_equal_grades_alike():
    """A grade above three others: its share in the softmax of all four, and nothing among the three."""
    data = batch([1] * 4, [1, 0, 0, 0], item_sample=[0] * 4)
    logits = torch.tensor([[0.5], [1.0], [2.0], [-1.0]])
    assert ListMLE(["AP"]).loss(logits, data).item() == pytest.approx(-math.log(softmax(0.5, 1, 2, -1)[0]))


@pytest.mark.parametrize("number", [2, 5, 100])
def test_with_one_relevant_document_listmle_is_the_contrastive_loss(number):
    data = batch([1] * number, [1] + [0] * (number - 1), item_sample=[0] * number)
    logits = torch.linspace(-1, 1, number)[:, None]
    losses = [task(["AP"]).loss(logits, data).item() for task in (ListMLE, LocalizedContrastive)]
    assert losses[0] == pytest.approx(losses[1])


def test_contrastive_by_hand():
    """Relevant are 2 and 4; each stands against 1 alone."""
    expected = (-math.log(softmax(2, 1)[0]) - math.log(softmax(4, 1)[0])) / 2
    assert one(LocalizedContrastive(["AP"])) == pytest.approx(expected)


def test_high_grades_stay_numbers():
    loss = LambdaLoss(["AP"]).loss(torch.tensor([[0.0], [1.0]]), batch([1, 1], [1000, 200], item_sample=[0, 0]))
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("scheme", ["lambdarank", "ndcg_loss2", "ndcg_loss2++"])
def test_grades_below_zero_gain_nothing(scheme):
    """As in trec_eval: a pair of 0 and -1 costs nothing, and -1 is as far from 2 as 0 is."""
    task, logits = LambdaLoss(["AP"], scheme=scheme), torch.tensor([[0.0], [1.0], [3.0]])
    losses = [
        task.loss(logits[: len(labels)], batch([1] * len(labels), labels, item_sample=[0] * len(labels))).item()
        for labels in ([-1, 0], [-2, -1], [2, 0, 0], [2, -1, -1], [2, -1, 0])
    ]
    assert losses[:2] == [0.0, 0.0]
    assert losses[2] > 0
    assert losses[2:] == pytest.approx([losses[2]] * 3)


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        (PairwiseRelevance, [0, 1], False),  # relevant from 2 on
        (PairwiseRelevance, [2, 3], False),
        (PairwiseRelevance, [1, 2], True),
        (LocalizedContrastive, [0, 1], False),
        (LocalizedContrastive, [0, 2, 2], True),
        (RankNet, [0, 1], True),
        (RankNet, [1, 1], False),
    ],
)
def test_what_can_be_compared_in_a_group(kind, labels, expected):
    assert kind(["nDCG@10"], 2).compares(torch.tensor(labels)) is expected
