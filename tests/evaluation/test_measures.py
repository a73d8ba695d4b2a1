import math
import random
import shutil

import numpy as np
import pytest
import pytrec_eval
import torch
from ir_measures import Qrel, ScoredDoc
from scipy import stats

from mtlrank.errors import ConfigError
from mtlrank.evaluation import measures
from mtlrank.task import Classification, Regression, Relevance, SpanClassification, Tagging
from mtlrank.trec import read_run, write_run
from tests.task.tasks import opened


def collection(seed, num_queries=20):
    """Graded judgements and a run with ties, with documents judged and not, in both."""
    draw = random.Random(seed)
    qrels, run = [], []
    for q in range(num_queries):
        for d in draw.sample(range(40), 15):
            qrels.append(Qrel(f"q{q}", f"d{d}", draw.choice([0, 0, 1, 2, 3])))
        for d in draw.sample(range(40), 25):
            run.append(ScoredDoc(f"q{q}", f"d{d}", round(draw.uniform(0, 3), 1)))
    return qrels, run


@pytest.mark.parametrize("seed", range(3))
def test_rankings_equal_trec_eval_per_topic(seed):
    qrels, run = collection(seed)
    grades, scores = {}, {}
    for q in qrels:
        grades.setdefault(q.query_id, {})[q.doc_id] = q.relevance
    for d in run:
        scores.setdefault(d.query_id, {})[d.doc_id] = d.score
    names = {"nDCG@10": "ndcg_cut_10", "AP(rel=2)": "map", "RR(rel=2)": "recip_rank", "P(rel=2)@5": "P_5"}
    ours = measures.ranking_values([*names, "RR(rel=2)@3"], qrels, run)
    evaluator = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.10", "map", "recip_rank", "P.5"}, relevance_level=2)
    theirs = evaluator.evaluate(scores)
    for measure, name in names.items():
        for query_id, values in theirs.items():
            assert ours[measure][query_id] == pytest.approx(values[name], abs=1e-6)

    for query_id, values in theirs.items():  # trec_eval has no cut-off here: a rank beyond it counts as none
        reciprocal = values["recip_rank"] if values["recip_rank"] > 1 / 3.5 else 0
        assert ours["RR(rel=2)@3"][query_id] == pytest.approx(reciprocal, abs=1e-6)


def test_measures_that_ask_for_a_grade_that_no_document_has_are_always_zero():
    named, qrels = ["nDCG@10", "AP(rel=2)", "RR(rel=3)@10", "Judged@10"], [Qrel("q", "a", 2), Qrel("q", "b", 0)]
    for judged, zero in ((qrels, ["RR(rel=3)@10"]), (qrels[1:], ["AP(rel=2)", "RR(rel=3)@10"])):
        assert measures.always_zero(named, judged) == zero
        values = measures.ranking_values(zero, judged, [ScoredDoc("q", doc, 1.0) for doc in "ab"])
        assert all(values[name]["q"] == 0 for name in zero)
    assert measures.always_zero(named, []) == []  # nothing is known


def test_a_measure_at_another_level():
    asked = ["nDCG@10", "AP(rel=3)", "AP", "RR(rel=3)@10", "Judged@10"]
    assert [measures.at_level(measure, 2) for measure in asked] == [
        "nDCG@10",
        "AP(rel=2)",
        "AP",
        "RR(rel=2)@10",
        "Judged@10",
    ]
    assert measures.at_level("AP(rel=2)", 1) == "AP(rel=1)"  # as of a head that was trained with 1


@pytest.mark.parametrize("measure", ["nDCG@1", "P@1", "RR", "RR@1", "Judged@1", "Success@1"])
def test_all_measures_see_equal_scores_in_one_order(measure):
    """As float32, which trec_eval reads; of equal ones, the document whose id is the larger comes first."""
    qrels = [Qrel("q", "b", 1)]
    run = [ScoredDoc("q", "a", 1.0 + 1e-9), ScoredDoc("q", "b", 1.0)]
    assert measures.ranking_values([measure], qrels, run)[measure]["q"] == 1.0


