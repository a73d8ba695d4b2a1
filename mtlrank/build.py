"""The only place where a config becomes objects."""

import difflib
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from mtlrank import embedded
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.errors import ConfigError
from mtlrank.evaluation import measures
from mtlrank.loop.checkpoints import Checkpoints, Monitored
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import PlainProgress
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MTLHead
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.storage import MANIFEST, fingerprint, local_path, writable_folder

Config = dict[str, Any]
_TRUSTED_TARGETS = ("mtlrank.", "torch.", "torchmetrics.", "transformers.", "pytorch_lightning.")
_FORBIDDEN_IN_OVERRIDES = ("_target_", "hydra.", "hydra/", "${", "_partial_", "_args_", "searchpath")


# -- composing -------------------------------------------------------------------------------------------------------


def compose_config(overrides: Sequence[str] = (), *, trusted: bool, name: str = "train") -> Config:
    """The resolved config for overrides in the command line's words.

    Overrides from outside (`trusted=False`: pipeline parameters) may choose among what is installed but not name code,
    Hydra's own settings or interpolations. Raises `ConfigError` for what is forbidden or cannot be composed.
    """
    if not trusted:
        check_overrides(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("mtlrank.conf", version_base="1.3"):
            config = compose(name, overrides=list(overrides))
        return resolve(config, trusted=trusted)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, known_keys(name))) from error


def pipeline_config(settings: Mapping[str, Any], overrides: Sequence[str], name: str = "train") -> Config:
    """The config for a pipeline's typed parameters, by config key, and its free overrides; both come from outside.

    The overrides stand first, so that an experiment among them does not undo a parameter.
    """
    typed = [f"{key}={_literal(key, value)}" for key, value in settings.items()]
    return compose_config([*overrides, *typed], trusted=False, name=name)


def _literal(key: str, value: Any) -> str:
    """A value in Hydra's grammar. Text is quoted, but for the name of a config, which must look like one."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(_literal(key, item) for item in value)}]"
    if isinstance(value, str):
        if "/" in key and not re.fullmatch(r"[a-z0-9_]+", value):
            raise ConfigError(f"{value!r} is not the name of a config for {key}: expected letters, digits and '_'.")
        return value if "/" in key else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def resolve(config: DictConfig, *, trusted: bool) -> Config:
    """Plain values, interpolations filled in. From outside, every `_target_` is checked before anything is imported."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
    return plain  # type: ignore[return-value]


def check_targets(config: Any) -> None:
    """Refuse a `_target_` outside mtlrank, torch and what the image's builder allowed in `$MTLRANK_ALLOWED_TARGETS`."""
    allowed = _TRUSTED_TARGETS + tuple(filter(None, os.environ.get("MTLRANK_ALLOWED_TARGETS", "").split(",")))
    for target in _targets(config):
        if not target.startswith(allowed):
            raise ConfigError(
                f"_target_ {target!r} is not allowed in a config from outside. Allowed: {', '.join(allowed)}. "
                "The image's builder can allow more prefixes in MTLRANK_ALLOWED_TARGETS."
            )


