"""A comparison of probes on the terminal, as CSV and as pictures."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from mtlrank.evaluation.measures import shown
from mtlrank.pages import figures
from mtlrank.pages.tables import as_csv, show
from mtlrank.probing.comparison import COMPRESSION, Estimate, Found
from mtlrank.storage import write_text

_HEADER = [
    "task",
    "quantity",
    "body",
    "probes",
    "layer",
    "mean",
    "low",
    "high",
    "difference",
    "difference low",
    "difference high",
]


def print_comparison(found: Sequence[Found]) -> None:
    """Show the compression in each layer: the mean over a body's probes, and the difference to the first body."""
    for each in (each for each in found if each.quantity == COMPRESSION):
        first, *others = each.curves
        header = ["layer", escape(first), *(cell for body in others for cell in (escape(body), "difference"))]
        rows = [[str(layer), *_cells(each, layer)] for layer in _layers(each)]
        rows.append(["none", f"{each.level:.2f}", *[""] * (len(header) - 2)])
        show(header, rows, names=1, width=140, title=escape(f"{each.task}, compression"))
        print()


def write_comparison(output: Path, found: Sequence[Found]) -> None:
    """Write `probes.csv`, and a picture of the compression and of each measure that is the first of some tasks."""
    write_text(output / "probes.csv", as_csv([_HEADER, *(row for each in found for row in _csv(each))]))
    pictures = []
    for quantity in dict.fromkeys(each.quantity for each in found if each.is_main):
        mine = [each for each in found if each.quantity == quantity and each.is_main]
        panels = {each.task: {body: _points(each, body) for body in each.curves} for each in mine}
        level = " or ".join(dict.fromkeys(each.level_name for each in mine))
        levels = {each.task: each.level for each in mine}
        picture = figures.layer_curves(panels, shown(quantity), levels, f"none ({level})", {})
        pictures.append((f"probes-{shown(quantity)}", picture))
    figures.write_pictures(output, pictures)


def _layers(found: Found) -> list[int]:
    return sorted({layer for curve in found.curves.values() for layer in curve.values})


def _cells(found: Found, layer: int) -> list[str]:
    """The means in a layer, each but the first with its difference to it."""
    cells = list[str]()
    for number, curve in enumerate(found.curves.values()):
        mean, difference = curve.at(layer), curve.beyond(found.first, layer)
        cells.append("-" if mean is None else f"{mean.mean:.2f}")
        if number:
            cells.append("-" if difference is None else _with_interval(difference))
    return cells


def _with_interval(difference: Estimate) -> str:
    mean, low, high = difference
    return f"{mean:+.2f}" + ("" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})")


def _csv(found: Found) -> Iterator[list[Any]]:
    """A row for each body and layer, then one for what needs no layer."""
    for body, curve in found.curves.items():
        for layer in curve.values:
            numbers = [*_numbers(curve.at(layer))]
            numbers += _numbers(None if curve is found.first else curve.beyond(found.first, layer))
            yield [found.task, found.quantity, body, len(curve.seeds), layer, *numbers]
    yield [found.task, found.quantity, found.level_name, "", "", f"{found.level:.6f}", *[""] * 5]


def _numbers(estimate: Estimate | None) -> list[str]:
    return ["" if value is None else f"{value:.6f}" for value in estimate or (None, None, None)]


def _points(found: Found, body: str) -> list[figures.LayerValue]:
    means = {layer: found.curves[body].at(layer) for layer in found.curves[body].values}
    return [
        figures.LayerValue(layer, *(math.nan if value is None else value for value in mean or (None, None, None)))
        for layer, mean in means.items()
    ]
