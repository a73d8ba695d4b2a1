"""A head on classes as a stock classifier: the probabilities that `mtlrank predict` gives, under the classes' own names."""

import json
import re

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from mtlrank import predict
from mtlrank.errors import ConfigError
from mtlrank.storage import read_json
from tests.exports import LABELS, LENGTHS, exported, head_of, save, write_classifier
from tests.saved_models import composed, save_labelled, settings

HEAD = "msm_sem_sim"
PLACE = f"datamodule.dataset.datasets.{HEAD}"
CHOICE = [f"task@{PLACE}.task=classes", *head_of("cls", HEAD)]
MLP = f"model.heads.{HEAD}._target_=mtlrank.model.head.MLP"
SINGLE = f"+{PLACE}.columns=[1]"
BUCKETS = [f"task@{PLACE}.task=buckets", *head_of("cls", HEAD)]


def labels_of(number):
    return {**LABELS, HEAD: {"classes": [f"class {letter}" for letter in "EDCBAJIHGF"[:number]]}}


def saved(folder, family, *words, number=3):
    """A model whose head chooses among some classes."""
    return save(folder, family, *words, spread=10.0, labels=labels_of(number))


def predicted(model, texts, folder):
    rows = [{"query": each[0], "text": each[1]} if len(each) == 2 else {"text": each[0]} for each in texts]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = {"model_dir": model, "head": HEAD, "input": folder / "in.jsonl", "output": folder / "out.jsonl"}
    predict.run(settings("predict", **words))
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


