"""Builds what trains a loop: Lightning's trainer, milestones and checkpoints."""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.tensorboard.summary import hparams

from mtlrank.building.devices import check_started, is_on_gpus, num_processes
from mtlrank.building.own_classes import code_of
from mtlrank.composing.objects import build_object, locate
from mtlrank.composing.selection import monitors, require_monitors
from mtlrank.config import Config
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.errors import ConfigError, StorageError, one_line
from mtlrank.loop.checkpoints import CHECKPOINTS, Checkpoints
from mtlrank.loop.logger import Service
from mtlrank.loop.milestones import Milestones, Monitored, Plan
from mtlrank.loop.progress import Bar, PlainProgress
from mtlrank.loop.resume import epoch_batches, epoch_steps
from mtlrank.loop.stopping import StopSignals
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.own_parts import instance_of

LOGS = ("logs", "tensorboard")  # in a run's folder, each with a folder per attempt
_REFUSED = {  # callbacks of Lightning, and what is wrong with them
    (pl.callbacks.EarlyStopping, pl.callbacks.Checkpoint): (
        "mtlrank validates, stops and saves by itself: leave it out and use training.monitor, training.patience and "
        "training.checkpoint_minutes"
    ),
    (pl.callbacks.WeightAveraging, pl.callbacks.StochasticWeightAveraging): (
        "mtlrank judges and saves the weights that are trained, so their averages would be lost: leave it out"
    ),
    (pl.callbacks.GradientAccumulationScheduler, pl.callbacks.BatchSizeFinder, pl.callbacks.LearningRateFinder): (
        "mtlrank plans batches, steps and rates before it starts: leave it out and set trainer.accumulate_grad_batches, "
        "training.batch_size and loop.optimizer.lr"
    ),
}


def build_checkpoints(config: Config, output: Path) -> Checkpoints:
    """The place of checkpoints, proven writable."""
    folder = config["training"]["checkpoint_dir"]
    try:
        return Checkpoints(folder or output / CHECKPOINTS)
    except StorageError as error:
        if folder is None:
            raise
        raise StorageError(f"training.checkpoint_dir: {error}") from error


def build_milestones(
    config: Config,
    checkpoints: Checkpoints,
    datasets: Mapping[str, PreparedDataset],
    model: MultiTaskModel,
    signals: StopSignals,
    started: float,
    start: Mapping[str, str],
) -> Milestones:
    """Validation, checkpoints and stopping, and the identity that a checkpoint must share to be continued.

    `start` has the hashes of the weights that it starts from, as `starting_weights` gives them.
    """
    training = config["training"]
    settings = {name: training[name] for name in Plan._fields if name != "at_start"}
    choosing = monitored(config, datasets)
    is_trained = all(model.head(name).is_pretrained for name in choosing.heads)
    plan = Plan(**settings, at_start=not training["epochs"] or is_trained)
    identity = {f"data.{dataset.name}": dataset.manifest["fingerprint"] for dataset in datasets.values()}
    identity |= {f"heads.{name}": kind for name, kind in model.head_kinds().items()}
    identity |= {f"heads.{name}": f"that of {other}" for name, other in model.shared.items()}
    identity |= {
        "tokenizer": next(iter(datasets.values())).manifest["tokenizer"]["sha256"],
        "body": model.body.describe(),
    }
    identity |= {f"body.{setting.rpartition('.')[2]}": sha256 for setting, sha256 in start.items()}
    accepted, by = training["accept_changes"], code_of(config)
    return Milestones(checkpoints, choosing, signals, plan, identity, accepted, by, started)


def build_service(config: Config) -> Service | None:
    """The service that values are logged to, not started yet; None if none is configured."""
    node = config["loop"].get("logger")
    return instance_of("loop.logger", build_object(node), Service) if node else None


