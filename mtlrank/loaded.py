"""A head of a trained model in a program.

mtlrank.load("runs/my-run", head="trec2019").score([("a query", "a passage")])
mtlrank.load("runs/my-run", head="msm_ner").predict([{"text": "Orbis Motors lies here.", "spans": [[0, 12]]}])
"""

from collections.abc import Iterable
from copy import copy
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlrank.checks import whole
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError
from mtlrank.inference.answers import answers
from mtlrank.inference.candidates import pairs_of_texts
from mtlrank.inference.program_input import plain
from mtlrank.inference.questions import Given, questions_of_program
from mtlrank.inference.scorer import CHUNK, Scorer
from mtlrank.inference.scoring import one_late
from mtlrank.registry import model_folder
from mtlrank.trained_head import TrainedHead, check_predicts, load_head, unfit


class LoadedHead:
    """A head for use in a program; `mtlrank.load` returns it."""

    def __init__(self, head: TrainedHead, max_passages: int | None) -> None:
        self._head = head
        self._scorer = head.scorer(max_passages=max_passages)

    def __repr__(self) -> str:
        head = self._head
        return f"<{type(self).__name__} {head.name!r}, a {head.task.kind} head of {head.folder}>"

    def score(self, pairs: Iterable[tuple[Any, ...]], batch_size: int = 128) -> NDArray[np.float32]:
        """The scores of pairs of a query and a passage, in their order, as `mtlrank rank` computes them.

        For a head that reads BM25 scores, too, these are the third members. `batch_size` changes scores by rounding only.
        Raises `DataError`, a `ValueError`, for a pair without a text, and `ConfigError`, another, if the head scores no
        pairs.
        """
        if reason := unfit(self._head.dataset):
            raise ConfigError(
                f"Head {self._head.name!r} {reason} and does not score a query and a passage: use `predict`, which is for "
                "any head."
            )
        chunks = pairs_of_texts(pairs, CHUNK, self._head.dataset.bm25_text)
        submitted = map(self._scorer_with(batch_size).submit, chunks)
        return np.concatenate([np.zeros(0, np.float32), *(each.scores().numpy() for each in one_late(submitted))])

    def predict(self, texts: Iterable[Given], batch_size: int = 128) -> list[dict[str, Any]]:
        """What `mtlrank predict` writes for each text, in order: class and probabilities, a number, or predictions.

        `texts` are dicts with the keys of the command's JSON Lines; an `id` is copied to the answer. Without spans, a text
        may also be a string, and a pair a tuple. `batch_size` changes numbers by rounding only. Raises `DataError`, a
        `ValueError`, with the position of a text that the head does not accept.
        """
        check_predicts(self._head)
        questions = questions_of_program(texts, reading := Reading(hint=False), self._head.form, CHUNK)
        return [row for rows in answers(questions, self._scorer_with(batch_size), reading) for row in rows]

    def _scorer_with(self, batch_size: int) -> Scorer:
        """The scorer with batches of this size."""
        scorer = copy(self._scorer)
        scorer.batch_size = whole(1).check("batch_size", plain(batch_size))
        return scorer


def load(folder: str | PathLike[str], head: str | None, *, max_passages: int | None, trust: bool) -> LoadedHead:
    """See `mtlrank.load`."""
    if not isinstance(head, str | None):
        raise ConfigError(f"head is {head!r}, expected the name of a head.")
    return LoadedHead(load_head(model_folder(fspath(folder)), head, trust=trust, kinds="any"), max_passages)
