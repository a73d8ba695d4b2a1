import pytest

from mtlrank.errors import ConfigError
from mtlrank.shard import Shard


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/3/5"])
def test_impossible_shards_are_refused(text):
    with pytest.raises(ConfigError, match="expected i/n with i from 1 to n, as in 3/8"):
        Shard.parse(text)
