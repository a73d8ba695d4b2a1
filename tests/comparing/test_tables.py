import csv
import json
import re

import pytest

from mtlrank.comparing.captions import Table, caption
from mtlrank.comparing.comparison import Comparison
from mtlrank.comparing.tables import as_csv, as_latex, pictures, print_comparison, write_comparison
from tests.pages.terminals import WIDTHS, assert_uncut, printed


@pytest.fixture
def rows():
    known = {
        "head": "rank",
        "baseline": "=one_task & <b>",
        "system": "[red]all[/red] 50%",
        "baseline_value": 0.5,
        "system_value": 0.52,
        "difference": 0.02,
        "p_randomisation": 0.0004,
        "p_holm": 0.0008,
        "equivalent": None,
        "verdict": "better",
        "margin": 0.01,
        "units": "queries",
        "num_units": 43,
        "baseline_runs": 1,
        "system_runs": 3,
        "resamples": 10_000,
    }
    full = Comparison(
        measure="nDCG@10",
        low=0.001,
        high=0.04,
        p_t=0.03,
        p_tost=0.9,
        note="",
        per_query={"q1": 0.1, "q2": -0.1},
        **known,
    )
    bare = Comparison(
        measure="F_1", low=None, high=None, p_t=None, p_tost=None, note="a reason.", per_query={}, **known
    )
    return [full._replace(equivalent=False), bare]


def test_the_caption_says_how_many_and_what_the_verdict_is(rows):
    told = caption(rows)
    assert told.startswith("2 comparisons. ")
    assert "corrected for all 2 comparisons" in told
    assert "Better or worse: p (Holm) < 0.05, and the interval excludes 0." in told
    assert "the interval lies within 0.01 of" in told


@pytest.mark.parametrize(
    ("baseline", "runs", "expected"),
    [
        ("single", (2, 3), "bootstrap over queries with Student's t for the seeds, 10,000 resamples. "),
        ("first stage", (1, 3), "bootstrap over queries with Student's t for the seeds, 10,000 resamples. "),
        ("single", (1, 3), "Student's t for the seeds, 10,000 resamples; with one run of a system, it leaves out"),
        ("single", (1, 1), "bootstrap over queries, 10,000 resamples; with one run of a system, it leaves out"),
        ("first stage", (1, 1), "bootstrap over queries, 10,000 resamples; with one run of a system, it leaves out"),
    ],
)
def test_the_caption_says_what_intervals_know_of_seeds(rows, baseline, runs, expected):
    changes = {"baseline": baseline, "baseline_runs": runs[0], "system_runs": runs[1]}
    assert expected in caption([row._replace(**changes) for row in rows])


