"""What holds for every sampler."""

from collections import Counter
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtlrank.datamodule.sampler import (
    Annealed,
    LongestFirst,
    MTLSampler,
    Probabilities,
    RandomProportional,
    RoundRobin,
    Sequential,
    Temperature,
    Uniform,
)
from mtlrank.errors import ConfigError
from tests.datamodule.sampler.samplers import few, make, named, pairs

WHOLE = [Sequential, LongestFirst, RandomProportional]  # epochs hold every sample once
REPEATING = [  # epochs hold other samples, of other lengths
    RoundRobin,
    partial(RoundRobin, stop="shortest"),
    partial(RoundRobin, stop="longest"),
    Uniform,
    partial(Temperature, temperature=5.0, cap=10),
    lambda sizes, batch_size, **settings: Probabilities(
        sizes, batch_size, {name: float(size > 0) for name, size in sizes.items()}, **settings
    ),
    lambda sizes, batch_size, max_tokens=None, **settings: Annealed(
        sizes, batch_size, epochs=2, epoch_samples=33, **settings
    ),
]
SAMPLERS = [*WHOLE, *REPEATING, few]


def limited(sizes, batch_size, **settings):
    """A third of each dataset in an epoch."""
    return RandomProportional(sizes, batch_size, {name: -(-size // 3) for name, size in sizes.items()}, **settings)


sizes = st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any)
sampler_class = st.sampled_from(SAMPLERS)
ways = st.sampled_from(
    [{}, {"length_window": 3}, {"max_tokens": 60}, {"max_tokens": 90, "length_window": 2}, {"one_task": True}]
)


@given(sampler_class, sizes, st.integers(1, 16), ways)
def test_every_pair_names_a_sample(cls, counts, batch_size, way):
    for dataset, sample in pairs(make(cls, counts, batch_size, **way)[0]):
        assert 0 <= sample < counts[dataset]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([(0, 0), (0, 1), (1, 0)], None),
        (np.arange(3), r"orders an array \(3,\) of int64, expected whole numbers \(samples, 2\)"),
        (np.zeros((3, 2)), "of float64, expected whole numbers"),
        (((0, i) for i in range(3)), r"orders an array \(\) of object"),
        ([(0, 0), (0, 1), (1, 1)], r"1 samples that do not exist, the first one is .* = \(1, 1\). Sizes .*: \[2, 1\]"),
        ([(0, -1), (2, 0), (1, 0)], r"2 samples that do not exist, the first one is .* = \(0, -1\)"),
    ],
)
@pytest.mark.parametrize("way", [{}, {"max_tokens": 60}])
def test_an_order_is_of_samples_that_there_are(order, told, way):
    class Given(MTLSampler):
        def order(self, random):
            return order

    lengths = [np.array([5, 7]), np.array([3])]
    sampler = Given(named([2, 1]), 2, lengths=lambda: lengths, **way)
    with pytest.raises(ConfigError, match=f"The sampler Given .*{told}") if told else nullcontext():
        list(sampler)


@pytest.mark.parametrize("counts", [{"d0": 2, "d1": 1}, [2], 3, [2.0, 1.0], None])
@pytest.mark.parametrize("way", [{}, {"one_task": True}])
def test_counts_are_a_list_in_config_order(counts, way):
    class Given(Sequential):
        def counts(self):
            return counts

    with pytest.raises(
        ConfigError, match=r"The sampler Given counts .*, expected a list with a whole .* each of the datasets d0, d1\."
    ):
        len(Given(named([2, 1]), 2, **way))


@given(st.sampled_from([*WHOLE, *REPEATING, limited]), sizes, st.integers(1, 16), st.integers(1, 5))
def test_no_sample_comes_again_before_all_of_its_dataset_did(cls, counts, batch_size, epochs):
    sampler, _ = make(cls, counts, batch_size)
    drawn = Counter()
    for epoch in range(epochs):
        sampler.set_position(epoch)
        drawn.update(pairs(sampler))
    for dataset, size in enumerate(counts):
        times = [drawn[dataset, sample] for sample in range(size)]
        assert not times or max(times) - min(times) <= 1


