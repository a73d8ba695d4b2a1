import pytest

from mtlrank.errors import all_lines, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  too large \nat x.py"), "too large"),
        (ValueError(), "ValueError"),
        (OSError(" \n"), "OSError"),
        (ValueError("x" * 999), "x" * 300),
    ],
)
def test_an_error_becomes_one_line(error, line):
    assert one_line(error) == line


def test_all_lines_of_an_error_are_one_line():
    assert (
        all_lines(ValueError("404 Client Error.\n\nRepository not found.")) == "404 Client Error. Repository not found."
    )
    assert all_lines(OSError(" \n")) == "OSError"
