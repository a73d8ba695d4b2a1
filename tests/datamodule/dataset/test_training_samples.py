"""Rankings that learn the scores of a run or an annotator."""

from pathlib import Path

import pytest

from mtlrank.annotate.annotator import Annotator
from mtlrank.batch import Record
from mtlrank.datamodule.dataset import Shard, training_samples
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Buckets, PairwiseRelevance, Regression
from mtlrank.trec import read_run
from tests.datamodule.dataset.rankings import distilled, groups, ranking, rows
from tests.tiny_collection import write


def test_scores_of_triples_can_be_distilled(source, tmp_path):
    lines = ["9.5\t-1.25\tq1\td1\td2", "3\t4\tq2\td3\td5"]
    files = {**source, "docpairs": write(tmp_path / "pairs", lines)}
    expected = [[("d1", 9.5), ("d2", -1.25)], [("d3", 3.0), ("d5", 4.0)]]
    assert groups(distilled(files, learn_from="docpairs")) == expected
    unscored = [[("d1", 2.0), ("d2", 0.0)], [("d3", 2.0), ("d5", 0.0)]]
    assert groups(ranking(files, PairwiseRelevance(["AP"], 2), learn_from="docpairs")) == unscored
    for line, complaint in (
        ("q1\td1\td2", "expected 5 tab-separated columns .score of the better, .*, found 3"),
        ("nan\t1\tq1\td1\td2", "expected two finite scores, found 'nan', '1'"),
    ):
        write(tmp_path / "pairs", [*lines, line])
        with pytest.raises(DataError, match=complaint):
            groups(distilled(files, learn_from="docpairs"))
    write(tmp_path / "pairs", ["q1\td1\td2"])
    with pytest.raises(DataError, match="x: the docpairs of .* have no scores for a distillation"):
        groups(distilled(files, learn_from="docpairs"))


def test_the_scores_of_a_run_can_be_learnt(source):
    dataset = ranking(
        source, Regression(["MSE"]), learn_from="run", num_candidates=2, val=source, leaked_queries="drop"
    )
    assert rows(dataset, "val") == [("q1", "d2", 3.0), ("q1", "d1", 2.0), ("q2", "d4", 2.0), ("q2", "d3", 1.0)]
    with pytest.raises(ConfigError, match="max_queries is not for learn_from=docpairs"):
        ranking(source, PairwiseRelevance(["AP"], 2), learn_from="docpairs", max_queries=3)
    with pytest.raises(ConfigError, match="learn_from=run does not fit a Relevance task"):
        ranking(source, learn_from="run")
    with pytest.raises(ConfigError, match="learn_from=docpairs does not fit a Buckets task"):
        ranking(source, Buckets(["Accuracy"]), learn_from="docpairs")


def test_a_runs_scores_can_be_distilled_in_groups_and_other_splits_are_judged(source):
    dataset = distilled(source, learn_from="run", test=source, leaked_queries="drop", num_candidates=2)
    assert groups(dataset) == []  # all its queries are asked in the test split
    assert rows(dataset, "test") == [("q1", "d2", 1), ("q1", "d1", 2), ("q2", "d4", 0), ("q2", "d3", 3)]
    taught = groups(distilled(source, learn_from="run"))
    run = {(d.query_id, d.doc_id): d.score for d in read_run(Path(source["run"]))}
    assert sorted(len(group) for group in taught) == [2, 2]
    assert all((q, d) in run for q, group in zip(("q1", "q2"), taught, strict=True) for d, _ in group)
    assert {score for group in taught for _, score in group} <= set(run.values())


def test_groups_of_a_query_do_not_overlap_and_one_document_is_none(source):
    taught = groups(distilled(source, learn_from="run", groups_per_query=5))
    assert [len(group) for group in taught] == [2, 2]  # of three and two candidates
    assert [len(group) for group in groups(distilled(source, learn_from="run", num_negatives=9))] == [3, 2]


@pytest.mark.parametrize("way", ["run", "annotator"])
def test_a_query_is_taught_the_documents_at_its_own_ranks_only(source, tmp_path, way):
    """Also where another query has the others at these ranks."""
    ranked = {"q1": ["d1", "d2", "d3"], "q2": ["d3", "d2", "d1"]}
    lines = [f"{q} Q0 {d} {rank} {9 - rank} x" for q, docs in ranked.items() for rank, d in enumerate(docs, 1)]
    files = {**source, "run": write(tmp_path / "run", lines)}
    annotator = Length() if way == "annotator" else None
    dataset = distilled(files, learn_from=way, annotator=annotator, negative_ranks=[2, 3], num_negatives=9)
    taught = {(record.query_id, record.doc_id) for record in dataset.records("train")}
    assert taught == {("q1", "d2"), ("q1", "d3"), ("q2", "d2"), ("q2", "d1")}


class Length(Annotator):
    def records(self, pairs, documents):
        for pair in pairs:
            yield Record(*pair, label=len(pair.text))

    def describe(self):
        return {"model": "length"}


def test_an_annotator_can_teach(source):
    dataset = distilled(source, learn_from="annotator", annotator=Length(), max_queries=1)
    assert dataset.describe()["annotator"] == {"model": "length"}
    records = list(dataset.records("train"))
    assert len({record.query_id for record in records}) == 1
    assert [record.label for record in records] == [len(record.text) for record in records]


def test_what_an_annotator_teaches_comes_a_few_queries_at_a_time(source, monkeypatch):
    monkeypatch.setattr(training_samples, "ANNOTATED", 1)
    asked = []

    class Asked(Length):
        def records(self, pairs, documents):
            asked.extend(pair.query_id for pair in pairs)
            return super().records(pairs, documents)

    records = distilled(source, learn_from="annotator", annotator=Asked()).records("train")
    assert next(iter(records)).query_id in asked
    assert len(set(asked)) == 1


def low_scores(source, folder):
    """The source's run with scores below all grades, as cosines are."""
    lines = [line.split() for line in Path(source["run"]).read_text().splitlines()]
    write(folder / "low", [" ".join([*line[:4], str(float(line[4]) / 100), line[5]]) for line in lines])
    return str(folder / "low")


def test_a_teachers_scores_may_be_of_any_size(source, tmp_path, fresh_source):
    dataset = distilled({**source, "run": low_scores(source, tmp_path)}, learn_from="run", test=fresh_source("a", 1))
    shard, whole = tmp_path / "shard", tmp_path / "whole"
    dataset.prepare_shard(shard, Shard(), Reading())
    dataset.merge(whole, [shard])
    dataset.open(whole)
    assert len(dataset.split("train")) == 2
    assert dataset.split("test").labels.all().tolist() == [2, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn_from": "annotator"}, "annotator belong together, found learn_from=annotator without"),
        ({"learn_from": "run", "annotator": Length()}, "belong together, found learn_from=run with an annotator"),
        ({}, "learn_from=judged does not fit a KLDistillation task"),
    ],
)
def test_a_teacher_must_fit_its_pupil(source, settings, message):
    with pytest.raises(ConfigError, match=message):
        distilled(source, **settings)
