import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torchjd import aggregation

from mtlrank.batch import MTLBatch, Step
from mtlrank.errors import ConfigError
from mtlrank.loop.loss import (
    Aggregated,
    DynamicWeightAverage,
    ExampleMean,
    GradNorm,
    Learner,
    Muppet,
    RandomWeights,
    StaticWeights,
    TaskMean,
    Uncertainty,
    gradient,
)
from mtlrank.loop.multitask import shares_of

TASKS = {"a": Learner(5, False), "b": Learner(2, True), "c": Learner(2, False)}  # classes, a number, yes or no
LOSSES = {"a": torch.tensor([1.0, 3.0, 5.0]), "b": torch.tensor([7.0])}
DRAWN = ["a", "b"]


def make(cls, **settings):
    return cls(TASKS, **settings)


def value(combiner, losses=LOSSES, drawn=DRAWN):
    return combiner(losses, drawn).item()


COMBINERS = {
    "example_mean": lambda: make(ExampleMean),
    "muppet": lambda: make(Muppet),
    "task_mean": lambda: make(TaskMean),
    "static": lambda: make(StaticWeights, weights={"a": 2.0}),
    "uncertainty": lambda: make(Uncertainty),
    "dwa": lambda: make(DynamicWeightAverage),
    "random": lambda: make(RandomWeights),
}
combiners = pytest.mark.parametrize("make_one", COMBINERS.values(), ids=COMBINERS)


def test_values_by_hand():
    assert value(make(ExampleMean)) == pytest.approx(16 / 4)
    assert value(make(TaskMean)) == pytest.approx((3 + 7) / 2)
    assert value(make(StaticWeights, weights={"a": 3.0})) == pytest.approx((9 / 5 * 3 + 3 / 5 * 7) / 2)
    expected = (9 / math.log(5) + 7 / math.log(2)) / 4
    assert value(make(Muppet)) == pytest.approx(expected)


def test_uncertainty_by_hand():
    combiner = make(Uncertainty, lr=0.1)
    assert value(combiner) == pytest.approx((3 + 7 / 2) / 2)
    for weight, log_variance in zip(combiner.log_variances, [math.log(4), math.log(2), 9.0], strict=True):
        weight.data.fill_(log_variance)
    expected = 3 / 4 + math.log(4) / 2 + 7 / 2 / 2 + math.log(2) / 2
    assert value(combiner) == pytest.approx(expected / 2)
    weights = {name: float(weight) for name, weight in combiner.changing_weights().items()}
    assert weights == pytest.approx({"a": 1 / 4, "b": 1 / 2 / 2, "c": math.exp(-9)})
    combiner(LOSSES, DRAWN).backward()
    *drawn, absent = (weight.grad for weight in combiner.log_variances)
    assert [float(each) for each in drawn] == pytest.approx([(1 / 2 - 3 / 4) / 2, (1 / 2 - 7 / 2 / 2) / 2])
    assert absent is None  # so that no optimizer's momentum moves it
    assert combiner.idle(DRAWN) == [combiner.log_variances[2]]


def test_the_weight_of_a_loss_that_is_zero_for_long_has_an_end_and_falls_again():
    """A hinge loss is 0 while all groups are satisfied; by the formula alone its weight would be 1e8 here."""
    combiner = make(Uncertainty, max_weight=50)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=0.1)
    weights = []
    for loss in [0.0] * 200 + [2.0] * 100:
        combiner({"a": torch.tensor([loss])}, ["a"]).backward()
        weights.append(math.exp(-combiner.log_variances[0].item()))
        optimizer.step()
        optimizer.zero_grad()
    assert weights[199] == pytest.approx(50)
    assert weights[-1] < 5


