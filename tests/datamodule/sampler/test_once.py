from collections import Counter

import pytest

from mtlrank.datamodule.sampler import LongestFirst, RandomProportional, RoundRobin, Sequential
from tests.datamodule.sampler.samplers import make, named, pairs


def test_the_longest_come_first():
    sampler, lengths = make(LongestFirst, [20, 10])
    drawn = pairs(sampler)
    assert [d for d, _ in drawn] == [0] * 20 + [1] * 10
    assert [int(lengths[0][s]) for d, s in drawn if d == 0] == sorted(lengths[0].tolist(), reverse=True)


@pytest.mark.parametrize("cls", [Sequential, LongestFirst, RandomProportional])
@pytest.mark.parametrize("way", [{}, {"length_window": 2}, {"max_tokens": 60, "length_window": 2}])
def test_every_sample_once(cls, way):
    counts = Counter(pairs(make(cls, [7, 0, 12], **way)[0]))
    assert counts == Counter([(0, i) for i in range(7)] + [(2, i) for i in range(12)])


def test_sequential_is_in_order():
    batches = [draw.pairs for draw in Sequential(named([2, 3]), 2)]
    assert batches == [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(1, 2)]]


def test_limits_cap_a_dataset_and_draw_others_each_epoch():
    sampler = RandomProportional(named([10, 100]), 5, limits={"d1": 20})
    first = pairs(sampler)
    sampler.set_position(1)
    second = pairs(sampler)
    assert Counter(dataset for dataset, _ in first) == {0: 10, 1: 20}
    assert {s for d, s in first if d == 1} != {s for d, s in second if d == 1}


def test_round_robin_stops_where_it_is_told():
    tasks = {
        stop: [dataset for dataset, _ in pairs(RoundRobin(named([2, 4]), 4, stop=stop))]
        for stop in ("shortest", "longest", "cycle")
    }
    assert tasks == {"shortest": [0, 1] * 2, "longest": [0, 1, 0, 1, 1, 1], "cycle": [0, 1] * 4}


def test_round_robin_takes_turns_and_repeats_the_short_one():
    drawn = pairs(RoundRobin(named([2, 0, 5]), 4))
    assert [dataset for dataset, _ in drawn] == [0, 2] * 5
    assert Counter(sample for dataset, sample in drawn if dataset == 2) == dict.fromkeys(range(5), 1)
    assert sorted(Counter(sample for dataset, sample in drawn if dataset == 0).values()) == [2, 3]
