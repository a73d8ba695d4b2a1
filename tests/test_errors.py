import pytest

from mtlrank.errors import one_line


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
