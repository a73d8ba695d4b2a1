"""Groups of weights, and learning rates that fall towards the embeddings."""

import functools

import pytest
import torch

from mtlrank import train
from mtlrank.errors import ConfigError
from mtlrank.loop.loss import ExampleMean
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.parameter_groups import parameter_groups
from mtlrank.loop.schedule import linear_warmup
from mtlrank.model.body import MTLBody
from mtlrank.model.head import Linear
from mtlrank.model.head.pooler import CLSToken
from mtlrank.model.multitask import MultiTaskModel
from tests.loop import runs


def model(**settings):
    body = MTLBody("mtlrank-embedded/tiny-bert", pretrained=False, **settings)
    head = Linear(body.out_dim, body.num_layers, 1, functools.partial(CLSToken, layers=[-1]))
    return MultiTaskModel(body, {"a": head})


def test_without_decay_there_are_two_groups():
    groups = parameter_groups(model())
    assert [set(group) for group in groups] == [{"name", "params"}, {"name", "params", "weight_decay"}]
    assert {weight.ndim for weight in groups[1]["params"]} == {1}


def test_rates_fall_by_layer_and_each_weight_has_one():
    of = model()
    groups = parameter_groups(of, 0.5)
    factor = {id(weight): group.get("lr_factor", 1.0) for group in groups for weight in group["params"]}
    assert len(factor) == sum(len(group["params"]) for group in groups) == len(list(of.parameters()))
    depth = of.body.num_layers
    assert [factor[id(layer.output.dense.weight)] for layer in of.body.layers] == [
        0.5 ** (depth - number) for number in range(1, depth + 1)
    ]
    assert factor[id(of.body.encoder.embeddings.word_embeddings.weight)] == 0.5**depth
    assert factor[id(of.heads["a"].projection.weight)] == 1.0


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_heads_may_have_a_rate_of_their_own(decay):
    of = model()
    groups = parameter_groups(of, decay, head_lr=0.1)
    rate = {id(weight): group.get("lr") for group in groups for weight in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in groups) == len(list(of.parameters()))
    assert {rate[id(weight)] for weight in of.heads.parameters()} == {0.1}
    assert {rate[id(weight)] for weight in of.body.parameters()} == {None}
    assert {weight.ndim for group in groups if "weight_decay" in group for weight in group["params"]} == {1}


def test_the_rates_of_an_optimizer_that_makes_groups_of_its_own_are_numbered():
    def one_each(groups):
        return torch.optim.SGD([{"params": [w]} for group in groups for w in group["params"]], lr=0.1)

    of = model()
    schedule = functools.partial(linear_warmup, warmup=0.1)
    loop = MultiTaskLoop(of, {}, lambda kinds: ExampleMean(kinds), one_each, schedule, total_steps=9)
    loop.configure_optimizers()
    assert loop.training_log.names_of_rates == [f"lr/group_{number}" for number in range(len(list(of.parameters())))]


def test_frozen_layers_are_in_no_group():
    groups = parameter_groups(model(frozen_layers=1), 0.5)
    assert all(weight.requires_grad for group in groups for weight in group["params"])
    assert min(group.get("lr_factor", 1.0) for group in groups) == 0.5 ** (model().body.num_layers - 2)


def test_a_body_whose_layers_are_not_known_is_refused():
    of = model()
    of.body.family = None
    with pytest.raises(ConfigError, match="loop.layer_decay is 0.9, but the layers of .* are not known: expected 1.0"):
        MultiTaskLoop(
            of, {}, lambda kinds: None, torch.optim.SGD, torch.optim.lr_scheduler.LambdaLR, 1, layer_decay=0.9
        )


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_run_with_falling_rates_goes_on_to_the_bit(data_dir, tmp_path):
    words = ["training.epochs=2", "loop.layer_decay=0.5", "loop.head_lr=0.02", "model.body.frozen_layers=1"]
    whole, stopped = (runs.settings(data_dir, tmp_path / name, *words) for name in ("whole", "stopped"))
    train.run(whole)
    runs.run_until(stopped, 22)
    train.run(stopped)
    content = runs.content(tmp_path / "whole")
    runs.assert_same(content, runs.content(tmp_path / "stopped"))
    (optimizer,) = content["optimizer_states"]
    rate, depth = whole["loop"]["optimizer"]["lr"], model().body.num_layers
    expected = {0.02, *(rate * 0.5 ** (depth - layer) for layer in range(2, depth + 1))}
    assert {group["initial_lr"] for group in optimizer["param_groups"]} == expected
