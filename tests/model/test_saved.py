"""What is written of a model, and read again."""

import torch
from torch import nn

from mtlrank.backbone import load_tokenizer
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MTLHead
from mtlrank.model.head.pooler import Average
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import load_weights, save_model

TINY = "mtlrank-embedded/tiny-bert"


class Shared(MTLHead):
    """Holds a layer under two names, and a weight that another one is the transpose of."""

    def project(self, in_dim, out_dim):
        self.hidden = nn.Linear(in_dim, in_dim)
        back = nn.Linear(in_dim, in_dim)
        back.weight = nn.Parameter(self.hidden.weight.detach().t())
        return nn.Sequential(self.hidden, back, nn.Linear(in_dim, out_dim))


def test_a_head_may_hold_a_weight_under_two_names(tmp_path):
    def made():
        return MultiTaskModel(MTLBody(TINY, pretrained=False), {"x": Shared(64, 4, 1, Average)})

    model, loaded = made(), made()
    save_model(tmp_path / "model", model, load_tokenizer(TINY), {}, {})
    load_weights(tmp_path / "model", loaded)
    assert {"heads.x.hidden.weight", "heads.x.projection.0.weight"} <= loaded.state_dict().keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
