import copy
import csv
import re

import numpy as np
import pytest
import torch

from mtlrank import embedded
from mtlrank.comparing.systems import read_system
from mtlrank.comparing.trec_runs import judge_files, read_topics
from mtlrank.evaluation.judged_head import read_head
from mtlrank.evaluation.predictions import Predictions
from mtlrank.evaluation.results import warn_of_levels, write_head
from mtlrank.evaluation.section import read_section
from mtlrank.storage import read_json
from mtlrank.trec import read_qrels
from tests.evaluation.judged_runs import compare


def judged(dataset, folder, offset=0.0):
    """The first half of a test split, with scores that are drawn."""
    predictions = Predictions(dataset, "test")
    split = predictions.split
    for sample in range(len(split) // 2):
        num_items = len(split.items_of_samples(np.array([sample])))
        shape = (num_items, len(dataset.task.classes)) if dataset.task.kind == "classification" else (num_items,)
        predictions.add(torch.tensor([sample]), torch.rand(shape) / 3 + offset)
    judgement = predictions.judge()
    write_head(folder / "evaluation" / dataset.name, dataset, predictions, judgement, "0123")
    return predictions, judgement


def test_a_measure_that_takes_other_documents_as_relevant_than_its_task_says_so(datasets, tmp_path, capsys):
    dataset = copy.copy(datasets["trec2019"])
    dataset.task = copy.copy(dataset.task)
    dataset.task.measures = ("nDCG@10", "AP", "AP(rel=2)", "AP(rel=1)")
    warn_of_levels(dataset)
    _, judgement = judged(dataset, tmp_path)
    assert judgement.values["AP"] == judgement.values["AP(rel=1)"] != judgement.values["AP(rel=2)"]
    assert capsys.readouterr().err.splitlines() == [
        "mtlrank: AP of trec2019 counts documents from grade 1 as relevant, its task from grade 2: that is AP(rel=2)"
    ]
    page = (tmp_path / "evaluation" / "trec2019" / "index.html").read_text()
    assert "relevant from grade 2" in page
    assert re.findall(r"<tr><td>(AP.*?)</td>", page) == ["AP (from grade 1)", "AP(rel=2)", "AP(rel=1)"]


def test_a_ranking_tells_what_fewer_candidates_would_give(datasets, tmp_path):
    judged(datasets["trec2019"], tmp_path)
    folder = tmp_path / "evaluation" / "trec2019"
    told, head = read_json(folder / "metrics.json"), read_head(folder)
    assert list(head.by_depth) == [5, 10, 20]
    assert head.by_depth[20][0] == pytest.approx(told["values"][told["primary"]])
    assert "candidates re-ranked -->" in (folder / "index.html").read_text()
    judged(datasets["msm_bm25"], tmp_path)
    assert "by_depth" not in read_json(tmp_path / "evaluation" / "msm_bm25" / "metrics.json")


def test_a_fold_is_told_with_what_was_judged_on_it(datasets, tmp_path):
    """Further test sets have none."""
    dataset = copy.copy(datasets["trec2019"])
    source = {**dataset.manifest["source"], "folds": {"fold": 1, "of": 3}}
    dataset.manifest = {**dataset.manifest, "source": source}
    predictions, judgement = judged(dataset, tmp_path)
    assert read_json(tmp_path / "evaluation" / "trec2019" / "metrics.json")["fold"] == [1, 3]
    assert read_head(tmp_path / "evaluation" / "trec2019").fold == (1, 3)
    predictions.split_name = "test@dl20"
    write_head(tmp_path / "other", dataset, predictions, judgement, "0123")
    assert "fold" not in read_json(tmp_path / "other" / "metrics.json")


@pytest.mark.parametrize(("offset", "tells"), [(1e5, True), (1e4, False), (0, False)])
def test_a_ranking_that_is_none_says_so(datasets, tmp_path, capsys, offset, tells):
    """As of a model whose training has collapsed: its scores differ in the last digits only."""
    judged(datasets["trec2019"], tmp_path, offset)
    folder = tmp_path / "evaluation" / "trec2019"
    note = (
        "The model gives all documents of 50 of 50 queries the same score, so their order and the measures are arbitrary. "
        "If training collapsed, lower loop.optimizer.lr."
    )
    assert capsys.readouterr().err == (f"mtlrank: trec2019: {note}\n" if tells else "")
    assert (note in (folder / "index.html").read_text()) == tells
    assert read_section(folder).note == (note if tells else "")


@pytest.mark.parametrize("key", ["msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"])
def test_predictions_are_kept_item_by_item(datasets, key, tmp_path):
    dataset = datasets[key]
    predictions, _ = judged(dataset, tmp_path)
    (scores, items), split = predictions.scores(), predictions.split
    labels = torch.from_numpy(split.labels[items.numpy()])
    with (tmp_path / "evaluation" / key / "predictions.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    classes = dataset.task.kind == "classification"
    more = ["confidence"] if classes else []
    assert list(rows[0]) == ["query_id", "doc_id", "item", "label", "prediction", *more]
    assert len(rows) == len(labels)
    items = split.items_of_samples(np.arange(len(split) // 2)).tolist()
    assert [(row["query_id"], row["doc_id"]) for row in rows] == [split.ids[split.sequence_of_item[i]] for i in items]
    if classes:
        assert [row["label"] for row in rows] == [dataset.task.classes[int(label)] for label in labels]
        assert [row["prediction"] for row in rows] == [dataset.task.classes[i] for i in scores.argmax(-1)]
        assert torch.equal(torch.tensor([float(row["confidence"]) for row in rows]), scores.max(-1).values)
    else:
        assert torch.equal(torch.tensor([float(row["prediction"]) for row in rows]), scores)
        assert torch.equal(torch.tensor([float(row["label"]) for row in rows]), labels)


@pytest.mark.parametrize("key", ["msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref", "trec2019"])
def test_measures_of_the_files_are_those_that_were_judged(datasets, key, tmp_path):
    _, judgement = judged(datasets[key], tmp_path)
    system = read_system("x", [tmp_path])
    if key == "trec2019":  # what other systems' runs are judged by
        qrels = read_qrels(tmp_path / "evaluation" / key / "qrels.txt")
        assert qrels == read_qrels(*datasets[key].split("test").files("qrels.txt"))
        again, notes = judge_files("again", [tmp_path / "evaluation" / key / "run.trec"], read_topics([system]))
        assert all((again.heads[key].values[m] == values).all() for m, values in system.heads[key].values.items())
        assert len(notes) == 1
        assert "lacks 50 of 100 queries" in notes[0]
    rows = compare(system, system._replace(name="y"), datasets[key].task.measures, resamples=100)
    assert {row.measure: row.system_value for row in rows} == pytest.approx(judgement.values, abs=2e-5)
    assert set(judgement.values) == set(datasets[key].task.measures)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_any_name_of_a_class_can_be_read_back(datasets, tmp_path):
    """Also those that mtlrank would clean today."""
    dataset = copy.copy(datasets["msm_ner"])
    dataset.task = copy.copy(dataset.task)
    awkward = ["a\rb", "a\r\n", '"', "tab\t", " ", "\x85", "\u2028"]
    dataset.task.classes = [*awkward, *dataset.task.classes][: len(dataset.task.classes)]
    predictions, _ = judged(dataset, tmp_path)
    with (tmp_path / "evaluation" / "msm_ner" / "predictions.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    (scores, items), split = predictions.scores(), predictions.split
    labels = torch.from_numpy(split.labels[items.numpy()])
    assert [row["label"] for row in rows] == [dataset.task.classes[int(label)] for label in labels]
    assert [row["prediction"] for row in rows] == [dataset.task.classes[i] for i in scores.argmax(-1)]


def test_items_are_numbered_within_their_sequence(datasets, tmp_path):
    judged(datasets["msm_ner"], tmp_path)
    with (tmp_path / "evaluation" / "msm_ner" / "predictions.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    seen = {}
    for row in rows:
        key = row["query_id"], row["doc_id"]
        assert int(row["item"]) == seen.setdefault(key, 0)
        seen[key] += 1
    assert max(seen.values()) > 1


def test_how_many_candidates_a_query_has_is_told(datasets, tmp_path):
    """The first stage is judged on them too, so its values are not those of its whole run."""
    judged(datasets["trec2019"], tmp_path)
    folder = tmp_path / "evaluation" / "trec2019"
    assert "100 judged queries, at most 20 candidates each" in (folder / "index.html").read_text()
    assert read_section(folder).units == "queries, at most 20 candidates each"


def test_the_texts_of_judged_queries_are_kept(datasets, tmp_path):
    predictions, _ = judged(datasets["trec2019"], tmp_path)
    with (tmp_path / "evaluation" / "trec2019" / "queries.tsv").open(newline="") as file:
        texts = dict(csv.reader(file, delimiter="\t"))
    assert set(texts) == {query_id for query_id, _ in predictions.split.ids}
    with open(embedded.locate("mtlrank-embedded/test/queries.tsv"), newline="") as file:
        asked = dict(csv.reader(file, delimiter="\t"))
    letters = [(re.sub(r"\W", "", texts[query_id]), re.sub(r"\W", "", asked[query_id].lower())) for query_id in texts]
    assert all(read == written for read, written in letters)
