"""The probes of all layers on one task's vectors: code lengths, and scores of test items."""

import torch
from torch import Tensor

from mtlrank.probing.labels import Coded
from mtlrank.probing.mdl import log_frequencies, online_bits
from mtlrank.probing.probes import Costs, Probes, Training, class_costs, fit, logits_of, squared_errors
from mtlrank.probing.vectors import Vectors
from mtlrank.progress import Progress


class LayerProbes:
    """Trains probes on a task's items. The first `num_held` are held out to stop early; probes learn from the rest."""

    def __init__(self, name: str, vectors: Vectors, num_held: int, how: Training) -> None:
        num_items = len(vectors.items)
        self.name = name
        self.held, self.learnt = vectors.part(0, num_held), vectors.part(num_held, num_items)
        self.num_held = num_held
        self.how = how
        self.device = vectors.values.device
        self.progress = Progress("", "items")  # silent until `bits` sets the total

    def bits(self, coded: Coded, ends: list[int]) -> list[float]:
        """The length of the online code of the labels, by layer."""
        targets = coded.targets[self.num_held :]
        self.progress = Progress(f"probing {self.name}", "items", sum(ends))

        def cost(start: int, end: int) -> Tensor:
            probes = self._classifiers(coded, start)
            return class_costs(logits_of(probes, self.learnt.part(start, end)), targets[start:end]).sum(1)

        lengths: list[float] = online_bits(ends, coded.num_classes, cost).tolist()
        return lengths

    def scores(self, coded: Coded, test: Vectors, is_ranking: bool) -> Tensor:
        """By layer, class probabilities, or for a ranking the logit of relevant minus that of not relevant."""
        logits = logits_of(self._classifiers(coded, len(self.learnt.items)), test)
        return logits[..., 1] - logits[..., 0] if is_ranking else logits.softmax(-1)

    def numbers(self, labels: Tensor, test: Vectors) -> Tensor:
        """By layer, predicted numbers in the labels' own unit, (layers, items)."""
        mean, deviation = labels.mean(), labels.std()
        probes = self._fit((labels - mean) / deviation, len(self.learnt.items), torch.zeros(1), squared_errors)
        return logits_of(probes, test).squeeze(-1) * deviation + mean

    def _classifiers(self, coded: Coded, num_items: int) -> Probes:
        """Probes that learnt classes from the first items, and started from the frequencies of classes there."""
        frequencies = log_frequencies(coded.targets[self.num_held :][:num_items], coded.num_classes)
        return self._fit(coded.targets, num_items, frequencies, class_costs)

    def _fit(self, targets: Tensor, num_items: int, bias: Tensor, costs: Costs) -> Probes:
        targets = targets.to(self.device)
        held, learnt = targets[: self.num_held], targets[self.num_held :][:num_items]
        probes = fit(self.learnt.part(0, num_items), learnt, self.held, held, bias, costs, self.how)
        self.progress.advance(num_items)
        return probes