def test_dynamic_weight_average_by_hand():
    """Task a falls from 4 to 2 (a half), b stays at 7 (one): weights are 2 softmax(0.25, 0.5)."""
    combiner = make(DynamicWeightAverage, temperature=2.0)
    for epoch, first in ((0, 4.0), (1, 2.0)):
        combiner.start_epoch(epoch)
        for _ in range(3):
            assert value(combiner, {"a": torch.tensor([first]), "b": torch.tensor([7.0])}) == (first + 7) / 2
    combiner.start_epoch(2)
    shares = [math.exp(0.25), math.exp(0.5)]
    weights = [2 * share / sum(shares) for share in shares]
    assert combiner.weights.tolist() == pytest.approx([*weights, 1.0])  # c was never drawn
    assert value(combiner) == pytest.approx((weights[0] * 3 + weights[1] * 7) / 2)
    combiner.start_epoch(2)  # a run that goes on with the epoch
    assert combiner.weights.tolist() == pytest.approx([*weights, 1.0])


def test_dynamic_weights_learn_nothing_from_a_step_that_is_skipped():
    steps = [{"a": 4.0, "b": 7.0}, {"a": float("nan"), "b": 7.0}, {"a": 4.0, "b": float("inf")}]
    combiner = make(DynamicWeightAverage)
    for losses in steps:
        combiner.start_step()
        value(combiner, {name: torch.tensor([loss]) for name, loss in losses.items()})
    combiner.start_epoch(1)
    assert combiner.before[0].tolist()[:2] == [4.0, 7.0]


def test_dynamic_weights_count_a_step_once_however_many_batches_it_has():
    """As if each step were one large batch; the last one of an epoch is shorter."""
    combiner = make(DynamicWeightAverage)
    for batches in ([6.0, 3.0, 3.0], [1.0]):
        combiner.start_step()
        for loss in batches:
            value(combiner, {"a": torch.tensor([loss])})
    combiner.start_epoch(1)
    assert combiner.before[0].tolist()[0] == (4 + 1) / 2


@pytest.mark.parametrize("losses", [["a", "b", "c"], ["a", "b"], ["c"]])
def test_chosen_weights_have_the_ratios_that_were_asked_for_whatever_tasks_a_step_has(losses):
    """Also in a step of one task: with training.one_task_per_batch there are only such."""
    combiner = make(StaticWeights, weights={"a": 10.0, "b": 0.5})
    means = {name: torch.ones(2, requires_grad=True) for name in losses}
    combiner(means, losses).backward()
    weights = {name: float(mean.grad.sum()) * len(losses) for name, mean in means.items()}
    expected = {"a": 10.0, "b": 0.5, "c": 1.0}
    assert weights == pytest.approx({name: expected[name] * 3 / 11.5 for name in losses})


def test_random_weights_have_a_mean_of_one_and_belong_to_the_step():
    def in_steps(combiner, number):
        found = []
        for _ in range(number):
            combiner.start_step()
            found.append(value(combiner))
            assert value(combiner) == found[-1]  # for the step's other batches
        return found

    first, again = make(RandomWeights, seed=3), make(RandomWeights, seed=3)
    ones = {name: torch.ones(2) for name in TASKS}
    assert value(first, ones, list(TASKS)) == pytest.approx(1)
    alone = [value(make(RandomWeights, seed=seed), {"c": ones["c"]}, ["c"]) for seed in range(400)]
    assert sum(alone) / 400 == pytest.approx(1, abs=0.15)  # five standard errors
    assert max(alone) > 1.5 > 0.5 > min(alone)
    values = in_steps(first, 4)
    again.load_state_dict({"_extra_state": 1})
    assert in_steps(again, 3) == values[1:]
    assert len(set(values)) == 4
    assert value(make(RandomWeights, seed=3)) != value(make(RandomWeights, seed=4))


def test_gradnorm_by_hand():
    """Norms 3 and 1, losses at half and all of their first: the mean norm is 2, wanted are 2 (2/3)^1 and 2 (4/3)^1.

    Slopes are 3 / 2 and -1 / 2.
    """
    combiner = make(GradNorm, alpha=1.0, lr=0.1)
    gradients = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert combiner.combine(gradients, torch.tensor([4.0, 6.0]), ["a", "b"]).tolist() == [1.5, 0.5]
    combiner.weights.fill_(1.0)
    combiner.combine(gradients, torch.tensor([2.0, 6.0]), ["a", "b"])
    moved = [1 - 0.1 * 1.5, 1 + 0.1 * 0.5, 1.0]
    assert combiner.weights.tolist() == pytest.approx([3 * w / sum(moved) for w in moved])
    assert combiner.first.tolist()[:2] == [4.0, 6.0]


