import functools

import pytest
import torch
from transformers import AutoModel, BertConfig

from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MLP, Linear
from mtlrank.model.head.pooler import Average, CLSToken
from mtlrank.model.multitask import MultiTaskModel
from tests.batches import batch


@pytest.fixture
def model(tmp_path):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    body = MTLBody(str(tmp_path))
    heads = {
        "shallow": Linear(16, 3, 2, functools.partial(Average, layers=[1])),
        "deep": MLP(16, 3, 1, functools.partial(CLSToken, layers=[-1])),
        "mixed": Linear(16, 3, 4, functools.partial(Average, layers=[0, 2])),
    }
    return MultiTaskModel(body, heads).eval()


def batches():
    torch.manual_seed(3)
    return {"shallow": batch([4, 6]), "deep": batch([5, 3, 8]), "mixed": batch([7])}


def test_logits_come_in_the_order_of_the_batches(model):
    logits = model(batches())
    assert {name: tuple(values.shape) for name, values in logits.items()} == {
        "shallow": (2, 2),
        "deep": (3, 1),
        "mixed": (1, 4),
    }
    assert list(logits) == ["shallow", "deep", "mixed"]


def test_a_score_does_not_depend_on_the_other_tasks_or_sequences(model):
    data = batches()
    together = model(data)
    for name, alone in data.items():
        torch.testing.assert_close(model({name: alone})[name], together[name], atol=1e-5, rtol=1e-5)


def test_idle_weights_are_those_that_a_batch_does_not_reach(model):
    names = {id(p): name for name, p in model.named_parameters()}
    for present in (["shallow"], ["deep"], ["mixed", "shallow"]):
        model.zero_grad()
        data = batches()
        logits = model({name: data[name] for name in present})
        sum(value.square().sum() for value in logits.values()).backward()
        unreached = {name for name, p in model.named_parameters() if p.grad is None}
        assert {names[id(p)] for p in model.idle(present)} == unreached


def test_layers_that_no_head_reads_are_not_trained(tmp_path):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = MultiTaskModel(MTLBody(str(tmp_path)), {"x": Linear(16, 3, 2, functools.partial(Average, layers=[2]))})
    frozen = {name.split(".")[4] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"2"}


def test_a_name_that_torch_has_taken_is_refused(tmp_path):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="A dataset cannot be called 'half'"):
        MultiTaskModel(MTLBody(str(tmp_path)), {"half": Linear(16, 1, 2, Average)})
