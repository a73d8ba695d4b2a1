"""The only place where a config becomes objects."""

import difflib
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mtlrank import conf, embedded
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
from mtlrank.storage import MANIFEST, fingerprint, local_path, read_json, writable_folder, write_json

Config = dict[str, Any]
RUN = "run.json"  # in a run's folder: the config that it is of
_VALUES_AT_ROOT = {
    "tasks",
    "seed",
    "data_dir",
    "output_dir",
    "test",
    "force",
    "model_dir",
    "split",
    "batch_size",
    "measures",
}
_NAME = re.compile(r"[a-z0-9_]+")


# -- composing -------------------------------------------------------------------------------------------------------


def compose_config(overrides: Sequence[str] = (), *, trusted: bool, name: str = "train") -> Config:
    """The resolved config for overrides in the command line's words.

    Overrides from outside (`trusted=False`: pipeline parameters) may choose among what is installed but not name code,
    Hydra's own settings or interpolations. Raises `ConfigError` for what is forbidden or cannot be composed.
    """
    if not trusted:
        check_overrides(overrides)
    return _compose(overrides, trusted=trusted, name=name)


def _compose(overrides: Sequence[str], *, trusted: bool, name: str) -> Config:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("mtlrank.conf", version_base="1.3"):
            config = compose(name, overrides=list(overrides))
        return resolve(config, trusted=trusted)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, known_keys(name))) from error


def pipeline_config(settings: Mapping[str, Any], overrides: Sequence[str], name: str = "train") -> Config:
    """The config for a pipeline's typed parameters, by config key, and its free overrides; both come from outside.

    A parameter that is None is left to the config.
    """
    typed = [f"{key}={_literal(key, value)}" for key, value in settings.items() if value is not None]
    check_overrides(overrides)
    return _compose([*overrides, *typed], trusted=False, name=name)


def _literal(key: str, value: Any) -> str:
    """A value in Hydra's grammar. Text is quoted, but for the name of a config, which must look like one."""
    is_group = "/" in key or key == "experiment"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(_literal(key, item) for item in value)}]"
    if isinstance(value, str):
        if is_group and not _is_name(value):
            raise ConfigError(f"{value!r} is not the name of a config for {key}: expected letters, digits and '_'.")
        return value if is_group else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def resolve(config: DictConfig, *, trusted: bool) -> Config:
    """Plain values, interpolations filled in. From outside, every `_target_` is checked before anything is imported."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
    _check_values(plain)
    return plain  # type: ignore[return-value]


def _check_values(config: Any) -> None:
    """Refuse settings of the wrong kind before anything is done with them."""
    at_least_one = (lambda v: type(v) is int and v >= 1, "a whole number, at least 1")
    names = (lambda v: v is None or (isinstance(v, list) and all(isinstance(x, str) for x in v)), "a list, as in [a,b]")
    path = (lambda v: v is None or isinstance(v, str), "a path")
    expected = {
        "training.batch_size": at_least_one,
        "training.eval_batch_size": at_least_one,
        "training.epochs": at_least_one,
        "training.val_checks_per_epoch": at_least_one,
        "training.patience": (lambda v: v is None or (type(v) is int and v >= 0), "null or a whole number, at least 0"),
        "training.monitor": (lambda v: v is None or isinstance(v, str), "null or a metric, as in val/trec2019/nDCG@10"),
        "loop.optimizer.lr": (lambda v: type(v) in (int, float) and v > 0, "a number above 0"),
        "seed": (lambda v: type(v) is int and 0 <= v < 2**32, "a whole number, at least 0"),
        "batch_size": at_least_one,
        "tasks": names,
        "measures": names,
        "output_dir": path,
        "data_dir": path,
        "model_dir": path,
    }
    for key, (is_right, words) in expected.items():
        node: Any = config
        for part in key.split("."):
            node = node.get(part, _check_values) if isinstance(node, dict) else _check_values
        if node is not _check_values and not is_right(node):
            raise ConfigError(f"{key} is {node!r}, expected {words}.")


def check_targets(config: Any) -> None:
    """Refuse every `_target_` that neither mtlrank's own configs name nor `$MTLRANK_ALLOWED_TARGETS` allows.

    The variable holds prefixes such as `my_package.`, separated by commas; it is the image builder's to set. Text that
    would be interpolated once more when objects are built is refused too.
    """
    prefixes = [prefix for prefix in os.environ.get("MTLRANK_ALLOWED_TARGETS", "").split(",") if prefix.endswith(".")]
    own = _own_targets()
    for key, value in _leaves(config):
        if "${" in str(value):
            raise ConfigError(f"{key} is {value!r}: interpolations are not allowed in a config from outside.")
        if key == "_target_" and value not in own and not str(value).startswith(tuple(prefixes)):
            raise ConfigError(
                f"_target_ {value!r} is not allowed in a config from outside: no config of mtlrank names it. "
                "The image's builder can allow a package in MTLRANK_ALLOWED_TARGETS."
            )


@cache
def _own_targets() -> frozenset[str]:
    """Every `_target_` in the packaged configs."""
    root = Path(conf.__file__).parent
    return frozenset(
        value
        for path in root.rglob("*.yaml")
        for key, value in _leaves(yaml.safe_load(path.read_text()))
        if key == "_target_"
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


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides from outside that name code, Hydra's own settings, interpolations or files as configs.

    They are judged as Hydra's own parser reads them, so that no way of writing hides what they say.
    """
    for text in overrides:
        if "$" in text or "\\" in text:
            raise _forbidden(text, "it may not hold '$' or a backslash")
        override = OverridesParser.create().parse_override(text)
        group, package = override.key_or_group, override.package or ""
        words = re.split(r"[./@:]", f"{group}.{package}")
        if any(word.startswith("_") or word == "hydra" for word in words):
            raise _forbidden(text, "it may not name Hydra's settings or a key that begins with '_'")
        value = override.value()
        if override.is_sweep_override():
            raise _forbidden(text, "it may not be a sweep")
        if "." not in group and group not in _VALUES_AT_ROOT and not _is_name(value):
            raise _forbidden(text, f"{value!r} is not the name of a config")
        if any(str(key).startswith("_") for key in _keys(value)):
            raise _forbidden(text, "it may not hold a key that begins with '_'")


