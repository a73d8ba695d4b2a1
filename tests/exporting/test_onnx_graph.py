import logging

import pytest
import torch

from mtlrank.errors import ConfigError
from mtlrank.exporting.onnx_graph import is_no_torchvision
from mtlrank.storage import read_json
from tests.exporting.test_classes import CHOICE, HEAD, SINGLE, predicted, saved
from tests.exports import MLP_ON_CLS, assert_equal_scores, exported, head_of, ranked, save


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("bert", head_of("average", layer=2)),
        ("roberta", MLP_ON_CLS),
        ("deberta-v2", head_of("cls")),
        ("distilbert", head_of("cls")),
        ("modernbert", head_of("average")),
    ],
)
def test_an_onnx_graph_takes_any_number_of_pairs_of_any_length(tmp_path, pairs, family, words, caplog):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mtlrank.exporting.onnx_graph import scorer

    model = save(tmp_path, family, *words)
    folder = exported(model, tmp_path / "exported", layout="onnx")
    assert "torchvision" not in caplog.text
    score = scorer(folder)
    found = [value for size in (1, 3, 60) for value in score(pairs[:size])]
    expected = ranked(model, pairs[:60], tmp_path)
    assert_equal_scores(torch.tensor(found), torch.cat([expected[:1], expected[:3], expected]))


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], [SINGLE]])
def test_an_onnx_graph_gives_the_logits_of_classes(tmp_path, pairs, words):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mtlrank.exporting.onnx_graph import scorer

    model = saved(tmp_path, "bert", CHOICE[0], *words, number=3)  # it averages tokens
    folder = exported(model, tmp_path / "exported", HEAD, layout="onnx")
    texts = [pair[1:] for pair in pairs] if words else pairs
    probabilities = scorer(folder)(texts).softmax(-1)
    expected = [list(answer["probabilities"].values()) for answer in predicted(model, texts, tmp_path)]
    torch.testing.assert_close(probabilities, torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert read_json(folder / "config.json")["id2label"] == {"0": "class E", "1": "class D", "2": "class C"}


def test_only_messages_about_torchvision_are_left_out():
    told = [
        logging.makeLogRecord({"msg": text, "args": ("x",)}) for text in ("torchvision is not installed. %s", "Bad %s")
    ]
    assert [is_no_torchvision(each) for each in told] == [False, True]


def test_a_missing_package_is_one_line(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import onnx_graph

    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx, .*pip install 'mtlrank\[onnx\]'"):
        exported(bert, tmp_path / "exported", layout="onnx")
