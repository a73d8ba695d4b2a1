import math

import numpy as np
import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.task import (
    Buckets,
    Classification,
    KLDistillation,
    LambdaLoss,
    ListMLE,
    ListNet,
    LocalizedContrastive,
    MarginMSE,
    Ordinal,
    PairwiseRelevance,
    RankNet,
    Regression,
    Relevance,
    RelevanceClasses,
    SpanClassification,
    SpanPairClassification,
    SpanRegression,
    by_sample,
)
from tests.batches import batch


def opened(task, **labels):
    task.learn_labels(labels)
    return task


TASKS = {
    "relevance": opened(Relevance(["nDCG@10"])),
    "classes of relevance": opened(RelevanceClasses(["nDCG@10"])),
    "pairwise": opened(PairwiseRelevance(["nDCG@10"])),
    "ranknet": opened(RankNet(["nDCG@10"])),
    "lambdarank": opened(LambdaLoss(["nDCG@10"])),
    "ndcg_loss2": opened(LambdaLoss(["nDCG@10"], scheme="ndcg_loss2")),
    "ndcg_loss2++": opened(LambdaLoss(["nDCG@10"], scheme="ndcg_loss2++", depth=2)),
    "listnet": opened(ListNet(["nDCG@10"])),
    "listmle": opened(ListMLE(["nDCG@10"])),
    "contrastive": opened(LocalizedContrastive(["nDCG@10"])),
    "margin mse": opened(MarginMSE(["nDCG@10"])),
    "kl": opened(KLDistillation(["nDCG@10"], temperature=2.0)),
    "ordinal": opened(Ordinal(["MSE"], [0, 1, 3])),
    "huber": opened(Regression(["MSE"], huber=0.5), mean=1.0, std=2.0),
    "regression": opened(Regression(["MSE"]), mean=1.0, std=2.0),
    "buckets": opened(Buckets(["Accuracy"], 4), edges=[0.5, 1.5]),
    "terms": opened(SpanRegression(["MSE"], 0, 1), mean=0.5, std=0.5),
    "spans": opened(SpanClassification(["Accuracy"]), classes=["A", "B", "C"]),
    "weighted": opened(Classification(["Accuracy"], "balanced"), classes=["A", "B"], counts=[3, 1]),
    "span pairs": opened(SpanPairClassification(["Accuracy"]), classes=["A", "B"]),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_loss_is_per_sample_and_does_not_depend_on_the_other_samples(task):
    data = batch([3, 3, 3, 3, 3], [0, 1, 1, 0, 1], item_sample=[0, 0, 1, 1, 2])
    logits = torch.randn(5, task.output_dim)
    losses = task.loss(logits, data)
    assert losses.shape == (3,)
    alone = task.loss(logits[2:4], batch([3, 3], [1, 0], item_sample=[0, 0]))
    torch.testing.assert_close(losses[1:2], alone)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_order_of_samples_and_of_their_items_does_not_matter(task):
    logits, labels = torch.randn(5, task.output_dim), [1, 0, 1, 0, 0]
    losses = task.loss(logits, batch([3] * 5, labels, item_sample=[0, 0, 0, 1, 1]))
    order = [4, 3, 2, 1, 0]
    turned = batch([3] * 5, [labels[i] for i in order], item_sample=[0, 0, 1, 1, 1])
    torch.testing.assert_close(task.loss(logits[order], turned), losses.flip(0))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_learning_lowers_the_loss_of_groups_of_any_size(task):
    """Gradients are numbers, also beside shorter groups, and point down."""
    data = batch([3] * 6, [1, 0, 1, 0, 0, 1], item_sample=[0, 0, 0, 1, 1, 2])
    logits = (0.3 * torch.randn(6, task.output_dim)).requires_grad_()  # no ties, where ranks would jump
    before = task.loss(logits, data).sum()
    (gradient,) = torch.autograd.grad(before, logits)
    assert torch.isfinite(gradient).all()
    after = task.loss(logits - 0.01 * gradient, data).sum()
    assert after < before


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


def test_tasks_that_agree_in_what_they_are_made_of_share_prepared_data():
    assert RankNet(["AP"], 2).identity() == LambdaLoss(["AP"], 2).identity() != ListNet(["AP"], 1).identity()
    assert Relevance(["AP"]).identity() != RankNet(["AP"]).identity() != MarginMSE(["AP"]).identity()
    assert Regression(["MSE"], 0, 5).identity() == Regression(["MSE"], 0, 5, huber=1.0).identity()


def test_settings_of_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="relevance_level is 0, expected a whole number"):
        Relevance(["AP"], relevance_level=0)
    with pytest.raises(ConfigError, match="maximum is 'ten', expected null or a number"):
        Regression(["MSE"], maximum="ten")
    with pytest.raises(DataError, match="not a whole grade of relevance"):
        Relevance(["AP"]).parse_label(2000)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_scores_have_a_row_an_item(task):
    assert len(task.scores(torch.randn(5, task.output_dim))) == 5


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("label", [float("nan"), float("inf"), ""])
def test_labels_that_are_none_are_refused(task, label):
    with pytest.raises(DataError, match="label"):
        task.parse_label(label)


