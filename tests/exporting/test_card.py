import re

import torch
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from mtlrank import evaluate
from mtlrank.exporting.card import escape, head_card, model_card, source_of
from mtlrank.storage import read_json, write_json
from mtlrank.trained_head import load_head
from tests.exports import assert_equal_scores, by_transformers, exported, head_of, ranked
from tests.saved_models import composed, save_random, settings


def test_a_long_query_is_cut_as_the_card_says(bert, of_bert, tmp_path, pairs):
    folder = of_bert
    long = [(" ".join([query, text])[:400], text) for query, text in pairs if len(text) > 400]
    expected = ranked(bert, long, tmp_path)
    assert not torch.allclose(by_transformers(folder, long), expected, atol=1e-3)
    card = (folder / "README.md").read_text()
    assert "WordPiece, as in BERT, never" in card
    snippet = card[card.index("  kept = ") :].partition("  ```")[0].replace("\n  ", "\n").strip()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def cut(query):
        names = {"tokenizer": tokenizer, "query": query}
        exec(snippet, names)
        return names["query"]

    assert_equal_scores(by_transformers(folder, [(cut(query), text) for query, text in long]), expected)
    assert cut("") == ""


def test_the_card_tells_data_licences_and_measures_and_no_folder(tmp_path, config, datasets, data_dir):
    words = [*head_of("cls"), "++datamodule.dataset.datasets.trec2019.licence='<b>mine</b> | [x](http://y)'"]
    body = ["model.body.backbone=mtlrank-embedded/tiny-bert", f"data_dir={data_dir}"]
    model = save_random(tmp_path / "run" / "model", composed(*body, *words), datasets)
    evaluate.run(settings("evaluate", model_dir=model, tasks="[trec2019]"), {"trec2019": data_dir / "trec2019"})
    card = (exported(model, tmp_path / "exported") / "README.md").read_text()
    assert re.search(
        r"trec2019 \| test \| nDCG@10 \| \S+ \| \S+ to \S+ \| \S+ \(first stage\) \| 100 queries of at most 20 ", card
    )
    assert "- Seed: 42\n" in card
    assert "model-index" not in card, "the data are invented"
    assert r"\<b\>mine\</b\> \| \[x\](http://y)" in card
    assert "\n    trec2019:\n" in card
    assert "        id: mtlrank-embedded/train\n" in card
    assert str(tmp_path) not in card
    assert str(data_dir) not in card


def test_the_hub_reads_base_model_and_measures_from_the_header(tmp_path, datasets, data_dir, monkeypatch):
    monkeypatch.setattr("mtlrank.exporting.card.is_read_by", lambda dataset: False)
    config = composed(*head_of("cls"), "model.body.backbone=mtlrank-embedded/tiny-bert", f"data_dir={data_dir}")
    model = save_random(tmp_path / "run" / "model", config, datasets)
    values = evaluate.run(
        settings("evaluate", model_dir=model, tasks="[trec2019]"), {"trec2019": data_dir / "trec2019"}
    )
    head, saved = load_head(model, "trec2019"), read_json(model / "config.json")
    saved["model"]["body"] |= {"backbone": "google-bert/bert-base-uncased@main", "pretrained": True}
    write_json(model / "config.json", saved, sort_keys=False)
    header = ModelCard(head_card(head, "transformers")).data
    assert header.base_model == "google-bert/bert-base-uncased"
    assert header.tags == ["cross-encoder", "reranker", "mtlrank"]
    results = {each.metric_type: each.metric_value for each in header.eval_results}
    assert results["nDCG@10"] == round(values["test/trec2019/nDCG@10"], 4)
    assert {(each.dataset_name, each.task_type) for each in header.eval_results} == {("trec2019", "text-ranking")}


def test_of_models_in_one_folder_each_card_tells_its_own_measures(tmp_path, config, datasets, data_dir):
    """A model that is exported as a whole can be judged and exported again."""
    for name, spread in (("m1", 1.0), ("m2", 2.0)):
        save_random(tmp_path / name, config, datasets, spread)
        words = settings("evaluate", model_dir=tmp_path / name, tasks="[msm_bm25]")
        evaluate.run(words, {"msm_bm25": data_dir / "msm_bm25"})
    found = []
    for name in ("m1", "m2"):
        value = read_json(tmp_path / f"evaluation-{name}-test" / "msm_bm25" / "metrics.json")["values"]["MSE"]
        card = model_card(tmp_path / name)
        assert re.findall(r"bm25 \| test \| MSE \| (\S+) \|", card) == [f"{value:.4f}"]
        found.append(value)
    assert found[0] != found[1]


def test_a_dataset_that_describes_no_source_is_told_by_its_settings(tmp_path):
    """As one of a user's own class, whose files only its settings name."""
    own = {"_target_": "my_data.Blocks", "name": "odd", "path": "/home/me/blocks", "task": {}, "val": None}
    write_json(tmp_path / "sources.json", {"odd": {}})
    assert source_of({"datamodule": {"dataset": {"datasets": {"odd": own}}}}, tmp_path, "odd") == {"path": "blocks"}


def test_markdown_of_others_is_shown_as_text():
    assert escape("a|b\n# c <i>`d`") == r"a\|b \# c \<i\>\`d\`"
