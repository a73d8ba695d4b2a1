"""What holds for every task."""

import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.task import LambdaLoss, ListNet, MarginMSE, RankNet, Regression, Relevance, by_sample
from tests.batches import batch
from tests.task.tasks import TASKS


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


def test_tasks_that_agree_in_what_they_are_made_of_share_prepared_data():
    assert RankNet(["AP"], 2).identity() == LambdaLoss(["AP"], 2).identity() != ListNet(["AP"], 1).identity()
    assert Relevance(["AP"]).identity() != RankNet(["AP"]).identity() != MarginMSE(["AP"]).identity()
    assert Regression(["MSE"], 0, 5).identity() == Regression(["MSE"], 0, 5, huber=1.0).identity()


def test_settings_of_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="relevance_level is 0, expected a whole number"):
        Relevance(["AP"], relevance_level=0)
    with pytest.raises(ConfigError, match="maximum is 'ten', expected null or a finite number"):
        Regression(["MSE"], maximum="ten")
    with pytest.raises(DataError, match="not a whole grade of relevance"):
        Relevance(["AP"]).parse_label(2000)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_scores_have_a_row_an_item(task):
    assert len(task.scores(torch.randn(5, task.output_dim))) == 5


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("label", [float("nan"), float("inf"), "", " ", None, ["a"], {}], ids=str)
def test_labels_that_are_none_are_refused(task, label):
    with pytest.raises(DataError, match="label"):
        task.parse_label(label)


@pytest.mark.parametrize("kind", ["relevance", "pairwise", "regression", "buckets", "terms"])
@pytest.mark.parametrize("label", ["nan", "many", "1_0", "1e39", 10**400])
def test_words_are_no_numbers(kind, label):
    with pytest.raises(DataError, match="label"):
        TASKS[kind].parse_label(label)


def test_values_by_sample_lie_in_rows():
    data = batch([2] * 5, item_sample=[0, 0, 1, 1, 1])
    grid = by_sample(torch.arange(1.0, 6), data)
    assert grid.tolist() == [[1, 2, 0], [3, 4, 5]]


def test_what_losses_are_is_told_to_those_that_balance_them():
    assert (TASKS["ordinal"].num_outcomes, TASKS["ordinal"].is_squared_error) == (2, False)
    assert (TASKS["spans"].num_outcomes, TASKS["regression"].num_outcomes) == (3, 2)
    assert TASKS["margin mse"].is_squared_error
    assert (Regression(["MSE"]).is_squared_error, Regression(["MSE"], huber=1.0).is_squared_error) == (True, False)
    own = {"item_loss": lambda self, logits, batch: logits}
    assert not type("LogCosh", (Regression,), own)(["MSE"]).is_squared_error
    assert type("Weighted", (Regression,), own | {"is_squared_error": True})(["MSE"]).is_squared_error
    assert not TASKS["relevance"].is_squared_error


def test_prepared_data_of_before_are_found_by_the_same_names():
    labels = {task.identity()["labels"].removesuffix(".parse_label") for task in TASKS.values()}
    assert labels == {"Buckets", "Classification", "Distillation", "Ordinal", "Ranking", "Regression", "Tagging"}
