"""Vectors of items from a frozen body: one pooled vector for each layer, computed once and kept in memory."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.arrays import offsets, ranges
from mtlrank.datamodule.dataset.split import PreparedSplit
from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError
from mtlrank.inference.scoring import to_device
from mtlrank.model.body import MTLBody, Part
from mtlrank.model.head import Pooler
from mtlrank.model.head.pooler import Average, CLSToken, LastToken
from mtlrank.progress import Progress, say, warn


class Vectors(NamedTuple):
    """Pooled vectors of items, and where the items stand in their split."""

    values: Tensor  # (items, layers, dim) float32 or float16
    items: Ints  # (items,), positions in the split's `labels`

    def part(self, start: int, end: int) -> "Vectors":
        """The items from `start` to `end`; nothing is copied."""
        return Vectors(self.values[start:end], self.items[start:end])

    def only(self, places: Ints) -> "Vectors":
        """Some of the items."""
        return Vectors(self.values[torch.from_numpy(places)], self.items[places])

    def on(self, device: torch.device) -> "Vectors":
        """The same on a device."""
        return Vectors(self.values.to(device), self.items)


def draw_units(dataset: PreparedDataset, split_name: str, max_items: int, seed: int) -> list[Ints]:
    """Units of a split in random order until they have `max_items` items: samples, or all samples of a query for rankings.

    A unit that would exceed that number is left out, but for the first one. A document that is in several of a query's
    samples counts once (see `distinct`).
    """
    split = dataset.split(split_name)
    units = _queries(split) if dataset.is_ranking else [np.array([sample]) for sample in range(len(split))]
    drawn, room = list[Ints](), max_items
    for number in np.random.default_rng(seed).permutation(len(units)).tolist():
        items = split.items_of_samples(units[number])
        size = len(distinct(split, items)) if dataset.is_ranking else len(items)
        if size <= room or not drawn:
            drawn.append(units[number])
            room -= size
        if room <= 0:
            break
    return drawn


def distinct(split: PreparedSplit, items: Ints) -> Ints:
    """Where in `items` each (query, document) comes first: in groups, a query's documents recur."""
    first = dict[tuple[str, str], int]()
    for place, sequence in enumerate(split.sequence_of_item[items].tolist()):
        first.setdefault(split.ids[sequence], place)
    return np.array(list(first.values()), dtype=np.int64)


def read_vectors(
    body: MTLBody,
    pooler: Pooler,
    split: PreparedSplit,
    samples: Ints,
    layers: list[int],
    batch_size: int,
    max_bytes: float,
    what: str,
) -> Vectors:
    """Run the body once over some samples and pool each of `layers` by itself; items come in the order of the samples.

    `pooler` must have no weights of its own. Raises `ConfigError` if the vectors take more than `max_bytes` as float16.
    """
    assert not body.training, "dropout would make the vectors random"
    items, counts = split.items_of_samples(samples), split.num_items(samples)
    shape = (len(items), len(layers), pooler.out_dim)
    values = torch.empty(shape, dtype=_dtype(shape, max_bytes, what))
    size = f"{shape[0]:,} items, {shape[1]} layers, {values.nbytes / 1e6:,.0f} MB of {str(values.dtype)[6:]}"
    say(f"reading {what}: {size}")
    limit = torch.finfo(values.dtype).max
    starts = offsets(counts)[:-1]
    longest_first = np.argsort(-split.lengths()[samples], kind="stable")
    progress = Progress(f"reading {what}", "samples", len(samples))
    for chosen in np.array_split(longest_first, -(-len(samples) // batch_size)):
        pooled = _pooled(body, pooler, split, samples[chosen], layers)
        rows = torch.from_numpy(ranges(starts[chosen], counts[chosen]))
        values[rows] = pooled.clamp(-limit, limit).to(values)  # larger values would become infinite in float16
        progress.advance(len(chosen))
    return Vectors(values, items)


def standardise(learnt: Vectors, *others: Vectors) -> None:
    """Give each dimension of each layer a mean of 0 and a deviation of 1 on `learnt`; `others` are scaled alike.

    In place. It loses nothing, and one learning rate suits layers whose vectors are of different size. A dimension that is
    constant but for rounding, as those of the first token's embedding, becomes 0.
    """
    for layer in range(learnt.values.shape[1]):
        block = learnt.values[:, layer].float()
        mean, deviation = block.mean(0), block.std(0)
        scale = torch.where(deviation > 1e-5 * mean.abs() + 1e-12, 1 / deviation, 0.0)
        for vectors in (learnt, *others):
            vectors.values[:, layer] = ((vectors.values[:, layer].float() - mean) * scale).to(vectors.values)


def frozen_pooler(pooler: Pooler, body: MTLBody, wanted: str | None = None) -> Pooler:
    """The pooler to probe with: a head's own, or for heads on whole sequences the one that is `wanted`.

    Vectors are computed once, so no pooler can learn: one with weights is replaced by the average.
    """
    if wanted == "cls_token" and body.is_causal:
        raise ConfigError(
            f"probe.pooler is cls_token, but {body.backbone} is a decoder, in which the first token reads no other: "
            "expected average or last_token."
        )
    kinds: dict[str, type[Pooler]] = {"average": Average, "cls_token": CLSToken, "last_token": LastToken}
    has_weights = any(True for _ in pooler.parameters())
    if pooler.num_spans or not (wanted or has_weights):
        return pooler
    if has_weights and not wanted:
        warn(f"{type(pooler).__name__} learns how it pools: its layers are probed by their average")
    return kinds[wanted or "average"](body.out_dim, body.num_layers)


@torch.inference_mode()
def _pooled(body: MTLBody, pooler: Pooler, split: PreparedSplit, samples: Ints, layers: list[int]) -> Tensor:
    """(items, layers, dim) of a batch; of a document that is read in passages, the first one."""
    batch = to_device(split.collate(samples), next(body.parameters()).device)
    part = Part(layers, len(batch.cu_seqlens) - 1, len(batch.input_ids), pooler.only)
    packed = batch.input_ids, batch.token_type_ids, batch.cu_seqlens
    (states,) = body.encode(*packed, [part], batch.max_seqlen, batch.second_starts)
    pooled = torch.stack([pooler([state], batch) for state in states], dim=1)
    if batch.passage_item is None:
        return pooled
    return pooled[torch.searchsorted(batch.passage_item, torch.arange(len(batch.labels), device=pooled.device))]


def _queries(split: PreparedSplit) -> list[Ints]:
    """The samples of each query, in the order of the split."""
    by_query: dict[str, list[int]] = {}
    for sample, pairs in enumerate(split.pairs()):
        by_query.setdefault(pairs[0][0], []).append(sample)
    return [np.array(samples) for samples in by_query.values()]


def _dtype(shape: tuple[int, int, int], max_bytes: float, what: str) -> torch.dtype:
    """The most precise type that fits into memory."""
    size = shape[0] * shape[1] * shape[2]
    for dtype in (torch.float32, torch.float16):
        if size * dtype.itemsize <= max_bytes:
            return dtype
    fitting = int(max_bytes // (2 * shape[1] * shape[2]))
    raise ConfigError(
        f"The vectors of {what} take {size * 2 / 1e9:.3g} GB ({shape[0]:,} items, {shape[1]} layers, {shape[2]} numbers), "
        f"more than probe.max_memory_gb={max_bytes / 1e9:g}. Raise it, or take at most {fitting:,} items "
        "(probe.max_train, probe.max_test) or fewer probe.layers."
    )