@pytest.mark.skipif(not shutil.which("perl"), reason="ir-measures computes these with Perl")
@pytest.mark.parametrize("ids", [("1", "2"), ("q one", "q"), ("web-1", "web-2"), ("b-1", "a-1")])
def test_err_and_ndcg_of_exponential_gains_by_hand_whatever_queries_are_called(ids):
    first, second = ids
    names = ["ERR@10", "nDCG(dcg='exp-log2')@10", "nDCG@10"]
    measures.check(Relevance(names))
    qrels = [Qrel(first, "a", 3), Qrel(first, "b", 1), Qrel(second, "a", 1)]
    run = [ScoredDoc(first, "b", 2.0), ScoredDoc(first, "a", 1.0), ScoredDoc(second, "a", 1.0)]
    values = measures.ranking_values(names, qrels, [*run, ScoredDoc("not judged", "a", 1.0)])
    assert values["ERR@10"] == pytest.approx({first: 1 / 16 + 15 / 16 * 7 / 16 / 2, second: 1 / 16}, abs=1e-5)
    exponential = (1 / math.log(2) + 7 / math.log(3)) / (7 / math.log(2) + 1 / math.log(3))
    assert values[names[1]] == pytest.approx({first: exponential, second: 1.0}, abs=1e-5)
    linear = (1 / math.log(2) + 3 / math.log(3)) / (3 / math.log(2) + 1 / math.log(3))
    assert values["nDCG@10"] == pytest.approx({first: linear, second: 1.0})


@pytest.mark.parametrize("missing", ["a", "z"])
def test_compatibility_prefers_retrieved_documents_whatever_missing_ones_are_called(missing):
    """Of equally good documents, the ideal ranking has those first that were retrieved (Clarke et al. 2020)."""
    retrieved = ["m1", "m2"]
    qrels = [Qrel("q", doc_id, 1) for doc_id in [*retrieved, *(f"{missing}{i}" for i in range(4))]]
    run = [ScoredDoc("q", "m1", 2.0), ScoredDoc("q", "m2", 1.0)]
    value = measures.ranking_values(["Compat(p=0.8)"], qrels, run)["Compat(p=0.8)"]["q"]
    overlap = [min(depth, 2) / depth for depth in range(1, 7)]  # of the run and the ideal, down to the ideal's end
    weights = [0.8**depth for depth in range(6)]
    assert value == pytest.approx(sum(o * w for o, w in zip(overlap, weights, strict=True)) / sum(weights), abs=1e-9)


def test_ndcg_by_hand():
    qrels = [Qrel("q", "a", 3), Qrel("q", "b", 1), Qrel("q", "c", 0)]
    run = [ScoredDoc("q", "c", 3.0), ScoredDoc("q", "a", 2.0), ScoredDoc("q", "b", 1.0)]
    expected = (3 / math.log2(3) + 1 / math.log2(4)) / (3 + 1 / math.log2(3))
    assert measures.ranking_values(["nDCG@10"], qrels, run)["nDCG@10"]["q"] == pytest.approx(expected)


def test_grade_one_is_not_relevant_at_level_two():
    qrels = [Qrel("q", "a", 1), Qrel("q", "b", 2)]
    run = [ScoredDoc("q", "a", 2.0), ScoredDoc("q", "b", 1.0)]
    values = measures.ranking_values(["AP", "AP(rel=2)"], qrels, run)
    assert (values["AP"]["q"], values["AP(rel=2)"]["q"]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("measure", "level", "unsaid"),
    [
        ("AP", 2, 1),
        ("RR@10", 2, 1),
        ("AP", 1, None),
        ("AP(rel=1)", 2, None),
        ("nDCG@10", 2, None),
        ("Judged@10", 2, None),
    ],
)
def test_a_level_that_is_not_the_tasks_and_that_the_name_does_not_say(measure, level, unsaid):
    assert measures.implicit_level(measure, level) == unsaid