def test_gradnorm_weighs_what_it_combines():
    combiner = make(GradNorm)
    combiner.weights.copy_(torch.tensor([1.5, 0.5, 1.0]))
    gradients = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert combiner.combine(gradients, torch.tensor([4.0, 6.0]), DRAWN).tolist() == [1.5 * 3 / 2, 0.5 * 1 / 2]


def test_gradnorms_alpha_says_how_much_the_pace_counts():
    """Norms 3 and 1, losses at all and half of their first: wanted are 2 (4/3)^alpha and 2 (2/3)^alpha.

    With 1 the first task's is too large, with 2 it is too small.
    """
    for alpha, sign in ((1, 1), (2, -1)):
        combiner = make(GradNorm, alpha=alpha, lr=0.1)
        combiner.first = torch.tensor([4.0, 6.0, float("nan")])
        combiner.combine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([4.0, 3.0]), DRAWN)
        moved = [1 - sign * 0.1 * 1.5, 1 + sign * 0.1 * 0.5, 1.0]
        assert combiner.weights.tolist() == pytest.approx([3 * w / sum(moved) for w in moved])


def test_gradnorm_keeps_weights_above_zero_at_any_rate():
    combiner = make(GradNorm, lr=10)
    for _ in range(5):
        combiner.combine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([4.0, 6.0]), DRAWN)
        assert (combiner.weights > 0).all()


CONFLICT = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


def test_aggregation_by_hand():
    """PCGrad: each gradient loses its part along the other, g1 - (g1 g2 / g2 g2) g2; MGDA: the shortest mean."""
    a, b = CONFLICT
    expected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
    means = torch.ones(2)
    pcgrad = make(Aggregated, aggregator="PCGrad").combine(CONFLICT, means, ["a", "b"])
    torch.testing.assert_close(pcgrad, expected)
    mgda = make(Aggregated, aggregator="MGDA").combine(CONFLICT, means, ["a", "b"])
    torch.testing.assert_close(mgda, 0.6 * a + 0.4 * b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("aggregator", "settings"), [("UPGrad", {}), ("CAGrad", {"c": 0.5}), ("DualProj", {}), ("MGDA", {})]
)
def test_what_is_aggregated_opposes_no_task(aggregator, settings):
    combined = make(Aggregated, aggregator=aggregator, settings=settings).combine(CONFLICT, torch.ones(2), DRAWN)
    assert (CONFLICT @ combined > -1e-2).all()
    assert (CONFLICT @ CONFLICT.sum(0)).min() < 0


@pytest.mark.parametrize("in_common", [0.0, -0.9], ids=["independent", "opposed"])
def test_mgda_is_the_shortest_combination_however_gradients_differ_in_length(in_common):
    """As a least-squares fit of 0 by weights that are at least 0 and, as they are told a million times, sum to 1."""
    generator = torch.Generator().manual_seed(0)
    combiner = Aggregated(dict.fromkeys("abcd", Learner(2, False)), "MGDA")
    for _ in range(50):
        gradients = torch.randn(4, 50, generator=generator)
        gradients = torch.nn.functional.normalize(gradients + in_common * gradients.mean(0))
        gradients *= torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
        combined = combiner.combine(gradients, torch.ones(4), list("abcd"))
        rows, sums = gradients.double().numpy(), np.full((1, 4), 1e6)
        weights, _ = nnls(np.concatenate([rows.T, sums]), np.append(np.zeros(50), 1e6))
        assert float(combined.norm()) == pytest.approx(float(np.linalg.norm(weights @ rows)), rel=0.01)
        assert float((gradients @ combined / combined.norm() / gradients.norm(dim=1)).min()) > -1e-3


