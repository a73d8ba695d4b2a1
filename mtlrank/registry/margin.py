"""How much worse than the model in use a new one may be."""

import math
from collections.abc import Sequence

from mtlrank.errors import ConfigError
from mtlrank.evaluation.measures import is_lower_better

_LARGE = 0.2  # of a measure that is at most 1: beyond, a model is clearly worse


def check_margin(margin: float, measures: Sequence[str]) -> None:
    """Refuse a margin that is no amount, or too large for one of the measures, as in trec2019/nDCG@10."""
    if not 0 <= margin < math.inf:
        raise ConfigError(
            f"margin is {margin}: expected a finite number that is at least 0, in the measures' own unit."
        )
    names = {measure: measure.partition("/")[2] for measure in measures}
    share = [measure for measure, name in names.items() if not is_lower_better(name) and not name.startswith("Num")]
    if margin > _LARGE and share:
        raise ConfigError(
            f"margin is {margin:g}, but {share[0]} is at most 1: expected at most {_LARGE:g}. 0.02 is two points."
        )
