"""Finding entities: those that evaluation counts, in texts whose words are not given."""

import json
from itertools import groupby

import pytest

import mtlrank
from mtlrank import evaluate, predict, prepare
from mtlrank.batch import Record
from mtlrank.datamodule.dataset.shard_writer import samples_of
from mtlrank.errors import DataError
from mtlrank.storage import read_json
from mtlrank.tags import entities
from tests.saved_models import composed, save_random, settings
from tests.tiny_collection import write

TEXT = "Orbis Motors put The Paper Sparrow on sale in 1957."


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """(model folder, its dataset)"""
    folder = tmp_path_factory.mktemp("tags")
    config = composed("tasks=[msm_ner]", "task@datamodule.dataset.datasets.msm_ner.task=tags", f"data_dir={data_dir}")
    datasets = prepare.run(config)
    return save_random(folder / "model", config, datasets, spread=5.0, seed=11), datasets["msm_ner"]


@pytest.fixture(scope="module")
def head(trained):
    return mtlrank.load(trained[0])


def test_entities_are_those_that_evaluation_counts(trained, head):
    """The words of the embedded collection are those that are found without spans."""
    model, dataset = trained
    evaluate.run(settings("evaluate", model_dir=model, data_dir=read_json(model / "config.json")["data_dir"]))
    folder = model.parent / "evaluation-test" / "msm_ner"
    rows = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()[1:]]
    tags = {name: [row[4] for row in words] for name, words in groupby(rows, key=lambda row: row[1])}
    samples: list[list[Record]] = list(samples_of(dataset.records("test")))
    answers = head.predict([sample[0].text for sample in samples])
    hits = told = wanted = 0
    for sample, answer in zip(samples, answers, strict=True):
        spans = [record.spans[0] for record in sample]
        found = {(spans[first][0], spans[end - 1][1], kind) for first, end, kind in entities(tags[sample[0].doc_id])}
        true = {(spans[first][0], spans[end - 1][1], kind) for first, end, kind in entities([r.label for r in sample])}
        assert {(*entity["span"], entity["class"]) for entity in answer["entities"]} == found
        hits, told, wanted = hits + len(found & true), told + len(found), wanted + len(true)
    assert told > 100, "a model that finds nothing shows nothing"
    assert read_json(folder / "metrics.json")["values"] == pytest.approx(
        {"EntityF1": 2 * hits / (told + wanted), "EntityPrecision": hits / told, "EntityRecall": hits / wanted}
    )


def test_an_entity_is_told_with_its_text_and_a_probability(head):
    (answer,) = head.predict([{"id": 7, "text": TEXT}])
    assert list(answer) == ["id", "entities"]
    assert answer["entities"]
    for entity in answer["entities"]:
        assert list(entity) == ["span", "text", "class", "probability"]
        assert entity["text"] == TEXT[slice(*entity["span"])]
        assert 0 < entity["probability"] <= 1


def test_words_may_be_given(head):
    """As data of another language or other rules has them."""
    words = [[0, 12], [13, 16], [17, 34], [35, 37], [38, 42], [43, 45], [46, 51]]
    (answer,) = head.predict([{"text": TEXT, "spans": words}])
    edges = {edge for span in words for edge in span}
    assert all(edge in edges for entity in answer["entities"] for edge in entity["span"])
    assert head.predict([{"text": TEXT, "spans": []}]) == [{"entities": []}]


@pytest.mark.parametrize(
    ("spans", "complaint"),
    [
        ([[6, 12], [0, 5]], r"^texts\[0\]: expected spans of words in their order, none within another\.$"),
        ([[0, 12], [6, 12]], r"^texts\[0\]: expected spans of words in their order, none within another\.$"),
        ([[0, 99]], r"^texts\[0\]: span 0:99 lies outside the text"),
        ([[[0, 5], [6, 12]]], r"^texts\[0\]: expected spans as \[\[start, end\], \.\.\.\]"),
    ],
)
def test_words_that_cannot_be_are_refused(head, spans, complaint):
    with pytest.raises(DataError, match=complaint):
        head.predict([{"text": TEXT, "spans": spans}])


def test_tables_and_lines_give_the_same(trained, head, tmp_path):
    texts = [TEXT, "Nobody\u00a0was—there, in Αθήνα \U0001f600!", "1957"]
    write(tmp_path / "in.tsv", [f"t{number}\t{text}" for number, text in enumerate(texts)])
    write(tmp_path / "in.jsonl", [json.dumps({"id": f"t{n}", "text": text}) for n, text in enumerate(texts)])
    for name in ("in.tsv", "in.jsonl"):
        output = tmp_path / f"{name}.out.jsonl"
        predict.run(settings("predict", model_dir=trained[0], input=tmp_path / name, output=output))
        answers = [json.loads(line) for line in output.read_text().splitlines()]
        assert [answer.pop("id") for answer in answers] == ["t0", "t1", "t2"]
        assert answers == head.predict(texts)


def test_a_word_without_a_token_parts_no_entity(trained, head):
    """As evaluation leaves it out: its neighbours follow each other."""
    texts = [sample[0].text for sample in samples_of(trained[1].records("test"))]
    parted = [text.replace(" ", " \u200d ") for text in texts]
    found, expected = ([each["entities"] for each in head.predict(given)] for given in (parted, texts))
    told = [[(entity["text"].replace(" \u200d", ""), entity["class"]) for entity in each] for each in found]
    assert told == [[(entity["text"], entity["class"]) for entity in each] for each in expected]
    assert any(" " in text for each in told for text, _ in each), "entities of one word show nothing"


def test_words_behind_the_cut_belong_to_no_entity(head, trained):
    longest = trained[1].preprocessor.lengths.max_length
    (answer,) = head.predict([TEXT + " Orbis" * longest])
    assert answer["entities"]
    assert max(entity["span"][1] for entity in answer["entities"]) < len(TEXT) + 6 * longest
