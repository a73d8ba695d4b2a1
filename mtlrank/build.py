"""Where a config becomes what trains: datamodule, model, loop, trainer."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mtlrank.build_dataset import build_dataset, code
from mtlrank.checks import nearest
from mtlrank.compose import Config
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.errors import ConfigError, StorageError, UserError
from mtlrank.evaluation import measures
from mtlrank.loop.checkpoints import CHECKPOINTS, Checkpoints
from mtlrank.loop.gradients import trained
from mtlrank.loop.logger import Service
from mtlrank.loop.loss import ByGradient, Combiner, DynamicWeightAverage, Learner
from mtlrank.loop.milestones import Milestones, Monitored, Plan, epoch_steps
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import Bar, PlainProgress
from mtlrank.loop.stopping import StopSignals
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MTLHead, Pooler
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.start import start_body, start_heads
from mtlrank.objects import build_object
from mtlrank.progress import say
from mtlrank.registry import model_folder
from mtlrank.returned import instance_of
from mtlrank.task.distillation import Distillation

LOGS = ("logs", "tensorboard")  # folders in a run's, with a folder for each attempt
_HIGH_RATE = 2e-4
_WIDE, _USUAL = 50.0, 3.0  # standard deviations of a teacher's scores


def build_datamodule(config: Config, datasets: Mapping[str, PreparedDataset]) -> MTLDataModule:
    """The datamodule over opened datasets by key, whose validation is from here on as small as it is to be."""
    if (most := config["training"]["max_val_queries"]) is not None:
        for dataset in datasets.values():
            if dataset.has("val"):
                dataset.limit("val", most)
    node = {k: v for k, v in config["datamodule"].items() if k != "dataset"}
    mixture = {k: v for k, v in config["datamodule"]["dataset"].items() if k != "datasets"}
    built = build_object(node, dataset=build_object(mixture, datasets=dict(datasets)))
    datamodule: MTLDataModule = instance_of("datamodule", built, MTLDataModule)
    return datamodule


def build_body(config: Config) -> MTLBody:
    """The body, once it and every head are known to fit: no data needs to be read to find out."""
    start = _start_from(config)
    built = build_object({**config["model"]["body"], **({"pretrained": False} if start else {})})
    body: MTLBody = instance_of("model.body", built, MTLBody)
    if start:
        start_body(start, body)
    for key in config["model"]["heads"]:
        _build_head(config, body, key, output_dim=1)
    _check_lengths(config, body)
    return body


def _check_lengths(config: Config, body: MTLBody) -> None:
    """Refuse texts that are longer than the body has positions for."""
    for key, dataset in config["datamodule"]["dataset"]["datasets"].items():
        length = dataset.get("preprocessor", {}).get("max_length", 0)
        if body.max_length and type(length) is int and length > body.max_length:
            raise ConfigError(
                f"datamodule.dataset.datasets.{key}.preprocessor.max_length is {length}, but {body.backbone} has positions "
                f"for {body.max_length} tokens."
            )


def compile_body(config: Config, body: MTLBody) -> None:
    """Have the layers of the body compiled for the device that this process trains on."""
    body.compile_layers(_own_device(config["trainer"]))
    say("the layers of the body are compiled when they are first used: the first steps take longer")


def build_model(config: Config, body: MTLBody, datasets: Mapping[str, PreparedDataset]) -> MultiTaskModel:
    """Body and heads; sizes come from the body and the opened datasets."""
    heads = {}
    for key, dataset in datasets.items():
        heads[dataset.name] = _build_head(config, body, key, dataset.task.output_dim)
        _check_pooler(key, dataset, heads[dataset.name].pooler)
    rest = {k: v for k, v in config["model"].items() if k not in ("body", "heads", "start_from")}
    model: MultiTaskModel = instance_of("model", build_object(rest, body=body, heads=heads), MultiTaskModel)
    if start := _start_from(config):
        labels = {dataset.name: dataset.manifest["labels"] for dataset in datasets.values()}
        taken, new = start_heads(start, model, labels)
        say(
            f"starting from {config['model']['start_from']}: its body, its heads {', '.join(taken) or 'none'}; "
            f"new heads: {', '.join(new) or 'none'}"
        )
    return model


def build_saved_model(config: Config, labels: Mapping[str, Any]) -> MultiTaskModel:
    """The model of a saved config, before its weights are loaded. No data is needed."""
    datasets = {key: build_dataset(node) for key, node in config["datamodule"]["dataset"]["datasets"].items()}
    for key, dataset in datasets.items():
        dataset.task.learn_labels(labels[key])
    return build_model(config, build_body(config), datasets)


def build_loop(
    config: Config, model: MultiTaskModel, datasets: Mapping[str, PreparedDataset], total_steps: int
) -> MultiTaskLoop:
    """The loop around a model."""
    by_name = {dataset.name: dataset for dataset in datasets.values()}
    node = {k: v for k, v in config["loop"].items() if k != "logger"}
    with _naming_loss():
        built = build_object(node, model=model, datasets=by_name, total_steps=total_steps)
    loop: MultiTaskLoop = instance_of("loop", built, MultiTaskLoop)
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
        usual = loop.configure_optimizers()["optimizer"].defaults  # now, as a mistake in it should leave no mark
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loop.optimizer or loop.schedule cannot be built: {error}") from error
    _warn_of_high_rate(config)
    if isinstance(loop.loss, DynamicWeightAverage) and config["training"]["epochs"] < 3:
        say(
            f"loop/loss=dwa weighs all tasks alike in two epochs, and training.epochs is {config['training']['epochs']}"
        )
    _warn_of_slow_settings(config["trainer"])
    _warn_of_wide_scores(datasets)
    if usual.get("fused") and usual.get("momentum"):
        raise ConfigError(
            "loop.optimizer has momentum and fused=true: torch's kernel fails in a step without samples of some task, as "
            "its weights have no momentum yet. Set loop.optimizer.fused=false."
        )
    return loop


def check_loss(config: Config) -> None:
    """Refuse names and settings that a combiner does not take, before any data is read for it."""
    names = [str(dataset["name"]) for dataset in config["datamodule"]["dataset"]["datasets"].values()]
    loss = config["loop"]["loss"]
    with _naming_loss():
        built = build_object(loss)({name: Learner(num_outcomes=2, is_squared_error=False) for name in names})
    instance_of("loop.loss", built, Combiner)


@contextmanager
def _naming_loss() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"loop.loss does not take its settings: {error}.") from error


def _warn_of_high_rate(config: Config) -> None:
    """Say that a pretrained body may forget what it knows: rates of bodies that start from nothing are ten times higher."""
    body, optimizer = config["model"]["body"], config["loop"]["optimizer"]
    is_adam = str(optimizer["_target_"]).endswith(("Adam", "AdamW"))
    is_high = is_adam and body.get("pretrained") and not body.get("lora") and optimizer["lr"] > _HIGH_RATE
    if is_high:
        say(f"loop.optimizer.lr is {optimizer['lr']:g}: pretrained bodies usually learn with 1e-5 to 1e-4")


def _warn_of_slow_settings(trainer: Mapping[str, Any]) -> None:
    """Say why a GPU could be faster. In full precision it also pads for attention."""
    if not _is_on_gpus(trainer):
        return
    is_full = str(trainer["precision"]) in ("32", "32-true")
    if is_full and torch.cuda.is_bf16_supported(including_emulation=False):
        say(
            "trainer.precision is 32-true: bf16-mixed would use the GPU's tensor cores and its kernel for packed attention"
        )
    parses_once = hasattr(torch.backends.cuda, "cublas_workspace_size")
    if trainer["deterministic"] and not parses_once:
        say(
            f"trainer.deterministic costs torch {torch.__version__} about 0.1 ms per matrix product, 30 ms per step of "
            "BERT-base even in small batches: use torch 2.13, or trainer.deterministic=false"
        )


def _warn_of_wide_scores(datasets: Mapping[str, PreparedDataset]) -> None:
    """Say that a teacher's scores are of another size than logits, such as those of a lexical model."""
    for key, dataset in datasets.items():
        if isinstance(dataset.task, Distillation):
            spread = dataset.manifest["labels"]["std"]
            if spread * dataset.task.teacher_scale > _WIDE:
                setting = f"datamodule.dataset.datasets.{key}.task.teacher_scale"
                say(
                    f"the teacher's scores of {dataset.name} have a standard deviation of {spread:.3g}, those of a head "
                    f"one of a few units: {setting}={_USUAL / spread:.1g} would bring them there"
                )