def build_trainer(config: Config, output: Path, milestones: Milestones, service: Service | None = None) -> pl.Trainer:
    """Lightning's trainer with our callbacks and loggers; its logs lie in `output`."""
    on_terminal = sys.stderr.isatty()
    progress = Bar() if on_terminal else PlainProgress()
    csv, tensorboard = LOGS
    before = [int(path.name.removeprefix("attempt_")) for path in (output / csv).glob("attempt_*")]
    attempt = f"attempt_{max(before, default=0) + 1}"
    settings = dict(config["trainer"])
    own = [
        instance_of("A part of trainer.callbacks", build_object(node), pl.Callback)
        for node in settings.pop("callbacks", None) or ()
    ]
    if settings["strategy"] == "auto" and num_processes(settings) > 1:
        # The loop gives weights that a process does not use a gradient of zero.
        settings["strategy"] = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    trainer = _trainer(
        settings,
        max_epochs=config["training"]["epochs"],
        max_steps=config["training"]["max_steps"] or -1,
        limit_val_batches=0,  # milestones validate
        callbacks=[progress, *own, milestones],  # milestones last: checkpoints have the state of all
        plugins=[milestones.io],
        logger=[
            # With more steps, the lines of a run that is killed are lost.
            CSVLogger(output, name=csv, version=attempt, flush_logs_every_n_steps=1),
            TensorBoardLogger(output, tensorboard, attempt, default_hp_metric=False),
            *([service] if service else []),
        ],
        enable_progress_bar=on_terminal,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the samplers own the batches
        num_sanity_val_steps=0,
    )
    # With trainer.deterministic, torch would also fill new memory before it is written: hundreds of kernels in each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer


def log_settings(trainer: pl.Trainer, settings: Mapping[str, Any], metric: str) -> None:
    """Log a run's settings beside its values. TensorBoard compares runs by them and by a metric."""
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(settings))
        if isinstance(logger, TensorBoardLogger):  # by hand: Lightning would also log a value of the metric
            plain = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in settings.items()}
            for summary in hparams(plain, {metric: 0.0})[:2]:  # the third would say that the run has ended
                logger.experiment._get_file_writer().add_summary(summary)


def check_trainer(config: Config) -> None:
    """Refuse trainer settings that Lightning refuses, such as a missing GPU, before data is read.

    So are callbacks that do what mtlrank does, or would have no effect.
    """
    for node in config["trainer"].get("callbacks") or ():
        found = locate(str(node["_target_"])) if isinstance(node, Mapping) and "_target_" in node else None
        for kinds, reason in _REFUSED.items():
            if isinstance(found, type) and issubclass(found, kinds):
                raise ConfigError(f"trainer.callbacks has {found.__name__}, but {reason}.")
    if str(config["trainer"]["precision"]) in ("16", "16-mixed") and not is_on_gpus(config["trainer"]):
        raise ConfigError(
            "trainer.precision is 16-mixed, which needs a GPU (without one, Lightning would compute in bf16): expected "
            "32-true or bf16-mixed."
        )
    check_started(config["trainer"])
    if re.search("spawn|fork", str(config["trainer"]["strategy"])):
        raise ConfigError(
            f"trainer.strategy is {config['trainer']['strategy']}, which copies this process into the others: expected "
            "auto or ddp, with which each builds its own data and model."
        )
    settings = {key: value for key, value in config["trainer"].items() if key not in ("callbacks", "deterministic")}
    _trainer(settings, logger=False, enable_checkpointing=False)  # `deterministic` would change torch's global mode


def _trainer(settings: dict[str, Any], **kwargs: Any) -> pl.Trainer:
    try:
        return pl.Trainer(**settings, **kwargs)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"Lightning refuses the trainer settings: {one_line(error)}") from error


def monitored(config: Config, datasets: Mapping[str, PreparedDataset]) -> Monitored:
    """The metric that chooses the checkpoint, or several. They must be such as validation computes."""
    keys = {
        f"val/{dataset.name}/{measure}": measure
        for dataset in datasets.values()
        if dataset.has("val")
        for measure in dataset.task.measures
    }
    if not keys:
        raise no_validation(datasets)
    chosen = monitors(config) or [next(iter(keys))]
    require_monitors(chosen, keys)
    return Monitored(tuple(key.removeprefix("val/") for key in chosen), keys[chosen[0]])


def no_validation(keys: Iterable[str]) -> ConfigError:
    """The error for datasets of which none has a validation split."""
    return ConfigError(
        f"No dataset ({', '.join(keys)}) has a val split, so the best checkpoint cannot be chosen. Give one a `val`, or "
        "add a dataset that has one."
    )


def plan_steps(config: Config, datamodule: MTLDataModule, trainer: pl.Trainer) -> int:
    """The number of optimizer steps of the whole run; tells the datamodule what its samplers need to know of them."""
    datamodule.accumulated = trainer.accumulate_grad_batches
    datamodule.most_batches = epoch_batches(datamodule, trainer, trainer.world_size)
    in_epoch = epoch_steps(datamodule, trainer, trainer.world_size)
    steps: int = in_epoch * config["training"]["epochs"]
    if trainer.max_steps >= 0:
        steps = min(steps, trainer.max_steps)
    datamodule.epochs = steps / max(in_epoch, 1) or 1.0  # never 0, as a sampler may divide by it
    return steps