def _forbidden(override: str, reason: str) -> ConfigError:
    return ConfigError(
        f"The override {override!r} is not allowed from a pipeline: {reason}. "
        "Choose among installed configs, or build an image with your own."
    )


def _is_name(value: Any) -> bool:
    return value is None or _NAME.fullmatch(str(value)) is not None


def _keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from _keys(value)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(last key, value) of every leaf."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node


# -- choosing ----------------------------------------------------------------------------------------------------------


def select_tasks(config: Config) -> Config:
    """The config with datasets and heads matched by key, and cut down to `tasks`. Nothing is read or built yet.

    A single dataset becomes a mixture of one, whose head is the one of its name or the default head. In a mixture, a head
    without a dataset or a dataset without a head is an error that lists both sides.
    """
    dataset, model = config["datamodule"]["dataset"], config["model"]
    heads = model.get("heads") or {}
    if "datasets" not in dataset:
        missing = [key for key in ("_target_", "name", "task") if key not in dataset]
        if missing:
            raise ConfigError(
                f"The config of the dataset has no {', '.join(missing)}: see trec2019.yaml for an example."
            )
        key = str(dataset["name"])
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
    paths = (Path(str(value)) for _, value in _leaves(dataset) if "/" in str(value) or "." in str(value))
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.is_file()]
    return local_path(config["data_dir"]) / f"{key}-{fingerprint([dataset, files, embedded.VERSION])}"


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
    settings = dict(config["trainer"])
    if settings["strategy"] == "auto" and settings["devices"] not in (1, "1"):
        settings["strategy"] = "ddp_find_unused_parameters_true"  # not every rank's batch holds every task
    return _trainer(
        settings,
        max_epochs=training["epochs"],
        val_check_interval=1.0 / training["val_checks_per_epoch"],
        callbacks=callbacks,
        logger=[CSVLogger(output, name="logs", version=attempt), TensorBoardLogger(output, "tensorboard", attempt)],
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the samplers own the batches
        num_sanity_val_steps=0,
    )


def _trainer(settings: dict[str, Any], **kwargs: Any) -> pl.Trainer:
    try:
        return pl.Trainer(**settings, **kwargs)
    except (TypeError, ValueError, MisconfigurationException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"Lightning refuses the trainer settings {settings}: {reason}") from error


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
    """The folder of a run, proven writable; by default it is named after the config, so a command finds its own.

    A folder that holds a run of another config is refused, with the keys that differ, unless `force` is set.
    """
    folder = writable_folder(config["output_dir"] or Path("runs") / fingerprint(_identity(config)))
    if (folder / RUN).exists() and not config["force"]:
        ours, theirs = _identity(config), read_json(folder / RUN)
        differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        if differing:
            shown = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in differing[:5])
            raise ConfigError(
                f"{folder} holds a run of another config ({len(differing)} keys differ: {shown}). "
                "Choose another output_dir, or replace that run with force=true."
            )
    return folder


def claim(folder: Path, config: Config) -> None:
    """Say whose run a folder holds: once training starts, so that a mistake before leaves no mark."""
    write_json(folder / RUN, _identity(config))


def _identity(config: Config) -> dict[str, Any]:
    """What makes two runs the same, as dotted keys."""
    flat = dict[str, Any]()

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[prefix] = node

    walk({k: v for k, v in config.items() if k not in ("output_dir", "data_dir", "test", "force")}, "")
    return flat


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