def test_the_caption_says_how_intervals_of_few_queries_are_made(rows):
    assert "bootstrap over queries (Student's t with fewer than 10), 10,000" in caption(
        [row._replace(num_units=9, baseline_runs=1, system_runs=1) for row in rows]
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_and_verdicts_are_whole_on_any_terminal(rows, width):
    shown = printed(width, lambda: print_comparison(Table(rows)))
    values = ["0.5000", "0.5200", "+0.0200"] * 2 + ["[+0.0010,", "+0.0400]", "better", "better"]
    assert_uncut(shown, [*values, *(["0.030", "<0.001", "<0.001"] if width == 120 else [])])
    assert ("\nwithout p (t), p (rand.)" in shown) == (width < 100)


def test_csv_is_read_back_and_computes_nothing(rows):
    first, second = csv.DictReader(as_csv(rows).splitlines())
    assert first["baseline"] == "'=one_task & <b>"
    assert float(first["difference"]) == 0.02
    assert (second["low"], second["p_t"], second["equivalent"]) == ("", "", "")
    assert "per_query" not in first


def test_latex_is_escaped_and_every_row_has_all_columns(rows):
    text = as_latex(Table(rows), "mine")
    assert r"rank: [red]all[/red] 50\% compared with =one\_task \& \textless{}b\textgreater{}" in text
    table = [line for line in text.splitlines() if line.startswith(("measure", "nDCG", "F"))]
    assert [line.count(" & ") for line in table] == [6, 6, 6]
    assert r"F\_1 & $0.5000$ & $0.5200$ & $+0.0200$ & -- & $<0.001$ & better \\" in table
    assert "2 comparisons. Difference: system - baseline" in text[text.index(r"\end{tabular}") :]
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_has_arrows_and_a_minus_as_long_as_a_plus(rows):
    less = rows[0]._replace(measure="MSE", difference=-0.02, low=-0.04, high=-0.001, system_value=0.48)
    text = as_latex(Table([less]), "mine")
    assert r"MSE $\downarrow$ & $0.5000$ & $0.4800$ & $-0.0200$ & $[-0.0400, -0.0010]$ & $" in text
    assert text.isascii()


def test_the_caption_says_of_how_many_queries_and_runs(rows, capsys):
    other = rows[0]._replace(head="sim", units="sequences", num_units=1, baseline="first stage")
    told = (
        "Test sets: rank 43 queries, sim 1 sequence. Runs (seeds) of a system: =one_task & <b> 1, [red]all[/red] 50% 3."
    )
    assert caption([*rows, other]).endswith(told)
    (title,) = (line for line in as_latex(Table([*rows, other]), "mine").splitlines() if line.startswith(r"\caption{"))
    assert title.startswith(
        r"\caption{Differences from =one\_task \& \textless{}b\textgreater{} and first stage. Test sets: "
    )
    assert title.endswith(r"50\% 3.}")
    three = as_latex(Table([rows[0]._replace(baseline=name) for name in ("a", "b", "first stage")]), "mine")
    assert r"\caption{Differences from a, b and first stage. Test sets" in three
    alike = [row._replace(baseline_runs=3) for row in rows]
    assert caption(alike).endswith("Test sets: rank 43 queries. Runs (seeds) of a system: 3 each.")
    print_comparison(Table(alike))
    assert "Test sets: rank 43 queries." in " ".join(capsys.readouterr().out.split())


def test_all_files_are_written(rows, tmp_path):
    write_comparison(tmp_path, Table(rows, ["sim: only all has this head"]), "my_paper/2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.csv",
        "comparison.json",
        "comparison.tex",
        "differences.pdf",
        "differences.svg",
        "gains-rank-red-all-red-50-one-task-b.pdf",
        "gains-rank-red-all-red-50-one-task-b.svg",
    ]
    assert r"\label{tab:comparison-my-paper-2}" in (tmp_path / "comparison.tex").read_text()
    kept = json.loads((tmp_path / "comparison.json").read_text())
    assert kept["not_compared"] == ["sim: only all has this head"]
    assert [Comparison(**row) for row in kept["comparisons"]] == rows
    for picture in tmp_path.glob("*.svg"):
        svg = picture.read_text()
        assert svg.startswith("<svg")
        assert "<b>" not in svg
        assert not re.search(r'href="(?!#)', svg)


def test_a_picture_keeps_its_name_when_measures_and_systems_are_added(rows):
    more = [rows[0]._replace(system="another"), rows[0], rows[0]._replace(measure="AP"), rows[0]._replace(head="other")]
    few, all_of_them = ({name for name, _ in pictures(some)} for some in ([rows[0]], more))
    assert few < all_of_them
    assert len(all_of_them) == 4


def test_the_terminal_shows_names_as_they_are(rows, capsys):
    print_comparison(Table(rows, ["sim: only all has this head"]))
    shown = capsys.readouterr().out
    assert "[red]all[/red] 50% compared with =one_task & <b>" in shown
    assert "[+0.0010, +0.0400]" in shown
    assert "a reason." in shown
    assert "Not compared: sim: only all has this head." in shown
    assert "2 comparisons." in shown
