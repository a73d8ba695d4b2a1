"""Tables on a terminal, and as CSV."""

import pytest

from mtlrank.pages.tables import as_csv, show
from tests.pages.terminals import printed


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1"])
def test_what_a_spreadsheet_would_compute_is_quoted(text):
    assert as_csv([["name", text]]) == f"name,'{text}\n"


def test_numbers_and_other_texts_stay():
    assert (
        as_csv([["system", -1.5, "-1.500000", None, "a=b", 'x "y", z']]) == 'system,-1.5,-1.500000,,a=b,"x ""y"", z"\n'
    )


HEADER, ROW = ["head", "measure", "value", "p (t)"], ["a_long_name_of_a_head", "nDCG@10", "0.1234 ± 0.0001", "0.030"]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (56, ["a_long_name_of_a_head  nDCG@10  0.1234 ± 0.0001  0.030"]),
        (53, ["a_long_name_of_a_head  nDCG@10  0.1234 ± 0.0001", "without p (t), as 53 columns are too few"]),
        (40, ["a_long_name_of  nDCG@10  0.1234 ± 0.0001", "_a_head", "without p (t), as 40 columns are too few"]),
        (29, ["a_long_nam  nDCG@10  0.1234 ±", "e_of_a_hea             0.0001", "d"]),
        (20, ["a_long_nam  nDCG@10  0.1234 ", "e_of_a_hea                ±", "d                    0.0001"]),
    ],
)
def test_what_is_too_wide_is_left_out_or_folded_and_no_number_is_cut(width, lines):
    shown = [line.rstrip() for line in printed(width, lambda: show(HEADER, [ROW], 2, 120, ["p (t)"])).splitlines()]
    assert shown[2 : 2 + len(lines)] == [line.rstrip() for line in lines]


def test_headers_fold_before_a_column_is_left_out():
    header, row = ["head", "name+of+a+mixture"], ["rank", "0.12345"]
    shown = printed(20, lambda: show(header, [row], 1, 120, spare=["name+of+a+mixture"]))
    assert [line.split() for line in shown.splitlines()] == [["name+of+a+mixt"], ["head", "ure"], ["─" * 20], row]