@given(sampler_class, sizes, st.integers(1, 16), ways)
def test_len_counts_the_steps_and_none_is_empty_or_too_large(cls, counts, batch_size, way):
    sampler, lengths = make(cls, counts, batch_size, **way)
    for epoch in (0, 1):
        sampler.set_position(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler)
        assert all(draw.pairs for draw in draws)
        if sampler.max_tokens is None:
            assert all(len(draw.pairs) <= batch_size for draw in draws)
        elif cls not in REPEATING:
            assert all(sum(lengths[d][s] for d, s in draw.pairs) <= way["max_tokens"] for draw in draws)


@pytest.mark.parametrize("seed", range(20))
def test_no_batch_is_empty_where_other_epochs_draw_shorter_samples(seed):
    """The number of batches is that of the first epoch, in which the five samples may be long ones."""
    lengths = [np.array([10, 100] * 50)]
    limited = partial(RandomProportional, limits={"a": 5}, lengths=lambda: lengths, max_tokens=300, seed=seed)
    sampler = limited({"a": 100}, 8)
    for epoch in range(20):
        sampler.set_position(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler)
        assert all(draw.pairs for draw in draws)


@given(sampler_class, sizes, st.integers(1, 16), st.integers(1, 9), ways)
@example(Uniform, [5, 6, 30], 4, 2, {"max_tokens": 90})
def test_every_epoch_has_equally_many_steps(cls, counts, batch_size, epoch, way):
    """Also where they are counted when a run goes on."""
    first, later = (make(cls, counts, batch_size, **way)[0] for _ in range(2))
    later.set_position(epoch)
    assert len(later) == len(first)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(0, 5), ways)
def test_a_stream_can_be_continued_anywhere(cls, counts, batch_size, epoch, way):
    whole, rest = (make(cls, counts, batch_size, seed=3, **way)[0] for _ in range(2))
    whole.set_position(epoch)
    middle = len(whole) // 2
    rest.set_position(epoch, middle)
    assert list(whole)[middle:] == list(rest)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(2, 4), ways)
def test_processes_share_the_stream_of_one_and_take_equally_many_steps(cls, counts, batch_size, world_size, way):
    ranks = [list(make(cls, counts, batch_size, rank=r, world_size=world_size, **way)[0]) for r in range(world_size)]
    alone = list(make(cls, counts, batch_size, **way)[0])
    assert len({len(rank) for rank in ranks}) == 1
    counted = [draw.pairs for step in zip(*ranks, strict=True) for draw in step if draw.weight]
    assert counted == [draw.pairs for draw in alone]
    for step in zip(*ranks, strict=True):
        together = Counter(f"d{dataset}" for draw in step if draw.weight for dataset, _ in draw.pairs)
        assert all(draw.totals == dict(together) for draw in step)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(1, 4))
def test_every_sample_of_a_step_weighs_alike(cls, counts, batch_size, world_size):
    """The processes' means, weighted and averaged, are the mean over the samples of all."""
    ranks = [make(cls, counts, batch_size, rank=r, world_size=world_size)[0] for r in range(world_size)]
    for step in zip(*ranks, strict=True):
        drawn = sum(len(draw.pairs) for draw in step if draw.weight)
        for draw in step:
            per_sample = draw.weight / len(draw.pairs) / world_size
            assert per_sample == pytest.approx(1 / drawn) or draw.weight == 0


