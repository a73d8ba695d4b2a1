"""`mtlrank runs` as it is typed, on runs that are written by hand."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlrank import runs as step
from mtlrank.cli import app
from mtlrank.storage import read_json, write_json, write_text
from tests.pages.terminals import WIDTHS, assert_uncut, printed

MEASURES = {"rank": ["nDCG@10", "AP"], "sim": ["MSE"]}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds at one learning rate, one run at another that is better in validation, one that is not finished."""
    for name, seed, lr, value in (("a", 1, 1e-3, 0.4), ("b", 2, 1e-3, 0.5), ("c", 1, 1e-4, 0.7), ("d", 2, 1e-4, 0.0)):
        settings = {f"datasets.{key}.task.measures": names for key, names in MEASURES.items()}
        settings |= {f"datasets.{key}.name": key for key in MEASURES}
        write_json(tmp_path / name / "run.json", {"seed": seed, "loop.optimizer.lr": lr, **settings})
        datasets = {key: {"name": key, "task": {"measures": names}} for key, names in MEASURES.items()}
        config = {"datamodule": {"dataset": {"datasets": datasets}}, "training": {"monitor": None}}
        write_json(tmp_path / name / "model" / "config.json", config)
        metrics = {f"{split}/rank/nDCG@10": value for split in ("val", "test")} | {"val/sim/MSE": 1 - value}
        if name != "d":
            write_json(tmp_path / name / "metrics.json", metrics)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").touch()
    monkeypatch.chdir(tmp_path)
    return ["a", "b", "c", "d"]


def typed(*words):
    return CliRunner().invoke(app, ["runs", *words])


def test_systems_are_listed_best_first_by_what_chose_their_checkpoints(runs, tmp_path):
    for name, steps, seconds in (("a", 10, 2), ("b", 20, 3)):
        write_json(tmp_path / name / "about.json", {"steps": steps, "samples": 10 * steps, "seconds": seconds})
    write_json(tmp_path / "c" / "about.json", {"steps": "many", "seconds": None})
    done = typed(*runs, "--output", "sweep.csv")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    with (tmp_path / "sweep.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    keys = ["val/rank/nDCG@10", "test/rank/nDCG@10", "val/sim/MSE"]
    of_measures = [f"{key}{sd}" for key in keys for sd in ("", " (sd)")]
    assert list(first) == ["system", "runs", *of_measures, "steps", "samples", "seconds", "folders"]
    assert (first["steps"], first["seconds"]) == ("", "")  # not recorded by all of its runs, or no number
    assert (second["steps"], second["samples"], second["seconds"]) == ("15.0", "150.0", "2.5")
    assert (first["system"], first["runs"], first["folders"]) == ("lr=0.0001", "1", "c")
    assert (first["val/rank/nDCG@10"], first["val/rank/nDCG@10 (sd)"]) == ("0.7", "")
    assert (second["system"], second["runs"], second["folders"]) == ("lr=0.001", "2", "a b")
    assert float(second["test/rank/nDCG@10"]) == pytest.approx(0.45)
    assert float(second["val/sim/MSE (sd)"]) == pytest.approx(0.1 / 2**0.5)
    assert "0.4500 ± 0.0707" in done.stdout


def test_a_task_whose_class_names_the_measures_is_shown_by_one_that_was_measured(runs, tmp_path):
    for name in runs:
        config = read_json(tmp_path / name / "model" / "config.json")
        config["datamodule"]["dataset"]["datasets"]["sim"]["task"] = {"_target_": "my_parts.Mine"}
        write_json(tmp_path / name / "model" / "config.json", config)
    done = typed("a", "b", "c", "--output", "sweep.csv")
    assert done.exit_code == 0, done.output
    header = (tmp_path / "sweep.csv").read_text().splitlines()[0]
    assert header.startswith(
        "system,runs,val/rank/nDCG@10,val/rank/nDCG@10 (sd),test/rank/nDCG@10,test/rank/nDCG@10 (sd),val/sim/MSE,"
    )


def test_the_first_column_is_what_chose_the_weights(runs, tmp_path):
    for name in ("a", "b"):
        write_json(tmp_path / name / "about.json", {"chosen by": "val/sim/MSE"})
    done = typed("a", "b", "--output", "sweep.csv")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sweep.csv").read_text().startswith("system,runs,val/sim/MSE,")


def test_what_else_differs_is_told(runs, tmp_path):
    """The name of a system holds as few settings as tell it from the others."""
    for name, number in (("a", 5), ("b", 5), ("c", 10)):
        write_json(
            tmp_path / name / "run.json", {**read_json(tmp_path / name / "run.json"), "z.num_candidates": number}
        )
    done = typed("a", "b", "c")
    assert done.exit_code == 0, done.output
    assert done.stderr == "num_candidates=5 and num_candidates=10 also differ in: loop.optimizer.lr (0.001, 0.0001).\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_whole_on_any_terminal(runs, width):
    shown = printed(width, lambda: step.run(["a", "b", "c", "d"]))
    assert_uncut(shown, ["0.4500", "0.0707", "0.7000", "0.4500", "0.0707", "0.7000", "0.5500", "0.0707", "0.3000"])


def test_less_of_an_error_comes_first_and_what_has_none_last(runs, tmp_path):
    write_json(tmp_path / "d" / "metrics.json", {"val/rank/nDCG@10": 0.9})
    done = typed("x=a", "y=c", "z=d", "--measure", "val/sim/MSE")
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["y", "x", "z"]


def test_runs_that_are_not_finished_follow_with_their_last_validation(runs, tmp_path):
    header = "step,train/loss,val/rank/nDCG@10,val/rank/loss,val/sim/MSE\n"
    write_text(
        tmp_path / "d" / "logs" / "attempt_1" / "metrics.csv", f"{header}900,,0.11,0.12,0.13\n1800,,0.2,0.2,0.2\n"
    )
    cut = "1800,,0.4321,0.3,0.25\n2100,0.5,,,\n2200,0.4"
    write_text(tmp_path / "d" / "logs" / "attempt_2" / "metrics.csv", header + cut)
    done = typed(*runs, "locked")
    assert done.stderr == "mtlrank: left out, as no run has begun there: locked\n"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1] == ["d", "2,100", "0.4321", "0.2500"]
    assert [line[0] for line in lines if "0.7000" in line] == ["lr=0.0001"]
    (alone,) = (line.split() for line in typed("d").stdout.splitlines()[4:])
    assert alone == ["d", "2,100", "0.4321", "0.2500"]
    assert typed("d", "--measure", "val/sim/MSE").stdout.split()[-3:] == ["d", "2,100", "0.2500"]
    assert "No run has the measure 'val/rank/loss'." in typed("a", "d", "--measure", "val/rank/loss").stderr


