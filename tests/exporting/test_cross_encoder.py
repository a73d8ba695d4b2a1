import pytest

from tests.exports import (
    LINEAR_ON_AVERAGE,
    MLP_ON_CLS,
    assert_equal_scores,
    by_sentence_transformers,
    exported,
    head_of,
    ranked,
    save,
)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("bert", head_of("average", layer=2)),
        ("roberta", MLP_ON_CLS),
        ("deberta-v2", LINEAR_ON_AVERAGE),
        ("distilbert", LINEAR_ON_AVERAGE),
        ("modernbert", head_of("average")),
        ("bert", [*head_of("cls"), 'template="[CLS] query: {query} [SEP] document: {text} [SEP]"']),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cross_encoder_of_modules_holds_averages_and_hidden_layers(tmp_path, pairs, family, words):
    pytest.importorskip("sentence_transformers")
    model = save(tmp_path, family, *words)
    folder = exported(model, tmp_path / "exported", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(folder, pairs), ranked(model, pairs, tmp_path))
