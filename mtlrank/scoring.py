"""Scoring pairs of texts in a program, with a head of a trained model.

mtlrank.load("runs/my-run", head="trec2019").score([("a query", "a passage")])
"""

from collections.abc import Iterable
from copy import copy
from os import PathLike, fspath

import numpy as np
from numpy.typing import NDArray

from mtlrank.checks import at_least
from mtlrank.datamodule.candidates import pairs_of_texts
from mtlrank.loop.predict import one_late
from mtlrank.loop.scorer import Scorer
from mtlrank.registry import model_folder
from mtlrank.trained import load_head

_CHUNK = 4096  # pairs that are in memory at a time, as in `rank`: equal batches give equal scores to the bit


class PairScorer:
    """What `mtlrank.load` gives."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def score(self, pairs: Iterable[tuple[str, str]], batch_size: int = 128) -> NDArray[np.float32]:
        """The scores of pairs of a query and a passage, in their order: those that `mtlrank rank` gives them.

        `batch_size` changes them by rounding only. Raises `DataError`, a `ValueError`, for a pair without a text.
        """
        scorer = copy(self._scorer)
        scorer.batch_size = at_least("batch_size", batch_size, 1)
        asked = map(scorer.ask, pairs_of_texts(pairs, _CHUNK))
        return np.concatenate([np.zeros(0, np.float32), *(each.scores().numpy() for each in one_late(asked))])


def load_scorer(folder: str | PathLike[str], head: str | None, *, max_passages: int | None, trust: bool) -> PairScorer:
    """As `mtlrank.load` says."""
    return PairScorer(load_head(model_folder(fspath(folder)), head, trust=trust).scorer(max_passages=max_passages))
