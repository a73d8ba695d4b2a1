"""Pictures for reports: as SVG text that stands in a page without any other file, and as files for a paper."""

import hashlib
import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mtlrank.storage import write_bytes, write_text

Curve = Sequence[tuple[int, float]]
ForestRow = tuple[str, float, float | None, float | None]  # name, difference, low, high
_GREEN, _RED = "#2a7f62", "#b3412e"
_DECIDED = {"better": _GREEN, "worse": _RED}
RANDOM_WEIGHTS = "random weights"  # the name of such a body's curve
_MINUS = "\N{MINUS SIGN}"
_BARS = 100  # with more queries, the bars become an area
_POINTS = 500  # of that area, about as many as pixels
_LONGEST = 100  # characters of a file's name
_LABEL = 34  # characters beside an axis of a small panel
_TICKS = 8  # values of a logarithmic axis that have room for their names
_NUMBERS = 30  # with more classes, their counts are not written out
_STYLE = {
    "svg.hashsalt": "mtlrank",
    "pdf.fonttype": 42,  # TrueType, as publishers ask for
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}


class Picture(str):
    """A picture as SVG text for a page; `write` saves it as files."""

    figure: Figure

    @classmethod
    def of(cls, figure: Figure) -> Self:
        """The picture of a finished figure."""
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        svg = text.getvalue()
        picture = cls(svg[svg.index("<svg") :])
        picture.figure = figure
        return picture

    def write(self, folder: Path, name: str) -> None:
        """Write an .svg, and for LaTeX a .pdf, into a folder."""
        pdf = io.BytesIO()
        with plt.rc_context(_STYLE):
            self.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
        write_text(folder / f"{name}.svg", self)
        write_bytes(folder / f"{name}.pdf", pdf.getvalue())


Pictures = list[tuple[str, Picture]]  # each with its title


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """Write the files of pictures, named after their titles.

    Characters that are unsafe in file names become dashes. A hash keeps titles apart that would have the same name then, or
    are too long, so that a file's name does not depend on how many others there are.
    """
    taken = set[str]()
    for title, picture in pictures:
        safe = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")
        name = safe[:_LONGEST]
        if name != safe or name.lower() in taken:
            name = f"{name}-{hashlib.sha256(title.encode()).hexdigest()[:8]}"
        taken.add(name.lower())
        picture.write(folder, name)


@matplotlib.rc_context(_STYLE)
def learning_curves(curves: Mapping[str, Curve], ylabel: str) -> Picture:
    """One line for each name, over training steps; where values are negative, the zero is drawn."""
    figure, axes = _axes()
    for name, points in curves.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, marker="." if len(points) < 30 else None, label=name, linewidth=1.2)
    if any(value < 0 for points in curves.values() for _, value in points):
        axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="optimizer step", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return Picture.of(figure)


class LayerValue(NamedTuple):
    """A point of a curve over layers, with its interval; NaN where there is none."""

    layer: int
    value: float
    low: float = math.nan
    high: float = math.nan


LayerCurves = Mapping[str, Sequence[LayerValue]]  # by the name of the body


@matplotlib.rc_context(_STYLE)
def layer_curves(
    panels: Mapping[str, LayerCurves],
    ylabel: str,
    levels: Mapping[str, float],
    level: str,
    marked: Mapping[str, int],
) -> Picture:
    """A panel for each name, with a scale of its own: a line over the layers of each body, with its intervals as a band.

    A ring stands at the layer in `marked`, on the first line. Dashed: the value in `levels`, which needs no layer; `level`
    is its name in the legend.
    """
    columns = min(3, len(panels))
    figure, grid = _panels(len(panels), columns, width=max(4.0, 0.6 + 2.2 * columns), height=2.1)
    colours = _colours_of_bodies(panels.values())
    for axes, (name, curves) in zip(grid, panels.items(), strict=True):
        _draw_layers(axes, curves, colours, marked.get(name))
        axes.axhline(levels[name], linestyle="--", color="black", linewidth=0.9, label=level)
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="layer (0: embeddings)", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _shared_legend(figure, grid, columns=max(2, columns))  # as many as the width has room for
    return Picture.of(figure)


def _colours_of_bodies(panels: Iterable[LayerCurves]) -> dict[str, str]:
    """Grey for random weights; green for a single body, or else the colours of the cycle."""
    bodies = list(dict.fromkeys(body for curves in panels for body in curves if body != RANDOM_WEIGHTS))
    colours = [_GREEN] if len(bodies) == 1 else [f"C{number % 10}" for number in range(len(bodies))]
    return {**dict(zip(bodies, colours, strict=True)), RANDOM_WEIGHTS: "#999999"}


