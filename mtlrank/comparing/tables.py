"""Comparisons on the terminal, and as CSV, LaTeX, JSON and pictures."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.markup import escape

from mtlrank.comparing.captions import Table, amounts, caption, method
from mtlrank.comparing.comparison import Comparison
from mtlrank.evaluation.measures import in_words, shown
from mtlrank.pages import figures, tables
from mtlrank.pages.tables import latex, latex_label
from mtlrank.storage import write_json, write_text

_HEADER = ("head", "measure", "baseline", "system", "difference", "95 % CI", "p (t)", "p (rand.)", "p (Holm)", "equiv.")
_SPARE = "p (t)", "p (rand.)", "equiv.", "p (Holm)"  # left out on a narrow terminal: the verdict follows from them
_OF_SYSTEMS = ("gains-*.svg", "gains-*.pdf", "depths-*.svg", "depths-*.pdf", "depths.csv")
COLOURS = {"better": "green", "worse": "red", "equivalent": "blue", "not decided": "default"}
_LATEX_HEADER = ("measure", "baseline", "system", "difference", "95 % CI", "p (Holm)", "verdict")


def write_comparison(output: Path, table: Table, label: str) -> None:
    """Write comparison.csv, .tex and .json, and as .svg and .pdf the differences and the gains by query of each ranking.

    Files of an earlier comparison there that are named after its systems are removed. Names in the table are untrusted and
    escaped. `label` is part of the LaTeX table's label.
    """
    rows = table.rows
    if (output / "comparison.json").exists():
        for former in (path for pattern in _OF_SYSTEMS for path in output.glob(pattern)):
            former.unlink()
    write_text(output / "comparison.csv", as_csv(rows))
    write_text(output / "comparison.tex", as_latex(table, label))
    remarks = {"caption": caption(rows), "confounds": list(table.confounds), "not_compared": list(table.not_compared)}
    changes = {"relative_changes": [each._asdict() for each in table.changes]} if table.changes else {}
    comparisons = [row._asdict() for row in rows]
    write_json(output / "comparison.json", {**remarks, **changes, "comparisons": comparisons}, sort_keys=False)
    figures.write_pictures(output, pictures(rows))


def pictures(comparisons: Sequence[Comparison]) -> figures.Pictures:
    """All differences with their intervals, and gains by query of each head's first measure."""
    panels: dict[str, list[figures.ForestRow]] = {}
    for row in comparisons:
        name = f"{row.head}: {row.system} - {row.baseline}"
        panels.setdefault(in_words(row.measure), []).append((name, row.difference, row.low, row.high))
    found = [("differences", figures.forest(panels))]
    seen = set[tuple[str, str, str]]()
    for row in comparisons:
        key = row.head, row.baseline, row.system
        if row.per_query and key not in seen:
            picture = figures.gains(list(row.per_query.values()), row.measure, row.baseline, row.system)
            found.append((f"gains: {row.head}: {row.system} - {row.baseline}", picture))
        seen.add(key)
    return found


def print_comparison(table: Table) -> None:
    """Show a table for each pair of systems on the terminal, then how to read it."""
    console = tables.console(140)
    for (system, baseline), rows in groupby(table.rows, key=lambda row: (row.system, row.baseline)):
        cells = [[*map(escape, _cells(row)), f"[{COLOURS[row.verdict]}]{row.verdict}[/]"] for row in rows]
        title = escape(f"{system} compared with {baseline}")
        tables.show([*_HEADER, "verdict"], cells, names=2, width=140, spare=_SPARE, title=title)
    for line in (*table.notes(), caption(table.rows)):
        console.print(line, markup=False, highlight=False)


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """A row for each comparison, with all fields but `per_query`."""
    fields = [field for field in Comparison._fields if field != "per_query"]
    return tables.as_csv([fields, *([getattr(row, field) for field in fields] for row in comparisons)])


def as_latex(table: Table, label: str) -> str:
    """A table for the package booktabs, 12 cm wide, whose only p-value is p (Holm). Below it, how to read it and notes."""
    comparisons = table.rows
    *others, last = dict.fromkeys(row.baseline for row in comparisons)
    baselines = f"{', '.join(others)} and {last}" if others else last
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(f'Differences from {baselines}. {amounts(comparisons)}')}}}",
        latex_label("comparison", label),
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{@{}lrrrrrl@{}}",
        r"\toprule",
        " & ".join(map(latex, _LATEX_HEADER)) + r" \\",
    ]
    for (system, baseline, head), rows in groupby(comparisons, key=lambda row: (row.system, row.baseline, row.head)):
        title = latex(f"{head}: {system} compared with {baseline}")
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(_LATEX_HEADER)}}}{{@{{}}p{{12cm}}@{{}}}}{{\raggedright {title}}} \\",
        ]
        lines += [_latex_row(row) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    remarks = method(comparisons), *table.notes()
    lines += [rf"\par\raggedright\footnotesize {latex(remark)}" for remark in remarks]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _cells(row: Comparison) -> list[str]:
    interval = "-" if row.low is None or row.high is None else f"[{row.low:+.4f}, {row.high:+.4f}]"
    return [
        row.head,
        shown(row.measure),
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


def _latex_row(row: Comparison) -> str:
    _, measure, *numbers, _, _, p_holm, _ = _cells(row)
    in_math = [f"${number}$" if number != "-" else "--" for number in (*numbers, p_holm)]  # a minus as long as a plus
    return " & ".join([latex(measure), *in_math, row.verdict]) + r" \\"
