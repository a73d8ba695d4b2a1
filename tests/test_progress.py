from io import RawIOBase, TextIOWrapper
from itertools import pairwise
from types import SimpleNamespace

import pytest

from mtlrank.progress import Progress, say, time_left, warn


@pytest.mark.parametrize(
    ("settings", "amount", "share", "line"),
    [
        ({}, 12_800, None, "x: 12,800 rows, 3,200 rows/s"),
        ({}, 12_800, 0.5, "x: 12,800 rows, 3,200 rows/s, about 4 s left"),
        ({"total": 3000}, 1000, None, "x: 1,000/3,000 rows, 250 rows/s, about 8 s left"),
        ({"total": 3000, "done": 2000}, 500, None, "x: 2,500/3,000 rows, 125 rows/s, about 4 s left"),
        ({"total": 3000, "done": 2000}, 1, None, "x: 2,001/3,000 rows, 0.25 rows/s, about 67 min left"),
        ({"total": 3000, "done": 2000}, 0, None, "x: 2,000/3,000 rows, 0 rows/s"),
        ({"total": 3000, "done": 3000}, 400, None, "x: 3,400/3,000 rows, 100 rows/s, about 0 s left"),
        ({"total": 3000, "done": 4000}, 400, None, "x: 4,400/3,000 rows, 100 rows/s, about 0 s left"),
    ],
)
def test_a_line_tells_how_far_how_fast_and_how_long(settings, amount, share, line):
    progress = Progress("x", "rows", **settings)
    progress.advance(amount)
    progress.share = share
    assert progress.line(4.0) == line


def test_a_line_comes_now_and_then_and_none_without_a_name(monkeypatch, capsys):
    for what, seconds, told in (("x", 1000, 0), ("x", 0, 2), ("", 0, 0)):
        monkeypatch.setattr(Progress, "SECONDS", seconds)
        progress = Progress(what, "rows")
        progress.advance()
        progress.advance()
        assert len(capsys.readouterr().err.splitlines()) == told


def test_a_long_job_prints_fewer_lines(monkeypatch):
    now, told = 0, [0]
    monkeypatch.setattr("mtlrank.progress.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("mtlrank.progress.say", lambda line: told.append(now))
    progress = Progress("x", "rows")
    for now in range(1, 36_000):  # noqa: B007 - the clock
        progress.advance()
    pauses = [after - before for before, after in pairwise(told)]
    assert pauses[:50] == [10] * 50
    assert pauses[-500:] == [60] * 500
    assert pauses == sorted(pauses)


def test_time_is_told_in_the_unit_that_says_most():
    assert [time_left(s) for s in (4, 89, 90, 5399, 5400, 1e5)] == [
        "about 4 s left",
        "about 89 s left",
        "about 2 min left",
        "about 90 min left",
        "about 1.5 h left",
        "about 27.8 h left",
    ]


def test_a_line_and_its_end_are_written_in_one_piece(monkeypatch):
    """Else the line of another process gets between them, where Python does not buffer, as in containers."""
    pieces = []

    class Unbuffered(RawIOBase):
        def writable(self):
            return True

        def write(self, piece):
            pieces.append(bytes(piece))
            return len(piece)

    monkeypatch.setattr("sys.stderr", TextIOWrapper(Unbuffered(), "utf-8", write_through=True))
    say("step 1")
    assert pieces == [b"step 1\n"]


def test_a_warning_is_marked_and_only_the_first_process_says_anything(monkeypatch, capsys):
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        say("step 1")
        warn("no val split")
    assert capsys.readouterr() == ("", "step 1\nmtlrank: no val split\n")
