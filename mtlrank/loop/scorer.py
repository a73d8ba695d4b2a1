"""Scoring pairs of texts with one head."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from mtlrank.datamodule.candidates import Candidate
from mtlrank.datamodule.packed import PackedPairs
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import DivergedError
from mtlrank.loop.predict import scores
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

    @torch.inference_mode()
    def score(self, pairs: Sequence[Candidate]) -> Tensor:
        """The score of each pair, (pairs,) float32, in the labels' own unit. Memory grows with the number of pairs."""
        packed = PackedPairs(pairs, self.preprocessor)
        order, device = packed.longest_first(), next(self.model.parameters()).device
        found = torch.empty(len(packed))
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            batch = {self.name: packed.collate(numbers)}
            scored = scores(self.model, {self.name: self.task}, batch, device, self.precision)[self.name]
            found[torch.from_numpy(numbers)] = scored.float().cpu()
        if not found.isfinite().all():
            wrong = pairs[int((~found.isfinite()).nonzero()[0])]
            raise DivergedError(
                f"{wrong.place}: the score is not finite. The model is damaged, or its training diverged."
            )
        return found
