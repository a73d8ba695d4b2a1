"""Runs of a cross-validation, written by hand, joined to runs on all queries."""

from shutil import rmtree

import numpy as np
import pytest

from mtlrank.comparing.folds import write_joined
from mtlrank.comparing.grouping import group_runs, identity_of
from mtlrank.comparing.systems import first_stage, read_system
from mtlrank.comparing.trec_runs import read_topics
from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import read_head
from mtlrank.storage import read_json, write_json
from mtlrank.trec import FIRST_STAGE, read_qrels, read_run
from tests.evaluation.judged_runs import write_config, write_labels, write_ranking

PREFIX = "datamodule.dataset.datasets.rank"
VALUES = ({"q5": 0.5, "q1": 0.1}, {"q2": 0.2}, {"q4": 0.4, "q3": 0.3})  # of three folds


def write_fold(run, fold, values, seed=1, of=3, with_sim=False, **settings):
    """A judged run of one fold, which ranks two documents of each query."""
    write_config(run, seed, **{f"{PREFIX}.folds": of, f"{PREFIX}.fold": fold, **settings})
    folder, first = run / "evaluation" / "rank", {q: int(q[1:]) / 100 for q in values}
    write_ranking(folder, values, first)
    means = {key: {"AP": sum(of.values()) / len(of)} for key, of in (("values", values), ("baseline", first))}
    counts = {"num_queries": len(values), "num_samples": 2 * len(values), "max_candidates": 2 + fold}
    counts["by_depth"] = {str(2 + fold): means["values"]["AP"]}
    more = {
        "fold": [fold, of],
        "weights": f"of fold {fold}",
        "baseline_name": FIRST_STAGE,
        "relevance_level": 1,
        **means,
        **counts,
    }
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | more)
    (folder / "qrels.txt").write_text("".join(f"{q} 0 a 1\n" for q in values))
    (folder / "run.trec").write_text("".join(f"{q} Q0 a 1 2 x\n{q} Q0 b 2 1 x\n" for q in values))
    (folder / "queries.tsv").write_text("".join(f"{q}\tthe query {q}\n" for q in values))
    if with_sim:
        write_labels(run / "evaluation" / "sim", [("q", "d", 0, 1, 5)])
    return run


def write_folds(root, name, seed=1, gain=0.0, **options):
    found = [{q: value + gain for q, value in values.items()} for values in VALUES]
    return [write_fold(root / f"{name}-{fold}", fold, values, seed, **options) for fold, values in enumerate(found)]


def test_folds_of_a_seed_are_one_run_on_all_queries(tmp_path):
    runs = [*write_folds(tmp_path, "one"), *write_folds(tmp_path, "two", seed=2, gain=0.25)]
    runs[1], runs[4] = runs[4], runs[1]  # in any order
    system = read_system("x", runs)
    head = system.heads["rank"]
    assert (system.num_runs, system.num_folds, system.left_out) == (2, 3, ())
    assert head.items == (("q1",), ("q2",), ("q3",), ("q4",), ("q5",))
    assert head.values["AP"] == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.35, 0.45, 0.55, 0.65, 0.75]]))
    assert {path.name for path in system.first_run} == {"one-0", "one-1", "one-2"}


def test_the_first_stage_is_joined_too(tmp_path):
    system = first_stage(read_system("x", write_folds(tmp_path, "one")))
    assert (system.num_runs, system.num_folds) == (1, 3)
    assert system.heads["rank"].values["AP"] == pytest.approx(np.array([[0.01, 0.02, 0.03, 0.04, 0.05]]))


def test_a_run_file_is_judged_on_the_queries_of_all_folds(tmp_path):
    (topics,) = read_topics([read_system("x", write_folds(tmp_path, "one"))])
    assert topics.query_ids == ["q1", "q2", "q3", "q4", "q5"]
    assert {query_id for query_id, _ in topics.candidates} == set(topics.query_ids)


def test_heads_without_folds_are_left_out(tmp_path):
    system = read_system("x", write_folds(tmp_path, "one", with_sim=True))
    assert (list(system.heads), system.left_out) == (["rank"], ("sim",))


def test_one_fold_is_a_run_as_any_other(tmp_path):
    runs = [write_fold(tmp_path / f"{seed}", 1, VALUES[1], seed, with_sim=True) for seed in (1, 2)]
    system = read_system("x", runs)
    assert (system.num_runs, system.num_folds, list(system.heads)) == (2, 1, ["rank", "sim"])
    assert system.heads["rank"].fold == (1, 3)


def test_judgements_alone_say_which_fold_they_are(tmp_path):
    runs = write_folds(tmp_path, "one")
    for run in runs:
        (run / "run.json").unlink()
    assert read_system("x", runs).num_folds == 3


