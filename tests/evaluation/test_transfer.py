"""The table of a study, on runs that are written by hand."""

import pytest

from mtlrank.evaluation.significance import holm
from mtlrank.evaluation.systems import read_system
from mtlrank.evaluation.transfer import print_transfer, transfer, write_transfer
from tests.evaluation.judged_runs import write_run


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
    print_transfer(rows)
    assert note in " ".join(capsys.readouterr().out.split())
    write_transfer(tmp_path / "out", rows, systems, {})
    assert "difference in rank: AP, with 95 % interval" in (tmp_path / "out" / "transfer.html").read_text()
    for name in ("transfer.html", "comparison.tex", "comparison.csv", "comparison.json"):
        assert note in (tmp_path / "out" / name).read_text()
    assert (tmp_path / "out" / "transfer.svg").read_text() in (tmp_path / "out" / "transfer.html").read_text()
    assert (tmp_path / "out" / "transfer.pdf").read_bytes().startswith(b"%PDF")


def test_p_values_are_corrected_for_all_mixtures_together(systems):
    rows = transfer(systems, ["AP"])
    assert len(rows) == 2
    assert [row.p_holm for row in rows] == holm([row.p_randomisation for row in rows])
