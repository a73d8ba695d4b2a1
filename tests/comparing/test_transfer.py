"""The table of a study, on runs that are written by hand."""

import csv
import json

import pytest

from mtlrank.comparing.systems import read_system
from mtlrank.comparing.transfer import print_transfer, transfer, write_transfer
from mtlrank.evaluation.significance import holm
from mtlrank.storage import write_json
from tests.evaluation.judged_runs import write_run
from tests.pages.terminals import WIDTHS, assert_uncut, printed


@pytest.fixture
def systems(tmp_path):
    """A single task and two mixtures; the tests of one of these say what its interval, which knows seeds, does not."""
    gains = {("rank",): (0.0, 0.0), ("rank", "sim"): (0.003, 0.211), ("rank", "ner"): (0.05, 0.05)}
    systems = {}
    for tasks, of_seeds in gains.items():
        name = "+".join(tasks)
        runs = [write_run(tmp_path / f"{name}{s}", s, tasks, gain) for s, gain in enumerate(of_seeds)]
        systems[tasks] = read_system(name, runs)
    return systems


def test_notes_stand_wherever_the_table_does(systems, tmp_path, capsys):
    rows = transfer(systems, ["AP"])
    assert [row.verdict for row in rows] == ["not decided", "better"]
    note = "AP of rank differs in these runs of rank+sim and rank, but the interval, which covers seeds, includes 0."
    assert [row.note for row in rows] == [note, ""]
    print_transfer(rows, systems)
    assert note in " ".join(capsys.readouterr().out.split())
    write_transfer(tmp_path / "out", rows, systems, {})
    assert "difference in rank: AP, with 95 % interval" in (tmp_path / "out" / "transfer.html").read_text()
    for name in ("transfer.html", "comparison.tex", "comparison.csv", "comparison.json"):
        assert note in (tmp_path / "out" / name).read_text()
    assert (tmp_path / "out" / "transfer.svg").read_text() in (tmp_path / "out" / "transfer.html").read_text()
    assert (tmp_path / "out" / "transfer.pdf").read_bytes().startswith(b"%PDF")


def test_verdicts_are_words_and_errors_have_an_arrow_wherever_the_table_is(tmp_path, capsys):
    """A log file has no colours."""
    runs = {tasks: write_run(tmp_path / "+".join(tasks), 1, tasks) for tasks in (("sim",), ("rank", "sim"))}
    systems = {tasks: read_system("+".join(tasks), [run]) for tasks, run in runs.items()}
    rows = transfer(systems)
    print_transfer(rows, systems)
    shown = capsys.readouterr().out
    assert "MSE ↓" in shown
    assert "+0.0000 equivalent" in shown
    write_transfer(tmp_path / "out", rows, systems, {})
    page, picture = ((tmp_path / "out" / f"transfer.{ending}").read_text() for ending in ("html", "svg"))
    assert "<td>MSE ↓</td>" in page
    assert "<!-- Numbers: together - single task, in the measure's own unit; ↓: less is better. -->" in picture


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_and_verdicts_are_whole_on_any_terminal(systems, width):
    rows = transfer(systems, ["AP"])
    shown = printed(width, lambda: print_transfer(rows, systems))
    words = [word for row in rows for word in (f"[{row.low:+.4f},", f"{row.high:+.4f}]", f"{row.difference:+.4f}")]
    assert_uncut(shown.partition("Of 2 comparisons")[0], [*words, f"{rows[0].baseline_value:.4f}", "decided", "better"])


@pytest.mark.parametrize(("steps", "differ"), [((5, 9), True), ((5, 5), False), ((None, 5), False)])
def test_the_page_says_that_steps_differ_only_if_they_do(systems, tmp_path, steps, differ):
    for system, number in zip(list(systems.values())[:2], steps, strict=True):
        for folder in system.folders if number else ():
            write_json(folder / "about.json", {"steps": number})
    write_transfer(tmp_path / "out", transfer(systems, ["AP"]), systems, {})
    page = (tmp_path / "out" / "transfer.html").read_text()
    assert ("took different numbers of steps" in page) == differ
    assert f"<td>rank</td><td>2</td><td>{steps[0] or 'unknown'}</td>" in page


