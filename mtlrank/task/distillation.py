"""Rankings that are learnt from a teacher's scores and judged with grades.

Training labels are scores of any range (a run's, an annotator's); the labels of other splits are grades.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlrank.checks import ABOVE_ZERO
from mtlrank.task.groupwise import Groupwise, all_pairs, differences, masked, mean_over
from mtlrank.task.task import Task


class Distillation(Groupwise):
    """Base of losses that compare a group's scores with a teacher's, which are scaled by `teacher_scale` first.

    A cosine reaches from -1 to 1; a scale of 20 makes it as decided as the logits of a cross-encoder.
    """

    distils = True

    def __init__(self, measures: Sequence[str], relevance_level: int = 1, teacher_scale: float = 1.0) -> None:
        super().__init__(measures, relevance_level)
        self.teacher_scale = ABOVE_ZERO.check("teacher_scale", teacher_scale)

    def parse_label(self, label: float | str) -> float:
        """A teacher's score, or a grade."""
        return float(Task.parse_label(self, label))


class MarginMSE(Distillation):
    """The squared error of differences between scores.

    The mean of ((s_i - s_j) - (t_i - t_j))^2 over all pairs of a group, t being the teacher's scores (Hofstätter et
    al. 2020, eq. 4, where a group is a relevant document and another).
    """

    is_squared_error = True

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        errors = differences(scores - self.teacher_scale * labels).square()
        return mean_over(errors, all_pairs(present, present).tril(-1))


class KLDistillation(Distillation):
    """How far the scores' softmax over a group is from the teacher's: KL(teacher || student).

    Both are softened by `temperature` T, and the loss is scaled by T^2, which keeps the size of its gradients (Hinton et
    al. 2015, section 2).
    """

    def __init__(
        self,
        measures: Sequence[str],
        relevance_level: int = 1,
        teacher_scale: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(measures, relevance_level, teacher_scale)
        self.temperature = ABOVE_ZERO.check("temperature", temperature)

    def group_loss(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        teacher = masked(self.teacher_scale * labels / self.temperature, present).log_softmax(1)
        student = masked(scores / self.temperature, present).log_softmax(1)
        apart = torch.where(present, teacher.exp() * (teacher - student), 0.0)
        return apart.sum(1) * self.temperature**2
