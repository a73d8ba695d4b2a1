import gzip
from pathlib import Path

import pytest

from mtlrank.datamodule.lines import is_json, read_lines
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("docs.jsonl", "docs.json", "docs.ndjson.gz", "docs.v2.jsonl.gz")),
        *((name, False) for name in ("docs.tsv", "docs.json.tsv", "docs.jsonl.tsv.gz", "docs.parquet")),
    ],
)
def test_the_last_ending_tells_whether_a_file_is_json(name, expected):
    assert is_json(Path("of.json") / name) is expected


@pytest.mark.parametrize("name", ["docs", "json", "docs.txt", "docs.gz", "docs.2026"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *((text, True) for text in ('{"id": 1}', '\ufeff{"id": 1}', ' \t{ "id": 1}', "\n \n" * 2000 + '{"id": 1}')),
        *((text, True) for text in ("{'id': 1}", "{}", "{\n  ")),
        *((text, False) for text in ("1\ta", '\n1\t{"a": 1}', "{7B5D}\ta text", '["a"]', "", "\n\n")),
    ],
)
def test_otherwise_the_first_line_that_is_not_blank_does(tmp_path, name, content, expected):
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert is_json(tmp_path / name) is expected


@pytest.mark.parametrize("left", [0, 10, -1])
def test_a_download_that_has_failed_is_told(tmp_path, left):
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(b"1\ta\n" * 100)[:left])
    with pytest.raises(DataError, match="x.tsv.gz is not a complete gzip file: .* Copy it again"):
        list(read_lines(tmp_path / "x.tsv.gz", Reading()))
