"""Pictures for reports: SVG text that stands in a page without any other file."""

import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

Curve = Sequence[tuple[int, float]]
_STYLE = {
    "svg.hashsalt": "mtlrank",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}


def learning_curves(curves: Mapping[str, Curve], ylabel: str) -> str:
    """One line a name, over training steps."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes()
        for name, points in curves.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker="." if len(points) < 30 else None, label=name, linewidth=1.2)
        axes.set(xlabel="optimizer step", ylabel=ylabel)
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def layer_curves(
    curves: Mapping[str, Curve], ylabel: str, dashed: Mapping[str, Curve], marked: Mapping[str, int]
) -> str:
    """One line a name, over a body's layers; of the same colour its dashed line, if it has one, and a ring at a layer."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes(height=3.2)
        for name, points in curves.items():
            layers, values = zip(*points, strict=True)
            (line,) = axes.plot(layers, values, marker=".", label=name, linewidth=1.2)
            if name in dashed:
                axes.plot(*zip(*dashed[name], strict=True), linestyle="--", color=line.get_color(), linewidth=0.9)
            if name in marked:
                place = (marked[name], dict(points)[marked[name]])
                axes.plot(*place, marker="o", markersize=9, fillstyle="none", color=line.get_color())
        axes.set(xlabel="layer (0: embeddings)", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def gains(differences: Sequence[float], measure: str, baseline: str) -> str:
    """One bar a query, sorted: how much better or worse than the baseline it is."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes()
        ordered = sorted(differences, reverse=True)
        colours = ["#2a7f62" if value > 0 else "#b3412e" for value in ordered]
        axes.bar(range(len(ordered)), ordered, color=colours, width=1.0)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="query, by gain", ylabel=f"{measure} - {baseline}", xticks=[])
        return _svg(figure)


def confusion(counts: Tensor, classes: Sequence[str]) -> str:
    """Counts of (true class, predicted class)."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes(height=3.4)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        axes.imshow(shares.numpy(), cmap="Greens", vmin=0, vmax=1)
        for i in range(len(classes)):
            for j in range(len(classes)):
                colour = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8, color=colour)
        positions = range(len(classes))
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_xticks(positions, classes, rotation=45)
        axes.set_yticks(positions, classes)
        return _svg(figure)


def predictions(labels: Tensor, scores: Tensor) -> str:
    """A point an item: true and predicted values, at most 2,000 of them."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes(height=3.4)
        step = max(1, len(labels) // 2000)
        axes.scatter(labels[::step].numpy(), scores[::step].numpy(), s=6, alpha=0.4, linewidths=0)
        low, high = float(labels.min()), float(labels.max())
        axes.plot([low, high], [low, high], color="black", linewidth=0.6)
        axes.set(xlabel="true", ylabel="predicted")
        return _svg(figure)


def histogram(counts: Mapping[str, Sequence[float]], edges: Sequence[float], xlabel: str) -> str:
    """Shares of several samples of numbers over the same bins, as lines, so that they can lie over each other."""
    with plt.rc_context(_STYLE):
        figure, axes = _axes(height=2.2)
        for name, values in counts.items():
            total = sum(values) or 1
            axes.stairs([value / total for value in values], list(edges), label=name, linewidth=1.4)
        axes.set(xlabel=xlabel, ylabel="share", ylim=(0, None))
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def bars(counts: Mapping[str, Sequence[float]], classes: Sequence[str]) -> str:
    """The share of each class in several samples, side by side; the 30 first classes."""
    with plt.rc_context(_STYLE):
        shown = list(classes)[:30]
        figure, axes = _axes(height=2.2)
        width = 0.8 / max(len(counts), 1)
        for number, (name, values) in enumerate(counts.items()):
            total = sum(values) or 1
            places = [place + (number - (len(counts) - 1) / 2) * width for place in range(len(shown))]
            axes.bar(places, [value / total for value in values[: len(shown)]], width, label=name)
        axes.set_xticks(range(len(shown)), shown, rotation=45 if len(shown) > 6 else 0)
        axes.set(ylabel="share")
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def _axes(height: float = 2.6) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
