"""Terminals of a given width, and what is printed on them."""

import io
import re
import sys

import pytest

WIDTHS = [60, 80, 100, 120]


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(width, work):
    """What `work` prints on a terminal of so many columns, without its colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", _Terminal())
        work()
        return re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue())


def assert_uncut(shown, words):
    """Each word appears as often as it should, whole."""
    found = shown.split()
    for word in words:
        assert found.count(word) >= words.count(word), (word, shown)
