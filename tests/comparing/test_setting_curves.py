"""Runs over a setting that was varied, from folders that are written by hand."""

from pathlib import Path

import pytest

from mtlrank.comparing.setting_curves import curves_over
from mtlrank.errors import ConfigError
from mtlrank.storage import write_json


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, tasks=("rank",), **settings):
        write_json(tmp_path / name / "run.json", {"seed": 1, **settings})
        datasets = {key: {"name": key} for key in tasks}
        write_json(tmp_path / name / "model" / "config.json", {"datamodule": {"dataset": {"datasets": datasets}}})
        return name

    return write


def test_a_curve_holds_all_seeds_and_folds_of_a_value(written):
    runs = [
        written("a", lr=0.3),
        written("b", lr=0.1, seed=1),
        written("c", lr=0.1, seed=2),
        written("d", lr=0.3, fold=1, folds=2),
        written("e", lr=0.1, fold=0, folds=2),
    ]
    found = curves_over("lr", runs)
    assert found == {
        "folds=2": {0.1: [Path("e")], 0.3: [Path("d")]},
        "folds=None": {0.1: [Path("b"), Path("c")], 0.3: [Path("a")]},
    }
    assert [list(curve) for curve in found.values()] == [[0.1, 0.3]] * 2


def test_other_tasks_are_another_curve_and_what_follows_from_the_setting_is_none(written):
    runs = [
        written("a", size=10, steps=1),
        written("b", size=20, steps=2),
        written("c", ("rank", "sim"), size=10, steps=1, sim_size=10),
        written("d", ("rank", "sim"), size=20, steps=2, sim_size=20),
    ]
    assert curves_over("size", runs) == {
        "tasks=rank": {10.0: [Path("a")], 20.0: [Path("b")]},
        "tasks=rank,sim": {10.0: [Path("c")], 20.0: [Path("d")]},
    }


def test_named_runs_are_the_curve_of_their_name(written):
    runs = [f"one={written('a', lr=1)}", f"one={written('b', lr=2)}", f"two={written('c', lr=1)}"]
    assert curves_over("lr", runs) == {"one": {1.0: [Path("a")], 2.0: [Path("b")]}, "two": {1.0: [Path("c")]}}


def test_a_run_without_a_number_is_left_out(written, capsys):
    runs = [written("a", most=10), written("b", most=20), written("c", most=None)]
    assert curves_over("most", runs) == {"tasks=rank": {10.0: [Path("a")], 20.0: [Path("b")]}}
    assert capsys.readouterr().err == "mtlrank: left out of the curve, as most is no number there: c\n"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("opt.lrr", "No run has a setting 'opt.lrr'. Did you mean 'opt.lr'? Numbers that differ: opt.lr, size."),
        ("kind", "A curve over kind needs runs with different numbers there. Numbers that differ: opt.lr, size."),
        ("same", "A curve over same needs runs with different numbers there. Numbers that differ: opt.lr, size."),
    ],
)
def test_what_is_no_curve_is_refused(written, key, told):
    own = {"kind": "adam", "same": 3, "use": True}
    runs = [written(name, **own, **{"opt.lr": lr, "size": lr + 1}) for name, lr in (("a", 1), ("b", 2))]
    with pytest.raises(ConfigError) as refused:
        curves_over(key, runs)
    assert str(refused.value) == told
