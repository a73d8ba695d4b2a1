"""Pointwise ranking: each document is judged by itself."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.checks import ABOVE_ZERO, whole
from mtlrank.errors import DataError
from mtlrank.task.task import ItemTask, Task


class Ranking(Task):
    """Base of all tasks that are judged as rankings: labels are grades, relevant from `relevance_level` on."""

    kind = "ranking"
    output_dim = 1
    prepared_by = ("relevance_level",)

    def __init__(self, measures: Sequence[str], relevance_level: int = 1) -> None:
        super().__init__(measures)
        self.relevance_level: int = whole(1).check("relevance_level", relevance_level)

    def parse_label(self, label: float | str) -> float:
        """A grade; TREC's negative grades (spam) count as not relevant."""
        grade = float(super().parse_label(label))
        if grade != round(grade) or grade > 1000:
            raise DataError(f"label {label!r} is not a whole grade of relevance, at most 1000")
        return max(grade, 0.0)

    def is_relevant(self, labels: Tensor) -> Tensor:
        """Whether grades say relevant."""
        return labels >= self.relevance_level

    def scores(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1).float()


class Relevance(Ranking, ItemTask):
    """Is this document relevant? Binary cross-entropy; that of relevant documents counts `positive_weight` times."""

    def __init__(self, measures: Sequence[str], relevance_level: int = 1, positive_weight: float = 1.0) -> None:
        super().__init__(measures, relevance_level)
        self.positive_weight = ABOVE_ZERO.check("positive_weight", positive_weight)

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        relevant = self.is_relevant(batch.labels).float()
        losses = F.binary_cross_entropy_with_logits(logits.squeeze(-1), relevant, reduction="none")
        return losses * (1 + (self.positive_weight - 1) * relevant)


class RelevanceClasses(Relevance):
    """The same question as a choice between two classes: cross-entropy of a softmax over two logits.

    As monoBERT is trained (Nogueira and Cho 2019, eq. 1). The score is the difference of the logits, which orders
    documents as the probability of relevance does, without its ties at 0 and 1.
    """

    output_dim = 2

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        relevant = self.is_relevant(batch.labels)
        losses = F.cross_entropy(logits, relevant.long(), reduction="none")
        return losses * (1 + (self.positive_weight - 1) * relevant.float())

    def scores(self, logits: Tensor) -> Tensor:
        return (logits[:, 1] - logits[:, 0]).float()
