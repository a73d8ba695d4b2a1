"""Samplers yield (dataset_idx, sample_idx), a batch at a time."""

from mtlrank.datamodule.sampler.limited import LimitedData
from mtlrank.datamodule.sampler.mixture import Annealed, Probabilities, Temperature, Uniform
from mtlrank.datamodule.sampler.once import (
    LongestFirst,
    RandomProportional,
    RoundRobin,
    Sequential,
    check_once,
    sampler_name,
)
from mtlrank.datamodule.sampler.sampler import MTLSampler

__all__ = [
    "Annealed",
    "LimitedData",
    "LongestFirst",
    "MTLSampler",
    "Probabilities",
    "RandomProportional",
    "RoundRobin",
    "Sequential",
    "Temperature",
    "Uniform",
    "check_once",
    "sampler_name",
]