def test_the_mean_relative_change_stands_wherever_the_table_does(systems, tmp_path, capsys):
    rows = transfer(systems, ["AP"])
    change = {row.system: row.difference / row.baseline_value for row in rows}
    told = "Mean relative change of heads, + is better: " + ", ".join(
        f"{s} {c:+.1%} (1 head)" for s, c in change.items()
    )
    print_transfer(rows, systems)
    assert told in " ".join(capsys.readouterr().out.split())
    write_transfer(tmp_path / "out", rows, systems, {})
    assert told in (tmp_path / "out" / "transfer.html").read_text()
    assert told.replace("%", r"\%") in (tmp_path / "out" / "comparison.tex").read_text()
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["relative_changes"]
    assert {each["system"]: each["mean"] for each in found} == pytest.approx(change)


def test_the_page_says_what_each_system_took(systems, tmp_path):
    for folder, seconds, samples in zip(systems["rank",].folders, (10, 3000), (48, 1600), strict=True):
        write_json(folder / "about.json", {"steps": 5, "seconds": seconds, "samples": samples})
    (systems["rank", "sim"].folders[0] / "about.json").write_text('{"steps": 5,')  # cut off
    write_transfer(tmp_path / "out", transfer(systems, ["AP"]), systems, {})
    page = (tmp_path / "out" / "transfer.html").read_text()
    assert "<td>rank</td><td>2</td><td>5</td><td>48 to 1,600</td><td>1,505</td><td>3,010</td>" in page
    assert f"<td>rank+sim</td><td>2</td>{'<td>unknown</td>' * 4}" in page


def test_the_first_stage_stands_beside_what_was_learnt(systems, tmp_path, capsys):
    rows = transfer(systems, ["AP"])
    print_transfer(rows, systems)
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()][1:]
    assert header[:6] == ["head", "measure", "first", "stage", "single", "task"]
    assert lines[1][:4] == ["rank", "AP", "0.2500", f"{rows[0].baseline_value:.4f}"]
    write_transfer(tmp_path / "out", rows, systems, {})
    page = (tmp_path / "out" / "transfer.html").read_text()
    assert "<th>first stage</th><th>single task</th>" in page
    assert f"<td>0.2500</td>\n<td>{rows[0].baseline_value:.4f}</td>" in page


def test_p_values_are_corrected_for_all_mixtures_together(systems):
    rows = transfer(systems, ["AP"])
    assert len(rows) == 2
    assert [row.p_holm for row in rows] == holm([row.p_randomisation for row in rows])


def test_the_table_of_results_has_the_single_tasks_in_one_row(tmp_path):
    runs = {tasks: write_run(tmp_path / "+".join(tasks), 1, tasks) for tasks in (("rank",), ("sim",), ("rank", "sim"))}
    (runs["sim",] / "evaluation" / "rank" / "metrics.json").unlink()
    systems = {tasks: read_system("+".join(tasks), [run]) for tasks, run in runs.items()}
    write_transfer(tmp_path / "out", transfer(systems), systems, {})
    found = list(csv.DictReader((tmp_path / "out" / "systems.csv").read_text().splitlines()))
    assert [(row["system"], row["head"], row["measure"]) for row in found] == [
        ("first stage", "rank", "AP"),
        ("single task", "rank", "AP"),
        ("single task", "sim", "MSE"),
        ("rank+sim", "rank", "AP"),
        ("rank+sim", "sim", "MSE"),
    ]
    assert [row["p_holm"] for row in found] == ["", "", "", "1.0", "1.0"]
    seeds = csv.DictReader((tmp_path / "out" / "seeds.csv").read_text().splitlines())
    assert [(row["system"], row["head"], row["folder"]) for row in seeds] == [
        ("single task", "rank", str(runs["rank",])),
        ("single task", "sim", str(runs["sim",])),
        ("rank+sim", "rank", str(runs["rank", "sim"])),
        ("rank+sim", "sim", str(runs["rank", "sim"])),
    ]
    text = (tmp_path / "out" / "systems.tex").read_text()
    assert "different from (a) single task, by p" in text
    assert rf"\label{{tab:systems-{tmp_path.name.replace('_', '-')}}}" in text  # the study's folder
