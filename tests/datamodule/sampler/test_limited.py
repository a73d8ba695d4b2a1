import pytest

from mtlrank.datamodule.sampler import LimitedData
from mtlrank.errors import ConfigError
from tests.datamodule.sampler.samplers import named, pairs


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


def test_limited_data_says_what_is_not_about_its_pairs():
    ids = [[[("q1", "d1")]], [[("-", "d2")]]]
    with pytest.raises(ConfigError, match="No sample of d1 is about a pair of the 1 samples chosen of 'd0'"):
        list(LimitedData(named([1, 1]), 2, main="d0", num_samples=1, pairs=lambda: ids))
