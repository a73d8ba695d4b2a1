from pathlib import Path

import pytest

from mtlrank.errors import ConfigError
from mtlrank.shard import Shard
from mtlrank.storage.output import check_output


def test_an_output_is_none_of_the_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for pattern in ("x-*.tsv", str(tmp_path / "x-*.tsv")):
        with pytest.raises(ConfigError, match=r"output is 'x-9\.tsv', one of the files of input=.*x-\*\.tsv\. Choose"):
            check_output(Path("x-9.tsv"), {"input": pattern})  # though it does not exist yet
    check_output(Path("scores.tsv"), {"input": "x-*.tsv", "run": None})
    check_output(Path("x-9.tsv"), {"input": "parts/x-*.tsv"})
    Path("link.tsv").symlink_to("x-9.tsv")
    with pytest.raises(ConfigError, match=r"output is 'link\.tsv', one of the files of input=x-\*\.tsv"):
        check_output(Path("link.tsv"), {"input": "x-*.tsv"})


@pytest.mark.parametrize("name", ["out.tsv", "part-13.tsv", "v31/out.tsv", "v3/1/out.tsv", "3/part-1.tsv"])
def test_the_output_of_a_shard_has_its_number_or_another_would_replace_it(name):
    with pytest.raises(
        ConfigError, match=rf"output is '{name}', which other shards would replace: .* as in '.*-3\.tsv'"
    ):
        check_output(Path(name), {}, Shard(3, 40))
    check_output(Path(name), {}, Shard())
    for own in ("part-3.tsv", "part-0003-of-0040.tsv", "3/out.tsv", "part_3"):
        check_output(Path(own), {}, Shard(3, 40))