@given(sampler_class, sizes, st.integers(1, 8), st.integers(1, 3), st.integers(1, 4), st.integers(0, 20))
def test_the_batches_of_an_optimizer_step_know_it(cls, counts, batch_size, world_size, accumulated, start):
    """Also where a run continues within a step, as on another number of processes than before."""
    ranks = [make(cls, counts, batch_size, rank=r, world_size=world_size)[0] for r in range(world_size)]
    for sampler in ranks:
        sampler.accumulated = accumulated
        sampler.set_position(0, min(start, sampler.num_batches()))
    drawn = list(zip(*ranks, strict=True))
    steps, number = [], len(ranks[0]) - len(drawn)  # of the next batch in the epoch
    while drawn:
        size = accumulated - number % accumulated
        steps.append(drawn[:size])
        drawn, number = drawn[size:], number + size
    for step in steps:
        counted = [draw for batches in step for draw in batches if draw.weight]
        totals = Counter(f"d{dataset}" for draw in counted for dataset, _ in draw.pairs)
        for place, batches in enumerate(step):
            for draw in batches:
                assert (draw.step.place, draw.step.batches) == (place, len(step))
                assert draw.step.totals == dict(totals)
        weights = [draw.weight / len(draw.pairs) / world_size / len(step) for draw in counted]
        assert weights == pytest.approx([1 / sum(totals.values())] * len(counted))


def test_a_limited_epoch_ends_its_last_step():
    sampler, _ = make(RandomProportional, [40, 30], 10)
    sampler.accumulated, sampler.most_batches = 3, 5
    assert [(draw.step.place, draw.step.batches) for draw in sampler][:5] == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2)]


def test_with_a_token_budget_every_sample_of_an_epoch_weighs_alike():
    """Also in an epoch's last step, which may have fewer batches than the others."""
    sampler, _ = make(RandomProportional, [40, 30], max_tokens=80, length_window=2)
    for sampler.accumulated in (1, 3):
        assert len(list(sampler)) % 3
        per_sample = [draw.weight / draw.step.batches / len(draw.pairs) for draw in sampler]
        assert per_sample == pytest.approx([len(sampler) / sampler.accumulated / 70] * len(sampler))


def test_with_a_token_budget_a_sample_weighs_as_much_on_any_number_of_processes():
    """Of a step's mean over processes and accumulated batches."""
    weighs = []
    for world_size, accumulated in ((1, 2), (2, 1)):
        sampler, _ = make(RandomProportional, [40, 33], max_tokens=80, world_size=world_size)
        sampler.accumulated = accumulated
        assert sampler.num_batches() % 2
        weighs += [draw.weight / draw.step.batches / world_size / len(draw.pairs) for draw in sampler if draw.weight]
    assert weighs == pytest.approx([weighs[0]] * len(weighs))


def test_a_batch_is_learnt_from_alike_on_any_number_of_processes():
    one, two = (make(RandomProportional, [30], world_size=n)[0] for n in (1, 2))
    assert [draw.seed for draw in one][::2] == [draw.seed for draw in two]
    assert len({draw.seed for draw in one}) == len(one)


def test_epochs_and_runs_drop_out_other_units():
    seeds = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        sampler, _ = make(RandomProportional, [30], seed=seed)
        sampler.set_position(epoch)
        seeds += [draw.seed for draw in sampler]
    assert len(set(seeds)) == len(seeds)


def test_a_window_holds_the_same_samples_sorted_into_batches_of_like_length():
    plain, sorted_ = (make(RandomProportional, [64], length_window=window)[0] for window in (0, 4))
    lengths = make(RandomProportional, [64])[1][0]
    spreads = []
    for sampler in (plain, sorted_):
        batches = [[s for _, s in draw.pairs] for draw in sampler]
        spreads.append(sum(int(np.ptp(lengths[batch])) for batch in batches))
    windows = [[pairs(s)[i : i + 16] for i in range(0, 64, 16)] for s in (plain, sorted_)]
    assert [set(window) for window in windows[0]] == [set(window) for window in windows[1]]
    assert spreads[1] < spreads[0] / 2
    means = [np.mean([lengths[s] for _, s in draw.pairs]) for draw in sorted_]
    assert any(means[i] > min(means[i : i + 4]) for i in range(0, 16, 4))  # the shortest do not always come first


