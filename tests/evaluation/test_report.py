import re

import pytest

from mtlrank.errors import DataError
from mtlrank.evaluation import report
from mtlrank.pages import figures, render
from mtlrank.storage import write_json, write_text


@pytest.fixture
def run_folder(tmp_path):
    """What a training run and two judged heads leave behind."""
    write_json(tmp_path / "model" / "config.json", {"collection": {"name": "<b>evil</b>"}, "seed": 1})
    for attempt, rows in (("attempt_1", "5,0.9,\n9,0.8,0.3\n"), ("attempt_2", "9,0.7,0.4\n")):
        header = "step,train/rank<i>/loss,val/rank<i>/AP\n"
        write_text(tmp_path / "logs" / attempt / "metrics.csv", header + rows)
    head = {"split": "test", "baseline_name": "first stage", "num_samples": 3, "relevance_level": 2}
    ranking = {"name": "rank<i>", "kind": "ranking", "primary": "AP", "values": {"AP": 0.5}, "baseline": {"AP": 0.3}}
    write_json(tmp_path / "evaluation" / "a" / "metrics.json", {**head, **ranking})
    write_text(
        tmp_path / "evaluation" / "a" / "per_query.tsv", "query_id\tmeasure\tvalue\tfirst_stage\nq1\tAP\t0.5\t0.3\n"
    )
    other = {"name": "b", "kind": "regression", "primary": "MSE", "values": {"MSE": 2.0}, "baseline": {"MSE": 1.0}}
    write_json(tmp_path / "evaluation" / "b" / "metrics.json", {**head, **other})
    return tmp_path


def written(run_folder):
    folders = report.head_folders([run_folder / "evaluation"])
    values = report.write_report(run_folder / "report", run_folder, folders)
    return (
        values,
        (run_folder / "report" / "report.html").read_text(),
        (run_folder / "report" / "report.md").read_text(),
    )


def test_the_verdict_comes_first_and_counts_heads_that_beat_their_baseline(run_folder):
    values, page, summary = written(run_folder)
    assert values == {"test/rank<i>/AP": 0.5, "test/b/MSE": 2.0}
    assert re.search(r"<h1>1 of 2 heads beat their baseline", page)
    assert summary.startswith("**1 of 2 heads beat their baseline.")


def test_all_text_is_escaped_and_nothing_is_loaded_from_elsewhere(run_folder):
    _, page, _ = written(run_folder)
    assert "<b>evil" not in page
    assert "rank<i>" not in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "default-src 'none'" in page


def test_curves_of_all_attempts_are_joined_and_later_ones_win(run_folder):
    curves = report.read_curves(run_folder)
    assert curves["train/rank<i>/loss"] == [(5, 0.9), (9, 0.7)]
    assert curves["val/rank<i>/AP"] == [(9, 0.4)]


def test_no_heads_is_an_error(tmp_path):
    with pytest.raises(DataError, match="No judged heads"):
        report.read_heads([])


def test_pictures_are_the_same_for_the_same_numbers():
    first, second = (figures.learning_curves({"a": [(1, 2.0), (2, 1.0)]}, "loss") for _ in range(2))
    assert first == second
    assert first.startswith("<svg")


def test_a_template_does_not_hide_a_missing_value():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("head.html.j2", pictures=[])
