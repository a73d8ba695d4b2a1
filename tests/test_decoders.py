"""A decoder as the body: published ones score as they do elsewhere, and one is trained, used and exported."""

import itertools

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from mtlrank import train
from mtlrank.backbone import load_config
from mtlrank.building.model import build_body
from mtlrank.composing.compose import compose_config
from mtlrank.errors import ConfigError
from mtlrank.exporting.onnx_graph import scorer
from tests.decoders import END, config, tokenizer, write_decoder
from tests.exports import assert_equal_scores, by_sentence_transformers, by_transformers, exported, ranked, text_pairs
from tests.saved_models import composed, save_labelled

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
PROMPT = "<Instruct>: Find passages that answer\n<Query>: {query}\n<Document>: {text}\n" + END


def words(folder, *more):
    return [
        "tasks=[trec2019]",
        "model/body=pretrained",
        f"model.body.backbone={folder}",
        "model/heads@model.heads.trec2019=cls",
        "model/heads/pooler@model.heads.trec2019.pooler=last_token",
        *more,
    ]


def prompted(*more):
    return [f'template="{PROMPT}"', "max_length=160", "max_query_length=40", *more]


@torch.inference_mode()
def by_joined_texts(folder, pairs):
    """Scores of a stock classifier of texts that are joined by hand."""
    model, own = AutoModelForSequenceClassification.from_pretrained(folder).eval(), tokenizer()
    texts = [PROMPT.replace("{query}", query).replace("{text}", text) for query, text in pairs]
    return torch.cat([model(**own(text, return_tensors="pt")).logits[:, 0] for text in texts])


def by_onnx(folder, pairs):
    return scorer(folder)(pairs)[:, 0]


@pytest.fixture(scope="module")
def short_pairs():
    """No text is cut; in some there are signs that are the first of a vocabulary of bytes."""
    return [("Wow!!! what is it?", 'no! "never"!!'), *(pair for pair in text_pairs() if len(pair[1].split()) < 40)]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_published_one_scores_as_where_it_comes_from(tmp_path, short_pairs, family):
    checkpoint = write_decoder(tmp_path / "published", family)
    model = AutoModelForSequenceClassification.from_config(config(family, initializer_range=0.2, num_labels=1))
    model.save_pretrained(checkpoint)
    expected = by_joined_texts(checkpoint, short_pairs)
    start = ["tasks=[trec2019]", "model/body=pretrained", f"model.body.backbone={checkpoint}"]
    published = composed(*start, "model/heads@model.heads.trec2019=cross_encoder", *prompted())
    folder = save_labelled(tmp_path / "model", published, {"trec2019": {}})
    assert_equal_scores(ranked(folder, short_pairs, tmp_path), expected)
    written = exported(folder, tmp_path / "exported")
    assert_equal_scores(by_joined_texts(written, short_pairs), expected)
    assert_equal_scores(by_transformers(written, short_pairs), expected)  # its tokenizer has the prompt
    written = exported(folder, tmp_path / "modules", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(written, short_pairs), expected)


@pytest.mark.parametrize(
    ("special", "pad", "room", "expected"),
    [
        ((END, "<pad>"), None, 0, "<pad>"),
        ((END, "<pad>"), END, 0, "<pad>"),
        ((END,), None, 1, "<|padding|>"),
        ((END,), END, 0, None),
    ],
)
def test_no_token_of_texts_is_the_padding_of_an_export(tmp_path, short_pairs, special, pad, room, expected):
    """Nor the one that ends them, which many published tokenizers pad with."""
    own, body = tokenizer(special=special, pad=pad), tmp_path / "body"
    settings = {"vocab_size": len(own) + room, "pad_token_id": 0 if pad else None}
    AutoModel.from_config(config("llama", initializer_range=0.2, **settings)).save_pretrained(body)
    own.save_pretrained(body)
    folder = save_labelled(tmp_path / "model", composed(*words(body), *prompted()), {"trec2019": {}}, 3.0)
    if expected is None:
        with pytest.raises(ConfigError, match="has no special token to pad texts with but the one that ends them"):
            exported(folder, tmp_path / "exported", layout="sentence-transformers")
        return
    written = exported(folder, tmp_path / "exported", layout="sentence-transformers")
    assert AutoTokenizer.from_pretrained(written).pad_token == expected
    assert_equal_scores(by_sentence_transformers(written, short_pairs), ranked(folder, short_pairs, tmp_path))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_saved_one_is_used_and_exported_as_it_learnt(tmp_path, short_pairs, bidirectional):
    body = write_decoder(tmp_path / "body", "mistral", initializer_range=0.2)
    choice = f"model.body.bidirectional={bidirectional}"
    folder = save_labelled(tmp_path / "model", composed(*words(body, choice), *prompted()), {"trec2019": {}}, 3.0)
    scores = ranked(folder, short_pairs, tmp_path)
    written = exported(folder, tmp_path / "exported", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(written, short_pairs), scores)
    shown = load_config(str(written))
    assert getattr(shown, "is_causal", True) != bidirectional