@pytest.mark.parametrize("length", [1.0, 1e-2, 1e-3, 1e-4])
def test_a_task_with_a_short_gradient_is_aggregated_as_others_are(length):
    """Two unit gradients with a cosine of -.6, the second one shortened.

    UPGrad is the mean of the gradients' projections onto the dual cone; CAGrad's step is within c of the mean's length.
    """
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-0.6, 0.8])
    gradients = torch.stack([one, length * other])
    expected = (one - (one @ other) * other + length * (other - (one @ other) * one)) / 2
    upgrad = make(Aggregated, aggregator="UPGrad").combine(gradients, torch.ones(2), DRAWN)
    torch.testing.assert_close(upgrad, expected, atol=1e-3, rtol=1e-3)
    for aggregator in ("UPGrad", "DualProj"):
        combined = make(Aggregated, aggregator=aggregator).combine(gradients, torch.ones(2), DRAWN)
        assert (torch.stack([one, other]) @ combined > -1e-3).all()
    cagrad = make(Aggregated, aggregator="CAGrad", settings={"c": 0.5}).combine(gradients, torch.ones(2), DRAWN)
    assert 0.499 <= cagrad.norm() / gradients.mean(0).norm() <= 1.501


def test_gradnorm_waits_for_a_task_whose_loss_is_zero():
    """A group in which nothing can be compared costs nothing: the task has no pace yet."""
    combiner = make(GradNorm)
    for losses in ([0.0, 6.0], [0.0, 0.0]):
        combiner.combine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor(losses), DRAWN)
        assert combiner.weights.tolist() == [1, 1, 1]
    assert combiner.first[0].isnan()


NEEDED = {"CAGrad": {"c": 0.5}, "FairGrad": {"alpha": 1.0}}  # settings without a default


def combined(aggregator, gradients):
    torch.manual_seed(0)  # Random draws weights
    made = make(Aggregated, aggregator=aggregator, settings=NEEDED.get(aggregator))
    return made.combine(gradients, torch.ones(len(gradients)), list(TASKS)[: len(gradients)])


@pytest.mark.parametrize("aggregator", gradient._AGGREGATORS)
def test_short_gradients_are_combined_as_long_ones(aggregator):
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)) / 7
    for scale in (1e-4, 1e3):
        torch.testing.assert_close(
            combined(aggregator, rows * scale), combined(aggregator, rows) * scale, rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("aggregator", gradient._AGGREGATORS)
def test_a_task_without_a_gradient_does_not_stop_the_others(aggregator):
    """A hinge loss whose groups are all satisfied is 0: the step is learnt as if it had no samples of that task."""
    rows = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    satisfied = torch.stack([rows[0], torch.zeros(50), rows[1]])
    torch.testing.assert_close(combined(aggregator, satisfied), combined(aggregator, rows))
    assert combined(aggregator, satisfied).norm() > 0.1
    assert combined(aggregator, torch.zeros(2, 50)).tolist() == [0.0] * 50


@pytest.mark.parametrize("aggregator", ["UPGrad", "PCGrad", "MGDA", "AlignedMTL", "IMTLG", "ConFIG", "Mean", "Sum"])
def test_a_task_may_be_absent_and_nothing_is_remembered(aggregator):
    """What a step learns is a function of its gradients: a run that goes on needs no state."""
    used, fresh = (make(Aggregated, aggregator=aggregator) for _ in range(2))
    three = torch.cat([CONFLICT, torch.ones(1, 3)])
    used.combine(three, torch.ones(3), list(TASKS))
    torch.testing.assert_close(
        used.combine(CONFLICT, torch.ones(2), DRAWN), fresh.combine(CONFLICT, torch.ones(2), DRAWN)
    )
    assert not used.state_dict()


def test_gradients_that_are_none_are_handed_on():
    combined = make(Aggregated, aggregator="UPGrad").combine(CONFLICT * float("nan"), torch.ones(2), DRAWN)
    assert combined.isnan().all()
    gradnorm = make(GradNorm)
    assert gradnorm.combine(CONFLICT * float("nan"), torch.ones(2), DRAWN).isnan().all()
    assert gradnorm.weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: make(StaticWeights, weights={"x": 1.0}), "unknown tasks: x. Tasks: a, b, c"),
        (lambda: make(StaticWeights, weights={"a": -1.0}), "expected numbers above 0"),
        (lambda: make(Uncertainty, lr=0), "loop.loss.lr is 0"),
        (lambda: make(DynamicWeightAverage, temperature=0), "temperature is 0"),
        (lambda: make(GradNorm, alpha=-1), "alpha is -1"),
        (lambda: make(GradNorm, alpha=math.inf), "alpha is inf, expected a finite number"),
        (lambda: make(GradNorm, lr=math.nan), "lr is nan, expected a finite number"),
        (lambda: make(Aggregated, aggregator="UpGrad"), "aggregator is 'UpGrad', expected one of .*UPGrad"),
        (lambda: make(Aggregated, aggregator="CAGrad"), "does not take loop.loss.settings"),
        (lambda: make(Aggregated, aggregator="GradVac"), "expected one of"),  # it remembers
    ],
)
def test_settings_that_cannot_be_are_refused(make_one, message):
    with pytest.raises(ConfigError, match=message):
        make_one()


