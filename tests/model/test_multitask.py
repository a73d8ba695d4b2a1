import functools

import pytest
import torch
from transformers import AutoModel, BertConfig

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


def test_gradients_reach_the_own_head_and_the_layers_it_reads(model):
    model(batches())["shallow"].square().sum().backward()
    learnt = {name.split(".")[1] for name, p in model.heads.named_parameters(prefix="heads") if p.grad is not None}
    touched = {name: float(p.grad.abs().sum()) for name, p in model.heads.named_parameters() if p.grad is not None}
    assert learnt <= {"shallow"} or all(value == 0 for name, value in touched.items() if "shallow" not in name)
    layers = model.body.encoder.encoder.layer
    assert float(layers[0].output.dense.weight.grad.abs().sum()) > 0
    deeper = layers[2].output.dense.weight.grad
    assert deeper is None or float(deeper.abs().sum()) == 0