def test_a_tokenizer_that_transformers_makes_anew_cannot_take_a_space_along(tmp_path, short_pairs):
    """Whatever is saved, that of a Qwen2 has the normalizer of its class."""
    body = write_decoder(tmp_path / "body", "qwen2", initializer_range=0.2)
    folder = save_labelled(tmp_path / "model", composed(*words(body), *prompted()), {"trec2019": {}}, 3.0)
    with pytest.raises(ConfigError, match="The exported model gives other scores than head 'trec2019'"):
        exported(folder, tmp_path / "exported", layout="sentence-transformers")
    without = composed(*words(body), *prompted()[1:], f'template="{PROMPT.replace(": {", ":{")}"')
    folder = save_labelled(tmp_path / "other", without, {"trec2019": {}}, 3.0)
    written = exported(folder, tmp_path / "exported", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(written, short_pairs), ranked(folder, short_pairs, tmp_path))


def test_a_start_with_another_mask_is_told(tmp_path):
    """A decoder that has been trained may become bidirectional, and not the other way round."""
    body = write_decoder(tmp_path / "body", "llama")
    made = {}
    for name in ("causal", "bidirectional"):
        choice = f"model.body.bidirectional={name == 'bidirectional'}"
        config = composed(*words(body, choice), *prompted())
        made[name] = save_labelled(tmp_path / name, config, {"trec2019": {}})
    for start, bidirectional in itertools.product(made, (False, True)):
        more = [f"model.start_from={made[start]}", f"model.body.bidirectional={bidirectional}"]
        if (start, bidirectional) == ("bidirectional", False):
            with pytest.raises(ConfigError, match="each token reads the whole text: set model.body.bidirectional=true"):
                build_body(composed(*words(body, *more)))
        else:
            assert build_body(composed(*words(body, *more))).is_causal != bidirectional


@pytest.mark.slow
def test_one_is_trained_judged_used_and_exported(tmp_path, short_pairs, capsys):
    body = write_decoder(tmp_path / "body", "qwen3")
    limits = ["datamodule.train_sampler.limits={trec2019: 24}", "training.epochs=1", "training.batch_size=8"]
    data = [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'run'}", "test=true"]
    train.run(compose_config([*words(body), *prompted(), *limits, *data], trusted=True))
    model = tmp_path / "run" / "model"
    scores = ranked(model, short_pairs, tmp_path)
    for layout, read in (("sentence-transformers", by_sentence_transformers), ("onnx", by_onnx)):
        written = exported(model, tmp_path / layout, layout=layout)
        torch.testing.assert_close(read(written, short_pairs), scores, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="has a bias, and the stock classifier of qwen3 is a matrix without one"):
        exported(model, tmp_path / "stock")
    capsys.readouterr()
    other = [f"output_dir={tmp_path / 'other'}", f"data_dir={tmp_path / 'data'}", f"model.start_from={model}"]
    train.run(compose_config([*words(body), *limits, *other, "training.epochs=0", "test=false"], trusted=True))
    assert f"trec2019: the model has learnt texts in the template {PROMPT!r}, and template is None now" in (
        capsys.readouterr().err
    )