def _draw_layers(axes: Axes, curves: LayerCurves, colours: Mapping[str, str], marked: int | None) -> None:
    for number, (body, points) in enumerate(curves.items()):
        layers, values, lows, highs = zip(*points, strict=True)
        width, size = (0.9, 3) if body == RANDOM_WEIGHTS else (1.2, 6)
        axes.plot(layers, values, marker=".", markersize=size, color=colours[body], linewidth=width, label=body)
        axes.fill_between(layers, lows, highs, color=colours[body], alpha=0.2, linewidth=0)
        if number == 0 and marked is not None:
            place = (marked, values[layers.index(marked)])
            axes.plot(*place, marker="o", markersize=9, fillstyle="none", color=colours[body], clip_on=False)
    every = [point.layer for points in curves.values() for point in points]
    axes.set_xlim(min(every) - 0.3, max(every) + 0.3)  # also of layers without a value


@matplotlib.rc_context(_STYLE)
def setting_curves(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    setting: str,
    levels: Mapping[str, float] | None = None,
    level: str = "",
) -> Picture:
    """A panel for each measure: a line for each name, through the means over runs at each value of a setting.

    Each run is a small point. The axis is logarithmic if the values are positive and span a factor of ten. Dashed: the
    value of a measure in `levels`, which does not depend on the setting; `level` is its name in the legend.
    """
    columns = min(2, len(panels))
    figure, grid = _panels(len(panels), columns, width=1.0 + 3.2 * columns, height=2.4)
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for axes, (measure, curves) in zip(grid, panels.items(), strict=True):
        for name, curve in curves.items():
            means = [float(np.mean(reached)) for reached in curve.values()]
            axes.plot(list(curve), means, marker="o", markersize=4, linewidth=1.2, color=colours[name], label=name)
            places = [value for value, reached in curve.items() for _ in reached]
            every = [one for reached in curve.values() for one in reached]
            axes.scatter(places, every, s=8, color=colours[name], alpha=0.5, linewidths=0)
        if levels and measure in levels:
            axes.axhline(levels[measure], linestyle="--", color="black", linewidth=0.9, label=level)
        _scale(axes, sorted({value for curve in curves.values() for value in curve}))
        axes.set(xlabel=setting if len(setting) <= _LABEL else f"…{setting[-_LABEL:]}", ylabel=_cut(measure, _LABEL))
    _shared_legend(figure, grid)
    return Picture.of(figure)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Choose the scale and the ticks of a setting's axis for its values in order."""
    if values and 0 < 10 * values[0] <= values[-1]:
        axes.set_xscale("log")
        if len(values) <= _TICKS:
            axes.set_xticks(values)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif all(float(value).is_integer() for value in values):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@matplotlib.rc_context(_STYLE)
def gains(differences: Sequence[float], measure: str, baseline: str, system: str) -> Picture:
    """One bar for each query, sorted: how much better or worse than the baseline the system is."""
    figure, axes = _axes()
    ordered = sorted(differences, reverse=True)
    if len(ordered) <= _BARS:
        axes.bar(range(len(ordered)), ordered, color=[_GREEN if value > 0 else _RED for value in ordered], width=0.9)
    else:
        places = np.linspace(0, len(ordered) - 1, min(len(ordered), _POINTS)).round().astype(int)
        values = np.array(ordered)[places]
        for colour, part in ((_GREEN, values.clip(min=0)), (_RED, values.clip(max=0))):
            axes.fill_between(places, part, step="mid", color=colour, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="query, by gain", ylabel=f"Δ{measure} per query", xticks=[])
    axes.set_title(f"{_cut(system)} - {_cut(baseline)}", fontsize=9)
    return Picture.of(figure)


class Cell(NamedTuple):
    """A difference in a table."""

    difference: float
    verdict: str  # better, worse, equivalent or not decided


