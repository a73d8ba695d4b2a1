from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.datamodule.sampler import (
    Annealed,
    LimitedData,
    LongestFirst,
    Probabilities,
    RandomProportional,
    RoundRobin,
    Sequential,
    Temperature,
    Uniform,
)
from mtlrank.errors import ConfigError


def few(sizes, batch_size, **settings):
    """Two samples of the first dataset that has any; sample i of each dataset is about the pair (qi, d)."""
    main = next(name for name, size in sizes.items() if size)
    pairs = [[[(f"q{i}", "d")] for i in range(size)] for size in sizes.values()]
    settings = {"main": main, "num_samples": min(2, sizes[main]), "share": 0, **settings}
    return LimitedData(sizes, batch_size, pairs=lambda: pairs, **settings)


SAMPLERS = [
    Sequential,
    LongestFirst,
    RandomProportional,
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
    few,
]
REPEATING = SAMPLERS[3:10]  # epochs hold other samples, of other lengths
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any)
sampler_class = st.sampled_from(SAMPLERS)


ways = st.sampled_from(
    [{}, {"length_window": 3}, {"max_tokens": 60}, {"max_tokens": 90, "length_window": 2}, {"one_task": True}]
)


def pairs(sampler):
    return [pair for draw in sampler for pair in draw.pairs]


def named(counts):
    return {f"d{i}": count for i, count in enumerate(counts)}


def make(cls, counts, batch_size=4, **settings):
    """A sampler over samples of 1 to 20 tokens."""
    lengths = [np.random.default_rng([5, i]).integers(1, 21, count) for i, count in enumerate(counts)]
    return cls(named(counts), batch_size, lengths=lambda: lengths, **settings), lengths


@given(sampler_class, sizes, st.integers(1, 16), ways)
def test_every_pair_names_a_sample(cls, counts, batch_size, way):
    for dataset, sample in pairs(make(cls, counts, batch_size, **way)[0]):
        assert 0 <= sample < counts[dataset]


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
        together = Counter(dataset for draw in step if draw.weight for dataset, _ in draw.pairs)
        assert all(draw.totals == [together[i] for i in range(len(counts))] for draw in step)


@given(sampler_class, sizes, st.integers(1, 8), st.integers(1, 4))
def test_every_sample_of_a_step_weighs_alike(cls, counts, batch_size, world_size):
    """The processes' means, weighted and averaged, are the mean over the samples of all."""
    ranks = [make(cls, counts, batch_size, rank=r, world_size=world_size)[0] for r in range(world_size)]
    for step in zip(*ranks, strict=True):
        drawn = sum(len(draw.pairs) for draw in step if draw.weight)
        for draw in step:
            per_sample = draw.weight / len(draw.pairs) / world_size
            assert per_sample == pytest.approx(1 / drawn) or draw.weight == 0


def test_with_a_token_budget_every_sample_of_an_epoch_weighs_alike():
    sampler, _ = make(RandomProportional, [40, 30], max_tokens=80, length_window=2)
    per_sample = {round(draw.weight / len(draw.pairs), 9) for draw in sampler}
    assert len(per_sample) == 1
    assert sum(draw.weight for draw in sampler) == pytest.approx(len(sampler))


def test_a_batch_is_learnt_from_alike_on_any_number_of_processes():
    one, two = (make(RandomProportional, [30], world_size=n)[0] for n in (1, 2))
    assert [draw.seed for draw in one][::2] == [draw.seed for draw in two]
    assert len({draw.seed for draw in one}) == len(one)


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


def test_the_longest_come_first():
    sampler, lengths = make(LongestFirst, [20, 10])
    drawn = pairs(sampler)
    assert [d for d, _ in drawn] == [0] * 20 + [1] * 10
    assert [int(lengths[0][s]) for d, s in drawn if d == 0] == sorted(lengths[0].tolist(), reverse=True)


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
    ("cls", "expected"),
    [
        (Uniform, [20, 20, 20]),
        (partial(Temperature, temperature=1.0), [6, 18, 36]),
        (partial(Temperature, temperature=2.0), [12, 20, 28]),  # square roots of 1, 3, 6: 1, 1.73, 2.45 of 5.18
        (partial(Temperature, temperature=1.0, cap=18), [9, 25, 26]),  # 6, 18, 18 of 42: 8.57, 25.7, 25.7
        (partial(Probabilities, probabilities={"d0": 3, "d1": 1, "d2": 0}), [45, 15, 0]),
        (partial(Annealed, epochs=1, start=0.0, end=0.0), [20, 20, 20]),
        (partial(Annealed, epochs=1, start=1.0, end=1.0, epoch_samples=600), [60, 180, 360]),
    ],
)
def test_shares_of_mixtures_by_hand(cls, expected):
    drawn = Counter(dataset for dataset, _ in pairs(make(cls, [6, 18, 36])[0]))
    assert [drawn[idx] for idx in range(3)] == pytest.approx(expected, abs=1)
    assert sum(drawn.values()) == sum(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "a"}, "start is 'a', expected a number"),
        ({"end": float("nan")}, "end is nan, expected a number"),
        ({"epochs": 0}, "epochs is 0, expected a whole number, at least 1"),
        ({"course": "table", "table": [[0]]}, "expected ascending"),
        ({"course": "table", "table": [0, 1]}, "expected ascending"),
        ({"course": "table", "table": [[0, "x"]]}, "expected ascending"),
        ({"course": "table", "table": [[0.5, 1.0]]}, "expected ascending"),
    ],
)
def test_courses_that_cannot_be_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        Annealed({"a": 5}, 2, **{"epochs": 2, **settings})


