"""The report of a run: verdict first, then each head with its uncertainty and pictures, and what was run."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from mtlrank import __version__, embedded
from mtlrank.about import MODEL, PACKAGES, read_about
from mtlrank.config import datasets_of
from mtlrank.evaluation.curves import Curves, read_curves
from mtlrank.evaluation.measures import shown
from mtlrank.evaluation.section import Line, Row, Section, read_sections, table_of
from mtlrank.pages import figures, render
from mtlrank.pages.tables import show
from mtlrank.storage import read_json, write_json, write_text
from mtlrank.words import interval


def write_report(output: Path, training: Path, folders: Sequence[Path]) -> dict[str, float]:
    """Write report.html, its pictures as .svg and .pdf, report.md and metrics.json; returns the metrics by key.

    They are made from a training run's folder and the folders of judged heads.
    """
    sections = read_sections(folders)
    curves = learning_pictures(read_curves(training), {section.name: section.rows[0].measure for section in sections})
    pictures = {section.name: section.pictures() for section in sections}
    note = _write_page(
        output,
        training,
        "report.html.j2",
        curves,
        verdict=verdict(sections),
        sections=sections,
        pictures=pictures,
        lines=table_of(sections),
        split=sections[0].split,
    )
    of_heads = [(f"{name} {title}", picture) for name, own in pictures.items() for title, picture in own]
    figures.write_pictures(output, [*of_heads, *curves])
    metrics = {f"{head.split}/{head.dataset}/{row.measure}": row.value for head in sections for row in head.rows}
    write_text(output / "report.md", markdown(sections) + (f"\n{note}\n" if note else ""))
    write_json(output / "metrics.json", metrics)
    return metrics


def write_validation_report(
    output: Path, training: Path, metrics: Mapping[str, float], measures: Mapping[str, str]
) -> None:
    """Write report.html of a run whose test sets were not judged. It has no files of pictures: a sweep has many such runs.

    `metrics` are those of the validation that chose the weights, by key, and `measures` the first one of each head.
    """
    curves = read_curves(training)
    pictures = learning_pictures(curves, measures)
    lines = []
    for key, value in metrics.items():
        _, name, measure = key.split("/", 2)
        baselines = curves.get(f"baseline/{name}/{measure}")
        lines.append((name, shown(measure), value, baselines[-1][1] if baselines else None))
    _write_page(output, training, "validation.html.j2", pictures, lines=lines)


def _write_page(output: Path, training: Path, template: str, curves: figures.Pictures, **values: Any) -> str:
    """Write report.html; returns the note on invented data."""
    config = read_json(training / MODEL / "config.json")
    note = invented(datasets_of(config).values())
    about, settings = _about(training, config), yaml.safe_dump(config, sort_keys=False)
    page = render(template, note=note, curves=curves, about=about, config=settings, **values)
    write_text(output / "report.html", page)
    return note


def verdict(sections: Sequence[Section]) -> str:
    """The outcome in one sentence, by each head's first measure."""
    first = [section.rows[0] for section in sections if section.name == section.dataset]  # not of further test sets
    counts = Counter(row.verdict for row in first)
    section = sections[0]
    row = section.rows[0]
    gain = f" ({row.value - row.baseline:+.4f}, 95 % interval {_interval(row)})" if row.difference else ""
    primary = f"{section.name}: {row.measure} {row.value:.4f}, {section.baseline_name} {row.baseline:.4f}{gain}."
    others = {"worse": "beaten by it", "not decided": "not decided"}
    rest = "".join(f", {counts[word]} {text}" for word, text in others.items() if counts[word])
    return f"{counts['better']} of {len(first)} heads beat their baseline{rest}. {primary}"