def test_a_folder_full_of_runs_is_its_runs(runs, tmp_path):
    assert typed(".").stdout == typed("a", "b", "c", "d").stdout
    done = typed(str(tmp_path), "--measure", "val/rank/nDCG@10")
    assert done.exit_code == 0, done.output
    assert "0.4500 ± 0.0707" in done.stdout


def test_a_run_that_has_logged_nothing_yet_is_shown_too(runs):
    assert typed("a", "d").stdout.split()[-2:] == ["d", "0"]


def test_runs_without_a_measure_are_told(runs):
    write_json(Path("d/metrics.json"), {})
    assert "No measure is in the metrics.json of d" in typed("d").stderr


def test_values_in_validation_that_cannot_be_compared_are_told(runs):
    told = "val/ measures are of different queries: training.max_val_queries is 50, all"
    assert told not in typed(*runs).stderr
    path = Path("c/model/config.json")
    config = read_json(path)
    write_json(path, {**config, "training": {**config["training"], "max_val_queries": 50}})
    assert told in typed(*runs).stderr
    assert told not in typed(*runs, "--measure", "test/rank/nDCG@10").stderr


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["locked"], 3, "None of the runs is finished: locked."),
        (["d", "--output", "x.csv"], 3, "None of the runs is finished: d."),
        (["a", "e"], 3, "The run 'e' does not exist."),
        (
            ["a", "c", "--measure", "val/rank/nDCG"],
            2,
            "No run has the measure 'val/rank/nDCG'. Did you mean 'val/rank/nDCG@10'",
        ),
    ],
)
def test_a_mistake_is_one_line(runs, words, code, complaint):
    done = typed(*words)
    assert done.exit_code == code
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_curve_over_a_setting_is_drawn_beside_the_table(runs, tmp_path):
    words = [*runs, "--measure", "val/rank/nDCG@10", "--measure", "val/sim/MSE", "--output", "sweep.csv"]
    done = typed(*words, "--curve", "loop.optimizer.lr")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "pictures: sweep.svg, sweep.pdf"
    drawn = (tmp_path / "sweep.svg").read_text()
    assert all(label in drawn for label in ("loop.optimizer.lr", "val/rank/nDCG@10"))
    assert (tmp_path / "sweep.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "sweep.csv").unlink()
    refused = typed(*words, "--curve", "loop.optimizer.rate")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "Numbers that differ: loop.optimizer.lr." in refused.stderr
    assert not (tmp_path / "sweep.csv").exists()
    assert "--output sweep.csv" in typed(*runs, "--curve", "loop.optimizer.lr").stderr


@pytest.mark.parametrize(
    ("run", "file", "content"),
    [
        ("a", "metrics.json", '{"val/rank/nDCG@10": "x"}'),
        ("a", "metrics.json", '{"val/rank/nDCG@10": null}'),
        ("a", "model/config.json", '{"datamodule": {"dataset": {"datasets": {}}}}'),
        (
            "a",
            "model/config.json",
            '{"training": {}, "datamodule": {"dataset": {"datasets": {"rank": {"name": "rank"}}}}}',
        ),
    ],
)
def test_a_damaged_file_is_named_in_a_line(runs, tmp_path, run, file, content):
    write_text(tmp_path / run / file, content)
    done = typed(*runs)
    assert done.exit_code == 3
    assert len(done.stderr.splitlines()) == 1
    assert f"{run}/{file} is damaged: " in done.stderr


@pytest.mark.parametrize("damage", ["a,b\n", "\0\0\0\n", "1,2,3,4\n", "\udcff,1\n", "9,x\n"])
def test_damaged_lines_of_a_log_are_left_out_of_curves(runs, tmp_path, damage):
    path = tmp_path / "d" / "logs" / "attempt_1" / "metrics.csv"
    path.parent.mkdir(parents=True)
    text = f"step,val/rank/nDCG@10\n10,0.25\n{damage}20,0.5\n"
    path.write_bytes(text.encode(errors="surrogateescape"))
    done = typed(*runs)
    assert done.exit_code == 0, done.output
    assert done.stderr == f"mtlrank: {Path('d/logs/attempt_1/metrics.csv')}: 1 damaged line left out of the curves\n"
    assert done.stdout.split()[-3:] == ["d", "20", "0.5000"]


def test_a_log_of_ones_own_beside_those_of_attempts_is_left_alone(runs, tmp_path):
    write_text(tmp_path / "d" / "logs" / "attempt_old" / "metrics.csv", "no log\n")
    assert typed(*runs).exit_code == 0
