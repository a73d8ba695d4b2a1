"""Tables as CSV."""

import pytest

from mtlrank.pages.tables import as_csv


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1"])
def test_what_a_spreadsheet_would_compute_is_quoted(text):
    assert as_csv([["name", text]]) == f"name,'{text}\n"


def test_numbers_and_other_texts_stay():
    assert (
        as_csv([["system", -1.5, "-1.500000", None, "a=b", 'x "y", z']]) == 'system,-1.5,-1.500000,,a=b,"x ""y"", z"\n'
    )