def test_a_measure_at_the_tasks_level_is_one_that_can_be_typed():
    typed = [measures.with_level(measure, 2) for measure in ("AP", "RR@10")]
    assert typed == ["AP(rel=2)", "RR(rel=2)@10"]
    measures.check(Relevance(typed))


def test_a_judged_query_without_a_ranking_counts_as_zero():
    qrels = [Qrel("q1", "a", 2), Qrel("q2", "a", 2)]
    values = measures.ranking_values(["nDCG@10"], qrels, [ScoredDoc("q1", "a", 1.0)])
    assert values["nDCG@10"] == {"q1": 1.0, "q2": 0.0}
    assert measures.means(values) == {"nDCG@10": 0.5}


def test_measures_of_a_written_run_are_those_of_its_scores(tmp_path):
    qrels, run = collection(7)
    run = [doc._replace(score=float(torch.tensor(doc.score).sin())) for doc in run]
    write_run(tmp_path / "x.run", run, "x")
    again = read_run(tmp_path / "x.run")
    assert measures.ranking_values(["nDCG@10", "AP"], qrels, again) == measures.ranking_values(
        ["nDCG@10", "AP"], qrels, run
    )


def test_a_run_is_written_in_trec_evals_order(tmp_path):
    write_run(tmp_path / "x.run", [ScoredDoc("q", d, s) for d, s in (("a", 1.0), ("c", 1.0), ("b", 2.0))], "tag")
    assert (tmp_path / "x.run").read_text() == "q Q0 b 1 2 tag\nq Q0 c 2 1 tag\nq Q0 a 3 1 tag\n"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": [-1454.8551, -1454.85522, -1454.85498], "b": [0.0, 0.0], "c": [0.2, 0.1]}, (2, 3, True)),
        ({"a": [0.5, 0.5], "b": [1.0, 2.0]}, (1, 2, False)),
        ({"a": [100.0, 100.0009], "b": [-100.0, -100.0009], "c": [1e-9, 2e-9]}, (2, 3, True)),
        ({"a": [100.0, 100.0011], "b": [0.0, 1e-30]}, (0, 2, False)),
        ({"a": [1.0], "b": [2.0]}, (0, 0, False)),  # queries with one candidate have but one order
        ({}, (0, 0, False)),
    ],
)
def test_scores_that_differ_by_rounding_only_are_ties(scores, expected):
    found = measures.ties(ScoredDoc(q, str(i), score) for q, all_of in scores.items() for i, score in enumerate(all_of))
    assert (found.num_tied, found.num_queries, found.decide) == expected


def values_of(task, scores, labels):
    return measures.label_values(task, scores, labels, np.arange(len(labels)))


