import functools

import numpy as np
import pytest
import torch

from mtlrank.building.model import build_body
from mtlrank.errors import ConfigError
from mtlrank.model.head.pooler import AttentionAverage, Average, CLSToken, SpanAverage
from mtlrank.probing.vectors import Vectors, distinct, draw_units, frozen_pooler, read_vectors, standardise

LAYERS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def body(config):
    return build_body(config).eval()


def read(body, pooler, dataset, samples, layers, **more):
    settings = {"batch_size": 7, "max_bytes": 1e9, "what": "x", **more}
    return read_vectors(body, pooler, dataset.split("train"), np.array(samples), layers, **settings)


@pytest.mark.parametrize(
    ("key", "pooler"),
    [("msm_bm25", Average), ("trec2019", CLSToken), ("msm_coref", functools.partial(SpanAverage, num_spans=2))],
)
def test_all_layers_at_once_are_what_each_is_by_itself(body, datasets, key, pooler):
    samples = [9, 3, 40, 12, 0, 5, 77, 2, 31]
    together = read(body, pooler(body.out_dim, 3), datasets[key], samples, LAYERS)
    split = datasets[key].split("train")
    assert together.items.tolist() == split.items_of_samples(np.array(samples)).tolist()
    for layer in LAYERS:
        head = pooler(body.out_dim, 3, layers=[layer])
        alone = read(body, head, datasets[key], samples, [layer], batch_size=1)
        torch.testing.assert_close(alone.values[:, 0], together.values[:, layer], atol=1e-5, rtol=1e-4)


def test_a_limit_on_memory_halves_the_precision_and_then_stops(body, datasets):
    pooler, samples = Average(body.out_dim, 3), list(range(10))
    full = 10 * 4 * body.out_dim * 4
    exact = read(body, pooler, datasets["msm_bm25"], samples, LAYERS, max_bytes=full).values
    half = read(body, pooler, datasets["msm_bm25"], samples, LAYERS, max_bytes=full / 2).values
    assert (exact.dtype, half.dtype) == (torch.float32, torch.float16)
    torch.testing.assert_close(half.float(), exact, atol=1e-2, rtol=1e-2)
    with pytest.raises(ConfigError, match=r"more than probe.max_memory_gb.* at most 4 items"):
        read(body, pooler, datasets["msm_bm25"], samples, LAYERS, max_bytes=full / 2 * 0.45)


def test_rankings_are_drawn_by_whole_queries(datasets):
    split = datasets["trec2019"].split("test")
    units = draw_units(datasets["trec2019"], "test", 100, seed=0)
    assert [len(unit) for unit in units] == [20] * 5
    for unit in units:
        assert len({split.pairs()[sample][0][0] for sample in unit}) == 1


def test_no_more_items_are_drawn_than_asked_for_and_the_same_each_time(datasets):
    split = datasets["msm_ner"].split("train")
    units = draw_units(datasets["msm_ner"], "train", 50, seed=0)
    samples = np.concatenate(units).tolist()
    assert 40 < len(split.items_of_samples(np.array(samples))) <= 50
    assert len(set(samples)) == len(samples)
    assert samples == np.concatenate(draw_units(datasets["msm_ner"], "train", 50, seed=0)).tolist()
    assert samples != np.concatenate(draw_units(datasets["msm_ner"], "train", 50, seed=1)).tolist()


def test_standardised_by_hand():
    learnt = Vectors(torch.tensor([[[1.0, 5.0]], [[3.0, 5.0]]]), np.arange(2))
    other = Vectors(torch.tensor([[[2.0, 5.0]]]), np.arange(1))
    standardise(learnt, other)
    torch.testing.assert_close(learnt.values[:, 0, 0], torch.tensor([-(0.5**0.5), 0.5**0.5]))
    assert other.values.tolist() == [[[0.0, 0.0]]]


def test_what_is_constant_but_for_rounding_is_no_information():
    learnt = Vectors(torch.tensor([[[5.0]], [[5.000001]], [[4.999999]]]), np.arange(3))
    standardise(learnt)
    assert learnt.values.flatten().tolist() == [0.0, 0.0, 0.0]


def test_a_document_of_several_groups_of_a_query_counts_once(datasets):
    dataset = datasets["trec2019"]
    split = dataset.split("train")
    items = split.items_of_samples(np.concatenate(draw_units(dataset, "train", 200, seed=0)))
    kept = distinct(split, items)
    pairs = [split.ids[sequence] for sequence in split.sequence_of_item[items].tolist()]
    assert [pairs[place] for place in kept.tolist()] == list(dict.fromkeys(pairs))
    assert 150 < len(kept) <= 200 < len(items)


def test_a_pooler_with_weights_is_replaced_and_spans_stay_spans(body):
    own = CLSToken(body.out_dim, 3)
    assert frozen_pooler(own, body) is own
    assert isinstance(frozen_pooler(own, body, "average"), Average)
    assert isinstance(frozen_pooler(AttentionAverage(body.out_dim, 3), body), Average)
    assert isinstance(frozen_pooler(SpanAverage(body.out_dim, 3, num_spans=1), body, "cls_token"), SpanAverage)
