import pytest
import torch

from mtlrank.errors import ConfigError
from mtlrank.model.head import MLP, Linear, ScaledMean
from mtlrank.model.head.pooler import (
    AttentionAverage,
    Average,
    CLSToken,
    LastToken,
    PairProduct,
    SelfAttentionAverage,
    SpanAverage,
)
from tests.batches import batch

POOLERS = [CLSToken, LastToken, Average, PairProduct, SpanAverage, AttentionAverage, SelfAttentionAverage]
WIDTH = 8


def seen(pooler, states, data):
    """What a pooler is given of all tokens' states."""
    ends = data.cu_seqlens.long()
    rows = {None: slice(None), "first": ends[:-1], "last": ends[1:] - 1}[pooler.only]
    return [state[rows] for state in states]


def with_spans(lengths):
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1].tolist()
    return batch(lengths, spans=[[[start, start + 2]] for start in starts], second=[length - 2 for length in lengths])


@pytest.mark.parametrize("cls", POOLERS)
def test_a_pooled_vector_does_not_depend_on_batch_mates(cls):
    pooler = cls(WIDTH, 4, layers=[1, 3]).eval()
    states = torch.randn(2, 15, WIDTH)
    together, alone = with_spans([5, 7, 3]), with_spans([7])
    together = pooler(seen(pooler, states, together), together)
    alone = pooler(seen(pooler, states[:, 5:12], alone), alone)
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("cls", POOLERS)
def test_sizes_are_what_out_dim_says(cls):
    pooler = cls(WIDTH, 4, layers=[0, 2, 4])
    data = with_spans([5, 3])
    assert pooler(seen(pooler, [torch.randn(8, WIDTH)] * 3, data), data).shape == (2, pooler.out_dim)


@pytest.mark.parametrize("cls", POOLERS)
def test_every_token_layer_and_weight_that_counts_gets_a_gradient(cls):
    pooler = cls(WIDTH, 4, layers=[0, 1])
    states = torch.randn(2, 8, WIDTH, requires_grad=True)
    data = with_spans([5, 3])
    pooler(seen(pooler, states, data), data).square().sum().backward()
    assert bool((states.grad.abs().sum((1, 2)) > 0).all())
    assert all(p.grad is not None for p in pooler.parameters())


def test_values_by_hand():
    tokens = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0]])
    data = batch([2, 1], spans=[[[0, 1]], [[2, 3]]])
    assert CLSToken(2, 1).pool(tokens[None, [0, 2]], data).tolist() == [[1, 0], [5, 4]]
    assert LastToken(2, 1).pool(tokens[None, [1, 2]], data).tolist() == [[3, 2], [5, 4]]
    assert Average(2, 1).pool(tokens[None], data).tolist() == [[2, 1], [5, 4]]
    both = Average(2, 1, layers=[0, 1]).pool(torch.stack([tokens, 3 * tokens]), data)
    assert both.tolist() == [[4, 2], [10, 8]]


def test_spans_of_an_item_lie_side_by_side():
    tokens = torch.tensor([[1.0], [3.0], [5.0], [7.0]])
    data = batch([4], spans=[[[0, 2], [3, 4]], [[1, 4], [0, 1]]], item_sequence=[0, 0], item_sample=[0, 0])
    pooler = SpanAverage(1, 1, num_spans=2)
    assert pooler.pool(tokens[None], data).tolist() == [[2, 7], [5, 1]]
    assert pooler.out_dim == 2


def test_a_product_of_a_pair_is_the_cosine_of_its_averages_but_for_a_factor():
    tokens = torch.tensor([[1.0, 0.0], [3.0, 4.0], [6.0, 2.0], [0.0, 2.0]])
    data = batch([4], second=[2])  # averages (2, 2) and (3, 2)
    pooled = PairProduct(2, 1).pool(tokens[None], data)
    root_mean_square = 6.5**0.5
    assert pooled[0].tolist() == pytest.approx([3 / root_mean_square, 2 / root_mean_square])
    assert pooled.mean().item() == pytest.approx(10 / (8**0.5 * 13**0.5))


def test_a_cosine_head_starts_as_the_cosine():
    tokens = torch.tensor([[1.0, 0.0], [3.0, 4.0], [6.0, 2.0], [0.0, 2.0]])
    head = ScaledMean(2, 1, 1, pooler=PairProduct, scale=20.0).eval()
    expected = 20 * 10 / (8**0.5 * 13**0.5)
    assert head([tokens], batch([4], second=[2])).item() == pytest.approx(expected)


def test_layer_attention_is_a_softmax_over_layers():
    pooler = AttentionAverage(1, 1, layers=[0, 1])
    with torch.no_grad():
        pooler.score.weight.fill_(1.0)
    states = torch.tensor([[[0.0]], [[1.0]]])
    expected = torch.e / (1 + torch.e)
    assert pooler.pool(states, batch([1])).item() == pytest.approx(expected)


@pytest.mark.parametrize("cls", [AttentionAverage, SelfAttentionAverage])
@pytest.mark.parametrize("layers", [[-1], [1.0, 12]])
def test_a_single_layer_is_nothing_to_weigh(cls, layers):
    with pytest.raises(ConfigError, match="layers names only layer 12 of this body. Expected two or more"):
        cls(WIDTH, 12, layers=layers)
    assert cls(WIDTH, 12).layers == [3, 6, 9, 12]
    assert cls(WIDTH, 2).layers == [0, 1, 2]  # a quarter of two layers is nearest to the embeddings


@pytest.mark.parametrize(
    ("layer", "expected"), [(0, 0), (12, 12), (-1, 12), (-12, 1), (0.0, 0), (1.0, 12), (0.5, 6), (0.4, 5), (0.33, 4)]
)
def test_layers_are_counted_from_the_embeddings_or_as_a_share(layer, expected):
    assert CLSToken(WIDTH, 12, layers=[layer]).layers == [expected]


@pytest.mark.parametrize("layer", [13, -13, 1.5, -0.5])
def test_a_layer_that_the_body_has_not_is_refused(layer):
    with pytest.raises(ConfigError, match="deeper than the body, which has 12 layers"):
        CLSToken(WIDTH, 12, layers=[layer])


def test_no_layers_is_refused():
    with pytest.raises(ConfigError, match="at least one layer"):
        CLSToken(WIDTH, 12, layers=[])


@pytest.mark.parametrize("cls", [Linear, MLP])
def test_heads_take_their_sizes_from_body_and_task(cls):
    head = cls(WIDTH, 4, 3, pooler=lambda body_dim, num_layers: SpanAverage(body_dim, num_layers, [2], num_spans=1))
    assert head.layers == [2]
    assert head([torch.randn(8, WIDTH)], with_spans([5, 3])).shape == (2, 3)


def test_a_token_that_a_pooler_cannot_read_alone_is_refused():
    class Middle(Average):
        only = "middle"

    with pytest.raises(ConfigError, match="Middle.only is 'middle', expected None, 'first' or 'last'"):
        Middle(WIDTH, 1)
