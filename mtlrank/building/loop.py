"""Builds the loop, after checks that its loss and optimizer fit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature

from torch.optim import Adafactor, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mtlrank.building.advice import advise
from mtlrank.building.devices import num_processes
from mtlrank.composing.objects import build_object
from mtlrank.config import Config, head_names
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError, UserError
from mtlrank.loop.gradients import trained
from mtlrank.loop.loss import ByGradient, Combiner, Learner
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.own_parts import check_class, check_registered, instance_of

_PARTS: tuple[tuple[str, type, tuple[str, ...]], ...] = (  # of a loop, and what it calls each with, the first by place
    ("loss", Combiner, ("tasks",)),
    ("optimizer", Optimizer, ("params",)),
    ("schedule", LRScheduler, ("optimizer", "total_steps")),
)


def build_loop(
    config: Config, model: MultiTaskModel, datasets: Mapping[str, PreparedDataset], total_steps: int
) -> MultiTaskLoop:
    """The loop around a model."""
    by_name = {dataset.name: dataset for dataset in datasets.values()}
    node = {k: v for k, v in config["loop"].items() if k != "logger"}
    with _naming_loss():
        built = build_object(node, model=model, datasets=by_name, total_steps=total_steps)
    loop = instance_of("loop", built, MultiTaskLoop)
    check_registered("loop.loss", instance_of("loop.loss", loop.loss, Combiner))
    if isinstance(loop.loss, ByGradient):
        _check_by_gradient(config)
        if not trained(model.body):
            raise ConfigError(
                "loop.loss combines gradients at the body, but model.body.frozen_layers freezes all of it."
            )
    if str(config["trainer"]["precision"]).startswith("16") and config["loop"]["optimizer"].get("fused"):
        raise ConfigError(
            "trainer.precision=16-mixed scales gradients, and a fused optimizer would clip the scaled ones. Use "
            "bf16-mixed, or loop.optimizer.fused=false."
        )
    try:
        # Now, so that a mistake in it is found before training.
        optimizer = loop.configure_optimizers()["optimizer"]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loop.optimizer or loop.schedule cannot be built: {error}") from error
    if isinstance(optimizer, Adafactor) and config["model"]["body"]["lora"]:
        raise ConfigError(
            "model.body.lora begins with weights of 0, and Adafactor's steps are relative to a weight's size: it would "
            "hardly learn. Use loop/optimizer=adamw."
        )
    if optimizer.defaults.get("fused") and optimizer.defaults.get("momentum"):
        raise ConfigError(
            "loop.optimizer has momentum and fused=true: torch's kernel fails in a step without samples of some task, as "
            "its weights have no momentum yet. Set loop.optimizer.fused=false."
        )
    advise(config, model.body, datasets, loop.loss)
    return loop


def check_loop(config: Config) -> None:
    """Refuse what shows before data is read: classes that do not exist or fit, settings that they do not take.

    Our own loss combiners are built, with placeholders for the tasks' learners, which shows unknown task names. A user's
    own may depend on those: it is built with the loop only.
    """
    for name, base, given in (part for part in _PARTS if part[0] in config["loop"]):
        what, node = f"loop.{name}", config["loop"][name]
        make = build_object(node)
        if isinstance(kind := getattr(make, "func", None), type):
            check_class(what, kind, base)
        try:
            signature(make).bind(*given[:1], **dict.fromkeys(given[1:]))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what} cannot be built: {node['_target_']}: {error}.") from error
    names = head_names(config)
    loss = config["loop"]["loss"]
    if str(loss["_target_"]).startswith("mtlrank."):
        with _naming_loss():
            build_object(loss)({name: Learner(num_outcomes=2, is_squared_error=False) for name in names})


@contextmanager
def _naming_loss() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"loop.loss does not take its settings: {error}.") from error


def _check_by_gradient(config: Config) -> None:
    """Refuse trainer settings with which gradients cannot be combined."""
    trainer = config["trainer"]
    if num_processes(trainer) > 1:
        raise ConfigError(
            "loop.loss combines the tasks' gradients, but several processes average gradients before they can be combined. "
            "Use trainer.devices=1, or combine losses (example_mean, task_mean, uncertainty, ...)."
        )
    if config["training"]["one_task_per_batch"]:
        raise ConfigError(
            "loop.loss combines the tasks' gradients of a step, but with training.one_task_per_batch a step has one task."
        )
    if str(trainer["precision"]).startswith("16"):
        raise ConfigError(
            "loop.loss combines the tasks' gradients, but trainer.precision=16-mixed would scale them. Use bf16-mixed."
        )
