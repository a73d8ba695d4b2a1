"""The table of results of a paper: a row for each system, a column for each measure of a head."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

from mtlrank.comparing.captions import in_all
from mtlrank.comparing.comparison import LEVEL, Comparison
from mtlrank.comparing.systems import System, first_stage
from mtlrank.evaluation.measures import is_better, is_lower_better, is_quality, shown
from mtlrank.evaluation.pairing import values_of_runs
from mtlrank.pages.tables import as_csv, latex, latex_label
from mtlrank.storage import write_text
from mtlrank.trec import FIRST_STAGE
from mtlrank.words import counted

Column = tuple[str, str]  # head, measure
_WIDTH, _NAME = 12.0, 3.5  # cm of the LaTeX table, and of its longest name
_LETTER, _DIGIT, _SMALL, _GAP = 0.17, 0.16, 0.12, 0.21  # cm, in \footnotesize and \tiny, and between columns


class Result(NamedTuple):
    """A system's results by one measure of a head, over its runs."""

    system: str
    runs: int
    head: str
    measure: str
    mean: float
    std: float | None  # n - 1; None for a single run
    best: bool  # of all systems, as shown; False if there is only one, or no direction is better
    p_holm: float | None  # against the first baseline
    differs_from: tuple[str, ...]  # baselines, p (Holm) < 0.05


class Results(NamedTuple):
    """All results, by system and column, and how to read them."""

    rows: dict[str, dict[Column, Result]]  # the baselines first, or above them the first stage
    baselines: list[str]
    caption: str


def columns_of(systems: Iterable[System], measures: Sequence[str] | None) -> list[Column]:
    """Every head of any system with its measures: these, or all that measure quality."""
    heads = [head for system in systems for head in system.heads.values()]
    found = [
        (name, m)
        for name in dict.fromkeys(head.name for head in heads)
        for head in heads
        for m in head.measures
        if head.name == name and (m in measures if measures else is_quality(m))
    ]
    return list(dict.fromkeys(found))


def results_of(systems: Sequence[System], comparisons: Sequence[Comparison], columns: Sequence[Column]) -> Results:
    """The results of systems, and of the first stage if they were compared with it; significance is the comparisons'.

    The first stage may be one of the systems: then it is there to be seen beside them.
    """
    baselines = list(dict.fromkeys(row.baseline for row in comparisons))
    known = {system.name: system for system in systems}
    if FIRST_STAGE in baselines and FIRST_STAGE not in known:
        firsts = [first for system in systems if (first := first_stage(system)) is not None]
        heads = {name: head for first in reversed(firsts) for name, head in first.heads.items()}
        known[FIRST_STAGE] = firsts[0]._replace(heads=heads)
    shown_first = [FIRST_STAGE] if FIRST_STAGE in known and FIRST_STAGE not in baselines else []
    ordered = [known[name] for name in dict.fromkeys([*shown_first, *baselines, *known])]
    cells = {system.name: _row(system, columns) for system in ordered}
    values = {column: [of[column][0] for of in cells.values() if column in of] for column in columns}
    p_values = {(row.system, row.baseline, row.head, row.measure): row.p_holm for row in comparisons}
    rows = dict[str, dict[Column, Result]]()
    for name, of in cells.items():
        rows[name] = {}
        for column, (mean, std, runs) in of.items():
            ps = {other: p_values[name, other, *column] for other in baselines if (name, other, *column) in p_values}
            differs = tuple(other for other, p in ps.items() if p < LEVEL)
            best = _is_best(column[1], mean, values[column])
            rows[name][column] = Result(name, runs, *column, mean, std, best, ps.get(baselines[0]), differs)
    return Results(rows, baselines, _caption(ordered, comparisons, columns, rows))


def write_systems(output: Path, results: Results, label: str) -> None:
    """Write systems.csv, and systems.tex with `label` in its label. Names are untrusted and escaped."""
    write_text(output / "systems.csv", systems_csv(results))
    write_text(output / "systems.tex", systems_latex(results, label))


def systems_csv(results: Results) -> str:
    """A row for each system and measure that it has, with p (Holm) against the first baseline."""
    header = ["system", "runs", "head", "measure", "mean", "std", "best", "p_holm"]
    found = [each for row in results.rows.values() for each in row.values()]
    return as_csv([header, *([*each[:6], str(each.best).lower(), each.p_holm] for each in found)])


