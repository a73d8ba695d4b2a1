"""Scores are read late, so that a device never waits for what the program does with them."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtlrank.inference.candidates import Candidate
from mtlrank.inference.scorer import Scorer
from mtlrank.inference.scoring import one_late
from mtlrank.trained_head import load_head
from tests.exports import save_bert


def test_each_thing_is_read_after_the_next_was_asked_for():
    events = []

    def asked():
        for number in range(3):
            events.append(f"asked {number}")
            yield number

    events.extend(f"read {number}" for number in one_late(asked()))
    assert events == ["asked 0", "asked 1", "read 0", "asked 2", "read 1", "read 2"]


@pytest.mark.parametrize("things", [[], [1], [1, 2, 3]])
def test_nothing_is_lost_and_the_order_stays(things):
    assert list(one_late(things)) == things


class Conversions(TorchDispatchMode):
    """Counts weights that are converted to another precision."""

    found = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found += function is torch.ops.aten._to_copy.default and isinstance(args[0], torch.nn.Parameter)
        return function(*args, **(kwargs or {}))


def test_half_precision_converts_each_weight_once_for_many_batches(tmp_path):
    head = load_head(save_bert(tmp_path), "trec2019")
    half = partial(torch.autocast, "cpu", torch.bfloat16)
    scorer = Scorer(head.model, head.name, head.task, head.preprocessor(), batch_size=2, precision=half)
    pairs = [Candidate(number, "a test", "a crow", f"passage {number}") for number in range(8)]
    counts = []
    for chunk in (pairs[:2], pairs):
        with Conversions() as conversions:
            scorer.score(chunk)
        counts.append(conversions.found)
    assert counts[0] == counts[1] > 20
