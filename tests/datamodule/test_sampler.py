from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.datamodule.sampler import RandomProportional, RoundRobin, Sequential
from mtlrank.errors import ConfigError

SAMPLERS = [Sequential, RandomProportional, RoundRobin]
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any)
sampler_class = st.sampled_from(SAMPLERS)


def pairs(sampler):
    return [pair for batch in sampler for pair in batch]


def named(counts):
    return {f"d{i}": count for i, count in enumerate(counts)}


@given(sampler_class, sizes, st.integers(1, 16))
def test_every_pair_names_a_sample(cls, counts, batch_size):
    for dataset, sample in pairs(cls(named(counts), batch_size)):
        assert 0 <= sample < counts[dataset]


@given(sampler_class, sizes, st.integers(1, 16))
def test_len_counts_the_batches_and_none_is_empty_or_too_large(cls, counts, batch_size):
    sampler = cls(named(counts), batch_size)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(1 <= len(batch) <= batch_size for batch in batches)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(0, 5))
def test_a_stream_can_be_continued_anywhere(cls, counts, batch_size, epoch):
    whole, rest = cls(named(counts), batch_size, seed=3), cls(named(counts), batch_size, seed=3)
    whole.set_position(epoch)
    middle = len(whole) // 2
    rest.set_position(epoch, middle)
    assert list(whole)[middle:] == list(rest)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(2, 4))
def test_ranks_share_the_stream_of_one_process_and_take_equally_many_steps(cls, counts, batch_size, world_size):
    ranks = [list(cls(named(counts), batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    alone = cls(named(counts), batch_size * world_size)
    for step, together in enumerate(alone):
        assert set(together) <= {pair for batches in ranks for pair in batches[step]} <= set(pairs(alone))


@pytest.mark.parametrize("cls", [RandomProportional, RoundRobin])
def test_epochs_differ_and_seeds_repeat(cls):
    counts = named([50, 20])
    first, again, other = (cls(counts, 8, seed=seed) for seed in (1, 1, 2))
    assert pairs(first) == pairs(again) != pairs(other)
    again.set_position(1)
    assert pairs(first) != pairs(again)


@pytest.mark.parametrize("cls", [Sequential, RandomProportional])
def test_every_sample_once(cls):
    counts = Counter(pairs(cls(named([7, 0, 12]), 4)))
    assert counts == Counter([(0, i) for i in range(7)] + [(2, i) for i in range(12)])


def test_sequential_is_in_order():
    assert list(Sequential(named([2, 3]), 2)) == [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(1, 2)]]


def test_limits_cap_a_dataset_and_draw_others_each_epoch():
    sampler = RandomProportional(named([10, 100]), 5, limits={"d1": 20})
    first = pairs(sampler)
    sampler.set_position(1)
    second = pairs(sampler)
    assert Counter(dataset for dataset, _ in first) == {0: 10, 1: 20}
    assert {s for d, s in first if d == 1} != {s for d, s in second if d == 1}


def test_round_robin_takes_turns_and_repeats_the_short_one():
    drawn = pairs(RoundRobin(named([2, 0, 5]), 4))
    assert [dataset for dataset, _ in drawn] == [0, 2] * 5
    assert Counter(sample for dataset, sample in drawn if dataset == 2) == dict.fromkeys(range(5), 1)
    assert sorted(Counter(sample for dataset, sample in drawn if dataset == 0).values()) == [2, 3]


def test_an_unknown_dataset_in_limits_is_named():
    with pytest.raises(ConfigError, match="unknown datasets: d7. Datasets: d0"):
        RandomProportional(named([3]), 1, limits={"d7": 1})


def test_a_batch_holds_something():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        Sequential(named([3]), 0)
