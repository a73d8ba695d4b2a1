import logging

import pytest
import torch
from transformers import AutoTokenizer

from mtlrank.errors import ConfigError
from mtlrank.exporting.onnx_graph import _is_no_torchvision
from tests.exports import assert_equal_scores, exported, head_of, ranked, save


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_onnx_graph_takes_any_number_of_pairs_of_any_length(tmp_path, pairs, family, caplog):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mtlrank.exporting.onnx_graph import scorer

    model = save(tmp_path, family, *head_of("cls"))
    folder = exported(model, tmp_path / "exported", layout="onnx")
    assert "torchvision" not in caplog.text
    score = scorer(folder, AutoTokenizer.from_pretrained(folder))
    found = [value for size in (1, 3, 60) for value in score(pairs[:size])]
    expected = ranked(model, pairs[:60], tmp_path)
    assert_equal_scores(torch.tensor(found), torch.cat([expected[:1], expected[:3], expected]))


def test_only_messages_about_torchvision_are_left_out():
    told = [
        logging.makeLogRecord({"msg": text, "args": ("x",)}) for text in ("torchvision is not installed. %s", "Bad %s")
    ]
    assert [_is_no_torchvision(each) for each in told] == [False, True]


def test_a_missing_package_is_one_line(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import onnx_graph

    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx, .*pip install 'mtlrank\[onnx\]'"):
        exported(bert, tmp_path / "exported", layout="onnx")
