"""Continuing from a checkpoint: exactly where it ended, or from the first step with its weights."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.errors import ConfigError
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.model.body.lora import plain_name
from mtlrank.model.start import scale_between
from mtlrank.words import counted


def take_over(checkpoint: Mapping[str, Any], loop: MultiTaskLoop) -> str:
    """Load the weights that fit the loop's model; returns how many these are, in words.

    Raises `ConfigError` if low-rank updates of the checkpoint would be lost.
    """
    # Only the model's: the state of a combiner belongs to the earlier tasks.
    again = tuple(f"model.heads.{name}." for name in loop.model.shared)  # the same weights under a second name
    own = {
        name: weight
        for name, weight in loop.state_dict().items()
        if name.startswith("model.") and not name.startswith(again)
    }
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    if lost := [n for n, w in weights.items() if ".lora_" in n and (n not in own or own[n].shape != w.shape)]:
        raise ConfigError(
            f"The checkpoint has low-rank updates that this run has no place for, such as {lost[0]}. The model of a "
            "finished run holds them in its own weights: start from it, model.start_from=RUN/model, in another output_dir."
        )
    full_names = {plain_name(name): name for name in own}  # the layers that are adapted now may not have been so then
    found = {full_names.get(plain_name(name), name): weight for name, weight in weights.items()}
    kept = {name: w for name, w in found.items() if name in own and own[name].shape == w.shape}
    scales, labels = dict[str, tuple[float, float]](), loop.labels()
    for name, earlier in checkpoint["labels"].items():
        mine = [each for each in own if each.startswith(f"model.heads.{name}.")]
        if mine and all(each in kept for each in mine):
            scale = scale_between(loop.model.head(name), loop.datasets[name].task, labels[name], earlier)
            if scale is None:
                kept = {each: w for each, w in kept.items() if each not in mine}
            else:
                scales[name] = scale
    loop.load_state_dict({**loop.state_dict(), **kept})
    for name, scale in scales.items():
        if scale != (1.0, 0.0):
            loop.model.head(name).rescale(*scale)
    return f"{len(kept)} of {len(own)}"


def continue_at(
    place: Mapping[str, Any], trainer: pl.Trainer, loop: MultiTaskLoop, checkpoint: Mapping[str, Any]
) -> None:
    """Set the data, and Lightning's loops in `checkpoint`, to the saved place, whatever the number of processes was.

    `place` is the state of `Milestones`.
    """
    epoch = 0 if trainer.overfit_batches else place["epoch"]
    trainer.datamodule.start_at(epoch, place["batches"])
    whole = trainer.datamodule.num_batches("train")
    steps = -(-whole // trainer.world_size) - -(-(whole - place["batches"]) // trainer.world_size)
    if loop.total_steps != trainer.max_steps:  # else max_steps ends the run, whatever the size of a step
        processes = place["processes"], trainer.world_size
        then, now = (epoch_steps(trainer.datamodule, trainer, number) for number in processes)
        for schedule in checkpoint["lr_schedulers"]:  # more processes take fewer, larger steps
            schedule["last_epoch"] = round(schedule["last_epoch"] * now / then)
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"] = {"_batches_that_stepped": checkpoint["global_step"]}
    loops["epoch_loop.batch_progress"] = {"is_last_batch": False, "total": _at(steps), "current": _at(steps)}
    begun = place["epoch"] + (1 if place["batches"] else 0)
    epochs = {**_at(place["epoch"]), "ready": begun, "started": begun}
    loops["epoch_progress"] = {"total": epochs, "current": dict(epochs)}


def set_rates(schedule: Any) -> None:
    """Set the learning rates of the schedule's step: a checkpoint's may be of a shorter run, or of fewer processes."""
    if isinstance(schedule, LambdaLR):  # others compute a rate only from the one before
        groups = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
        for group, peak, factor in groups:
            group["lr"] = peak * factor(schedule.last_epoch)


def epoch_steps(datamodule: MTLDataModule, trainer: pl.Trainer, processes: int) -> int:
    """Optimizer steps of an epoch on so many processes."""
    accumulated: int = trainer.accumulate_grad_batches
    return max(1, math.ceil(epoch_batches(datamodule, trainer, processes) / accumulated))


def epoch_batches(datamodule: MTLDataModule, trainer: pl.Trainer, processes: int) -> int:
    """Batches of an epoch on each of so many processes, from our own samplers' lengths and the trainer's limits."""
    batches: int = datamodule.num_batches("train", processes)
    for name in ("limit_train_batches", "overfit_batches"):
        if limit := getattr(trainer, name):
            wanted = limit if isinstance(limit, int) else int(limit * batches)  # a fraction, rounded as Lightning does
            if not wanted:
                raise ConfigError(
                    f"trainer.{name} is {limit}, which leaves none of the {counted(batches, 'batch', 'batches')} that a "
                    "process has in an epoch. Expected a larger share, or a number of batches such as 1."
                )
            batches = min(batches, wanted)
    return batches


def _at(number: int) -> dict[str, int]:
    """Lightning's counters when `number` of something are completed."""
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)
