"""Minimum description length: how many bits the labels take, given the vectors (Voita and Titov 2020)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mtlrank.errors import ConfigError, DataError

SMALLEST = 16  # items of a portion; fewer teach a probe nothing


def check_portions(portions: Sequence[float]) -> None:
    """Raise `ConfigError` unless shares in per cent ascend to 100."""
    ascend = all(low < high for low, high in pairwise([0.0, *portions]))  # NaN is not below anything
    if not ascend or not portions or portions[-1] != 100:
        raise ConfigError(f"probe.portions is {list(portions)}, expected ascending shares in per cent up to 100.")


def portion_ends(num_items: int, portions: Sequence[float]) -> list[int]:
    """Where the portions of the online code end, ascending, for shares in per cent; the last end is all items.

    A portion of fewer than `SMALLEST` items is joined to the next one.
    """
    if num_items < 2 * SMALLEST:
        raise DataError(
            f"{num_items} labelled items are too few to probe: expected at least {2 * SMALLEST}, beside those that are "
            "held out. Raise probe.max_train, if there are more."
        )
    ends = [0]
    for portion in portions[:-1]:
        end = round(portion / 100 * num_items)
        if end - ends[-1] >= SMALLEST and num_items - end >= SMALLEST:
            ends.append(end)
    return [*ends[1:], num_items]


def uniform_bits(num_items: int, num_classes: int) -> float:
    """The length of a code that takes all classes for equally likely, without the vectors."""
    return num_items * math.log2(num_classes)


def online_bits(ends: Sequence[int], num_classes: int, cost: Callable[[int, int], Tensor]) -> Tensor:
    """The length of the online code (eq. 3), (layers,).

    The first portion is sent with the uniform code, each later one with a probe that learnt from all that came before:
    `cost(start, end)` is what the labels of items `start` to `end` cost, in nats, after learning from the first `start`.
    """
    later = [cost(start, end) for start, end in pairwise(ends)]
    if not later:
        raise DataError(f"All {ends[-1]} items are in one portion: expected several. Raise probe.max_train.")
    bits: Tensor = sum(later[1:], later[0]).double() / math.log(2)
    return bits + uniform_bits(ends[0], num_classes)


def log_frequencies(targets: Tensor, num_classes: int) -> Tensor:
    """The logarithms of the frequencies of earlier labels, (classes,), which predict the next one.

    Each class counts once more than it occurs (Laplace), so that none is impossible.
    """
    counts = torch.bincount(targets, minlength=num_classes) + 1
    return (counts / counts.sum()).log()


def frequency_bits(targets: Tensor, ends: Sequence[int], num_classes: int) -> float:
    """The length of the online code without vectors, which predicts labels by the frequencies of earlier ones."""

    def cost(start: int, end: int) -> Tensor:
        return -log_frequencies(targets[:start], num_classes)[targets[start:end]].double().sum()

    return float(online_bits(ends, num_classes, cost))
