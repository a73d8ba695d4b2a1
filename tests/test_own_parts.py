"""Parts that give back something else than they should are named."""

from functools import partial

import pytest
import torch
from torch import nn

from mtlrank.batch import MTLBatch, Record, Step
from mtlrank.building.dataset import build_dataset
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError
from mtlrank.inference.scoring import outputs
from mtlrank.loop.gradients import losses_of
from mtlrank.loop.loss import Combiner, ExampleMean, Learner
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.model.body import MTLBody
from mtlrank.model.head import Linear
from mtlrank.model.head.pooler import Average
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.own_parts import check_registered, instance_of, records_of
from mtlrank.task import Classification, RankNet, Regression, Task
from tests.batches import batch

TINY = "mtlrank-embedded/tiny-bert"
HERE = __name__.replace(".", r"\.")


def a_loop(task, pooler=Average, head=Linear, loss=ExampleMean, optimizer=torch.optim.AdamW, schedule=None, **body):
    """A loop of one task, and a batch of it: two items, one sample."""
    tiny = MTLBody(TINY, pretrained=False, **body)
    model = MultiTaskModel(tiny, {"x": head(tiny.out_dim, tiny.num_layers, 1, pooler)})
    dataset = type("Dataset", (), {"name": "x", "task": task})()
    schedule = schedule or (lambda optimizer, total_steps: torch.optim.lr_scheduler.StepLR(optimizer, 1))
    data = batch([3, 4], item_sample=[0, 0])
    return MultiTaskLoop(model, {"x": dataset}, loss, optimizer, schedule, total_steps=1), data


def giving(base, method, give, *args):
    """An object of a class `Own` whose method gives what `give` makes of its arguments."""
    own = type("Own", (base,), {method: lambda self, *given: give(*given), "__module__": __name__})
    return own(*args) if args else own


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (
            lambda scores, labels, present: scores,
            r"gives a tensor \(1, 2\), expected a tensor, one number a sample: \(1,\)",
        ),
        (lambda scores, labels, present: scores.sum(), r"gives a tensor \(\), expected"),
        (lambda scores, labels, present: 3.0, "gives a float, expected"),
        (lambda scores, labels, present: scores.sum(-1).detach(), "has no gradient, so nothing would be learnt"),
    ],
)
def test_a_loss_is_one_number_a_sample_and_has_a_gradient(give, told):
    loop, data = a_loop(giving(RankNet, "group_loss", give, ["AP"]))
    with pytest.raises(ConfigError, match=rf"The loss of 'x' \({HERE}\.Own\) {told}"):
        loop.training_step(MTLBatch({"x": data}, {"x": 1}, 1.0, 0, Step({"x": 1})), 0)


class Short(Regression):
    def item_loss(self, logits):
        return logits


class Empty(ExampleMean):
    def __init__(self, tasks):
        pass


class NoMeasures(Regression):
    def __init__(self, measures):
        pass


class NoGroups(torch.optim.SGD):
    def __init__(self, params):
        pass


class NoSuper(PreparedDataset):
    def __init__(self, name):
        self.folder = name

    def records(self, split):
        yield from ()


def test_what_a_base_sets_is_there():
    dataset = {"_target_": f"{__name__}.NoSuper", "name": "x", "licence": "none"}
    with pytest.raises(ConfigError, match=r"dataset 'x': tests\.test_own_parts\.NoSuper\.__init__ does not call super"):
        build_dataset(dataset)
    with pytest.raises(ConfigError, match=r"The task: tests\.test_own_parts\.NoMeasures\.__init__ does not call super"):
        instance_of("The task", NoMeasures(["MSE"]), Task, "measures")
    loop, _ = a_loop(RankNet(["AP"]), optimizer=NoGroups)
    with pytest.raises(ConfigError, match=r"loop.optimizer: tests\.test_own_parts\.NoGroups\.__init__ does not call"):
        loop.configure_optimizers()