@pytest.mark.parametrize("kind", ["relevance", "pairwise", "regression", "buckets", "terms"])
@pytest.mark.parametrize("label", ["nan", "many", "1_0", "1e39", 10**400])
def test_words_are_no_numbers(kind, label):
    with pytest.raises(DataError, match="label"):
        TASKS[kind].parse_label(label)


def test_relevance_is_cross_entropy_on_grades_of_the_level_and_above():
    task = Relevance(["nDCG@10"], relevance_level=2)
    losses = task.loss(torch.tensor([[0.0], [0.0], [2.0]]), batch([1, 1, 1], [1, 2, 3]))
    expected = [math.log(2), math.log(2), math.log(1 + math.exp(-2))]
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert task.is_relevant(torch.tensor([1, 2, 3])).tolist() == [False, True, True]


def test_negative_grades_count_as_not_relevant():
    assert Relevance(["AP"]).parse_label(-1) == 0


def test_a_grade_is_whole():
    with pytest.raises(DataError, match="whole grade"):
        Relevance(["AP"]).parse_label(0.5)


def test_pairwise_loss_by_hand():
    task = PairwiseRelevance(["nDCG@10"], margin=1.0)
    data = batch([1] * 5, [1, 0, 0, 1, 0], item_sample=[0, 0, 0, 1, 1])
    losses = task.loss(torch.tensor([[0.5], [0.0], [2.0], [3.0], [0.0]]), data)
    assert losses.tolist() == pytest.approx([(0.5 + 2.5) / 2, 0.0])


ONE_GROUP = batch([1] * 3, [0, 2, 1], item_sample=[0, 0, 0])
SCORES = torch.tensor([[1.0], [2.0], [4.0]])


def one(task, scores=SCORES, data=ONE_GROUP):
    return task.loss(scores, data).item()


def softmax(*values):
    return [math.exp(value) / sum(map(math.exp, values)) for value in values]


def test_classes_of_relevance_by_hand():
    task = RelevanceClasses(["AP"], positive_weight=3.0)
    losses = task.loss(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), batch([1, 1], [1, 0]))
    sigmoid = 1 / (1 + math.exp(-1))
    assert losses.tolist() == pytest.approx([-3 * math.log(sigmoid), -math.log(1 - sigmoid)])
    assert task.scores(torch.tensor([[0.5, 2.0]])).item() == 1.5


def test_a_weight_of_relevant_documents():
    losses = Relevance(["AP"], positive_weight=4.0).loss(torch.zeros(2, 1), batch([1, 1], [1, 0]))
    assert losses.tolist() == pytest.approx([4 * math.log(2), math.log(2)])


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
    assert one(ListMLE(["AP"])) == pytest.approx((first + second + 0) / 3)


def test_listmle_takes_equal_grades_alike():
    """A grade above three others: its share in the softmax of all four, and nothing among the three."""
    data = batch([1] * 4, [1, 0, 0, 0], item_sample=[0] * 4)
    logits = torch.tensor([[0.5], [1.0], [2.0], [-1.0]])
    assert ListMLE(["AP"]).loss(logits, data).item() == pytest.approx(-math.log(softmax(0.5, 1, 2, -1)[0]) / 4)


def test_contrastive_by_hand():
    """Relevant are 2 and 4; each stands against 1 alone."""
    expected = (-math.log(softmax(2, 1)[0]) - math.log(softmax(4, 1)[0])) / 2
    assert one(LocalizedContrastive(["AP"])) == pytest.approx(expected)


def test_margin_mse_by_hand():
    """Differences of scores 1, 3, 2 (second less first, third less first, third less second), the teacher's 2, 1, -1."""
    assert one(MarginMSE(["AP"])) == pytest.approx((1 + 4 + 9) / 3)
    assert one(MarginMSE(["AP"], teacher_scale=2.0)) == pytest.approx((9 + 1 + 16) / 3)


def test_kl_distillation_by_hand():
    teacher, student = softmax(0, 2, 1), softmax(0.5, 1, 2)
    expected = 4 * sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))
    assert one(KLDistillation(["AP"], teacher_scale=2.0, temperature=2.0)) == pytest.approx(expected)


