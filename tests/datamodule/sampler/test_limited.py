import numpy as np
import pytest

from mtlrank.datamodule.sampler import LimitedData
from mtlrank.errors import ConfigError
from tests.datamodule.sampler.samplers import named, pairs


def test_limited_data_holds_the_chosen_samples_and_what_is_about_them():
    related = [{0: [0], 1: [1], 2: [2]}, {0: [0, 3], 1: [1], 2: [4, 5]}, {0: [2], 1: [0, 1], 2: [3]}]

    def about(name, samples):
        assert name == "d0"
        return [np.array(sorted(i for sample in samples for i in found[sample])) for found in related]

    sampler = LimitedData(named([3, 6, 4]), 2, main="d0", num_samples=2, share=1.0, about=about)
    drawn = set(pairs(sampler))
    mine = [sample for dataset, sample in drawn if dataset == 0]
    assert len(mine) == 2
    for dataset, sample in drawn:
        assert any(sample in related[dataset][one] for one in mine)
    assert [len(samples) for samples in sampler.chosen] == [2, 2, 2]
    sampler.set_position(1)
    assert set(pairs(sampler)) == drawn
    assert pairs(sampler) != sorted(drawn)
    fewer = LimitedData(named([3, 6, 4]), 2, main="d0", num_samples=2, share=0.5, about=about)
    assert [len(samples) for samples in fewer.chosen] == [2, 1, 1]


def test_fewer_samples_than_wanted_are_remarked():
    related = {"main": "d0", "num_samples": 4, "about": lambda *_: [np.arange(4), np.arange(3), np.arange(9)]}
    sampler = LimitedData(named([4, 6, 9]), 2, **related)
    assert [len(samples) for samples in sampler.chosen] == [4, 3, 4]
    assert sampler.remarks() == ["about the 4 samples of d0, 4 were wanted, and there are: d1 3"]
    assert LimitedData(named([4, 6, 9]), 2, share=0.5, **related).remarks() == []


def test_what_is_chosen_is_drawn_by_its_seed():
    def chosen(draw_seed):
        settings = {"main": "d0", "num_samples": 10, "share": 0.5, "draw_seed": draw_seed}
        sampler = LimitedData(named([50, 50]), 2, about=lambda _, samples: [samples, np.arange(50)], **settings)
        return [samples.tolist() for samples in sampler.chosen]

    first, second = chosen(0), chosen(1)
    assert chosen(0) == first
    for one, other, size in zip(first, second, (10, 5), strict=True):
        assert len(set(one)) == size
        assert one != other
        assert list(range(size)) not in (one, other)


def test_limited_data_says_what_is_not_about_its_pairs():
    with pytest.raises(ConfigError, match="No sample of d1 is about a pair of the 1 samples chosen of 'd0'"):
        list(LimitedData(named([1, 1]), 2, main="d0", num_samples=1, about=lambda *_: [np.array([0]), np.array([])]))
