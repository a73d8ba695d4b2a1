"""Heads and bodies that no stock class can compute are refused with the way out."""

import pytest
import torch

from mtlrank.errors import ConfigError
from tests.exports import MLP_ON_CLS, exported, head_of, save

ORDINAL = "task@datamodule.dataset.datasets.msm_sem_sim.task=ordinal"


@pytest.mark.parametrize(
    ("family", "words", "values", "expected"),
    [
        ("bert", head_of("average"), {}, "averages tokens.*format=sentence-transformers"),
        ("roberta", MLP_ON_CLS, {}, "is an MLP.*format=sentence-transformers"),
        (
            "bert",
            ["model/heads@model.heads.trec2019=cls", "model.heads.trec2019.pooler.layers=[1,2]"],
            {},
            "layers \\[1, 2\\]",
        ),
        (
            "bert",
            [
                "model/heads/pooler@model.heads.trec2019.pooler=attention_average",
                "model.heads.trec2019.pooler.layers=[0.25,-1]",
            ],
            {},
            "pools with AttentionAverage.*train with model/heads@model.heads.trec2019=cls, or keep .*format=multitask",
        ),
        ("bert", [*head_of("cls"), "model.body.separate_layers=1"], {}, "reads the two texts of a pair apart"),
        ("bert", head_of("cls", layer=0), {}, "reads the embeddings"),
        ("modernbert", head_of("cls", layer=2), {}, "reads layer 2 of 3, and modernbert normalises"),
        (
            "bert",
            head_of("cls"),
            {"head": "msm_ner"},
            "Head 'msm_ner' cannot be exported: it judges a span.*`mtlrank predict`",
        ),
        ("bert", [*head_of("cls", "msm_sem_sim"), ORDINAL], {"head": "msm_sem_sim"}, "makes one score of 5 logits"),
        ("bert", head_of("cls"), {"head": "trec"}, "no head 'trec'. Did you mean 'trec2019'"),
        ("bert", head_of("cls"), {"layout": "onx"}, "format is 'onx'. Did you mean 'onnx'"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_way_out(tmp_path, family, words, values, expected):
    model = save(tmp_path, family, *words)
    with pytest.raises(ConfigError, match=expected) as told:
        exported(model, tmp_path / "exported", **values)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "exported").exists()


@pytest.mark.filterwarnings("ignore:.*runs padded")
def test_a_body_of_an_unknown_family_is_refused(tmp_path):
    model = save(tmp_path, "mpnet", *head_of("cls"))
    with pytest.raises(ConfigError, match="does not know the layers of mpnet"):
        exported(model, tmp_path / "exported")


def test_a_body_with_weights_of_its_own_is_refused(tmp_path, monkeypatch):
    from mtlrank.model.body import MTLBody

    plain = MTLBody.__init__

    def adapted(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        self.encoder.encoder.layer[0].adapter = torch.nn.Linear(2, 2)

    monkeypatch.setattr(MTLBody, "__init__", adapted)
    model = save(tmp_path, "bert", *head_of("cls"))
    with pytest.raises(ConfigError, match="not a plain bert: 'encoder.layer.0.adapter.bias'.*Merge adapters"):
        exported(model, tmp_path / "exported")