def test_a_mean_of_means_on_two_processes_is_that_of_one():
    """What the loop hands to a combiner that weighs tasks alike: 63 samples of one task and one of another, in halves."""
    halves = [{"a": torch.ones(32)}, {"a": torch.ones(31), "b": torch.tensor([10.0])}]
    batch = MTLBatch({}, {"a": 63, "b": 1}, 1.0, 0, Step({"a": 63, "b": 1}))
    for combiner, expected in (
        (make(TaskMean), (1 + 10) / 2),
        (make(StaticWeights, weights={"a": 3.0}), (1.8 + 6) / 2),
    ):
        both = [combiner(shares_of(half, batch, 2), DRAWN) for half in halves]
        assert float(sum(both)) / 2 == pytest.approx(expected)


@combiners
def test_which_combiners_weigh_every_sample_alike(make_one):
    combiner = make_one()
    losses = {name: loss.clone().requires_grad_() for name, loss in LOSSES.items()}
    combiner(losses, DRAWN).backward()
    weights = torch.cat([loss.grad for loss in losses.values()])
    assert bool((weights == weights[0]).all()) == isinstance(combiner, ExampleMean)
    assert (weights > 0).all()


@combiners
def test_the_order_of_samples_does_not_matter(make_one):
    shuffled = {name: loss.flip(0) for name, loss in LOSSES.items()}
    torch.testing.assert_close(make_one()(LOSSES, DRAWN), make_one()(shuffled, DRAWN))


@combiners
def test_a_task_by_itself_is_learnt_as_it_is(make_one):
    """One task, whatever the combiner: the loss's mean, up to a factor of its own."""
    one = {"c": torch.tensor([2.0, 4.0])}
    factors = {"muppet": 1 / math.log(2), "static": 3 / 4, "random": make(RandomWeights)({"c": torch.ones(1)}, ["c"])}
    (name,) = (name for name, made in COMBINERS.items() if made is make_one)
    assert make_one()(one, ["c"]).item() == pytest.approx(3 * float(factors.get(name, 1)))


@pytest.mark.parametrize(
    ("aggregator", "settings", "scales"),
    [
        ("PCGrad", {}, (3.0, 3.0, 3.0)),
        ("ConFIG", {}, (3.0, 3.0, 3.0)),
        ("UPGrad", {}, (1.0, 1.0, 1.0)),
        ("MGDA", {}, (1.0, 1.0, 1.0)),
        ("CAGrad", {"c": 0.5}, (1.5, 1.5, 1.5)),
        ("AlignedMTL", {}, (1.0, 0.43, 0.19)),
        ("FairGrad", {"alpha": 1.0}, (3.0, 2.02, 1.79)),
    ],
)
def test_aggregators_have_the_scales_that_the_docs_tell(aggregator, settings, scales):
    """Of three gradients of length 1, relative to their mean, at a cosine of 0, .6 and .9 between them."""
    aggregate = getattr(aggregation, aggregator)(**settings)
    for cosine, scale in zip((0.0, 0.6, 0.9), scales, strict=True):
        rows = torch.linalg.cholesky(torch.full((3, 3), cosine) + (1 - cosine) * torch.eye(3))
        assert float(aggregate(rows).norm() / rows.mean(0).norm()) == pytest.approx(scale, abs=0.01)
