"""Text for messages."""

from collections.abc import Sequence


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun, as in 1 run and 1,200 runs."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """`a, b and 3 more`: the first names, and how many others there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def of_dataset(name: str, setting: str, before: str = "") -> str:
    """A setting of a dataset as it is typed: of one that is learnt alone and, in brackets, of one in a mixture."""
    return f"{before}datamodule.dataset.{setting} (in a mixture, {before}datamodule.dataset.datasets.{name}.{setting})"


def interval(low: float | None, high: float | None) -> str:
    """`+0.0100 to +0.0300`, the interval of a difference; empty if there is none."""
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
