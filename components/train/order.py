"""The order for processes that train together: plain values, passed as JSON."""

import json
from typing import Any, NamedTuple


class Order(NamedTuple):
    """A training run: what to compose, and where to read and write. All places must be ones that every node sees."""

    settings: dict[str, Any]  # by config key, as in components.train.settings
    overrides: list[str]  # in the command line's words
    datasets: list[str]  # prepared datasets
    output: str  # where the finished run appears, whole
    checkpoints: str  # the folder below which runs keep their checkpoints

    def dumps(self) -> str:
        """As one argument of a command. Kubernetes would expand `$(NAME)` in it, so it holds no dollar sign."""
        return json.dumps(self._asdict(), sort_keys=True).replace("$", "\\u0024")

    @classmethod
    def loads(cls, text: str) -> "Order":
        """What `dumps` wrote."""
        return cls(**json.loads(text))