def systems_latex(results: Results, label: str) -> str:
    """A table for the package booktabs, at most 12 cm wide: columns that do not fit follow below."""
    letters = {name: _letter(number) for number, name in enumerate(results.baselines)}
    names = {name: f"({letters[name]}) {name}" if name in letters else name for name in results.rows}
    longest = max(map(len, names.values())) * _LETTER
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(results.caption)}}}",
        latex_label("systems", label),
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
    ]
    for columns in _parts(results, _WIDTH - min(longest, _NAME)):
        first = rf"p{{{_NAME}cm}}" if longest > _NAME else "l"
        lines += [rf"\begin{{tabular}}{{@{{}}{first}{'l' * len(columns)}@{{}}}}", r"\toprule", *_header(columns)]
        for name, row in results.rows.items():
            if not any(column in row for column in columns):
                continue
            title = rf"\raggedright {latex(names[name], longest=0)}" if longest > _NAME else latex(names[name])
            cells = [_cell(row[column], letters) if column in row else "--" for column in columns]
            lines.append(" & ".join([title, *cells]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip"]
    return "\n".join([*lines[:-1], r"\end{table}"]) + "\n"


def _row(system: System, columns: Sequence[Column]) -> dict[Column, tuple[float, float | None, int]]:
    """Mean, standard deviation and number of runs by column."""
    found = {}
    for name, measure in columns:
        if name in system.heads and measure in system.heads[name].measures:
            values = values_of_runs(system.heads[name], measure).tolist()
            std = statistics.stdev(values) if len(values) > 1 else None
            found[name, measure] = statistics.fmean(values), std, len(values)
    return found


def _is_best(measure: str, value: float, values: Sequence[float]) -> bool:
    """Whether no value is better, with the four digits that are shown."""
    is_beaten = any(is_better(measure, round(other, 4), round(value, 4)) for other in values)
    return len(values) > 1 and is_quality(measure) and not is_beaten


def _caption(
    systems: Sequence[System],
    comparisons: Sequence[Comparison],
    columns: Sequence[Column],
    rows: dict[str, dict[Column, Result]],
) -> str:
    heads = [head for system in systems for head in system.heads.values() if head.name in dict(columns)]
    sizes = {head.name: (head.num_units, head.name_of_units) for head in heads}
    trained = [system for system in systems if system.name != FIRST_STAGE and rows[system.name]]
    num_runs = {system.name: max(each.runs for each in rows[system.name].values()) for system in trained}
    several = max(num_runs.values(), default=1) > 1
    baselines = dict.fromkeys(row.baseline for row in comparisons)
    marks = ", ".join(f"({_letter(number)}) {name}" for number, name in enumerate(baselines))
    return " ".join(
        [
            "Means over seeds, ± their standard deviation where there are several." if several else "One run each.",
            "Bold: the best of its column.",
            *(["↓: less is better."] if any(is_lower_better(measure) for _, measure in columns) else []),
            f"Superscripts: different from {marks}, by p (Holm) < {LEVEL}, of randomisation tests of these trained models, "
            f"corrected for {counted(len(comparisons), 'comparison')}.",
            in_all(sizes, num_runs, max(row.folds for row in comparisons)),
        ]
    )


def _letter(number: int) -> str:
    """a, b, c; after z come a', b' and so on."""
    return ascii_lowercase[number % 26] + "'" * (number // 26)


def _parts(results: Results, width: float) -> list[list[Column]]:
    """The columns, in as many parts as they need to be no wider than `width`, in cm."""
    columns = dict.fromkeys(column for row in results.rows.values() for column in row)
    parts, left = list[list[Column]](), 0.0
    for head, measure in columns:
        cells = [row[head, measure] for row in results.rows.values() if (head, measure) in row]
        title = max(len(shown(measure)), len(head) / len([name for name, _ in columns if name == head])) * _LETTER
        needed = max(title, *map(_cell_width, cells)) + _GAP
        if not parts or needed > left:
            parts.append([])
            left = width
        parts[-1].append((head, measure))
        left -= needed
    return parts


def _cell_width(cell: Result) -> float:
    std = 0 if cell.std is None else 1 + len(f"{cell.std:.4f}")
    return len(f"{cell.mean:.4f}") * _DIGIT + (std + len(cell.differs_from)) * _SMALL


def _header(columns: Sequence[Column]) -> list[str]:
    """The heads, and below them their measures."""
    spans, rules, place = [], [], 2
    for head, found in groupby(columns, key=lambda column: column[0]):
        number = len(list(found))
        spans.append(rf"\multicolumn{{{number}}}{{l}}{{{latex(head)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + number - 1}}}")
        place += number
    names = [latex(shown(measure)) for _, measure in columns]
    return [" & ".join(["", *spans]) + r" \\", "".join(rules), " & ".join(["system", *names]) + r" \\", r"\midrule"]


def _cell(cell: Result, letters: dict[str, str]) -> str:
    mean = rf"$\mathbf{{{cell.mean:.4f}}}$" if cell.best else f"${cell.mean:.4f}$"
    std = "" if cell.std is None else rf"{{\tiny$\pm{cell.std:.4f}$}}"
    marks = "".join(letters[name] for name in cell.differs_from)
    return mean + std + (rf"\textsuperscript{{{marks}}}" if marks else "")
