"""Samplers over datasets of any size."""

import numpy as np

from mtlrank.datamodule.sampler import LimitedData


def few(sizes, batch_size, **settings):
    """Two samples of the first dataset that has any; sample i of each dataset is about what sample i of the others is."""
    main = next(name for name, size in sizes.items() if size)

    def about(name, samples):
        return [samples[samples < size] for size in sizes.values()]

    settings = {"main": main, "num_samples": min(2, sizes[main]), "share": 0, **settings}
    return LimitedData(sizes, batch_size, about=about, **settings)


def pairs(sampler):
    return [pair for draw in sampler for pair in draw.pairs]


def named(counts):
    return {f"d{i}": count for i, count in enumerate(counts)}


def make(cls, counts, batch_size=4, **settings):
    """A sampler over samples of 1 to 20 tokens."""
    lengths = [np.random.default_rng([5, i]).integers(1, 21, count) for i, count in enumerate(counts)]
    return cls(named(counts), batch_size, lengths=lambda: lengths, **settings), lengths
