import re

import numpy as np
import pytest

from mtlrank.errors import DataError
from mtlrank.evaluation import report
from mtlrank.evaluation.judged_head import head_folders, read_head
from mtlrank.evaluation.section import Row, find_intervals, read_sections, table_of
from mtlrank.pages import figures, render
from mtlrank.storage import write_json, write_text
from tests.evaluation.judged_runs import write_labels, write_ranking
from tests.pages.terminals import WIDTHS, assert_uncut, printed

NO_DATA = {"datamodule": {"dataset": {"datasets": {}}}}


@pytest.fixture
def run_folder(tmp_path):
    """What a training run and two judged heads leave behind."""
    write_json(tmp_path / "model" / "config.json", {"collection": {"name": "<b>evil</b>"}, "seed": 1, **NO_DATA})
    for attempt, rows in (("attempt_1", "5,0.9,\n9,0.8,0.3\n"), ("attempt_2", "9,0.7,0.4\n")):
        header = "step,train/rank<i>/loss,val/rank<i>/AP\n"
        write_text(tmp_path / "logs" / attempt / "metrics.csv", header + rows)
    judged = tmp_path / "evaluation"
    how = {"first_stage": {"q1": 0.3, "q2": 0.3}, "name": "rank<i>", "relevance_level": 2}
    write_ranking(judged / "a", {"q1": 0.7, "q2": 0.3}, **how)
    write_text(judged / "a" / "queries.tsv", "q1\twhat is <i>this</i>?\nq2\tand that?\n")
    means = {"values": {"MSE": 2.0}, "baseline": {"MSE": 1.0}}
    rows = [("q1", "d1", 0, 1, 3), ("q2", "d2", 0, 2, 3.4142136)]
    write_labels(judged / "b", rows, measures=["MSE"], constant=2.5, **means)
    write_json(tmp_path / "about.json", {"command": "mtlrank train a=<b>", "seconds": 7})
    return tmp_path


def written(run_folder):
    folders = head_folders([run_folder / "evaluation"])
    values = report.write_report(run_folder / "report", run_folder, folders)
    return (
        values,
        (run_folder / "report" / "report.html").read_text(),
        (run_folder / "report" / "report.md").read_text(),
    )


def _pictures(run_folder):
    """The names of a report's pictures, each of which has two files."""
    pdf, svg = ({path.stem for path in (run_folder / "report").glob(f"*.{ending}")} for ending in ("pdf", "svg"))
    assert pdf == svg
    return pdf


def test_the_pictures_of_the_page_are_files_too(run_folder):
    _, page, _ = written(run_folder)
    curves = {"Loss-of-rank-i", "Validation-of-rank-i"}
    assert _pictures(run_folder) == curves | {
        "rank-i-Gain-over-the-first-stage-per-query-AP",
        "b-Predicted-and-true-values",
    }
    assert page.count("<svg") == 4
    assert (run_folder / "report" / "Loss-of-rank-i.svg").read_text().strip() in page


def test_the_verdict_comes_first_and_counts_heads_that_beat_their_baseline(run_folder):
    values, page, summary = written(run_folder)
    assert values == {"test/rank<i>/AP": 0.5, "test/b/MSE": 2.0}
    # One of two queries won, the other is level; predicting 2.5 has less error than the head on both items.
    said = "0 of 2 heads beat their baseline, 1 beaten by it, 1 not decided. rank"
    assert re.search(rf"<h1>{said}", page)
    assert summary.startswith(f"**{said}")


