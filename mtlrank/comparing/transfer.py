"""Transfer between tasks: each head of each mixture compared with the same task trained by itself."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.markup import escape

from mtlrank.about import costs
from mtlrank.comparing.captions import Table, caption
from mtlrank.comparing.comparison import LEVEL, Comparison, Pair, compare_pairs
from mtlrank.comparing.depths import write_depths
from mtlrank.comparing.relative_change import relative_changes
from mtlrank.comparing.seeds_table import write_seeds
from mtlrank.comparing.systems import System, first_stage
from mtlrank.comparing.systems_table import Column, Results, results_of, write_systems
from mtlrank.comparing.tables import COLOURS, write_comparison
from mtlrank.errors import ConfigError
from mtlrank.evaluation.measures import in_words, is_lower_better, shown
from mtlrank.evaluation.pairing import values_of_runs
from mtlrank.pages import figures, render, tables
from mtlrank.storage import write_text
from mtlrank.trec import FIRST_STAGE
from mtlrank.words import counted

_SINGLE = "single task"

Systems = Mapping[tuple[str, ...], System]  # by their tasks


class _Cost(NamedTuple):
    """What a system took, in words; empty where its runs did not record it."""

    name: str
    runs: int
    steps: str  # of a run
    samples: str
    median: str  # seconds of a run
    total: str  # of all, also of folds


def transfer(
    systems: Systems,
    measures: Sequence[str] | None = None,
    margin: float = 0.01,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Compare the heads of every mixture with their single tasks; p-values are corrected for all of them together.

    Without `measures`, each head's first one is compared. Raises `ConfigError` if there is nothing to compare.
    """
    pairs = list[Pair]()
    for tasks, single in ((tasks, system) for tasks, system in systems.items() if len(tasks) == 1):
        wanted = measures or [head.measures[0] for head in single.heads.values()]
        for mixture, system in systems.items():
            if len(mixture) > 1 and tasks[0] in mixture:
                pairs.append((single, system, wanted))
    rows = compare_pairs(pairs, margin, resamples)
    if not rows:
        raise ConfigError(f"There is nothing to compare: no head has {', '.join(measures or ())} in two systems.")
    return rows


def write_transfer(output: Path, rows: Sequence[Comparison], systems: Systems, config: dict[str, Any]) -> None:
    """Write transfer.html, its heatmap as files, and the files of `write_comparison`, and of systems, seeds and depths."""
    table = _with_changes(rows)
    label = output.resolve().parent.name  # the study's: all have a folder `transfer`
    write_comparison(output, table, label)
    write_systems(output, _results(rows, systems), label)
    named = [system._replace(name=_SINGLE) if len(tasks) == 1 else system for tasks, system in systems.items()]
    write_seeds(output, named, _columns(rows))
    write_depths(output, named)
    heatmap = figures.heatmap(*_matrix(rows), _legend(rows))
    costs = [_cost_of(system) for system in systems.values()]
    heatmap.write(output, "transfer")
    page = render(
        "transfer.html.j2",
        verdict=verdict(rows),
        rows=rows,
        first_stages=_first_stages(rows, systems),
        notes=table.notes(),
        caption=caption(rows),
        picture=heatmap,
        forest=figures.forest(_panels(rows)),
        costs=costs,
        steps_differ=len({cost.steps for cost in costs if cost.steps}) > 1,
        shown=shown,
        config=yaml.safe_dump(config, sort_keys=False),
    )
    write_text(output / "transfer.html", page)


def _with_changes(rows: Sequence[Comparison]) -> Table:
    return Table(rows, changes=relative_changes(rows))


def _results(rows: Sequence[Comparison], systems: Systems) -> Results:
    """The first stage, the single tasks in one row, as each is the baseline of its own heads only, and the mixtures."""
    single = _singles(systems)
    first = first_stage(single)
    mixtures = [system for tasks, system in systems.items() if len(tasks) > 1]
    together = [*([first] if first else []), single, *mixtures]
    return results_of(together, [row._replace(baseline=_SINGLE) for row in rows], _columns(rows))


def _columns(rows: Sequence[Comparison]) -> list[Column]:
    return list(dict.fromkeys((row.head, row.measure) for row in rows))


def _singles(systems: Systems) -> System:
    """The single tasks as one system."""
    singles = [system for tasks, system in systems.items() if len(tasks) == 1]
    heads = {name: head for system in singles for name, head in system.heads.items()}
    return singles[0]._replace(name=_SINGLE, heads=heads)