@pytest.mark.parametrize(
    ("part", "base", "told"),
    [
        (
            lambda: Short(["MSE"]),
            Task,
            "Short.item_loss takes self, logits; expected self, logits, batch: too many positional",
        ),
        (lambda: Empty({}), Combiner, r"x: tests\.test_own_parts\.Empty\.__init__ does not call super\(\)\.__init__\."),
    ],
)
def test_parts_can_be_called_as_their_bases(part, base, told):
    with pytest.raises(ConfigError, match=told):
        instance_of("x", part(), base)


def test_a_loss_without_a_gradient_is_one_where_nothing_learns():
    loop, data = a_loop(RankNet(["AP"]), frozen_layers="all")
    loop.model.heads.requires_grad_(False)
    assert losses_of(loop.model, loop.datasets, {"x": data})["x"].shape == (1,)


def test_a_head_that_rests_on_layers_that_rest_learns_nothing_beside_others_that_do():
    loop, data = a_loop(RankNet(["AP"]), frozen_layers=2)
    body = loop.model.body
    rests = Linear(body.out_dim, body.num_layers, 1, partial(Average, layers=[1])).requires_grad_(False)
    model = MultiTaskModel(body, {"x": loop.model.heads["x"], "rests": rests})
    datasets = dict.fromkeys(("x", "rests"), loop.datasets["x"])
    losses = losses_of(model, datasets, {"x": data, "rests": data})
    assert [loss.requires_grad for loss in losses.values()] == [True, False]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (giving(Regression, "item_loss", lambda logits, batch: logits, ["MSE"]), r"item_loss gives a tensor \(2, 1\)"),
        (giving(RankNet, "scores", lambda logits: logits.mean(), ["AP"]), r"scores gives a tensor \(\)"),
    ],
)
def test_losses_and_scores_of_items_are_told_by_their_task(task, told):
    loop, data = a_loop(task)
    with pytest.raises(ConfigError, match=rf"{HERE}\.Own\.{told}, expected a tensor, one number an item: \(2,\)"):
        losses_of(loop.model, loop.datasets, {"x": data})


@pytest.mark.parametrize(
    ("base", "give", "told"),
    [
        (Regression, lambda logits: logits[:1, 0], r"a tensor \(1,\), expected a tensor, one number an item: \(2,\)"),
        (Regression, lambda logits: logits, r"a tensor \(2, 1\), expected a tensor, one number an item: \(2,\)"),
        (Classification, lambda logits: logits[:, 0], r"a tensor \(2,\), .* one number an item and class: \(2, 1\)"),
    ],
)
def test_scores_for_measures_have_a_number_or_a_row_an_item(base, give, told):
    task = giving(base, "scores", give, ["MSE"])
    if base is Classification:
        task.learn_labels({"classes": ["a"], "counts": {"a": 1}})
    loop, data = a_loop(task)
    with pytest.raises(ConfigError, match=rf"{HERE}\.Own\.scores gives {told}"):
        outputs(loop.model, {"x": task}, {"x": data}, torch.device("cpu"))


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda losses, drawn: None, "gives None, expected a tensor, one number"),
        (lambda losses, drawn: 1.0, "gives a float"),
        (lambda losses, drawn: losses["x"], r"gives a tensor \(1,\)"),
        (lambda losses, drawn: losses["x"].mean().detach(), "gives a number without a gradient"),
    ],
)
def test_a_combiner_gives_one_number_with_a_gradient(give, told):
    loop, data = a_loop(RankNet(["AP"]), loss=giving(ExampleMean, "forward", give))
    with pytest.raises(ConfigError, match=rf"loop\.loss \({HERE}\.Own\) {told}"):
        loop.training_step(MTLBatch({"x": data}, {"x": 1}, 1.0, 0, Step({"x": 1})), 0)


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda states, batch: None, "gives None"),
        (lambda states, batch: states.detach().numpy(), r"gives a numpy\.ndarray"),
        (lambda states, batch: states.mean(0)[:2, :5], r"gives a tensor \(2, 5\), expected .*: \(2, 64\)"),
    ],
)
def test_a_pooler_gives_a_vector_an_item(give, told):
    loop, data = a_loop(RankNet(["AP"]), pooler=giving(Average, "pool", give))
    with pytest.raises(ConfigError, match=rf"The pooler {HERE}\.Own {told}"):
        loop.model({"x": data})


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            {"pooler": lambda **sizes: nn.Identity()},
            r"The pooler is a .*Identity, expected a mtlrank\..*\.Pooler or a sub",
        ),
        (
            {"head": giving(Linear, "project", lambda *sizes: None)},
            "Own.project gives is None, expected a torch.*Module",
        ),
    ],
)
def test_parts_of_a_head_are_what_they_should_be(parts, told):
    with pytest.raises(ConfigError, match=told):
        a_loop(RankNet(["AP"]), **parts)


