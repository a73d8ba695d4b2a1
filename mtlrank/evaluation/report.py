"""The report of a run: verdict first, then a table of all heads, pictures, and what was run."""

import csv
import platform
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from mtlrank import __version__
from mtlrank.errors import DataError
from mtlrank.evaluation.measures import is_better
from mtlrank.pages import figures, render
from mtlrank.storage import read_json, write_json, write_text

Curves = dict[str, list[tuple[int, float]]]


class Row(NamedTuple):
    """A measure of a head beside its baseline."""

    name: str
    measure: str
    primary: bool
    value: float
    baseline: float
    baseline_name: str
    better: bool


def write_report(output: Path, training: Path, folders: Sequence[Path]) -> dict[str, float]:
    """Write report.html, report.md and metrics.json from a training run's folder and the folders of judged heads.

    Returns the metrics by key.
    """
    heads = read_heads(folders)
    rows = [row for head in heads for row in _rows(head)]
    config = read_json(training / "model" / "config.json")
    page = render(
        "report.html.j2",
        verdict=verdict(rows),
        num_heads=len(heads),
        split=heads[0]["split"],
        rows=rows,
        pictures=_pictures(training, heads, folders),
        about=_about(config),
        config=yaml.safe_dump(config, sort_keys=False),
    )
    metrics = {f"{head['split']}/{head['name']}/{m}": v for head in heads for m, v in head["values"].items()}
    write_text(output / "report.html", page)
    write_text(output / "report.md", markdown(rows))
    write_json(output / "metrics.json", metrics)
    return metrics


def head_folders(roots: Sequence[Path]) -> list[Path]:
    """The folders of judged heads below some folders, in order."""
    return [path.parent for root in roots for path in sorted(root.glob("*/metrics.json"))]


def read_heads(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of judged heads."""
    if not folders:
        raise DataError("No judged heads to report on. Run evaluate first.")
    return [read_json(folder / "metrics.json") for folder in folders]


def verdict(rows: Sequence[Row]) -> str:
    """The outcome in one sentence, by each head's first measure."""
    primary = [row for row in rows if row.primary]
    better = [row for row in primary if row.better]
    first = primary[0]
    told = f"{first.name}: {first.measure} {first.value:.4f}, {first.baseline_name} {first.baseline:.4f}."
    return f"{len(better)} of {len(primary)} heads beat their baseline. {told}"


def markdown(rows: Sequence[Row]) -> str:
    """The table of heads for pages that show Markdown."""
    lines = ["| head | measure | value | baseline | difference |", "|---|---|---:|---:|---:|"]
    for row in rows:
        baseline = f"{row.baseline:.4f} ({row.baseline_name})"
        difference = f"{row.value - row.baseline:+.4f}"
        lines.append(f"| {row.name} | {row.measure} | {row.value:.4f} | {baseline} | {difference} |")
    return f"**{verdict(rows)}**\n\n" + "\n".join(lines) + "\n"


def print_table(folders: Sequence[Path]) -> None:
    """Show the heads on the terminal."""
    table = Table("head", "measure", "value", "baseline", "", "difference")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in (row for head in read_heads(folders) for row in _rows(head)):
        colour = "green" if row.better else "red"
        difference = f"[{colour}]{row.value - row.baseline:+.4f}[/]"
        style = "bold" if row.primary else None
        value, baseline = f"{row.value:.4f}", f"{row.baseline:.4f}"
        table.add_row(row.name, row.measure, value, baseline, row.baseline_name, difference, style=style)
    width = None if sys.stdout.isatty() else 110
    Console(width=width).print(table)


def read_curves(training: Path) -> Curves:
    """Every logged metric over steps, from all attempts of a run; a later attempt replaces what it did again."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted((training / "logs").glob("attempt_*/metrics.csv"), key=lambda p: int(p.parent.name[8:])):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if value and key not in ("step", "epoch"):
                        curves[key][int(row["step"])] = float(value)
    return {key: sorted(points.items()) for key, points in sorted(curves.items())}


def _pictures(training: Path, heads: list[dict[str, Any]], folders: Sequence[Path]) -> list[tuple[str, str]]:
    curves, pictures = read_curves(training), []
    losses = {h["name"]: curves[key] for h in heads if (key := f"train/{h['name']}/loss") in curves}
    if losses:
        pictures.append(("Training loss per task", figures.learning_curves(losses, "loss")))
    for head in heads:
        key = f"val/{head['name']}/{head['primary']}"
        if key in curves:
            curve = figures.learning_curves({head["name"]: curves[key]}, head["primary"])
            pictures.append((f"Validation of {head['name']}", curve))
    for folder, head in zip(folders, heads, strict=True):
        if (folder / "per_query.tsv").exists():
            differences = _differences(folder / "per_query.tsv", head["primary"])
            title = f"Gain of {head['name']} over {head['baseline_name']}, per query"
            pictures.append((title, figures.gains(differences, head["primary"], head["baseline_name"])))
    return pictures


def _differences(path: Path, measure: str) -> list[float]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["measure"] == measure]
    return [float(row["value"]) - float(row["first_stage"]) for row in rows]


def _rows(head: dict[str, Any]) -> list[Row]:
    measures = [head["primary"], *(m for m in head["values"] if m != head["primary"])]
    return [
        Row(
            head["name"],
            measure,
            measure == head["primary"],
            head["values"][measure],
            head["baseline"][measure],
            head["baseline_name"],
            is_better(measure, head["values"][measure], head["baseline"][measure]),
        )
        for measure in measures
    ]


def _about(config: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "pytorch-lightning"))
    return (
        f"Collection {config['collection']['name']}, seed {config['seed']}, mtlrank {__version__}, {packages}, "
        f"Python {platform.python_version()} on {platform.machine()}."
    )
