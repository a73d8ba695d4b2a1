"""One number for a mixture: the mean relative change over its heads (Delta_m of Maninis, Radosavovic and Kokkinos 2019)."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from mtlrank.comparing.comparison import Comparison
from mtlrank.evaluation.measures import is_lower_better, is_quality
from mtlrank.words import counted


class RelativeChange(NamedTuple):
    """How much a system changed on average, relative to its baselines."""

    system: str
    mean: float | None  # 0.01 is 1 % better; None without a head
    heads: tuple[str, ...]
    left_out: tuple[str, ...]  # heads whose baselines are 0


def relative_changes(rows: Sequence[Comparison]) -> list[RelativeChange]:
    """The mean over the heads of each system; several measures of a head are averaged first, so that heads count alike."""
    rows = [row for row in rows if is_quality(row.measure)]
    return [_of_system(name, rows) for name in dict.fromkeys(row.system for row in rows)]


def in_sentences(changes: Sequence[RelativeChange]) -> list[str]:
    """The changes, and the heads that are left out."""
    known = [(each.system, each.mean, counted(len(each.heads), "head")) for each in changes if each.mean is not None]
    means = ", ".join(f"{system} {mean:+.1%} ({heads})" for system, mean, heads in known)
    without = ", ".join(dict.fromkeys(head for each in changes for head in each.left_out))
    return [
        *([f"Mean relative change of heads, + is better: {means}."] if means else []),
        *([f"The mean relative change leaves out, as the single task reaches 0: {without}."] if without else []),
    ]


def _of_system(name: str, rows: Sequence[Comparison]) -> RelativeChange:
    mine = [row for row in rows if row.system == name]
    changes = dict[str, list[float]]()
    for row in mine:
        if row.baseline_value:
            sign = -1 if is_lower_better(row.measure) else 1
            changes.setdefault(row.head, []).append(sign * row.difference / abs(row.baseline_value))
    mean = fmean(map(fmean, changes.values())) if changes else None
    left_out = dict.fromkeys(row.head for row in mine if row.head not in changes)
    return RelativeChange(name, mean, tuple(changes), tuple(left_out))