def test_a_mixture_repeats_nothing_before_all_is_drawn():
    drawn = Counter(pairs(make(Uniform, [5, 55])[0]))
    assert {count for (dataset, _), count in drawn.items() if dataset == 0} == {6}
    assert {count for (dataset, _), count in drawn.items() if dataset == 1} == {1}


@pytest.mark.parametrize(
    ("course", "expected"),
    [("linear", [1.0, 0.8, 0.6, 0.2]), ("cosine", [1.0, 0.6 + 0.4 * 2**-0.5, 0.6, 0.2])],
)
def test_annealing_by_hand(course, expected):
    sampler = Annealed(named([10, 90]), 5, epochs=4, course=course)
    assert [sampler.alpha(progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx(expected)


def test_annealing_by_a_table_and_in_the_course_of_epochs():
    sampler = Annealed(named([10, 90]), 5, epochs=2, course="table", table=[[0, 1.0], [0.5, 0.0]])
    first = Counter(dataset for dataset, _ in pairs(sampler))
    sampler.set_position(1)
    second = Counter(dataset for dataset, _ in pairs(sampler))
    assert (first, second) == ({0: 10, 1: 90}, {0: 50, 1: 50})
    within = Annealed(named([10, 90]), 5, epochs=1)
    drawn = [dataset for dataset, _ in pairs(within)]
    assert drawn[:50].count(0) < drawn[50:].count(0)


def test_limited_data_holds_the_chosen_pairs_and_what_is_about_them():
    ids = [
        [[("q1", "d1"), ("q1", "d2")], [("q2", "d3"), ("q2", "d4")], [("q3", "d5"), ("q3", "d6")]],
        [[("q1", "d1")], [("q9", "d1")], [("q2", "d4")], [("q3", "d6")], [("q3", "d5")]],
        [[("-", "d1")], [("-", "d7")], [("-", "d3")], [("-", "d6")]],
    ]
    sampler = LimitedData(named([3, 5, 4]), 2, main="d0", num_samples=2, share=1.0, pairs=lambda: ids)
    drawn = set(pairs(sampler))
    mine = [sample for dataset, sample in drawn if dataset == 0]
    known = {pair for sample in mine for pair in ids[0][sample]}
    assert len(mine) == 2
    for dataset, sample in drawn:
        (query, doc), *_ = ids[dataset][sample]
        assert any(doc == d and query in (q, "-") for q, d in known)
    sampler.set_position(1)
    assert set(pairs(sampler)) == drawn
    assert pairs(sampler) != sorted(drawn)
    fewer = LimitedData(named([3, 5, 4]), 2, main="d0", num_samples=2, share=0.5, pairs=lambda: ids)
    assert [len(samples) for samples in fewer.chosen] == [2, 1, 1]


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (partial(Probabilities, probabilities={"d0": 1}), "probabilities has no d1"),
        (partial(Probabilities, probabilities={"d0": 1, "d1": 1, "x": 1}), "unknown datasets: x"),
        (partial(Probabilities, probabilities={"d0": 0, "d1": 0}), "one above 0"),
        (partial(Temperature, temperature=0), "temperature is 0"),
        (partial(Temperature, cap=0), "cap is 0"),
        (partial(Annealed, epochs=1, course="sine"), "course is 'sine'"),
        (partial(Annealed, epochs=1, course="table"), "belong together"),
        (partial(Annealed, epochs=1, course="table", table=[[0.5, 1]]), "from progress 0 on"),
        (partial(Uniform, epoch_samples=0), "epoch_samples is 0"),
        (partial(RoundRobin, stop="never"), "stop is 'never'"),
        (partial(few, num_samples=4), "from 1 to the 3 of 'd0'"),
        (partial(few, main="x"), "main names unknown datasets: x"),
        (partial(Uniform, one_task=True, length_window=2), "cuts batches by batch_size alone"),
        (partial(Annealed, epochs=2, max_tokens=100), "with the sampler annealed they change"),
    ],
)
def test_settings_that_cannot_be_are_refused(make_one, message):
    with pytest.raises(ConfigError, match=message):
        make_one(named([3, 5]), 2)


def test_limited_data_says_what_is_not_about_its_pairs():
    ids = [[[("q1", "d1")]], [[("-", "d2")]]]
    with pytest.raises(ConfigError, match="No sample of d1 is about the 1 chosen of 'd0'"):
        list(LimitedData(named([1, 1]), 2, main="d0", num_samples=1, pairs=lambda: ids))


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


@pytest.mark.parametrize("cls", [partial(Temperature, temperature=1.0), partial(Annealed, epochs=40, end=1.0)])
def test_a_small_dataset_gets_its_share_in_the_course_of_epochs(cls):
    """By batches of one task: of 50 batches an epoch, 0.28 are the small one's."""
    sampler = cls(named([9000, 50]), 32, epoch_samples=1600, one_task=True)
    drawn = 0
    for epoch in range(40):
        sampler.set_position(epoch)
        counts = sampler.counts()
        assert sum(counts) == 1600
        assert min(counts) >= 0
        drawn += counts[1]
        assert abs(drawn - (epoch + 1) * 1600 * 50 / 9050) <= 32
    assert drawn > 0