@matplotlib.rc_context(_STYLE)
def heatmap(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell | None]], legend: Sequence[str] = ()
) -> Picture:
    """A table of differences: green and bold where they are better, red and bold where worse, else without a colour.

    Each row has its own scale of colours: rows may be of different measures. The lines of the legend stand below.
    """
    width, height = max(4.8, 1.6 + 1.3 * len(columns)), 0.9 + 0.6 * len(rows)
    lines = [line for part in legend for line in textwrap.wrap(part, int(18 * width))]
    figure, axes = plt.subplots(figsize=(width, height + 0.13 * len(lines)), layout="constrained")
    colours = np.ones((len(rows), len(columns), 4))
    for row, line in enumerate(cells):
        reach = max((abs(cell.difference) for cell in line if cell and cell.verdict in _DECIDED), default=0.0)
        for column, cell in enumerate(line):
            decided = cell is not None and cell.verdict in _DECIDED
            if cell is not None and decided:
                colours[row, column] = to_rgba(_DECIDED[cell.verdict], 0.15 + 0.4 * abs(cell.difference) / reach)
            text = "" if cell is None else f"{cell.difference:+.4f}".replace("-", _MINUS)
            place = {"ha": "center", "va": "center"}
            axes.text(column, row - 0.1, text, weight="bold" if decided else "normal", **place)
            word = "not learnt" if cell is None else cell.verdict
            axes.text(column, row + 0.24, word, fontsize=7, color="#444444", **place)
    axes.imshow(colours, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7)
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def forest(panels: Mapping[str, Sequence[ForestRow]]) -> Picture:
    """A panel for each measure: each difference with its 95 % interval under its name, beside a line at no difference."""
    heights = [0.42 * len(rows) + 0.6 for rows in panels.values()]
    figure, grid = plt.subplots(
        len(panels), figsize=(6.4, sum(heights)), layout="constrained", squeeze=False, height_ratios=heights
    )
    for axes, (measure, rows) in zip(grid[:, 0], panels.items(), strict=True):
        for place, (name, difference, low, high) in enumerate(rows):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color="#555555", linewidth=1.4)
            axes.plot(difference, place, "o", markersize=4, color=_GREEN)
            axes.text(0, place - 0.3, _cut(name, 110), fontsize=7, va="center", transform=axes.get_yaxis_transform())
            axes.texts[-1].set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # over the line
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(xlabel=f"difference in {measure}, with 95 % interval", yticks=[], ylim=(len(rows) - 0.5, -0.6))
        axes.spines["left"].set_visible(False)
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def calibration(confidence: NDArray[Any], right: NDArray[Any]) -> Picture:
    """How often predictions are right, by how sure they are: on the diagonal, a probability means what it says.

    Each point is a bin of equal width, its size the share of items in it; the title says the expected calibration error,
    the mean distance from the diagonal (Guo et al. 2017, eq. 3).
    """
    figure, axes = _axes(height=3.4)
    num_bins = 10
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    used = counts > 0
    sure = np.bincount(bins, confidence, num_bins)[used] / counts[used]
    correct = np.bincount(bins, right, num_bins)[used] / counts[used]
    shares = counts[used] / counts.sum()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    axes.scatter(sure, correct, s=20 + 300 * shares, color=_GREEN, alpha=0.8, linewidths=0, clip_on=False)
    axes.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {np.sum(shares * np.abs(sure - correct)):.3f}", fontsize=9)
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def confusion(counts: NDArray[Any], classes: Sequence[str]) -> Picture:
    """Counts of (true class, predicted class), (classes, classes); of many classes only the colours."""
    figure, axes = _axes(height=3.4)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts) if len(classes) <= _NUMBERS else ():
        colour = "white" if shares[i, j] > 0.6 else "black"
        axes.text(j, i, str(int(count)), ha="center", va="center", fontsize=8, color=colour)
    positions = range(len(classes))
    axes.set(xlabel="predicted", ylabel="true")
    size = min(9, 230 / len(classes))
    axes.set_xticks(positions, classes, rotation=45, fontsize=size)
    axes.set_yticks(positions, classes, fontsize=size)
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def predictions(labels: NDArray[Any], scores: NDArray[Any]) -> Picture:
    """A point for each item: true and predicted values, at most 2,000 of them."""
    figure, axes = _axes(height=3.4)
    step = max(1, len(labels) // 2000)
    axes.scatter(labels[::step], scores[::step], s=6, alpha=0.4, linewidths=0)
    low, high = float(labels.min()), float(labels.max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.6)
    axes.set(xlabel="true", ylabel="predicted")
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def histogram(counts: Mapping[str, Sequence[float]], edges: Sequence[float], xlabel: str) -> Picture:
    """Histograms of several samples over the same bins, as lines, so that they may overlap."""
    figure, axes = _axes(height=2.2)
    for name, values in counts.items():
        total = sum(values) or 1
        axes.stairs([value / total for value in values], list(edges), label=name, linewidth=1.4)
    axes.set(xlabel=xlabel, ylabel="share", ylim=(0, None))
    _legend(axes)
    return Picture.of(figure)


@matplotlib.rc_context(_STYLE)
def bars(counts: Mapping[str, Sequence[float]], classes: Sequence[str]) -> Picture:
    """The share of each class in several samples, side by side; the 30 first classes."""
    shown = list(classes)[:30]
    figure, axes = _axes(height=2.2)
    width = 0.8 / max(len(counts), 1)
    for number, (name, values) in enumerate(counts.items()):
        total = sum(values) or 1
        places = [place + (number - (len(counts) - 1) / 2) * width for place in range(len(shown))]
        axes.bar(places, [value / total for value in values[: len(shown)]], width, label=name)
    axes.set_xticks(range(len(shown)), shown, rotation=45 if len(shown) > 6 else 0)
    axes.set(ylabel="share")
    _legend(axes)
    return Picture.of(figure)


def _cut(name: str, most: int = 60) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _axes(height: float = 2.6) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    return figure, axes


def _panels(number: int, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A grid of panels with one row or more; `width` is that of the figure, `height` that of a panel."""
    rows = -(-number // columns)
    size = (width, 0.45 + height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for spare in grid.flat[number:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:number])


def _shared_legend(figure: Figure, panels: Iterable[Axes], columns: int = 1) -> None:
    """One legend below all panels, which name their lines alike; none if there is but one name."""
    lines = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
    named = [line for label, line in lines.items() if not label.startswith("_")]
    if len(named) > 1:
        figure.legend(handles=named, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)


def _legend(axes: Axes) -> None:
    """A legend beside the picture, where it hides nothing."""
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
