from pathlib import Path

import pytest

from mtlrank.datamodule.lines import is_json


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("docs.jsonl", "docs.json", "docs.ndjson.gz", "docs.v2.jsonl.gz")),
        *((name, False) for name in ("docs.tsv", "docs.json.tsv", "docs.jsonl.tsv.gz", "json", "docs.gz")),
    ],
)
def test_the_last_ending_tells_whether_a_file_is_json(name, expected):
    assert is_json(Path("of.json") / name) is expected