def test_classification_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    values = values_of(Classification(["Accuracy", "MacroF1"]), scores, torch.tensor([0.0, 1, 1, 1]))
    assert values["Accuracy"] == pytest.approx(0.75)
    assert values["MacroF1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_entities_by_hand():
    """Right is what has the same words and the same type; an entity ends with its text."""
    task = opened(Tagging(["EntityF1", "EntityPrecision", "EntityRecall"]), classes=["O", "B-A", "I-A", "B-B", "I-B"])
    measures.check(task)
    labels = torch.tensor([1.0, 2, 0, 3, 2, 1, 0])  # A A O B | A A O: of two words, one, one and one
    found = torch.tensor([1, 2, 2, 3, 2, 3, 4])  # A A A B | A B B: a word too many, right, right, another type
    values = measures.label_values(task, torch.eye(5)[found], labels, np.array([7, 7, 7, 7, 9, 9, 9]))
    assert values == pytest.approx({"EntityF1": 2 / 4, "EntityPrecision": 2 / 4, "EntityRecall": 2 / 4})
    cautious = measures.label_values(task, torch.eye(5)[found * (found == 3)], labels, np.zeros(7, dtype=int))
    assert cautious == pytest.approx({"EntityF1": 2 / 6, "EntityPrecision": 1 / 2, "EntityRecall": 1 / 4})
    nothing = measures.baseline(task, {"counts": [9, 1, 1, 1, 1]}, labels, np.zeros(7, dtype=int))
    assert nothing.values == dict.fromkeys(task.measures, 0.0)


def test_regression_by_hand():
    scores, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 4.0])
    values = values_of(Regression(["MSE", "MAE", "Spearman", "R2"]), scores, labels)
    assert values["MSE"] == pytest.approx(1 / 3)
    assert values["MAE"] == pytest.approx(1 / 3)
    assert values["Spearman"] == pytest.approx(1.0)
    assert values["R2"] == pytest.approx(1 - 1 / (14 / 3))


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e6])
def test_regression_is_measured_alike_in_any_unit(unit):
    """And as scipy does. torchmetrics' R2 of labels below .001 is 1 or 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(50, generator=generator, dtype=torch.float64)
    scores = labels + 0.3 * torch.randn(50, generator=generator, dtype=torch.float64)
    values = values_of(Regression(["R2", "Pearson", "Spearman"]), scores * unit, labels * unit)
    assert values["R2"] == pytest.approx(1 - float((scores - labels).square().mean() / labels.var(correction=0)))
    assert values["Pearson"] == pytest.approx(stats.pearsonr(labels, scores).statistic)
    assert values["Spearman"] == pytest.approx(stats.spearmanr(labels, scores).statistic)


def test_a_constant_has_no_correlation():
    values = values_of(Regression(["Pearson", "Spearman"]), torch.ones(3), torch.tensor([1.0, 2, 3]))
    assert values == {"Pearson": 0.0, "Spearman": 0.0}
    for labels in (torch.ones(3), torch.ones(1)):
        assert values_of(Regression(["R2", "Pearson"]), labels, labels) == {"R2": 0.0, "Pearson": 0.0}


def test_baselines_know_only_the_training_labels():
    labels = torch.tensor([1.0, 1, 0, 2])
    majority = measures.baseline(Classification(["Accuracy"]), {"counts": [2, 5, 1]}, labels, np.arange(4))
    assert majority == ("majority class", 1, {"Accuracy": 0.5})
    mean = measures.baseline(Regression(["MAE"]), {"mean": 2.5}, torch.tensor([2.0, 4.0]), np.arange(2))
    assert mean == ("training mean", 2.5, {"MAE": 1.0})


def test_less_error_is_better():
    assert measures.is_better("MSE", 1.0, 2.0)
    assert measures.is_better("nDCG@10", 2.0, 1.0)
    assert (measures.is_lower_better("MAE"), measures.is_lower_better("Accuracy")) == (True, False)


@pytest.mark.parametrize(
    ("task", "measure", "complaint"),
    [
        (Relevance, "nDGC@10", "Unknown ranking measure 'nDGC@10'"),
        (Relevance, "nDCG@0", "The cut-off of 'nDCG@0' is below 1"),
        (Relevance, "SDCG@10", "'SDCG@10' needs a value of max_rel"),
        (Relevance, "BPM", "'BPM' needs a value of "),
        (Relevance, "IPrec", "'IPrec' needs a value of recall"),
        (Classification, "MSE", r"Expected one of Accuracy, MacroF1\.$"),
        (SpanClassification, "EntityF1", r"Accuracy, MacroF1\. Entities are found by tags of words, task=tags\."),
        (Tagging, "F1", r"Expected one of Accuracy, MacroF1, EntityF1, EntityPrecision, EntityRecall\.$"),
        (Regression, "Accuracy", "Expected one of MSE, MAE"),
    ],
)
def test_unknown_measures_are_refused(task, measure, complaint):
    with pytest.raises(ConfigError, match=complaint):
        measures.check(task([measure]))


@pytest.mark.parametrize(
    "measure", ["nDCG(dcg='exp-log2',gains={0:1})@10", "Accuracy@10", "P(rel=0)@5", "nDCG@1.5", "ERR(max_rel=0)"]
)
def test_measures_that_nothing_computes_are_refused_before_they_are_needed(measure):
    with pytest.raises(ConfigError, match="cannot be computed here"):
        measures.check(Relevance([measure]))