class Listed(Linear):
    def project(self, in_dim, out_dim):
        self.hidden = [[nn.Linear(in_dim, in_dim)]]
        return super().project(in_dim, out_dim)


class Found(Linear):
    """What torch finds may lie in a list too, as those of a GRU do, and what does not learn."""

    def project(self, in_dim, out_dim):
        self.gru = nn.GRU(in_dim, in_dim)
        self.both = [self.gru, nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)]
        return super().project(in_dim, out_dim)


class Weighed(ExampleMean):
    def __init__(self, tasks):
        super().__init__(tasks)
        self.weights = {name: nn.Parameter(torch.ones(())) for name in tasks}


def test_weights_that_torch_does_not_find_are_refused():
    a_loop(RankNet(["AP"]), head=Found)
    told = rf"The head 'x': {HERE}\.Listed keeps modules or weights in a list, 'hidden', .*ModuleList"
    with pytest.raises(ConfigError, match=told):
        a_loop(RankNet(["AP"]), head=Listed)
    loop, _ = a_loop(RankNet(["AP"]), loss=Weighed)
    told = rf"loop\.loss: {HERE}\.Weighed keeps modules or weights in a dict, 'weights'"
    with pytest.raises(ConfigError, match=told):
        check_registered("loop.loss", loop.loss)


class Learns(ExampleMean):
    def __init__(self, tasks: dict[str, Learner]) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"optimizer": lambda groups: groups}, "loop.optimizer is a list, expected a torch.optim.optimizer.Optimizer"),
        ({"schedule": lambda optimizer, total_steps: None}, "loop.schedule is None, expected"),
        (
            {"schedule": lambda optimizer, total_steps: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)},
            "ReduceLROnPlateau, which follows a metric: expected one that follows the steps",
        ),
        ({"loss": Learns}, "Learns has weights of its own, but no learning rate for them: set its `lr`"),
    ],
)
def test_what_an_optimizer_is_made_of_is_checked(parts, told):
    loop, _ = a_loop(RankNet(["AP"]), **{"optimizer": partial(torch.optim.AdamW, lr=1e-3), **parts})
    with pytest.raises(ConfigError, match=told):
        loop.configure_optimizers()


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (None, "records gives None, expected records"),
        ([("q", "d", "a", "b", 1)], r"records yields a tuple, expected a mtlrank.batch.Record. It is \('q', 'd'"),
        ([0.5], "records yields a float"),
        ([Record(0, "d", "a", "b", 1)], "records: query_id is 0, expected a str"),
        ([Record("q", 3, "a", "b", 1)], "records: doc_id is 3, expected a str"),
        ([Record("q", "d", "a", b"b", 1)], "records: text is b'b', expected a str"),
        ([Record("q", "d", ["a"], "b", 1)], r"records: query is \['a'\], expected a str"),
    ],
)
def test_records_are_records_of_text(records, told):
    with pytest.raises(ConfigError, match=rf"{HERE}\.Own\.{told}"):
        list(records_of(giving(object, "records", lambda split: records)(), "train"))


def test_records_are_asked_for_a_split():
    with pytest.raises(
        ConfigError, match=r"Own\.records takes \(\), and is called with 1: too many positional arguments"
    ):
        list(records_of(type("Own", (), {"records": lambda self: []})(), "train"))


def test_missing_texts_are_left_to_those_who_tell_of_bad_rows():
    records = [Record("q", "d", None, None, 1)]
    assert list(records_of(giving(object, "records", lambda split: records)(), "train")) == records