def without(runs, *folds):
    return [run for number, run in enumerate(runs) if number not in folds]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda runs: without(runs, 1),
            "x: expected each fold of rank once, found 0, 2 of 3 in .*one-0 and its other folds. Train the missing 1,",
        ),
        (
            lambda runs: without(runs, 3, 4),
            r"once, found 2 of 3 in \S*two-2\. Train the missing 0, 1, or leave",
        ),
        (
            lambda runs: [write_fold(runs[1], 1, {"q1": 0.2}), *without(runs, 1)],
            "x: query 'q1' is in two folds of rank",
        ),
        (
            lambda runs: [write_fold(runs[1], 1, VALUES[1], of=4), *without(runs, 1)],
            "once, found 1 of 4 in .*one-1",
        ),
    ],
)
def test_folds_that_are_not_each_query_once_are_refused(tmp_path, spoil, complaint):
    runs = [*write_folds(tmp_path, "one"), *write_folds(tmp_path, "two", seed=2)]
    with pytest.raises(DataError, match=complaint):
        read_system("x", spoil(runs))


def test_models_of_all_folds_are_no_seeds_on_a_test_set_without_folds(tmp_path):
    """As `mtlrank evaluate on={...}` judges them."""
    runs = write_folds(tmp_path, "one", with_sim=True)
    for run in runs:
        rmtree(run / "evaluation" / "rank")
    with pytest.raises(
        DataError,
        match=r"x: .*one-0 and its other folds .* \(sim\), so they cannot count as seeds. Compare the models of",
    ):
        read_system("x", runs)
    assert list(read_system("x", runs[:1]).heads) == ["sim"]


def test_runs_without_folds_are_no_seeds_of_those_with_folds(tmp_path):
    runs = write_folds(tmp_path, "one")
    write_config(tmp_path / "whole")
    write_ranking(tmp_path / "whole" / "evaluation" / "rank", {q: 0.5 for values in VALUES for q in values})
    with pytest.raises(DataError, match="x: its runs have 1 and 3 folds, expected the same number"):
        read_system("x", [*runs, tmp_path / "whole"])


def test_runs_that_differ_only_in_seed_and_fold_are_one_system(tmp_path):
    runs = [*write_folds(tmp_path, "one"), *write_folds(tmp_path, "two", seed=2)]
    others = write_folds(tmp_path, "lr", **{"loop.optimizer.lr": 0.1})
    groups = group_runs([str(run) for run in [*runs, *others]])
    assert list(groups.values()) == [runs, others]


def test_a_setting_that_is_only_called_fold_tells_systems_apart(tmp_path):
    for fold in (0, 1):
        write_config(tmp_path / str(fold), **{"datamodule.dataset.datasets.own.fold": fold})
    assert list(group_runs([str(tmp_path / "0"), str(tmp_path / "1")])) == ["fold=0", "fold=1"]


def test_the_joined_folder_is_that_of_a_head_on_all_queries(tmp_path):
    runs = write_folds(tmp_path, "one", with_sim=True)
    write_joined(tmp_path / "all", runs)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["judged_run.json", "rank"]
    head, joined = read_head(tmp_path / "all" / "rank"), read_system("x", runs).heads["rank"]
    assert (head.items, head.fold, head.num_folds, joined.num_folds) == (joined.items, None, 3, 3)
    assert head.values["AP"].tolist() == joined.values["AP"].tolist()
    assert head.first_stage["AP"].tolist() == joined.first_stage["AP"].tolist()
    told = read_json(tmp_path / "all" / "rank" / "metrics.json")
    assert told["values"]["AP"] == pytest.approx(0.3)  # a mean of queries, not of folds, which are of different sizes
    assert told["baseline"]["AP"] == pytest.approx(0.03)
    assert (told["num_queries"], told["num_samples"], told["max_candidates"]) == (5, 10, 4)
    assert told["by_depth"] == {"4": pytest.approx(0.3)}  # the folds have at most 2, 3 and 4 candidates
    assert joined.by_depth == {4: pytest.approx([0.3])}
    assert "weights" not in told
    assert len(read_run(tmp_path / "all" / "rank" / "run.trec")) == 10
    assert len(read_qrels(tmp_path / "all" / "rank" / "qrels.txt")) == 5
    assert (tmp_path / "all" / "rank" / "queries.tsv").read_text().count("the query") == 5
    assert "at most 4 candidates" in (tmp_path / "all" / "rank" / "index.html").read_text()
    with pytest.raises(DataError, match="A study's folder `all-folds` joins its folds: name either"):
        read_system("x", [*runs, tmp_path / "all"])
    identity = identity_of(tmp_path / "all")
    assert (identity[f"{PREFIX}.folds"], f"{PREFIX}.fold" in identity) == (3, False)