def markdown(sections: Sequence[Section]) -> str:
    """The table of heads for pages that show Markdown."""
    lines = ["| head | measure | value | baseline | difference | its 95 % interval |", "|---|---|---:|---:|---:|---:|"]
    for name, row, baseline_name, _ in table_of(sections):
        baseline = f"{row.baseline:.4f} ({baseline_name})"
        cells = name, row.shown, f"{row.value:.4f}", baseline, *_difference(row)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return f"**{verdict(sections)}**\n\n" + "\n".join(lines) + "\n"


def invented(datasets: Iterable[Mapping[str, Any]]) -> str:
    """A note on datasets (their configs) of the embedded collection, as they are named after real ones; or empty."""
    names = [str(node["name"]) for node in datasets if embedded.is_read_by(node)]
    return f"Invented data (the embedded collection), whatever it is called: {', '.join(names)}." if names else ""


def print_table(folders: Sequence[Path]) -> None:
    """Show the heads on the terminal."""
    header = "head", "measure", "value", "baseline", "baseline model", "difference", "its 95 % interval"
    rows = [_cells(line) for line in table_of(read_sections(folders))]
    show(header, rows, names=2, width=120, spare=["baseline model"])


def learning_pictures(curves: Curves, measures: Mapping[str, str]) -> figures.Pictures:
    """Losses, the first measure of each head in validation and, if logged, the monitored mean, gradients and weights."""
    pictures = []
    for mean in (key.removeprefix("val/") for key in curves if key.startswith("val/(mean)/")):
        found = {what: curves[f"{kind}/{mean}"] for what, kind in (("mean", "val"), ("baselines", "baseline"))}
        pictures.append(("What chooses the weights", figures.learning_curves(found, mean.removeprefix("(mean)/"))))
    for name, measure in measures.items():
        losses = {"training": f"train/{name}/loss", "validation": f"val/{name}/loss"}
        reached = {name: f"val/{name}/{measure}", "baseline": f"baseline/{name}/{measure}"}
        for title, keys, ylabel in ((f"Loss of {name}", losses, "loss"), (f"Validation of {name}", reached, measure)):
            if found := {what: curves[key] for what, key in keys.items() if key in curves}:
                pictures.append((title, figures.learning_curves(found, ylabel)))
    for ending, title, ylabel in (
        ("gradient_cosine", "Do the tasks' gradients agree?", "cosine between gradients"),
        ("gradient_norm", "Gradient norm per task", "norm of the gradient"),
        ("weight", "Weights of the tasks", "weight"),
        ("examples", "Training samples per task", "samples"),
    ):
        found = {key.split("/")[1]: points for key, points in curves.items() if key.endswith(f"/{ending}")}
        if found:
            pictures.append((title, figures.learning_curves(found, ylabel)))
    return pictures


def _cells(line: Line) -> list[str]:
    row = line.row
    colour = {"better": "green", "worse": "red"}.get(row.verdict, "default")
    difference, inside = _difference(row)
    values = f"{row.value:.4f}", f"{row.baseline:.4f}"
    cells = [escape(line.name), row.shown, *values, line.baseline_name, f"[{colour}]{difference}[/]", inside]
    return [f"[bold]{cell}[/]" for cell in cells] if line.is_first else cells


def _difference(row: Row) -> tuple[str, str]:
    """The difference from the baseline and its interval; empty for a measure that is not one of quality."""
    return (f"{row.value - row.baseline:+.4f}", _interval(row)) if row.verdict else ("", "")


def _interval(row: Row) -> str:
    """The interval of the difference, which decides."""
    return interval(*row.difference or (None, None))


def _about(training: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run: where, with what, on which data."""
    sources = training / MODEL / "sources.json"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    rows = [("seed", config["seed"]), *read_about(training).items()]
    if sources.exists():
        rows += [(f"data of {key}", yaml.safe_dump(source)) for key, source in read_json(sources).items()]
    here = f"mtlrank {__version__}, {packages}, Python {platform.python_version()} on {platform.machine()}"
    return [(str(key), str(value)) for key, value in [*rows, ("reported with", here)]]
