"""A decoder as the body: published ones score as they do elsewhere, and one is trained, used and exported."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from mtlrank import train
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
    return [(query, text) for query, text in text_pairs() if len(text.split()) < 40]


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


def test_one_is_trained_judged_used_and_exported(tmp_path, short_pairs):
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