def explain(error: Exception, known: Iterable[str]) -> str:
    """Hydra's complaint in one line, with the nearest key that exists."""
    text = str(error).strip()
    first = text.splitlines()[0]
    wrong = re.search(r"Could not override '([^']+)'|Key '([^']+)'|Could not find '([^']+)'", text)
    if not wrong:
        return f"{first} (config)"
    name = next(group for group in wrong.groups() if group)
    if "Could not find" in wrong[0]:
        group, _, option = name.rpartition("/")
        options = _options(text)
        near = difflib.get_close_matches(option, options, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{group or 'The config'} has no option {option!r}.{hint} It has: {', '.join(options)}."
    near = difflib.get_close_matches(name.lstrip("+~"), list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown config key {name!r}.{hint} (`--cfg job` prints all keys; `+{name}=...` adds a new one.)"


def known_keys(name: str) -> list[str]:
    """Every key of the default config, dotted."""
    GlobalHydra.instance().clear()
    with initialize_config_module("mtlrank.conf", version_base="1.3"):
        config = compose(name)
    keys = list[str]()

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return keys


def _options(text: str) -> list[str]:
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Available options")), len(lines))
    return sorted(
        line.strip() for line in lines[start + 1 :] if line.startswith("\t") and line.strip() and ":" not in line
    )


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuse overrides from outside that name code, Hydra's own settings or interpolations."""
    for override in overrides:
        for word in _FORBIDDEN_IN_OVERRIDES:
            if word in override or "hydra" in override.split("=")[0]:
                raise ConfigError(
                    f"The override {override!r} is not allowed from a pipeline: it may not name {word!r}. "
                    "Choose among installed configs, or build an image with your own."
                )


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


# -- choosing ----------------------------------------------------------------------------------------------------------


def select_tasks(config: Config) -> Config:
    """The config with datasets and heads matched by key, and cut down to `tasks`. Nothing is read or built yet.

    A single dataset becomes a mixture of one, whose head is the one of its name or the default head. In a mixture, a head
    without a dataset or a dataset without a head is an error that lists both sides.
    """
    dataset, model = config["datamodule"]["dataset"], config["model"]
    heads = model.get("heads") or {}
    if "datasets" not in dataset:
        key = dataset["name"]
        datasets = {key: dataset}
        heads = {key: heads.get(key, model["default_head"])}
        dataset = {"_target_": "mtlrank.datamodule.dataset.MTLDataset"}
        config = {**config, "tasks": None}  # tasks choose among a mixture
    else:
        datasets = dataset["datasets"]
    wanted = config.get("tasks") or list(dict.fromkeys([*datasets, *heads]))
    unknown = [key for key in wanted if key not in datasets and key not in heads]
    if unknown:
        hint = _nearest(unknown[0], datasets)
        raise ConfigError(f"Unknown task {unknown[0]!r} in tasks.{hint} Datasets: {', '.join(datasets)}.")
    without_head = [key for key in wanted if key in datasets and key not in heads]
    without_dataset = [key for key in wanted if key in heads and key not in datasets]
    if without_head or without_dataset:
        raise ConfigError(
            f"Heads without a dataset: {', '.join(without_dataset) or 'none'}. "
            f"Datasets without a head: {', '.join(without_head) or 'none'}. "
            f"Datasets: {', '.join(datasets)}. Heads: {', '.join(heads)}. "
            "Add what is missing, or choose with tasks=[...]."
        )
    chosen = {key: datasets[key] for key in datasets if key in wanted}
    return {
        **config,
        "datamodule": {**config["datamodule"], "dataset": {**dataset, "datasets": chosen}},
        "model": {**{k: v for k, v in model.items() if k != "default_head"}, "heads": {k: heads[k] for k in chosen}},
    }


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


# -- building ----------------------------------------------------------------------------------------------------------


def with_measures(config: Config, names: Sequence[str] | None) -> Config:
    """The config with the measures of every dataset replaced, if there are any to replace them with."""
    if not names:
        return config
    mixture = config["datamodule"]["dataset"]
    changed = {
        key: {**dataset, "task": {**dataset["task"], "measures": list(names)}}
        for key, dataset in mixture["datasets"].items()
    }
    return {**config, "datamodule": {**config["datamodule"], "dataset": {**mixture, "datasets": changed}}}


def build_dataset(config: Mapping[str, Any]) -> PreparedDataset:
    """A dataset, not prepared yet."""
    dataset = _instantiate(config)
    assert isinstance(dataset, PreparedDataset)
    measures.check(dataset.task.kind, dataset.task.measures)
    return dataset


def prepared_folder(config: Config, key: str) -> Path:
    """Where a dataset's prepared form is kept: a name that changes with whatever it is made from."""
    dataset = {k: v for k, v in config["datamodule"]["dataset"]["datasets"][key].items() if k != "name"}
    dataset["task"] = {k: v for k, v in dataset["task"].items() if k not in ("measures", "margin")}
    return local_path(config["data_dir"]) / f"{key}-{fingerprint([dataset, embedded.VERSION])}"


def prepare_dataset(config: Config, key: str, folder: Path) -> PreparedDataset:
    """Prepare a dataset in `folder` unless it is there already, and open it."""
    dataset = build_dataset(config["datamodule"]["dataset"]["datasets"][key])
    if not (folder / MANIFEST).exists():
        description = {"key": key, "name": dataset.name, "relevance_level": getattr(dataset, "relevance_level", None)}
        dataset.prepare(folder, description)
    dataset.open(folder)
    return dataset


def build_datamodule(config: Config, datasets: Mapping[str, PreparedDataset]) -> MTLDataModule:
    """The datamodule over opened datasets by key."""
    node = {k: v for k, v in config["datamodule"].items() if k != "dataset"}
    mixture = {k: v for k, v in config["datamodule"]["dataset"].items() if k != "datasets"}
    datamodule = _instantiate(node, dataset=_instantiate(mixture, datasets=dict(datasets)))
    assert isinstance(datamodule, MTLDataModule)
    return datamodule


def build_body(config: Config) -> MTLBody:
    """The body, once every head is known to fit on it: no data needs to be read to find out."""
    body = _instantiate(config["model"]["body"])
    assert isinstance(body, MTLBody)
    for key in config["model"]["heads"]:
        _build_head(config, body, key, output_dim=1)
    return body


def build_model(config: Config, body: MTLBody, datasets: Mapping[str, PreparedDataset]) -> MultiTaskModel:
    """Body and heads; sizes come from the body and the opened datasets."""
    heads = {}
    for key, dataset in datasets.items():
        heads[dataset.name] = _build_head(config, body, key, dataset.task.output_dim)
        _check_spans(key, dataset, heads[dataset.name].pooler.num_spans)
    rest = {k: v for k, v in config["model"].items() if k not in ("body", "heads")}
    model = _instantiate(rest, body=body, heads=heads)
    assert isinstance(model, MultiTaskModel)
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
    loop = _instantiate(config["loop"], model=model, datasets=by_name, total_steps=total_steps)
    assert isinstance(loop, MultiTaskLoop)
    return loop


def build_trainer(config: Config, output: Path, checkpoints: Checkpoints) -> pl.Trainer:
    """Lightning's trainer with our callbacks and loggers; its logs lie in `output`/logs."""
    training = config["training"]
    callbacks: list[pl.Callback] = [checkpoints, LearningRateMonitor("step")]
    if training["patience"] is not None:
        callbacks.append(
            EarlyStopping(checkpoints.monitor, mode=checkpoints.mode, patience=training["patience"])  # type: ignore[arg-type]
        )
    on_terminal = sys.stderr.isatty()
    callbacks.append(TQDMProgressBar(refresh_rate=5) if on_terminal else PlainProgress())
    logs = output / "logs"
    attempt = f"attempt_{len(list(logs.glob('attempt_*'))) + 1}"
    return pl.Trainer(
        **config["trainer"],
        max_epochs=training["epochs"],
        val_check_interval=1.0 / training["val_checks_per_epoch"],
        callbacks=callbacks,
        logger=[CSVLogger(output, name="logs", version=attempt), TensorBoardLogger(output, "tensorboard", attempt)],
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the samplers own the batches
        num_sanity_val_steps=0,
    )


def monitored(config: Config, datasets: Mapping[str, PreparedDataset]) -> Monitored:
    """The metric that chooses the checkpoint; it must be one that validation computes."""
    keys = {
        f"val/{dataset.name}/{measure}": measure
        for dataset in datasets.values()
        if dataset.has("val")
        for measure in dataset.task.measures
    }
    if not keys:
        raise ConfigError("No dataset has a val split, so no checkpoint can be chosen. Give one a val split.")
    key = config["training"]["monitor"] or next(iter(keys))
    if key not in keys:
        raise ConfigError(f"training.monitor is {key!r}.{_nearest(key, keys)} Expected one of {', '.join(keys)}.")
    return Monitored(key, measures.mode(keys[key]))


def total_steps(config: Config, datamodule: MTLDataModule, trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole run, from our own samplers' lengths."""
    batches = datamodule.num_batches("train", trainer.world_size)
    for limit in (trainer.limit_train_batches, trainer.overfit_batches):
        if isinstance(limit, int) and limit:
            batches = min(batches, limit)
    steps: int = max(1, math.ceil(batches / trainer.accumulate_grad_batches)) * config["training"]["epochs"]
    return steps


def output_folder(config: Config) -> Path:
    """The folder of a run, proven writable; by default it is named after the config, so a command finds its own."""
    named = {k: v for k, v in config.items() if k not in ("output_dir", "data_dir", "test")}
    return writable_folder(config["output_dir"] or Path("runs") / fingerprint(named))


def check_tokenizers(config: Config, datasets: Mapping[str, PreparedDataset]) -> None:
    """All datasets must have been prepared with the body's tokenizer."""
    backbone = config["model"]["body"]["backbone"]
    found = {key: dataset.manifest["tokenizer"] for key, dataset in datasets.items()}
    if len({tokenizer["sha256"] for tokenizer in found.values()}) > 1 or any(
        tokenizer["name"] != backbone for tokenizer in found.values()
    ):
        table = ", ".join(f"{key}: {tokenizer['name']}" for key, tokenizer in found.items())
        raise ConfigError(f"The body is {backbone!r}, but datasets were prepared for other tokenizers: {table}.")


def _build_head(config: Config, body: MTLBody, key: str, output_dim: int) -> MTLHead:
    head = _instantiate(config["model"]["heads"][key])
    try:
        built = head(body_dim=body.out_dim, num_layers=body.num_layers, output_dim=output_dim)
    except ConfigError as error:
        raise ConfigError(f"Head {key!r}: {error}") from error
    assert isinstance(built, MTLHead)
    return built


def _check_spans(key: str, dataset: PreparedDataset, num_spans: int) -> None:
    if num_spans != dataset.task.num_spans:
        expected = dataset.task.num_spans or "no"
        raise ConfigError(
            f"Head {key!r} pools {num_spans or 'no'} spans, but its dataset labels {expected} spans an item. "
            f"Choose a pooler with `model/heads/pooler@model.heads.{key}.pooler=...`."
        )


def _instantiate(node: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build an object. Ready-made parts are passed as they are: Hydra would otherwise copy them into a config."""
    try:
        built = instantiate({**node, "_convert_": "all"}, _partial_=True) if kwargs else None
        return built(**kwargs) if built is not None else instantiate({**node, "_convert_": "all"})
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(
            f"Cannot build {node.get('_target_')}: {str(error).strip().splitlines()[0]} {cause}"
        ) from error
