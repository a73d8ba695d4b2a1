"""Probing one task: how well each layer of a frozen body predicts its labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import DataError
from mtlrank.evaluation.measures import is_lower_better
from mtlrank.model.body import MTLBody
from mtlrank.model.head import Pooler
from mtlrank.probing.judge import Judge
from mtlrank.probing.labels import Coded, code_labels
from mtlrank.probing.layers import LayerProbes
from mtlrank.probing.mdl import frequency_bits, portion_ends, uniform_bits
from mtlrank.probing.probes import Training
from mtlrank.probing.vectors import Vectors, distinct, draw_units, read_vectors, standardise

_HELD_OUT = 10  # one unit in so many
_BATCH_SIZE = 64  # samples that the body runs on at once


class Amounts(NamedTuple):
    """What is probed, and how much of it."""

    layers: Sequence[int]
    max_train: int
    max_test: int
    max_bytes: float
    portions: Sequence[float]


class Layers(NamedTuple):
    """The results of a body's probes, by layer."""

    layers: list[int]
    values: dict[str, list[float | None]]  # each measure; None where a probe does not rank
    bits: list[float]  # of the online code
    compression: list[float]  # length of the uniform code over that of the online code


class Probed(NamedTuple):
    """A task's result."""

    name: str
    kind: str
    measures: tuple[str, ...]
    split: str
    classes: str  # the classes of the labels, in words
    num_train: int
    num_test: int
    found: Layers
    control: Layers | None  # the same body with random weights
    uniform_bits: float
    frequencies: float  # the compression without vectors, by the frequencies of the labels
    baseline_name: str
    baseline: dict[str, float]  # its measures


def probe_task(
    body: MTLBody,
    pooler: Pooler,
    dataset: PreparedDataset,
    split: str,
    amounts: Amounts,
    how: Training,
    control: MTLBody | None,
) -> Probed:
    """Probe a body's layers and, if there is one, a control's on the same items. A tenth is held out to stop training."""
    units = draw_units(dataset, "train", amounts.max_train, how.seed)
    if len(units) < 2:
        raise DataError(f"{dataset.name} has only one sample to probe with: expected more. Raise probe.max_train.")
    cut = max(1, len(units) // _HELD_OUT)
    drawn = np.concatenate(units)  # those that are held out come first
    tested = np.concatenate(draw_units(dataset, split, amounts.max_test, how.seed))

    train = dataset.split("train")
    items = train.items_of_samples(drawn)
    kept = distinct(train, items) if dataset.is_ranking else np.arange(len(items))
    labels = torch.from_numpy(train.labels[items[kept]])
    num_held = int(np.searchsorted(kept, len(train.items_of_samples(np.concatenate(units[:cut])))))
    coded = code_labels(dataset, labels)
    ends = portion_ends(len(labels) - num_held, amounts.portions)

    def probed(probed_body: MTLBody, of: str = "") -> tuple[Layers, Judge]:
        vectors = _read(probed_body, pooler, dataset, "train", drawn, amounts, of).only(kept)
        test = _read(probed_body, pooler, dataset, split, tested, amounts, of)
        standardise(vectors, test)
        device = next(probed_body.parameters()).device
        probes = LayerProbes(dataset.name, vectors.on(device), num_held, how)
        judge = Judge(dataset, split, test.items)
        return _layers(probes, coded, labels, ends, test.on(device), judge, amounts.layers), judge

    found, judge = probed(body)
    uniform = uniform_bits(ends[-1], coded.num_classes)
    baseline_name, baseline = judge.baseline()
    return Probed(
        name=dataset.name,
        kind=dataset.task.kind,
        measures=dataset.task.measures,
        split=split,
        classes=coded.classes,
        num_train=ends[-1],
        num_test=len(judge.items),
        found=found,
        control=None if control is None else probed(control, ", random weights")[0],
        uniform_bits=uniform,
        frequencies=uniform / frequency_bits(coded.targets[num_held:], ends, coded.num_classes),
        baseline_name=baseline_name,
        baseline=baseline,
    )


def suggested_layer(probed: Probed, margin: float) -> int | None:
    """The layer by compression; for regression without such a layer, the one by the first measure; else None."""
    layer = by_compression(probed, margin)
    return by_measure(probed, margin) if layer is None and probed.kind == "regression" else layer


def by_compression(probed: Probed, margin: float) -> int | None:
    """The shallowest layer whose compression is at most a share of `margin` below the best.

    It must compress better, by that share, than the labels' frequencies do; None if no layer does. Layers whose ranking is
    undefined are left out.
    """
    judged = probed.found.values[probed.measures[0]]
    by_layer = zip(probed.found.layers, probed.found.compression, judged, strict=True)
    found = {layer: compression for layer, compression, value in by_layer if value is not None}
    least = max((1 - margin) * max(found.values(), default=0.0), (1 + margin) * probed.frequencies)
    return min((layer for layer, compression in found.items() if compression >= least), default=None)


def by_measure(probed: Probed, margin: float) -> int | None:
    """The shallowest layer whose gain over the baseline is at most a share of `margin` below the largest.

    None unless the largest gain is above that share of the baseline, for an error, or else above 2 / sqrt(items), which
    chance gives a correlation.
    """
    measure = probed.measures[0]
    sign = -1 if is_lower_better(measure) else 1
    baseline = probed.baseline[measure]
    by_layer = zip(probed.found.layers, probed.found.values[measure], strict=True)
    gains = {layer: sign * (value - baseline) for layer, value in by_layer if value is not None}
    least = margin * baseline if sign < 0 else 2 / probed.num_test**0.5
    most = max(gains.values(), default=0.0)
    if most <= least:
        return None
    return min(layer for layer, gain in gains.items() if gain >= (1 - margin) * most)


def _layers(
    probes: LayerProbes,
    coded: Coded,
    labels: torch.Tensor,
    ends: list[int],
    test: Vectors,
    judge: Judge,
    layers: Sequence[int],
) -> Layers:
    kind = judge.dataset.task.kind
    bits = probes.bits(coded, ends)
    scores = probes.numbers(labels, test) if kind == "regression" else probes.scores(coded, test, kind == "ranking")
    by_layer = [judge.values(of_layer) for of_layer in scores]
    values = {measure: [found[measure] for found in by_layer] for measure in judge.dataset.task.measures}
    return Layers(list(layers), values, bits, [uniform_bits(ends[-1], coded.num_classes) / length for length in bits])


def _read(
    body: MTLBody, pooler: Pooler, dataset: PreparedDataset, split: str, samples: np.ndarray, amounts: Amounts, of: str
) -> Vectors:
    what = f"{dataset.name}, {split}{of}"
    return read_vectors(
        body, pooler, dataset.split(split), samples, list(amounts.layers), _BATCH_SIZE, amounts.max_bytes, what
    )