def test_a_budget_that_is_too_small_for_the_longest_sample_is_refused():
    with pytest.raises(
        ConfigError, match="max_tokens is 50, but the longest sample has 20 tokens: expected at least 60"
    ):
        len(make(RandomProportional, [100], max_tokens=50)[0])


@pytest.mark.parametrize("cls", [RandomProportional, RoundRobin])
def test_epochs_differ_and_seeds_repeat(cls):
    counts = named([50, 20])
    first, again, other = (cls(counts, 8, seed=seed) for seed in (1, 1, 2))
    assert pairs(first) == pairs(again) != pairs(other)
    again.set_position(1)
    assert pairs(first) != pairs(again)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(0, 3))
def test_batches_can_be_of_one_task(cls, counts, batch_size, epoch):
    mixed, sampler = (make(cls, counts, batch_size, one_task=flag)[0] for flag in (False, True))
    for each in (mixed, sampler):
        each.set_position(epoch)
    assert all(len({dataset for dataset, _ in draw.pairs}) == 1 for draw in sampler)
    if cls not in REPEATING[3:]:  # mixtures round to whole batches
        assert Counter(pairs(mixed)) == Counter(pairs(sampler))


def test_batches_of_one_task_keep_the_proportions_throughout():
    sampler, _ = make(RandomProportional, [400, 200], 20, one_task=True)
    tasks = [draw.pairs[0][0] for draw in sampler]
    assert [tasks[:15].count(0), tasks[15:].count(0)] == pytest.approx([10, 10], abs=1)


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (partial(Probabilities, probabilities={"d0": 1}), "probabilities has no d1"),
        (partial(Probabilities, probabilities={"d0": 1, "d1": 1, "x": 1}), "unknown datasets: x"),
        (partial(Probabilities, probabilities={"d0": 0, "d1": 0}), "not all 0"),
        (partial(Probabilities, probabilities={"d0": 1, "d1": -1}), "probabilities.d1 is -1, expected a finite number"),
        (partial(Temperature, temperature=0), "temperature is 0"),
        (partial(Temperature, cap=0), "cap is 0"),
        (partial(Annealed, epochs=1, course="sine"), "course is 'sine'"),
        (partial(Annealed, epochs=1, course="table"), "belong together"),
        (partial(Annealed, epochs=1, course="table", table=[[0.5, 1]]), "that start at progress 0"),
        (partial(Uniform, epoch_samples=0), "epoch_samples is 0"),
        (partial(RoundRobin, stop="never"), "stop is 'never'"),
        (partial(few, num_samples=4), "from 1 to the 3 of 'd0'"),
        (partial(few, share=0.2), "share is 0.2, which of num_samples=2 rounds to no sample of the other datasets"),
        (partial(few, share=float("inf")), "share is inf, expected a finite number, at least 0"),
        (partial(few, share=float("nan")), "share is nan, expected a finite number"),
        (partial(few, main="x"), "main names unknown datasets: x"),
        (partial(Uniform, one_task=True, length_window=2), "works only with training.batch_size"),
        (partial(Annealed, epochs=2, max_tokens=100), "but the sampler annealed changes it"),
    ],
)
def test_settings_that_cannot_be_are_refused(make_one, message):
    with pytest.raises(ConfigError, match=message):
        make_one(named([3, 5]), 2)


@pytest.mark.parametrize("limits", [{"d0": -1}, {"d0": 0.5}, {"d0": None}, {"d0": "all"}, 3, [3]])
def test_limits_are_whole_numbers(limits):
    with pytest.raises(ConfigError, match="expected whole numbers of at least 0"):
        RandomProportional(named([3]), 1, limits=limits)


def test_an_unknown_dataset_in_limits_is_named():
    with pytest.raises(ConfigError, match="unknown datasets: d7. Datasets: d0"):
        RandomProportional(named([3]), 1, limits={"d7": 1})


def test_a_batch_holds_something():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        Sequential(named([3]), 0)
