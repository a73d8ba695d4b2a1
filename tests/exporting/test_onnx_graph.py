import pytest
import torch
from transformers import AutoTokenizer

from mtlrank.errors import ConfigError
from tests.exports import assert_equal_scores, exported, head_of, ranked, save


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_onnx_graph_takes_any_number_of_pairs_of_any_length(tmp_path, pairs, family):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mtlrank.exporting.onnx_graph import scorer

    model = save(tmp_path, family, *head_of("cls"))
    folder = exported(model, tmp_path / "exported", layout="onnx")
    score = scorer(folder, AutoTokenizer.from_pretrained(folder))
    found = [value for size in (1, 3, 60) for value in score(pairs[:size])]
    expected = ranked(model, pairs[:60], tmp_path)
    assert_equal_scores(torch.tensor(found), torch.cat([expected[:1], expected[:3], expected]))


def test_a_missing_package_is_one_line(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import onnx_graph

    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx, .*pip install 'mtlrank\[onnx\]'"):
        exported(bert, tmp_path / "exported", layout="onnx")
