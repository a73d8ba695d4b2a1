"""The values of each seed and fold, on runs that are written by hand."""

import csv

import pytest

from mtlrank.comparing.seeds_table import write_seeds
from mtlrank.comparing.systems import read_system
from mtlrank.comparing.systems_table import columns_of
from mtlrank.comparing.trec_runs import judge_files, read_topics
from tests.comparing.test_folds import write_folds
from tests.evaluation.judged_runs import write_config, write_labels, write_ranking


def written(tmp_path, *systems, measures=None):
    write_seeds(tmp_path / "out", systems, columns_of(systems, measures))
    with (tmp_path / "out" / "seeds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_seed_has_a_row_for_each_measure_with_its_folder(tmp_path):
    for seed, value in ((7, 0.25), (8, 0.5)):
        run = tmp_path / f"run{seed}"
        write_config(run, seed)
        write_ranking(run / "evaluation" / "rank", {"q1": value, "q2": 0.75})
        write_labels(run / "evaluation" / "sim", [("q1", "d", 0, 1, seed), ("q2", "d", 0, 2, 2)], measures=["MSE"])
    rows = written(tmp_path, read_system("=mine", [tmp_path / "run7", tmp_path / "run8"]))
    assert list(rows[0]) == ["system", "seed", "fold", "head", "measure", "value", "folder"]
    assert [tuple(row.values()) for row in rows] == [
        ("'=mine", "7", "", "rank", "AP", "0.5", str(tmp_path / "run7")),
        ("'=mine", "8", "", "rank", "AP", "0.625", str(tmp_path / "run8")),
        ("'=mine", "7", "", "sim", "MSE", "18.0", str(tmp_path / "run7")),
        ("'=mine", "8", "", "sim", "MSE", "24.5", str(tmp_path / "run8")),
    ]


def test_each_fold_has_a_row_after_that_of_all_queries(tmp_path):
    runs = [*write_folds(tmp_path, "one"), *write_folds(tmp_path, "two", seed=2, gain=0.25)]
    rows = written(tmp_path, read_system("x", runs))
    assert [(row["seed"], row["fold"]) for row in rows] == [(s, fold) for s in "12" for fold in ("", "0", "1", "2")]
    assert [float(row["value"]) for row in rows[:4]] == pytest.approx([0.3, 0.3, 0.2, 0.35])
    assert [row["folder"] for row in rows[:4]] == ["", *map(str, runs[:3])]


def test_one_fold_is_named_and_other_systems_have_no_seed(tmp_path):
    run = write_folds(tmp_path, "one")[1]
    system = read_system("x", [run])
    file = tmp_path / "other.run"
    file.write_text("q2 Q0 a 1 2 x\n")
    other, _ = judge_files("other", [file], read_topics([system]))
    rows = written(tmp_path, system, other)
    assert [(row["system"], row["seed"], row["fold"], row["folder"]) for row in rows] == [
        ("x", "1", "1", str(run)),
        ("other", "", "", str(file)),
    ]
