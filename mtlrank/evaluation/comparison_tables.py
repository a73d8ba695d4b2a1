"""A comparison to look at: on the terminal, and as CSV, LaTeX, JSON and pictures."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mtlrank.evaluation.comparison import LEVEL, Comparison
from mtlrank.evaluation.judged_head import FIRST_STAGE
from mtlrank.evaluation.measures import in_words
from mtlrank.pages import figures, tables
from mtlrank.storage import write_json, write_text

_HEADER = ("head", "measure", "baseline", "system", "difference", "95 % CI", "p (t)", "p (rand.)", "p (Holm)", "equiv.")
COLOURS = {"better": "green", "worse": "red", "equivalent": "blue", "not decided": "default"}
_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def write_comparison(
    output: Path, comparisons: Sequence[Comparison], not_compared: Sequence[str] = (), confounds: Sequence[str] = ()
) -> None:
    """Write comparison.csv, .tex and .json, and as .svg and .pdf the differences, and for each ranking its queries' gains.

    `not_compared` and `confounds` say what only one system has, and what else differs. Text is untrusted and escaped.
    """
    write_text(output / "comparison.csv", as_csv(comparisons))
    write_text(output / "comparison.tex", as_latex(comparisons, not_compared, confounds))
    told = {"caption": caption(comparisons), "confounds": list(confounds), "not_compared": list(not_compared)}
    rows = [row._asdict() for row in comparisons]
    write_json(output / "comparison.json", {**told, "comparisons": rows}, sort_keys=False)
    for name, picture in pictures(comparisons).items():
        picture.write(output, name)


def caption(comparisons: Sequence[Comparison]) -> str:
    """How the numbers of a table came about, in words."""
    first, number = comparisons[0], len(comparisons)
    systems = [(row.baseline, row.baseline_runs) for row in comparisons]
    systems += [(row.system, row.system_runs) for row in comparisons]
    num_runs = [number for name, number in systems if name != FIRST_STAGE]  # a first stage has no seeds
    seeds = " with Student's t for the seeds" if max(num_runs) > 1 else ""
    single = "; with one run of a system, it leaves out the variance between its seeds" if min(num_runs) == 1 else ""
    return (
        f"{number} comparison{'s' if number > 1 else ''}. Difference: system - baseline; values are averaged over seeds "
        f"first. 95 % CI: bootstrap over {_units(comparisons)}{seeds}, {first.resamples:,} resamples{single}. "
        f"p: paired t-test and randomisation test, two-sided, of these trained models; Holm: the randomisation test, "
        f"corrected for all {number} comparisons. Better or worse: p (Holm) < {LEVEL}, and the interval excludes 0. "
        f"Equivalent: two one-sided t-tests, corrected too, p < {LEVEL}, and the interval lies within {first.margin:g} "
        "of a measure's own unit. Otherwise: not decided."
    )


def notes(
    comparisons: Sequence[Comparison], not_compared: Sequence[str] = (), confounds: Sequence[str] = ()
) -> list[str]:
    """What stands under a table: each of its notes once, what else differs, and what is not in it."""
    of_rows = dict.fromkeys(row.note for row in comparisons if row.note)
    return [*of_rows, *confounds, *(f"Not compared: {what}." for what in not_compared)]


def pictures(comparisons: Sequence[Comparison]) -> dict[str, figures.Picture]:
    """Pictures by name: all differences with their intervals, and gains by query of each head's first measure."""
    panels: dict[str, list[figures.ForestRow]] = {}
    for row in comparisons:
        name = f"{row.head}: {row.system} - {row.baseline}"
        panels.setdefault(in_words(row.measure), []).append((name, row.difference, row.low, row.high))
    found = {"differences": figures.forest(panels)}
    seen = set[tuple[str, str, str]]()
    for number, row in enumerate(comparisons, 1):
        key = row.head, row.baseline, row.system
        if row.per_query and key not in seen:
            name = f"gains-{number}-{row.head}-{row.system}-{row.baseline}"
            found[name] = figures.gains(list(row.per_query.values()), row.measure, row.baseline, row.system)
        seen.add(key)
    return found


def print_comparison(
    comparisons: Sequence[Comparison], not_compared: Sequence[str] = (), confounds: Sequence[str] = ()
) -> None:
    """Show a table for each pair of systems on the terminal, then how to read it."""
    console = tables.console(140)
    for (system, baseline), rows in groupby(comparisons, key=lambda row: (row.system, row.baseline)):
        table = Table(*_HEADER, "verdict", title=escape(f"{system} compared with {baseline}"), title_justify="left")
        for column in table.columns[2:]:
            column.justify = "right"
        for row in rows:
            colour = COLOURS[row.verdict]
            table.add_row(*(escape(cell) for cell in _cells(row)), f"[{colour}]{row.verdict}[/]")
        console.print(table)
    for line in (*notes(comparisons, not_compared, confounds), caption(comparisons)):
        console.print(line, markup=False, highlight=False)


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """All fields but the queries, a row for each comparison."""
    fields = [field for field in Comparison._fields if field != "per_query"]
    return tables.as_csv([fields, *([getattr(row, field) for field in fields] for row in comparisons)])


def as_latex(comparisons: Sequence[Comparison], not_compared: Sequence[str] = (), confounds: Sequence[str] = ()) -> str:
    """A table for the package booktabs; how to read it, and its notes, stand below."""
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\caption{Differences between systems.}",
        r"\label{tab:comparison}",
        r"\begin{tabular}{llrrrrrrrll}",
        r"\toprule",
        " & ".join(_latex(name) for name in (*_HEADER, "verdict")) + r" \\",
    ]
    for (system, baseline), rows in groupby(comparisons, key=lambda row: (row.system, row.baseline)):
        title = _latex(f"{system} compared with {baseline}")
        lines += [r"\midrule", rf"\multicolumn{{11}}{{l}}{{{title}}} \\"]
        lines += [" & ".join(_latex(cell) for cell in (*_cells(row), row.verdict)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    told = notes(comparisons, not_compared, confounds)
    lines += [rf"\par\footnotesize {_latex(note)}" for note in (caption(comparisons), *told)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _cells(row: Comparison) -> list[str]:
    interval = "-" if row.low is None or row.high is None else f"[{row.low:+.4f}, {row.high:+.4f}]"
    return [
        row.head,
        row.measure,
        f"{row.baseline_value:.4f}",
        f"{row.system_value:.4f}",
        f"{row.difference:+.4f}",
        interval,
        _p(row.p_t),
        _p(row.p_randomisation),
        _p(row.p_holm),
        {None: "-", True: "yes", False: "no"}[row.equivalent],
    ]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _units(comparisons: Sequence[Comparison]) -> str:
    return " or ".join(dict.fromkeys(row.units for row in comparisons))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