@pytest.mark.parametrize(
    ("interval", "difference", "better", "verdict"),
    [
        ((0.4, 0.6), (0.01, 0.2), True, "better"),
        ((0.4, 0.6), (-0.2, -0.01), False, "worse"),
        ((0.4, 0.6), (-0.01, 0.2), True, "not decided"),
        ((0.4, 0.6), (-0.2, -0.01), True, "better"),  # of errors, less is better
        (None, None, True, "not decided"),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_the_baseline_out(interval, difference, better, verdict):
    assert Row("AP", 0.5, interval, 0.3, difference, better).verdict == verdict


def test_the_interval_beside_a_difference_is_that_of_the_difference(run_folder, capsys):
    _, page, summary = written(run_folder)
    assert "| 0.5000 | 0.3000 (first stage) | +0.2000 | -2.3412 to +2.7412 |" in summary
    report.print_table(head_folders([run_folder / "evaluation"]))
    cells = re.split(r"  +", capsys.readouterr().out.splitlines()[2])
    assert cells[2:] == ["0.5000", "0.3000", "first stage", "+0.2000", "-2.3412 to +2.7412"]
    assert "<td>-2.3412 to +2.7412</td>" in page
    assert [page.count(f"<th>{title}</th>") for title in ("baseline model", "its 95 % interval")] == [1, 1]


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_whole_on_any_terminal(run_folder, width):
    written(run_folder)
    shown = printed(width, lambda: report.print_table(head_folders([run_folder / "evaluation"])))
    values = ["0.5000", "0.3000", "+0.2000", "-2.3412", "+2.7412", "2.0000", "1.0000", "+1.0000", "+1.7500", "+1.7500"]
    assert_uncut(shown, values)
    assert width < 80 or len(shown.splitlines()) <= 5  # a line for each of two heads, and one about columns


def test_how_many_documents_are_judged_is_neither_better_nor_worse():
    assert Row("Judged@10", 0.5, (0.4, 0.6), 0.7, (-0.3, -0.1), False).verdict == ""


def test_all_text_is_escaped_and_nothing_is_loaded_from_elsewhere(run_folder):
    _, page, _ = written(run_folder)
    assert "<b>evil" not in page
    assert "rank<i>" not in page
    assert "what is <i>" not in page
    assert "what is &lt;i&gt;this&lt;/i&gt;?" in page
    assert "mtlrank train a=&lt;b&gt;" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "default-src 'none'" in page


def test_without_a_test_the_page_has_validation_and_curves(run_folder):
    write_text(run_folder / "logs" / "attempt_3" / "metrics.csv", "step,baseline/rank<i>/AP\n9,0.25\n")
    metrics = {"val/rank<i>/AP": 0.4, "val/b/MSE": 2.0}
    report.write_validation_report(run_folder / "report", run_folder, metrics, {"rank<i>": "AP", "b": "MSE"})
    page = (run_folder / "report" / "report.html").read_text()
    assert "no test set was judged" in page
    assert "<tr><td>rank&lt;i&gt;</td><td>AP</td><td>0.4000</td><td>0.2500</td></tr>" in page
    assert "<tr><td>b</td><td>MSE ↓</td><td>2.0000</td><td></td></tr>" in page
    assert re.findall("<h3>(.*)</h3>", page) == ["Loss of rank&lt;i&gt;", "Validation of rank&lt;i&gt;"]
    assert page.count("<svg") == 2
    assert "mtlrank train a=&lt;b&gt;" in page
    assert not re.search("<b>evil|rank<i>", page)


def test_curves_of_all_attempts_are_joined_and_later_ones_win(run_folder):
    curves = report.read_curves(run_folder)
    assert curves["train/rank<i>/loss"] == [(5, 0.9), (9, 0.7)]
    assert curves["val/rank<i>/AP"] == [(9, 0.4)]


def test_no_heads_is_an_error(tmp_path):
    with pytest.raises(DataError, match="No judged heads"):
        read_sections([])


def test_pictures_are_the_same_for_the_same_numbers():
    first, second = (figures.learning_curves({"a": [(1, 2.0), (2, 1.0)]}, "loss") for _ in range(2))
    assert first == second
    assert first.startswith("<svg")


def test_a_template_does_not_hide_a_missing_value():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("head.html.j2", section=None)


def test_intervals_winners_and_losers_by_hand(run_folder):
    """Values are 0.7 and 0.3, differences 0.4 and 0: standard errors of 0.2, times Student's t of one degree of freedom."""
    first, second = read_sections(head_folders([run_folder / "evaluation"]))
    (row,) = first.rows
    t = 12.7062
    assert row.interval == pytest.approx((0.5 - 0.2 * t, 0.5 + 0.2 * t), abs=1e-4)
    assert row.difference == pytest.approx((0.2 - 0.2 * t, 0.2 + 0.2 * t), abs=1e-4)
    assert [gain.query_id for gain in first.won] == ["q1"]
    assert not first.lost
    assert (len(first.head.items), first.units) == (2, "queries, at most 10 candidates each")
    assert second.rows[0].difference == pytest.approx((1.75, 1.75), abs=1e-6)  # 4 - 1.5^2 and 2 - .5^2
    assert second.rows[0].interval == pytest.approx((3 - t, 3 + t), abs=1e-4)
    assert "95 % interval -2.3412 to +2.7412" in report.verdict([first, second])


def test_calibration_by_hand():
    """Sure at 0.9 and right half the time, sure at 0.55 and always right: a mean distance of (0.4 + 0.45) / 2."""
    picture = figures.calibration(np.array([0.9, 0.9, 0.55, 0.55]), np.array([True, False, True, True]))
    assert "expected calibration error 0.425" in picture


def test_diagnostics_are_drawn_where_there_are_any(run_folder):
    curves = {"diagnostics/a~b/gradient_cosine": [(0, 0.1), (5, -0.2)], "diagnostics/a/examples": [(0, 3.0)]}
    curves |= {"train/a/weight": [(5, 1.5)], "train/b/weight": [(5, 0.5)]}
    titles = [title for title, _ in report.learning_pictures(curves, {})]
    assert titles == ["Do the tasks' gradients agree?", "Weights of the tasks", "Training samples per task"]


def test_further_test_sets_are_no_further_heads(run_folder):
    first, second = read_sections(head_folders([run_folder / "evaluation"]))
    more = first._replace(name=first.name + "@other", split="test@other")
    assert report.verdict([first, more, second]).startswith("0 of 2 heads")


def test_test_sets_are_averaged_alike(run_folder):
    first, second = read_sections(head_folders([run_folder / "evaluation"]))
    (row,) = first.rows

    def on(name, value, baseline, *more):
        rows = [row._replace(value=value, baseline=baseline), *more]
        return first._replace(name=f"{first.name}@{name}", split=f"test@{name}", rows=rows)

    alone = row._replace(measure="P@5")
    sections = [first, on("a", 0.5, 0.25, alone), on("b", 0.25, 0.5, alone._replace(measure="P@1")), second]
    *lines, mean = table_of(sections)
    assert [(line.name, line.row.measure) for line in lines] == [(s.name, r.measure) for s in sections for r in s.rows]
    assert (mean.name, mean.row.measure) == ("rank<i>, mean of 2 sets", "AP")
    assert (mean.row.value, mean.row.baseline, mean.row.difference) == (0.375, 0.375, None)
    line = "| rank<i>, mean of 2 sets | AP (from grade 1) | 0.3750 | 0.3750 (first stage) | +0.0000 |  |"
    assert line in report.markdown(sections)
    assert all("mean of" not in line.name for line in table_of([first, sections[1], second]))  # of one there is none


def test_the_difference_to_a_constant_is_judged_on_the_same_items(tmp_path):
    """The interval of a difference of means over the same items, as of a paired test."""
    draw = np.random.default_rng(0)
    labels = draw.normal(size=400)
    rows = [(f"q{i}", "d", 0, label, label + draw.normal()) for i, label in enumerate(labels)]
    write_labels(tmp_path, rows, "regression", ("MSE",), constant=0.25)
    head = read_head(tmp_path)
    differences = (head.predictions[0] - head.labels) ** 2 - (0.25 - head.labels) ** 2
    half = 1.96 * differences.std(ddof=1) / 20
    found = find_intervals(head)["MSE"]["gain"]
    assert found == pytest.approx((differences.mean() - half, differences.mean() + half), abs=half / 8)


def test_the_constant_of_classes_is_a_class(tmp_path):
    rows = [(f"q{i}", "d", 0, "long-name" if i % 4 else "x", "x") for i in range(40)]
    write_labels(tmp_path, rows, "classification", ("Accuracy", "MacroF1"), constant="long-name")
    low, high = find_intervals(read_head(tmp_path))["Accuracy"]["gain"]
    assert low < 0.25 - 0.75 < high


def test_invented_data_is_named_as_such(run_folder):
    preprocessor = {"tokenizer": "mtlrank-embedded/tiny-bert"}  # it may read any data
    invented = {"name": "trec2019", "train": "mtlrank-embedded/train", "preprocessor": preprocessor}
    own = {"name": "mine", "train": "my.tsv", "preprocessor": preprocessor}
    datasets = {"a": invented, "b": own}
    config = {"seed": 1, "datamodule": {"dataset": {"datasets": datasets}}}
    write_json(run_folder / "model" / "config.json", config)
    _, page, summary = written(run_folder)
    for text in (page, summary):
        assert "Invented data (the embedded collection), whatever it is called: trec2019." in text
