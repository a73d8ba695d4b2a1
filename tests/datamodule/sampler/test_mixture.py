from collections import Counter
from functools import partial

import pytest

from mtlrank.datamodule.sampler import Annealed, Probabilities, Temperature, Uniform
from mtlrank.errors import ConfigError
from tests.datamodule.sampler.samplers import make, named, pairs


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
        ({"epochs": 0}, "epochs is 0, expected null or a whole number, at least 1"),
        ({"course": "table", "table": [[0]]}, "expected ascending"),
        ({"course": "table", "table": [0, 1]}, "expected ascending"),
        ({"course": "table", "table": [[0, "x"]]}, "expected ascending"),
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


def test_a_table_of_epochs_is_the_course_of_the_paper():
    """As docs/methods.md says: alpha = 1 - .8 (e - 1) / (E - 1) of 10,000 and 100 samples in epochs 1, 2 and 3 of 3."""
    table = [[0, 1.0], [0.34, 0.6], [0.67, 0.2]]
    sizes = named([10_000, 100])
    sampler = Annealed(sizes, 100, epochs=3, course="table", table=table, epoch_samples=10_000)
    for epoch, alpha in enumerate((1.0, 0.6, 0.2)):
        sampler.set_position(epoch)
        small = sum(dataset for dataset, _ in pairs(sampler))
        assert small == pytest.approx(10_000 * 100**alpha / (100**alpha + 10_000**alpha), abs=5)


@pytest.mark.parametrize("cls", [partial(Temperature, temperature=1.0), partial(Annealed, epochs=40, end=1.0)])
def test_a_small_dataset_gets_its_share_in_the_course_of_epochs(cls):
    """By batches of one task: of the 50 batches of an epoch, 0.28 are the small one's."""
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
