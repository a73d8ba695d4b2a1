import pytest

from mtlrank.loop.schedule import warmup_factor


def test_values_by_hand():
    factor = warmup_factor(total_steps=10, warmup=0.2)
    assert [factor(step) for step in range(11)] == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0.0]
    )


def test_steps_after_the_end_are_not_negative():
    assert warmup_factor(10, 0.0)(11) == 0.0
