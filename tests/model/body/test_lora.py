"""Low-rank updates change nothing at first, learn alone, and can become part of the weights."""

import copy
import sys

import pytest
import torch
from transformers import AutoModel

from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody, Part
from tests.batches import batch
from tests.model.body.test_body import CONFIGS, LENGTHS, PADDED, body, encode, whole

LORA = {"rank": 4, "alpha": 8}
TARGETS = {"mpnet": ["q", "v"]}  # of a family whose layers are not known


@pytest.fixture(params=CONFIGS)
def kind(request, tmp_path):
    """A family whose model, with random weights, lies in `tmp_path`."""
    torch.manual_seed(1)
    AutoModel.from_config(copy.deepcopy(CONFIGS[request.param])).save_pretrained(tmp_path)
    return request.param


@pytest.fixture
def bert(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    return tmp_path


def adapted(folder, kind="bert", **settings):
    return body(folder, lora={**LORA, "targets": TARGETS.get(kind)}, **settings)


def disturb(model):
    """As if the updates had learnt something."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()


def states(model, data):
    """All layers of all tokens; and the deepest layer's first tokens, of sequences that leave early."""
    deep, shallow = encode(model, data, [Part([3], 2, 10, "first"), Part([1], 2, 17, "first")])
    return [*whole(model, data), *deep, *shallow]


def test_at_first_the_body_is_as_it_was(tmp_path, kind):
    data = batch(LENGTHS)
    for state, expected in zip(states(adapted(tmp_path, kind), data), states(body(tmp_path), data), strict=True):
        torch.testing.assert_close(state, expected, atol=1e-6, rtol=1e-6)


def test_only_the_updates_learn_and_merged_they_give_the_same(tmp_path, kind):
    model, plain, data = adapted(tmp_path, kind), body(tmp_path), batch(LENGTHS)
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert learning
    assert all(".lora_" in name for name in learning)
    disturb(model)
    expected = states(model, data)
    model.merge()
    assert model.state_dict().keys() == plain.state_dict().keys()
    for state, before in zip(states(model, data), expected, strict=True):
        torch.testing.assert_close(state, before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(states(plain, data)[3], expected[3], atol=1e-2)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_are_those_of_the_merged_weights(bert, checkpointed):
    """With W = base + 2 B A, the gradient of B is 2 dW A^T."""
    model, merged, data = (
        adapted(bert, activation_checkpointing=checkpointed).train(),
        adapted(bert),
        batch(LENGTHS),
    )
    disturb(model)
    merged.load_state_dict(model.state_dict())
    merged.merge()
    merged.requires_grad_(True)
    for of in (model, merged):
        of.encoder.eval()  # no dropout
        (state,), _ = encode(of, data, [Part([3], 2, 10, "first"), Part([1], 2, 17)])
        state.square().sum().backward()
    query = model.layers[1].attention.self.query
    whole_gradient = merged.layers[1].attention.self.query.weight.grad
    expected = 2 * whole_gradient @ query.lora_A.default.weight.T
    torch.testing.assert_close(query.lora_B.default.weight.grad, expected, atol=1e-4, rtol=1e-4)
    assert query.base_layer.weight.grad is None


def test_weights_that_a_depth_does_not_reach_include_the_updates_there(bert):
    model = adapted(bert)
    unreached = {id(weight) for weight in model.deeper_than(1)}
    found = {int(n.split(".")[3]) for n, p in model.named_parameters() if id(p) in unreached and "lora" in n}
    assert found == {1, 2}


def test_frozen_layers_get_no_updates(bert):
    model = adapted(bert, frozen_layers=2)
    assert {int(name.split(".")[3]) for name in model.state_dict() if "lora" in name} == {2}
    with pytest.raises(ConfigError, match="frozen_layers leaves no layer for model.body.lora"):
        adapted(bert, frozen_layers="all")


def test_the_ends_of_names_are_targets(bert):
    model = MTLBody(str(bert), lora={"targets": ["attention.output.dense"]})
    names = [name for name in model.state_dict() if "lora_A" in name]
    assert names == [f"encoder.encoder.layer.{n}.attention.output.dense.lora_A.default.weight" for n in range(3)]


def test_targets_that_there_are_not_are_named_with_those_there_are(bert, tmp_path):
    with pytest.raises(ConfigError, match=r"names 'q_proj', which is .* There are: dense, key, query, value\."):
        MTLBody(str(bert), lora={"targets": ["query", "q_proj"]})
    with pytest.raises(ConfigError, match="targets is empty"):
        MTLBody(str(bert), lora={"targets": []})
    with pytest.raises(ConfigError, match="'uery'"):
        MTLBody(str(bert), lora={"targets": ["uery"]})


def test_a_family_that_is_not_known_must_be_told_the_targets(tmp_path):
    assert "mpnet" in PADDED
    AutoModel.from_config(copy.deepcopy(CONFIGS["mpnet"])).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"targets must name layers, as this body has no usual ones\. There are: dense, k, o, q, v\."
    ):
        body(tmp_path, lora={"rank": 4})


def test_without_peft_the_extra_is_named(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs peft: pip install 'mtlrank\[lora\]'\."):
        adapted(bert)
