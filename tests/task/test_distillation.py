import math

import pytest

from mtlrank.task import KLDistillation, MarginMSE
from tests.task.tasks import one, softmax


def test_margin_mse_by_hand():
    """Differences of scores 1, 3, 2 (second less first, third less first, third less second), the teacher's 2, 1, -1."""
    assert one(MarginMSE(["AP"])) == pytest.approx((1 + 4 + 9) / 3)
    assert one(MarginMSE(["AP"], teacher_scale=2.0)) == pytest.approx((9 + 1 + 16) / 3)


def test_kl_distillation_by_hand():
    teacher, student = softmax(0, 2, 1), softmax(0.5, 1, 2)
    expected = 4 * sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))
    assert one(KLDistillation(["AP"], teacher_scale=2.0, temperature=2.0)) == pytest.approx(expected)


def test_a_teachers_scores_are_any_numbers():
    assert MarginMSE(["AP"]).parse_label("-0.25") == -0.25
