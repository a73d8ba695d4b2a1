"""Attention within the sequences of a packed batch: each way to compute it, and which tokens a token sees."""

import pytest
import torch

from mtlrank.model.body.attention import Attending, Packing, Reach, in_a_grid, one_by_one, packed_attention


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reach", [Reach(), Reach(2), Reach(is_causal=True), Reach(2, is_causal=True)])
def test_sequences_in_a_grid_attend_as_they_do_one_by_one(dropout, reach):
    """What a GPU does in full precision, or with dropout, is what a CPU does."""
    packing = Packing(torch.tensor([0, 7, 10, 22, 27], dtype=torch.int32), 27, 12)
    q, k, v = (torch.randn(1, 2, 27, 8) for _ in range(3))
    found = [way(q, k, v, Attending(packing, reach=reach)) for way in (one_by_one, in_a_grid)]
    torch.testing.assert_close(*found)
    dropped = in_a_grid(q, k, v, Attending(packing, dropout=dropout, reach=reach))
    assert torch.equal(dropped, found[1]) == (dropout == 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("head_size", [8, 26, 64])  # the kernel takes no 26
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_attends_as_a_cpu_does(dtype, window, key_heads, is_causal, head_size):
    """Forwards and backwards, with an empty second text among the sequences."""
    ends = torch.tensor([0, 7, 7, 10, 22, 27], dtype=torch.int32)
    start = torch.randn(3, 1, 2, 27, head_size)
    found = []
    for device, kind in (("cpu", torch.float32), ("cuda", dtype)):
        states = start.detach().to(device, kind).requires_grad_()
        packing = Packing(ends.to(device), 27, 12)
        query, key, value = states[0], states[1, :, :key_heads], states[2, :, :key_heads]
        limits = {"sliding_window": window, "is_causal": is_causal}
        mixed, _ = packed_attention(None, query, key, value, None, packing=packing, **limits)
        mixed.float().square().sum().backward()
        found.append((mixed.float().cpu(), states.grad.float().cpu()))
    most = {torch.float32: 1e-5, torch.float16: 0.003, torch.bfloat16: 0.02}[dtype]
    for mine, expected in zip(found[1], found[0], strict=True):
        assert (mine - expected).norm() < most * expected.norm()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"sliding_window": 2}, [0.5, 1, 2, 3, 4, 4.5]),
        ({"is_causal": True}, [0, 0.5, 1, 1.5, 2, 2.5]),
        ({"sliding_window": 3, "is_causal": True}, [0, 0.5, 1, 2, 3, 4]),
    ],
)
def test_a_token_sees_its_window_and_what_is_before_it(limits, expected):
    """Without a preference, a token becomes the mean of those that it sees."""
    packing = Packing(torch.tensor([0, 6], dtype=torch.int32), 6, 6)
    q = torch.zeros(1, 1, 6, 4)
    v = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 4)
    mixed, _ = packed_attention(None, q, q, v, None, packing=packing, **limits)
    assert mixed[0, :, 0, 0].tolist() == pytest.approx(expected)


def test_keys_and_values_may_be_shared_by_several_queries():
    packing = Packing(torch.tensor([0, 7, 10, 22, 27], dtype=torch.int32), 27, 12)
    q, k, v = torch.randn(1, 4, 27, 8), torch.randn(1, 2, 27, 8), torch.randn(1, 2, 27, 8)
    shared, _ = packed_attention(None, q, k, v, None, packing=packing)
    repeated = (states[:, [0, 0, 1, 1]] for states in (k, v))
    torch.testing.assert_close(shared, packed_attention(None, q, *repeated, None, packing=packing)[0])
