"""The labels of a task as classes, whose code length can be measured."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Buckets
from mtlrank.words import of_dataset

_NUM_BUCKETS = 10  # as Wallat et al. 2023 cut BM25 scores and similarities


class Coded(NamedTuple):
    """Labels as classes, whatever the task."""

    targets: Tensor  # (items,) int64
    num_classes: int
    classes: str  # what they are, in words


def code_labels(dataset: PreparedDataset, labels: Tensor) -> Coded:
    """Classes as they are, numbers in ten buckets of equal size (fewer if many are equal), grades as relevant or not.

    Raises `ConfigError` for a teacher's scores, and `DataError` if all labels are the same.
    """
    task = dataset.task
    if task.distils:
        ways = of_dataset(dataset.name, "task=relevance", "task@"), of_dataset(dataset.name, "learn_from=judged", "++")
        raise ConfigError(
            f"{dataset.name} learns a teacher's scores, which are neither classes nor grades. Probe it as it is judged: "
            f"{' and '.join(ways)}."
        )
    if task.kind == "classification":
        num_classes = len(task.classes)  # type: ignore[attr-defined]
        coded = Coded(labels.long(), num_classes, f"{num_classes} classes")
    elif task.kind == "ranking":
        coded = Coded((labels >= task.level).long(), 2, f"relevant (grade {task.level} or above) or not")
    else:
        edges = Buckets(["Accuracy"], _NUM_BUCKETS).find_edges(labels.numpy())
        targets = torch.from_numpy(np.searchsorted(edges, labels.numpy(), side="right"))
        coded = Coded(targets, len(edges) + 1, f"{len(edges) + 1} buckets by quantiles")
    if len(coded.targets.unique()) < 2:
        raise DataError(
            f"All {len(labels)} training items of {dataset.name} have the same label. Raise probe.max_train."
        )
    return coded