def _first_stages(rows: Sequence[Comparison], systems: Systems) -> dict[tuple[str, str], float]:
    """What the first stage of each ranking reaches, by head and measure."""
    first = first_stage(_singles(systems))
    heads = first.heads if first else {}
    return {
        (name, measure): float(values_of_runs(heads[name], measure)[0])
        for name, measure in _columns(rows)
        if name in heads
    }


def verdict(rows: Sequence[Comparison]) -> str:
    """The outcome in one sentence."""
    counts = {word: sum(row.verdict == word for row in rows) for word in COLOURS}
    verdicts = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    return f"Of {counted(len(rows), 'comparison')} of a head in a mixture with the same task by itself: {verdicts}."


def print_transfer(rows: Sequence[Comparison], systems: Systems) -> None:
    """The transfer table on the terminal: a row for each head, a column for each mixture."""
    firsts = _first_stages(rows, systems)
    mixtures = list(dict.fromkeys(row.system for row in rows))
    table = list[list[str]]()
    for head, measure in _columns(rows):
        mine = {row.system: row for row in rows if (row.head, row.measure) == (head, measure)}
        single = next(iter(mine.values())).baseline_value
        first = [f"{firsts[head, measure]:.4f}" if (head, measure) in firsts else "-"] if firsts else []
        cells = [_cell(mine.get(name)) for name in mixtures]
        table.append([escape(head), shown(measure), *first, f"{single:.4f}", *cells])
    width = 60 + 25 * len(mixtures)
    header = ["head", "measure", *([FIRST_STAGE] if firsts else []), _SINGLE, *map(escape, mixtures)]
    tables.show(header, table, names=2, width=width, title="transfer")
    console = tables.console(width)
    for line in (verdict(rows), *_with_changes(rows).notes(), caption(rows)):
        console.print(line, markup=False, highlight=False)


def _cell(row: Comparison | None) -> str:
    """The difference and its verdict, in a word too: a log file has no colours. Below, the interval."""
    if row is None:
        return "-"
    interval = "" if row.low is None or row.high is None else f"\n[{row.low:+.4f}, {row.high:+.4f}]"
    return f"[{COLOURS[row.verdict]}]{row.difference:+.4f} {row.verdict}[/]{escape(interval)}"


def _matrix(rows: Sequence[Comparison]) -> tuple[list[str], list[str], list[list[figures.Cell | None]]]:
    """Names of rows and columns, and in each cell the difference and its verdict."""
    heads = _columns(rows)
    mixtures = list(dict.fromkeys(row.system for row in rows))
    found = {((row.head, row.measure), row.system): figures.Cell(row.difference, row.verdict) for row in rows}
    return (
        [f"{head}\n{shown(measure)}" for head, measure in heads],
        [name.replace("+", " +\n") for name in mixtures],
        [[found.get((head, name)) for name in mixtures] for head in heads],
    )


def _legend(rows: Sequence[Comparison]) -> list[str]:
    """What numbers, colours and bold mean."""
    less = "; ↓: less is better" if any(is_lower_better(row.measure) for row in rows) else ""
    return [
        f"Numbers: together - single task, in the measure's own unit{less}.",
        f"Bold and coloured: better (green) or worse (red) than the single task: p (Holm) < {LEVEL}, and the 95 % interval "
        "excludes 0. The larger the difference in its row, the deeper the colour.",
        f"No colour: not decided, or equivalent within {rows[0].margin:g}.",
    ]


def _cost_of(system: System) -> _Cost:
    """What its runs recorded."""
    recorded = [costs(folder) for folder in system.folders]
    steps, samples, seconds = (
        [each[key] for each in recorded if key in each] for key in ("steps", "samples", "seconds")
    )
    times = (f"{statistics.median(seconds):,.0f}", f"{sum(seconds):,}") if seconds else ("", "")
    return _Cost(system.name, system.num_runs, _range(steps), _range(samples), *times)


def _range(numbers: Collection[float]) -> str:
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)})) if numbers else ""


def _panels(rows: Sequence[Comparison]) -> dict[str, list[figures.ForestRow]]:
    panels: dict[str, list[figures.ForestRow]] = {}
    for row in rows:
        panels.setdefault(f"{row.head}: {in_words(row.measure)}", []).append(
            (row.system, row.difference, row.low, row.high)
        )
    return panels
