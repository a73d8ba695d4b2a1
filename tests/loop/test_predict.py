"""Scores are read late, so that a device never waits for what the program does with them."""

import pytest

from mtlrank.loop.predict import one_late


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