def test_a_teachers_scores_are_any_numbers():
    assert MarginMSE(["AP"]).parse_label("-0.25") == -0.25


def test_ordinal_by_hand():
    task = Ordinal(["MSE"], [0, 1, 3])
    loss = task.loss(torch.tensor([[0.0, 1.0]]), batch([1], [2.0]))  # above 0 surely, half way from 1 to 3
    half = 0.5 * math.log(1 + math.exp(-1)) + 0.5 * math.log(1 + math.exp(1))
    assert loss.item() == pytest.approx((math.log(2) + half) / 2)
    assert task.scores(torch.tensor([[0.0, -50.0]])).item() == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="expected at least two numbers, ascending"):
        Ordinal(["MSE"], [1, 0])
    with pytest.raises(DataError, match="expected 0 to 3"):
        task.parse_label(4)


def test_huber_by_hand():
    task = opened(Regression(["MSE"], huber=1.0), mean=0.0, std=1.0)
    losses = task.loss(torch.tensor([[0.5], [3.0]]), batch([1, 1], [0.0, 0.0]))
    assert losses.tolist() == pytest.approx([0.125, 2.5])


def test_class_weights_by_hand():
    logits, data = torch.zeros(2, 2), batch([1, 1], [0, 1])
    balanced = TASKS["weighted"].loss(logits, data)
    assert balanced.tolist() == pytest.approx([4 / 6 * math.log(2), 4 / 2 * math.log(2)])
    named = opened(Classification(["Accuracy"], {"B": 5.0}), classes=["A", "B"])
    assert named.loss(logits, data).tolist() == pytest.approx([math.log(2), 5 * math.log(2)])
    with pytest.raises(ConfigError, match="unknown classes: C. Classes: A, B"):
        opened(Classification(["Accuracy"], {"C": 1.0}), classes=["A", "B"])


def test_regression_is_scaled_for_learning_and_not_for_scores():
    task = opened(Regression(["MSE"]), mean=10.0, std=5.0)
    assert task.loss(torch.tensor([[1.0]]), batch([1], [20.0])).item() == pytest.approx(1.0)
    assert task.scores(torch.tensor([[1.0]])).item() == pytest.approx(15.0)


def test_labels_out_of_range_are_refused():
    with pytest.raises(DataError, match="out of range: expected 0 to 5"):
        Regression(["MSE"], 0, 5).parse_label(7)


def test_buckets_by_hand():
    task = TASKS["buckets"]
    assert task.targets(np.array([0.4, 0.5, 1.0, 9])).tolist() == [0, 1, 1, 2]
    assert task.output_dim == 3


@pytest.mark.parametrize(("edges", "expected"), [("quantiles", [3.0, 6.0]), ("width", [4.0, 8.0])])
def test_edges_of_buckets_by_hand(edges, expected):
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12], dtype=np.float32)
    assert Buckets(["Accuracy"], 3, edges).find_edges(labels) == expected


def test_equal_labels_make_fewer_buckets():
    assert Buckets(["Accuracy"], 4).find_edges(np.array([0, 0, 0, 0, 0, 5], dtype=np.float32)) == []


@pytest.mark.parametrize("setting", [{"num_buckets": 1}, {"edges": "round"}])
def test_impossible_buckets_are_refused(setting):
    with pytest.raises(ConfigError, match="num_buckets of at least 2 and edges quantiles or width"):
        Buckets(["Accuracy"], **setting)


def test_values_by_sample_lie_in_rows():
    data = batch([2] * 5, item_sample=[0, 0, 1, 1, 1])
    grid = by_sample(torch.arange(5.0), data, fill=-1)
    assert grid.tolist() == [[0, 1, -1], [2, 3, 4]]


def test_high_grades_stay_numbers():
    loss = LambdaLoss(["AP"]).loss(torch.tensor([[0.0], [1.0]]), batch([1, 1], [1000, 200], item_sample=[0, 0]))
    assert torch.isfinite(loss).all()


def test_classes_that_look_like_numbers_can_be_weighed():
    task = opened(Buckets(["Accuracy"], 3, class_weights={0: 2.0}), edges=[0.5, 1.5], counts=[1, 1, 1])
    assert task.weights == [2.0, 1.0, 1.0]


def test_what_losses_are_is_told_to_those_that_balance_them():
    assert (TASKS["ordinal"].num_outcomes, TASKS["ordinal"].is_squared_error) == (2, False)
    assert (TASKS["spans"].num_outcomes, TASKS["regression"].num_outcomes) == (3, 2)
    assert TASKS["margin mse"].is_squared_error
    assert not TASKS["relevance"].is_squared_error
