"""Exported heads give the head's scores in other people's libraries."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mtlrank.exporting.plain import PlainHead
from mtlrank.exporting.stock import through_tanh
from mtlrank.storage import read_json
from mtlrank.trained_head import load_head
from tests.exports import (
    CONFIGS,
    LENGTHS,
    LINEAR_ON_AVERAGE,
    MLP_ON_CLS,
    assert_equal_scores,
    by_sentence_transformers,
    by_transformers,
    exported,
    head_of,
    ranked,
    save,
)

TWO_CLASSES = "task@datamodule.dataset.datasets.trec2019.task=relevance_classes"


@pytest.mark.parametrize(
    ("family", "words", "kind"),
    [
        ("bert", head_of("cls"), "BertForSequenceClassification"),
        ("bert", head_of("cls", layer=2), "BertForSequenceClassification"),
        ("bert", MLP_ON_CLS, "ElectraForSequenceClassification"),
        ("electra", head_of("cls", layer=1), "ElectraForSequenceClassification"),
        ("electra", MLP_ON_CLS, "ElectraForSequenceClassification"),
        ("roberta", head_of("cls", layer=2), "RobertaForSequenceClassification"),
        ("xlm-roberta", head_of("cls"), "XLMRobertaForSequenceClassification"),
        ("deberta-v2", head_of("cls", layer=2), "DebertaV2ForSequenceClassification"),
        ("deberta-v2", MLP_ON_CLS, "DebertaV2ForSequenceClassification"),
        ("distilbert", head_of("cls", layer=2), "DistilBertForSequenceClassification"),
        ("modernbert", head_of("cls"), "ModernBertForSequenceClassification"),
        ("modernbert", LINEAR_ON_AVERAGE, "ModernBertForSequenceClassification"),
        ("bert", [*head_of("cls"), TWO_CLASSES], "BertForSequenceClassification"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stock_classifier_gives_the_same_scores(tmp_path, pairs, family, words, kind):
    model = save(tmp_path, family, *words)
    folder = exported(model, tmp_path / "exported")
    expected = ranked(model, pairs, tmp_path)
    assert read_json(folder / "config.json")["architectures"] == [kind]
    assert_equal_scores(by_transformers(folder, pairs), expected)
    assert_equal_scores(by_sentence_transformers(folder, pairs), expected)


def test_large_scores_are_kept_too(tmp_path, pairs):
    """The tanh in between is linear enough for scores far beyond what training gives."""
    model = save(tmp_path, "bert", *head_of("cls"), spread=30.0)
    expected = ranked(model, pairs, tmp_path)
    assert expected.abs().max() > 10
    assert_equal_scores(by_transformers(exported(model, tmp_path / "exported"), pairs), expected)


@pytest.mark.parametrize(
    ("family", "words", "holds_float16"),
    [
        ("bert", head_of("cls"), False),
        ("roberta", head_of("cls"), False),
        ("bert", MLP_ON_CLS, True),
        ("distilbert", head_of("cls"), True),
        ("modernbert", head_of("cls"), True),
    ],
)
def test_half_precision_gives_what_the_card_says(tmp_path, pairs, family, words, holds_float16):
    """A published cross-encoder's own classifier is not among these: its weights are ordinary ones."""
    folder = exported(save(tmp_path, family, *words), tmp_path / "exported")
    use = (folder / "README.md").read_text().partition("## Use")[2].partition("## What to know")[0]
    assert ("never in float16" in use) != holds_float16
    expected = by_transformers(folder, pairs[:32])
    torch.testing.assert_close(by_transformers(folder, pairs[:32], torch.bfloat16), expected, atol=0.1, rtol=0)
    halved = by_transformers(folder, pairs[:32], torch.float16)
    if holds_float16:
        torch.testing.assert_close(halved, expected, atol=0.02, rtol=0)
    else:
        assert not halved.isfinite().any()


@pytest.mark.parametrize(("mean", "std"), [(2.5, 1.5), (2000.0, 300.0), (-5e4, 1e4)])
def test_the_tanh_is_linear_in_any_unit_of_the_labels(mean, std):
    torch.manual_seed(0)
    dense, out = nn.Linear(32, 32), nn.Linear(32, 1)
    weight, states = std * torch.randn(1, 32) / 32**0.5, torch.randn(500, 32)
    with torch.no_grad():
        for each in (*dense.parameters(), *out.parameters()):
            each.zero_()
        through_tanh(dense, out, PlainHead(1, "cls", None, weight, torch.tensor([mean])))
        found = out(dense(states).tanh())
    torch.testing.assert_close(found, states @ weight.T + mean, atol=1e-5 * std, rtol=1e-6)


def test_a_shallow_head_brings_only_the_layers_that_it_reads(tmp_path):
    folder = exported(save(tmp_path, "bert", *head_of("cls", layer=1)), tmp_path / "exported")
    assert read_json(folder / "config.json")["num_hidden_layers"] == 1
    assert len(AutoModelForSequenceClassification.from_pretrained(folder).bert.encoder.layer) == 1


def test_a_regression_head_scores_in_the_labels_own_unit(bert, tmp_path, pairs):
    folder = exported(bert, tmp_path / "exported", "msm_sem_sim")
    expected = ranked(bert, pairs, tmp_path, "msm_sem_sim")
    assert_equal_scores(by_transformers(folder, pairs), expected)
    head = load_head(bert, "msm_sem_sim")
    assert (head.task.mean, head.task.std) == (2.5, 1.3)


def test_the_tokenizer_cuts_where_training_cut(of_bert):
    tokenizer = AutoTokenizer.from_pretrained(of_bert)
    assert tokenizer.model_max_length == LENGTHS["max_length"]
    assert len(tokenizer("a", "b " * 500, truncation=True)["input_ids"]) == LENGTHS["max_length"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "sentence-transformers", "onnx"])
@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_a_tokenizer_of_a_class_that_gives_types_gives_none_to_an_encoder_without(tmp_path, pairs, family, layout):
    """As klue/roberta has: BERT's tokenizer class, which keeps no such setting."""
    pytest.importorskip("onnxruntime" if layout == "onnx" else "sentence_transformers")
    saved = save(tmp_path, family, *head_of("cls"), tokenizer={"tokenizer_class": "BertTokenizer"})
    assert "token_type_ids" in AutoTokenizer.from_pretrained(saved / "backbone")("a")
    folder = exported(saved, tmp_path / "exported", layout=layout)
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(folder)("a")
    if layout != "onnx":  # whose scores were checked with the tokenizer that was written
        assert_equal_scores(by_sentence_transformers(folder, pairs), ranked(saved, pairs, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("types", "values"),
    [(2, {"truncation_side": "left", "padding_side": "left", "pad_token": None}), (1, {})],
    ids=["sides and padding", "types"],
)
def test_a_tokenizer_that_does_not_fit_is_put_right(tmp_path, pairs, monkeypatch, types, values):
    """mtlrank cuts at the end, pads nothing, and knows how many types of tokens there are."""
    kind, size = CONFIGS["bert"]
    monkeypatch.setitem(CONFIGS, "bert", (kind, {**size, "type_vocab_size": types}))
    saved = save(tmp_path, "bert", *head_of("cls"), tokenizer=values)
    folder = exported(saved, tmp_path / "exported")
    expected = ranked(saved, pairs, tmp_path)
    assert_equal_scores(by_transformers(folder, pairs), expected)
    assert_equal_scores(by_sentence_transformers(folder, pairs), expected)