def _check_by_gradient(config: Config) -> None:
    """Refuse what combining gradients cannot go together with."""
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


def num_processes(trainer: Mapping[str, Any]) -> int:
    """How many processes train, each on a device of its own, on all nodes together."""
    devices = trainer["devices"]
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices) in ("auto", "-1"):
        count = torch.cuda.device_count() if _is_on_gpus(trainer) else 1
    else:
        count = devices
    if not _is_on_gpus(trainer) and int(count) > max(os.cpu_count() or 1, 8):
        raise ConfigError(f"trainer.devices is {count}, but this machine has no GPU and {os.cpu_count()} processors.")
    return int(count) * int(trainer["num_nodes"])


def _own_device(trainer: Mapping[str, Any]) -> torch.device:
    """Where this process trains."""
    rank, devices = int(os.environ.get("LOCAL_RANK", 0)), trainer["devices"]
    if not _is_on_gpus(trainer):
        return torch.device("cpu")
    return torch.device("cuda", devices[rank] if isinstance(devices, list) else rank)


def _is_on_gpus(trainer: Mapping[str, Any]) -> bool:
    return torch.cuda.is_available() and trainer["accelerator"] != "cpu"


def build_checkpoints(config: Config, output: Path) -> Checkpoints:
    """Where checkpoints are kept, proven writable."""
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
) -> Milestones:
    """Validation, checkpoints and stopping, and what a checkpoint must have been learnt from to be continued."""
    training = config["training"]
    plan = Plan(
        training["val_checks_per_epoch"],
        training["patience"],
        training["checkpoint_minutes"],
        training["checkpoint_steps"],
        training["epochs"],
        training["max_steps"],
    )
    identity = {f"data.{dataset.name}": dataset.manifest["fingerprint"] for dataset in datasets.values()}
    identity |= {f"heads.{name}": kind for name, kind in model.head_kinds().items()}
    identity |= {
        "tokenizer": next(iter(datasets.values())).manifest["tokenizer"]["sha256"],
        "body": model.body.describe(),
    }
    accepted, by = training["accept_changes"], code(config)
    return Milestones(checkpoints, monitored(config, datasets), signals, plan, identity, accepted, by)


