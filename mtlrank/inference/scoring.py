"""Scoring batches with a model: those of a whole split, for validation and judging, or those of a `Scorer`."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from mtlrank.batch import MTLBatch, TaskBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.loader import MTLLoader
from mtlrank.evaluation.predictions import Predictions
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.own_parts import name_of, shaped
from mtlrank.processes import of_all_processes, world_size
from mtlrank.progress import Progress
from mtlrank.task import Task

T = TypeVar("T")


@torch.no_grad()
def score_split(
    model: MultiTaskModel,
    datasets: Mapping[str, PreparedDataset],
    split: str,
    batches: MTLLoader,
    precision: Callable[[], AbstractContextManager[object]],
    after_batch: Callable[[], object] | None = None,
    with_losses: bool = False,
) -> dict[str, Predictions]:
    """Score the batches of a split of several datasets; returns predictions by dataset name.

    `precision` gives the context to compute in, `after_batch` may raise to stop early. `with_losses` also keeps the losses
    of samples. The model's mode is restored afterwards.
    """
    predictions = {name: Predictions(dataset, split) for name, dataset in datasets.items() if dataset.has(split)}
    device, training = next(model.parameters()).device, model.training
    model.eval()
    progress = Progress(f"scoring {split}", "batches", len(batches))
    tasks = {name: dataset.task for name, dataset in datasets.items()}

    def submit(batch: MTLBatch) -> tuple[MTLBatch, Arriving, Arriving]:
        computed, losses = outputs(model, tasks, batch.tasks, device, tasks if with_losses else ())
        return batch, Arriving(computed), Arriving(losses)

    try:
        with precision():
            for batch, computed, losses in one_late(map(submit, batches)):
                scored, lost = computed.values(), losses.values()
                for name, part in batch.tasks.items():
                    predictions[name].add(part.sample_ids, scored[name], lost.get(name))
                if after_batch is not None:
                    after_batch()
                progress.advance()
    finally:
        model.train(training)
    return predictions


def one_late(submitted: Iterable[T]) -> Iterator[T]:
    """Each thing once the next one is submitted, so that a GPU computes that while this is read."""
    waiting = list[T]()
    for thing in submitted:
        yield from waiting
        waiting = [thing]
    yield from waiting


class Arriving:
    """Tensors that are being copied from a device."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._values = {name: values.to("cpu", non_blocking=True) for name, values in tensors.items()}
        self._event = torch.cuda.Event() if any(values.is_cuda for values in tensors.values()) else None
        if self._event:
            self._event.record()

    def values(self) -> dict[str, Tensor]:
        """The tensors, once they are copied."""
        if self._event:
            self._event.synchronize()
        return self._values


def outputs(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    batches: Mapping[str, TaskBatch],
    device: torch.device,
    learnt: Collection[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The scores of a batch of each task, by name, and for the tasks in `learnt` the loss of each sample.

    Scores are as measures read them: one per item, or one per item and class. Tasks that need groups or a teacher have no
    loss. Call it without gradients and inside the context of the precision. One context for many batches converts weights
    once, which torch does not do in inference mode.
    """
    moved = {name: to_device(batch, device) for name, batch in batches.items()}
    logits = model(moved) if moved else {}
    with torch.autocast(device.type, enabled=False):
        computed = {name: tasks[name].scores(logits[name]) for name in batches}
        losses = {
            name: tasks[name].loss(logits[name], moved[name])
            for name in batches
            if name in learnt and not (tasks[name].grouped or tasks[name].distils)
        }
    for name, batch in batches.items():
        of_classes = tasks[name].kind == "classification"
        meaning = "one number an item and class" if of_classes else "one number an item"
        classes = [len(getattr(tasks[name], "classes", ())) or tasks[name].output_dim] if of_classes else []
        shaped(f"{name_of(tasks[name])}.scores", computed[name], (len(batch.labels), *classes), meaning)
    return computed, losses


def evaluation_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def evaluation_precision(precision: str) -> Callable[[], AbstractContextManager[object]]:
    """The context to score in for a trainer's `precision`: on a GPU, as it trained."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return partial(torch.autocast, "cuda", dtype) if dtype and torch.cuda.is_available() else nullcontext


def gather(predictions: Mapping[str, Predictions]) -> None:
    """Give every process the predictions of all processes."""
    if world_size() == 1:
        return
    for part in of_all_processes({name: p.pack() for name, p in predictions.items()}):
        for name, packed in part.items():
            predictions[name].unpack(packed)


def to_device(batch: TaskBatch, device: torch.device) -> TaskBatch:
    """The batch on a device, by a copy that does not wait for what the device is doing; numbers stay where they are."""
    return TaskBatch._make(_moved(field, device) if isinstance(field, Tensor) else field for field in batch)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor  # a copy from other memory waits
    return pinned.to(device, non_blocking=True)
