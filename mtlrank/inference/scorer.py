"""Scoring texts, or pairs of them, with one head."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import DivergedError
from mtlrank.inference.candidates import Candidate
from mtlrank.inference.packed import PackedPairs
from mtlrank.inference.scoring import Arriving, outputs
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.task import Task

CHUNK = 4096  # texts or pairs in memory at a time; the same everywhere, as only equal batches give bit-equal scores


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
        return self.submit(pairs).scores()

    @torch.no_grad()
    def submit(self, pairs: Sequence[Candidate]) -> "Pending":
        """Start to score pairs. A GPU computes while the program goes on, until it reads the scores."""
        packed = PackedPairs(pairs, self.preprocessor)
        order, device = packed.longest_first(), next(self.model.parameters()).device
        parts = []
        with self.precision():
            for start in range(0, len(order), self.batch_size):
                batch = {self.name: packed.collate(order[start : start + self.batch_size])}
                scores, _ = outputs(self.model, {self.name: self.task}, batch, device)
                parts.append(scores[self.name].float())
        computed = torch.cat(parts or [torch.zeros(0, device=device)])
        items = torch.from_numpy(packed.items(order))
        return Pending(pairs, packed.num_items, items, Arriving({"scores": computed}))


class Pending(NamedTuple):
    """Pairs whose scores are being computed."""

    pairs: Sequence[Candidate]
    num_items: int  # of all pairs
    items: Tensor  # those that have scores, in the order of the scores
    arriving: Arriving

    def scores(self) -> Tensor:
        """The scores of each item, (items,) or (items, classes), as measures read them; without spans, an item is a pair.

        NaN where a span is cut off or holds no token. Raises `DivergedError` for a score that is not finite.
        """
        arrived = self.arriving.values()["scores"]
        if not arrived.isfinite().all():
            wrong = self._pair_of(int(self.items[(~arrived.isfinite()).nonzero()[0, 0]]))
            raise DivergedError(
                f"{wrong.place}: the score is not finite. The model is damaged, or its training diverged."
            )
        scores = torch.full((self.num_items, *arrived.shape[1:]), torch.nan)
        scores[self.items] = arrived
        return scores

    def _pair_of(self, item: int) -> Candidate:
        return next(islice((pair for pair in self.pairs for _ in pair.items), item, None))
