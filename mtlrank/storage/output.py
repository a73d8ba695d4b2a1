"""Checks of a command's output file."""

import re
from collections.abc import Mapping
from pathlib import Path

from mtlrank.errors import ConfigError
from mtlrank.shard import Shard
from mtlrank.storage.patterns import is_pattern, matching


def check_output(output: Path, inputs: Mapping[str, str | None], shard: Shard | None = None) -> None:
    """Refuse an output that is not a file, is one of the inputs (by the names of their settings), or could be the output of
    every shard.
    """
    if str(output) == "-" or (output.exists() and not output.is_file()):
        raise ConfigError(f"output is {str(output)!r}, expected the name of a file.")
    if output.suffix == ".gz":
        raise ConfigError(f"output is {str(output)!r}, but it is not compressed: leave out .gz.")
    named = [numbers for part in (output.name, output.parent.name) if (numbers := re.findall(r"\d+", part))]
    if shard and shard.total > 1 and shard.number not in map(int, named[0] if named else ()):
        way = output.with_stem(f"{output.stem}-{shard.number}").name
        raise ConfigError(
            f"output is {str(output)!r}, which other shards would replace: have the shard's number in its name, as in "
            f"{way!r}."
        )
    for name, path in inputs.items():
        if path and output.exists() and Path(path).exists() and output.samefile(path):
            raise ConfigError(f"output is {str(output)!r}, the same file as {name}. Choose another name.")
        written = output.resolve()  # links resolved
        if path and is_pattern(path) and matching(Path(path).name, [written.name]):
            folder = Path(path).parent
            if folder.exists() and written.parent.exists() and written.parent.samefile(folder):
                raise ConfigError(f"output is {str(output)!r}, one of the files of {name}={path}. Choose another name.")