@torch.inference_mode()
def by_transformers(folder, texts):
    """(classes, probabilities)."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="pt")
    probabilities = model.eval()(**inputs).logits.softmax(-1)
    return [model.config.id2label[number] for number in probabilities.argmax(-1).tolist()], probabilities


def assert_the_same(folder, model, texts, scratch):
    expected = predicted(model, texts, scratch)
    classes, probabilities = by_transformers(folder, texts)
    wanted = torch.tensor([list(answer["probabilities"].values()) for answer in expected])
    torch.testing.assert_close(probabilities, wanted, atol=1e-5, rtol=1e-4)
    assert classes == [answer["class"] for answer in expected]
    assert wanted.log().std(0).max() > 0.1, "predictions that do not differ show nothing"


@pytest.mark.parametrize(
    ("family", "words", "number", "kind"),
    [
        ("bert", CHOICE, 3, "BertForSequenceClassification"),
        ("bert", [*CHOICE, MLP], 3, "ElectraForSequenceClassification"),
        ("electra", [*CHOICE, f"model.heads.{HEAD}.pooler.layers=[1]"], 10, "ElectraForSequenceClassification"),
        ("roberta", CHOICE, 10, "RobertaForSequenceClassification"),
        ("deberta-v2", CHOICE, 10, "DebertaV2ForSequenceClassification"),
        ("distilbert", CHOICE, 10, "DistilBertForSequenceClassification"),
        ("modernbert", CHOICE, 8, "ModernBertForSequenceClassification"),
        ("modernbert", [*CHOICE, f"model/heads/pooler@model.heads.{HEAD}.pooler=average"], 2, None),
    ],
)
def test_a_stock_classifier_chooses_as_the_head_does(tmp_path, pairs, family, words, number, kind):
    model = saved(tmp_path, family, *words, number=number)
    folder = exported(model, tmp_path / "exported", HEAD, layout=None)
    assert kind in (None, *read_json(folder / "config.json")["architectures"])
    assert_the_same(folder, model, pairs, tmp_path)


def test_a_head_on_single_texts_is_a_pipeline_of_transformers(tmp_path, pairs):
    model, texts = saved(tmp_path, "bert", *CHOICE, SINGLE), [pair[1:] for pair in pairs]
    folder = exported(model, tmp_path / "exported", HEAD)
    assert_the_same(folder, model, texts, tmp_path)
    found = pipeline("text-classification", model=str(folder))([text for (text,) in texts[:5]], truncation=True)
    assert [each["label"] for each in found] == [answer["class"] for answer in predicted(model, texts[:5], tmp_path)]
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "Texts are cut to 96 tokens." in card
    assert "a query and a passage" not in card


@pytest.mark.parametrize(("kind", "layout"), [("cls", "sentence-transformers"), ("average", None)])
def test_a_number_of_single_texts_is_no_cross_encoder(tmp_path, kind, layout):
    """A CrossEncoder takes a list of texts for one pair."""
    model = save(tmp_path, "bert", *head_of(kind, HEAD), SINGLE)
    with pytest.raises(
        ConfigError, match="reads single texts, and format=sentence|averages tokens.*format=onnx holds it"
    ):
        exported(model, tmp_path / "exported", HEAD, layout=layout)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "onnx"])
def test_a_number_of_single_texts_is_none_of_pairs(tmp_path, pairs, layout):
    """Its card is about texts, and its lines give what `predict` gives."""
    model, texts = save(tmp_path, "bert", *head_of("cls", HEAD), SINGLE), [text for _, text in pairs[:5]]
    folder = exported(model, tmp_path / "exported", HEAD, layout=layout)
    card = (folder / "README.md").read_text()
    assert "It gives a text a number." in card
    assert "pipeline_tag: text-classification" in card
    assert not re.search("passage|quer", card.partition("## What to know")[0])
    names = {"folder": str(folder), "texts": texts, "transformers": transformers}
    if layout == "onnx":
        names["onnxruntime"] = pytest.importorskip("onnxruntime")
    expected = [answer["score"] for answer in predicted(model, [(text,) for text in texts], tmp_path)]
    for lines in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(lines, names)
        assert names["logits" if layout == "onnx" else "scores"].flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_the_classifier_of_a_published_cross_encoder_goes_back(tmp_path, pairs):
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=3)
    words = [f"tasks=[{HEAD}]", CHOICE[0], f"model/heads@model.heads.{HEAD}=cross_encoder"]
    words += [f"~model.heads.{HEAD}.pooler", "model/body=pretrained", f"model.body.backbone={checkpoint}"]
    words += [f"{PLACE}.preprocessor.{name}={value}" for name, value in LENGTHS.items()]
    model = save_labelled(tmp_path / "model", composed(*words), labels_of(3))
    assert_the_same(exported(model, tmp_path / "exported", HEAD), model, pairs, tmp_path)


def test_the_card_of_buckets_has_their_edges(tmp_path):
    labels = {**LABELS, HEAD: {"edges": [0.5, 2.25]}}
    model = save(tmp_path, "bert", *BUCKETS, labels=labels)
    folder = exported(model, tmp_path / "exported", HEAD)
    assert "between them are 0.5, 2.25." in (folder / "README.md").read_text()
    assert read_json(folder / "config.json")["id2label"] == {"0": "0", "1": "1", "2": "2"}


@pytest.mark.parametrize(
    ("family", "words", "number", "layout", "expected"),
    [
        (
            "modernbert",
            CHOICE,
            9,
            "transformers",
            "has 9 classes, and .* modernbert has room for 8. .*format=multitask",
        ),
        ("bert", CHOICE, 3, "sentence-transformers", "chooses a class, and format=sentence-transformers is for scores"),
        ("bert", [*CHOICE, SINGLE], 3, "sentence-transformers", "chooses a class, and format=sentence-tra"),
        ("bert", [CHOICE[0]], 3, None, "averages tokens.*format=onnx holds it .*heads.msm_sem_sim=cls"),
    ],
)
def test_what_has_no_stock_form_is_refused_with_the_way_out(tmp_path, family, words, number, layout, expected):
    model = saved(tmp_path, family, *words, number=number)
    with pytest.raises(ConfigError, match=expected) as told:
        exported(model, tmp_path / "exported", HEAD, layout=layout)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "exported").exists()


def test_an_export_with_other_probabilities_is_not_kept(tmp_path, monkeypatch):
    from mtlrank.exporting import stock

    monkeypatch.setattr(stock, "_TANH", 0.5)
    with pytest.raises(ConfigError, match="gives other scores than head 'msm_sem_sim'"):
        exported(saved(tmp_path, "bert", *CHOICE), tmp_path / "exported", HEAD)
    assert not (tmp_path / "exported").exists()


def test_without_a_head_it_is_the_only_one_that_scores_a_pair(tmp_path):
    model = saved(tmp_path, "bert", *head_of("cls"), *CHOICE)
    folder = exported(model, tmp_path / "exported", None)
    assert read_json(folder / "config.json")["id2label"] == {"0": "trec2019"}


def test_without_a_head_it_is_the_only_one_on_whole_texts(tmp_path):
    """Beside one on spans, which has no stock form."""
    model = saved(tmp_path, "bert", *CHOICE, f"tasks=[{HEAD},msm_ner]")
    folder = exported(model, tmp_path / "exported", None, layout=None)
    assert list(read_json(folder / "config.json")["id2label"].values()) == labels_of(3)[HEAD]["classes"]


def test_without_a_head_those_that_can_be_exported_are_listed(tmp_path):
    second = "datamodule.dataset.datasets.topics"
    words = [f"+datamodule/dataset@{second}=msm_sem_sim", f"{second}.name=topics", f"task@{second}.task=classes"]
    words += ["+model/heads@model.heads.topics=cls", f"tasks=[{HEAD},topics,msm_ner]"]
    labels = {**labels_of(3), "topics": {"classes": ["a", "b"]}}
    model = save(tmp_path, "bert", *CHOICE, *words, labels=labels)
    with pytest.raises(
        ConfigError, match=f"^Which head. Choose one with head=... Heads on whole texts: {HEAD}, topics.$"
    ):
        exported(model, tmp_path / "exported", None, layout=None)