def build_service(config: Config) -> Service | None:
    """The service that shows a run's values, not started yet, if there is to be one."""
    node = config["loop"].get("logger")
    service: Service | None = instance_of("loop.logger", build_object(node), Service) if node else None
    return service


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
        # Weights that a process does not use get a gradient of zero, so there is nothing to find.
        settings["strategy"] = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    trainer = _trainer(
        settings,
        max_epochs=config["training"]["epochs"],
        max_steps=config["training"]["max_steps"] or -1,
        limit_val_batches=0,  # milestones judge
        callbacks=[
            LearningRateMonitor("step"),
            progress,
            *own,
            milestones,
        ],  # the last one writes checkpoints, with the state of all
        plugins=[milestones.io],
        logger=[
            CSVLogger(output, name=csv, version=attempt),
            TensorBoardLogger(output, tensorboard, attempt),
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


def _trainer(settings: dict[str, Any], **kwargs: Any) -> pl.Trainer:
    try:
        return pl.Trainer(**settings, **kwargs)
    except (TypeError, ValueError, MisconfigurationException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"Lightning refuses the trainer settings: {reason}") from error


def monitored(config: Config, datasets: Mapping[str, PreparedDataset]) -> Monitored:
    """The metric that chooses the checkpoint; it must be one that validation computes."""
    keys = {
        f"val/{dataset.name}/{measure}": measure
        for dataset in datasets.values()
        if dataset.has("val")
        for measure in dataset.task.measures
    }
    if not keys:
        names = ", ".join(dataset.name for dataset in datasets.values())
        raise ConfigError(
            f"No dataset ({names}) has a val split, so the best checkpoint cannot be chosen. Give one a `val`, or add a "
            "dataset that has one."
        )
    key = config["training"]["monitor"] or next(iter(keys))
    if key not in keys:
        raise ConfigError(f"training.monitor is {key!r}.{nearest(key, keys)} Expected one of {', '.join(keys)}.")
    return Monitored(key, measures.mode(keys[key]))


def plan_steps(config: Config, datamodule: MTLDataModule, trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole run; the datamodule hears how many epochs these are."""
    in_epoch = epoch_steps(datamodule, trainer, trainer.world_size)
    steps: int = in_epoch * config["training"]["epochs"]
    if trainer.max_steps >= 0:
        steps = min(steps, trainer.max_steps)
    datamodule.epochs = steps / max(in_epoch, 1)
    return steps


def check_tokenizers(config: Config, datasets: Mapping[str, PreparedDataset]) -> None:
    """All datasets must have been prepared with the body's tokenizer."""
    backbone = config["model"]["body"]["backbone"]
    found = {key: dataset.manifest["tokenizer"] for key, dataset in datasets.items()}
    if len({tokenizer["sha256"] for tokenizer in found.values()}) > 1 or any(
        tokenizer["name"] != backbone for tokenizer in found.values()
    ):
        table = ", ".join(f"{key}: {tokenizer['name']}" for key, tokenizer in found.items())
        raise ConfigError(f"The body is {backbone!r}, but datasets were prepared for other tokenizers: {table}.")


def _start_from(config: Config) -> Path | None:
    """The folder of the trained model to start from, on this machine."""
    path = config["model"].get("start_from")
    return model_folder(path) if path else None


def _build_head(config: Config, body: MTLBody, key: str, output_dim: int) -> MTLHead:
    node = config["model"]["heads"][key]
    if not isinstance(node, dict):
        raise ConfigError(f"model.heads.{key} is {node!r}, expected settings of a head, as in model/heads.")
    try:
        built = build_object(node)(body_dim=body.out_dim, num_layers=body.num_layers, output_dim=output_dim)
    except (ConfigError, TypeError, ValueError) as error:  # the latter two are of arguments that do not fit
        raise ConfigError(f"Head {key!r}: {error}") from error
    head: MTLHead = instance_of(f"model.heads.{key}", built, MTLHead)
    return head


def _check_pooler(key: str, dataset: PreparedDataset, pooler: Pooler) -> None:
    num_spans = pooler.num_spans
    if pooler.needs_pairs and not dataset.has_pairs:
        raise ConfigError(
            f"Head {key!r} pools with {type(pooler).__name__}, which compares two texts, but its dataset has single texts. "
            f"Choose a pooler with `model/heads/pooler@model.heads.{key}.pooler=...`."
        )
    if num_spans != dataset.task.num_spans:
        expected = dataset.task.num_spans or "no"
        raise ConfigError(
            f"Head {key!r} pools {num_spans or 'no'} spans, but its dataset labels {expected} spans per item. "
            f"Choose a pooler with `model/heads/pooler@model.heads.{key}.pooler=...`."
        )
