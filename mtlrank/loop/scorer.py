"""Scoring pairs of texts with one head."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from mtlrank.datamodule.candidates import Candidate
from mtlrank.datamodule.packed import PackedPairs
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import DivergedError
from mtlrank.loop.predict import Arriving, scores
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.task import Task


class Scorer:
    """Scores pairs as evaluation does: packed batches of like length, long ones first.

    `name` is the head's, `precision` gives the context to compute in.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        name: str,
        task: Task,
        preprocessor: LoadedPreprocessor,
        batch_size: int = 128,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.task = task
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self.precision = precision

    def score(self, pairs: Sequence[Candidate]) -> Tensor:
        """The score of each pair, (pairs,) float32, in the labels' own unit. Memory grows with the number of pairs."""
        return self.ask(pairs).scores()

    @torch.no_grad()
    def ask(self, pairs: Sequence[Candidate]) -> "Pending":
        """Have pairs scored. A GPU does it while the program goes on, until the scores are read."""
        packed = PackedPairs(pairs, self.preprocessor)
        order, device = packed.longest_first(), next(self.model.parameters()).device
        parts = []
        with self.precision():
            for start in range(0, len(order), self.batch_size):
                batch = {self.name: packed.collate(order[start : start + self.batch_size])}
                parts.append(scores(self.model, {self.name: self.task}, batch, device)[self.name].float())
        found = torch.cat([torch.zeros(0, device=device), *parts])
        return Pending(pairs, torch.from_numpy(order), Arriving({"scores": found}))


class Pending(NamedTuple):
    """Pairs whose scores are on their way."""

    pairs: Sequence[Candidate]
    order: Tensor  # (pairs,), in which they were scored
    arriving: Arriving

    def scores(self) -> Tensor:
        """The score of each pair, (pairs,). Raises `DivergedError` for one that is not finite."""
        found = torch.empty(len(self.pairs))
        found[self.order] = self.arriving.values()["scores"]
        if not found.isfinite().all():
            wrong = self.pairs[int((~found.isfinite()).nonzero()[0])]
            raise DivergedError(
                f"{wrong.place}: the score is not finite. The model is damaged, or its training diverged."
            )
        return found
