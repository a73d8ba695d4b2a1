import pytest
import torch

from mtlrank.loop.schedule import constant_warmup, cosine_warmup, linear_warmup


def rates(schedule, steps, **settings):
    """Of a peak of 1, in each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made, found = schedule(optimizer, **settings), []
    for _ in range(steps):
        found.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "settings", "expected"),
    [
        (linear_warmup, {"warmup": 0.2}, [1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]),
        (constant_warmup, {"warmup": 0.2}, [1 / 2, *[1] * 11]),
        (cosine_warmup, {"warmup": 0.6}, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 0.853553, 0.5, 0.146447, 0, 0]),
        (
            cosine_warmup,
            {"warmup": 0.6, "floor": 0.2},
            [*[i / 6 for i in range(1, 7)], 1, 0.882843, 0.6, 0.317157, 0.2, 0.2],
        ),
        (linear_warmup, {"warmup": 0.0}, [1, 1, *[(9 - i) / 9 for i in range(1, 10)], 0]),
    ],
)
def test_values_by_hand(schedule, settings, expected):
    """Of ten steps, and two more."""
    assert rates(schedule, 12, total_steps=10, **settings) == pytest.approx(expected, abs=1e-6)
