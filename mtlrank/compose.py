"""From a command line's words, or a pipeline's parameters, to one config of plain values."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtlrank.errors import ConfigError
from mtlrank.storage import fetch_folder, mirror
from mtlrank.untrusted import check_overrides, check_targets, is_config_name

Config = dict[str, Any]

_BY_NAME = ("limits", "probabilities", "weights")  # settings of samplers and losses that are tables by dataset name


def compose_config(overrides: Sequence[str] = (), *, trusted: bool, name: str = "train") -> Config:
    """The resolved config for overrides in the command line's words.

    Overrides from outside (`trusted=False`: pipeline parameters) may choose among what is installed but not name code,
    Hydra's own settings or interpolations. Raises `ConfigError` for what is forbidden or cannot be composed.
    """
    if not trusted:
        check_overrides(overrides)
    return _compose(overrides, trusted=trusted, name=name)


def pipeline_config(settings: Mapping[str, Any], overrides: Sequence[str], name: str = "train") -> Config:
    """The config for a pipeline's typed parameters, by config key, and its free overrides; both come from outside.

    A parameter that is None is left to the config.
    """
    typed = [f"{key}={_literal(key, value)}" for key, value in settings.items() if value is not None]
    check_overrides(overrides)
    return _compose([*overrides, *typed], trusted=False, name=name)


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
        hint = nearest(unknown[0], datasets)
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
    gone = {str(datasets[key]["name"]) for key in datasets if key not in wanted}
    return {
        **config,
        "loop": _without(gone, config["loop"]),
        "datamodule": {**_without(gone, config["datamodule"]), "dataset": {**dataset, "datasets": chosen}},
        "model": {**{k: v for k, v in model.items() if k != "default_head"}, "heads": {k: heads[k] for k in chosen}},
    }


def _without(names: set[str], node: Config) -> Config:
    """A group of settings without what its tables by dataset (limits, probabilities, weights) say of some names."""

    def pruned(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            inner: pruned(inner, child) for inner, child in value.items() if key not in _BY_NAME or inner not in names
        }

    return {key: pruned(key, value) for key, value in node.items()}


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


def resolve(config: DictConfig, *, trusted: bool) -> Config:
    """Plain values, interpolations filled in. From outside, every `_target_` is checked before anything is imported."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
    _check_parts(plain)
    _check_values(plain)
    return plain  # type: ignore[return-value]


def explain(error: Exception, known: Iterable[str]) -> str:
    """Hydra's complaint in one line, with the nearest key that exists."""
    text = str(error).strip()
    first = text.splitlines()[0]
    wrong = re.search(r"Could not override '([^']+)'|Key '([^']+)'|Could not find '([^']+)'", text)
    if variable := re.search(r"Environment variable '(\w+)' not found", text):
        return f"The environment variable {variable[1]} is not set: this config reads it."
    if missing := re.search(r"Missing mandatory value: .*?full_key: (\S+)", text, re.DOTALL):
        return f"{missing[1]} has no value. Give it one: {missing[1]}=..."
    if not wrong:
        return f"{first} (config)"
    name = next(group for group in wrong.groups() if group)
    if "Could not find" in wrong[0]:
        group, _, option = name.rpartition("/")
        options = _options(text)
        near = difflib.get_close_matches(option, options, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{group or 'The config'} has no option {option!r}.{hint} It has: {', '.join(options)}."
    known = list(known)
    if name in known:
        return f"{name} has no such entries as the value names. `+{name}.<entry>=...` adds one."
    near = difflib.get_close_matches(name.lstrip("+~"), known, n=1, cutoff=0.5)
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


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like `name`, if there is one."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def _compose(overrides: Sequence[str], *, trusted: bool, name: str) -> Config:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("mtlrank.conf", version_base="1.3"):
            config = compose(name, overrides=list(overrides))
        return resolve(config, trusted=trusted)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, known_keys(name))) from error


def _literal(key: str, value: Any) -> str:
    """A value in Hydra's grammar. Text is quoted, but for the name of a config, which must look like one."""
    is_group = "/" in key or key == "experiment"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(_literal(key, item) for item in value)}]"
    if isinstance(value, str):
        if is_group and not is_config_name(value):
            raise ConfigError(f"{value!r} is not the name of a config for {key}: expected letters, digits and '_'.")
        return value if is_group else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def _check_parts(config: Any) -> None:
    """Refuse the name of a part where its settings belong: `loop.loss=uncertainty` for `loop/loss=uncertainty`."""
    words = {f"loop.{part}": f"loop/{part}" for part in ("loss", "optimizer", "schedule")}
    words |= {f"datamodule.{split}_sampler": "datamodule/sampler" for split in ("train", "val", "test")}
    for key in _keys_of(config, "model.heads"):
        words |= {f"model.heads.{key}": "model/heads", f"model.heads.{key}.pooler": "model/heads/pooler"}
    for key in _keys_of(config, "datamodule.dataset.datasets"):
        place = f"datamodule.dataset.datasets.{key}"
        words |= {
            place: "datamodule/dataset",
            f"{place}.task": "task",
            f"{place}.preprocessor": "datamodule/preprocessor",
        }
    for key, group in words.items():
        value = _value_of(config, key)
        if value is not _check_parts and not isinstance(value, dict):
            slashed = group if group.replace("/", ".") == key else f"{group}@{key}"
            raise ConfigError(
                f"{key} is {value!r}, expected settings. Another part is chosen with a slash: {slashed}=..."
            )


def _keys_of(config: Any, name: str) -> list[str]:
    node = _value_of(config, name)
    return list(node) if isinstance(node, dict) else []


def _value_of(config: Any, name: str) -> Any:
    """The value of a dotted key; `_check_parts` if there is none."""
    for part in name.split("."):
        config = config.get(part, _check_parts) if isinstance(config, dict) else _check_parts
    return config


def _check_values(config: Any) -> None:
    """Refuse settings of the wrong kind before anything is done with them."""
    at_least_one = (lambda v: type(v) is int and v >= 1, "a whole number, at least 1")
    at_least_zero = (lambda v: type(v) is int and v >= 0, "a whole number, at least 0")
    none_or_at_least_one = (lambda v: v is None or (type(v) is int and v >= 1), "null or a whole number, at least 1")
    above_zero = (lambda v: type(v) in (int, float) and 0 < v < float("inf"), "a finite number above 0")
    names = (lambda v: v is None or (isinstance(v, list) and all(isinstance(x, str) for x in v)), "a list, as in [a,b]")
    path = (lambda v: v is None or isinstance(v, str), "a path")
    section = (lambda v: isinstance(v, dict), "a group of settings")
    expected = {
        **dict.fromkeys(("prepare", "training", "datamodule", "model", "loop", "trainer"), section),
        "training.batch_size": at_least_one,
        "training.eval_batch_size": at_least_one,
        "training.epochs": at_least_one,
        "training.val_checks_per_epoch": at_least_one,
        "training.patience": (lambda v: v is None or (type(v) is int and v >= 0), "null or a whole number, at least 0"),
        "training.max_tokens": none_or_at_least_one,
        "training.length_window": at_least_zero,
        "training.one_task_per_batch": (lambda v: isinstance(v, bool), "true or false"),
        "training.compile": (lambda v: isinstance(v, bool), "true or false"),
        "training.limit_val_batches": none_or_at_least_one,
        "training.checkpoint_steps": none_or_at_least_one,
        "training.checkpoint_minutes": (
            lambda v: v is None or (type(v) in (int, float) and 0 <= v < float("inf")),
            "null or a number, at least 0",
        ),
        "training.checkpoint_dir": path,
        "training.max_bad_steps": at_least_zero,
        "training.accept_changes": (
            lambda v: isinstance(v, list) and {str(x) for x in v} <= {"data", "tokenizer", "heads", "body"},
            "a list of some of data, tokenizer, heads, body",
        ),
        "training.monitor": (lambda v: v is None or isinstance(v, str), "null or a metric, as in val/trec2019/nDCG@10"),
        "prepare.max_bad_rows": at_least_zero,
        "prepare.num_shards": at_least_one,
        "prepare.num_workers": at_least_one,
        "prepare.shard": (lambda v: v is None or isinstance(v, str), "null or i/n, as in 3/8"),
        "datamodule.num_workers": at_least_zero,
        "trainer.accumulate_grad_batches": at_least_one,
        "trainer.log_every_n_steps": at_least_one,
        "trainer.deterministic": (lambda v: isinstance(v, bool) or v == "warn", "true, false or warn"),
        "trainer.limit_val_batches": (lambda v: False, "no such key: use training.limit_val_batches"),
        **dict.fromkeys(
            ("trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
            (lambda v: False, "no such key: use training.val_checks_per_epoch"),
        ),
        "trainer.gradient_clip_val": (
            lambda v: v is None or (type(v) in (int, float) and 0 < v < float("inf")),
            "a finite number above 0, or null for none",
        ),
        "trainer.limit_train_batches": (
            lambda v: v is None or (type(v) is int and v >= 1) or (type(v) is float and 0 < v <= 1),
            "null, a whole number of at least 1, or a share from 0.0 to 1.0",
        ),
        "trainer.max_steps": (lambda v: type(v) is int and (v == -1 or v >= 1), "a whole number, at least 1"),
        "trainer.precision": (
            lambda v: v is None or str(v) in ("32", "32-true", "bf16-mixed", "bf16", "16-mixed", "16"),
            "32-true, bf16-mixed or 16-mixed",
        ),
        "model.body.activation_checkpointing": (lambda v: isinstance(v, bool), "true or false"),
        "model.body.attention_dropout": (
            lambda v: v is None or (type(v) in (int, float) and 0 <= v < 1),
            "null or a number from 0 to 1",
        ),
        "model.body.frozen_layers": (
            lambda v: v == "all" or type(v) is int or (type(v) is float and 0 <= v <= 1),
            "a number of layers, a share of the depth from 0.0 to 1.0, or all",
        ),
        "model.body.separate_layers": (
            lambda v: type(v) is int or (type(v) is float and 0 <= v <= 1),
            "a number of layers, or a share of the depth from 0.0 to 1.0",
        ),
        "model.body.lora": (
            lambda v: v is None or isinstance(v, dict),
            "null or settings, as in {rank: 8, alpha: 16, dropout: 0.0, targets: [query, value]}",
        ),
        "model.body.lora.rank": at_least_one,
        "model.body.lora.alpha": above_zero,
        "model.body.lora.dropout": (lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to 1"),
        "model.body.lora.targets": names,
        "model.start_from": path,
        "loop.layer_decay": (lambda v: type(v) in (int, float) and 0 < v <= 1, "a number above 0, at most 1"),
        **dict.fromkeys(("loop.optimizer.lr", "loop.loss.lr", "loop.loss.temperature"), above_zero),
        "loop.schedule.warmup": (lambda v: type(v) in (int, float) and 0 <= v < 1, "a share of the steps, from 0 to 1"),
        "loop.diagnose_every_n_steps": at_least_zero,
        "probe.layers": (
            lambda v: v is None or (isinstance(v, list) and bool(v) and all(type(x) is int and x >= 0 for x in v)),
            "null or a list of layers, as in [0,3,6]",
        ),
        "probe.portions": (
            lambda v: isinstance(v, list) and all(type(x) in (int, float) for x in v),
            "a list of shares in per cent, as in [1,10,100]",
        ),
        "probe.pooler": (lambda v: v in (None, "average", "cls_token"), "null, average or cls_token"),
        **dict.fromkeys(("probe.max_train", "probe.max_test", "probe.epochs", "probe.batch_size"), at_least_one),
        **dict.fromkeys(("probe.hidden_dim", "probe.patience"), at_least_zero),
        **dict.fromkeys(("probe.lr", "probe.max_memory_gb"), above_zero),
        "probe.margin": (lambda v: type(v) in (int, float) and 0 <= v < 1, "a share, from 0 to below 1"),
        "probe.control": (lambda v: isinstance(v, bool), "true or false"),
        "seed": (lambda v: type(v) is int and 0 <= v < 2**32, "a whole number, at least 0"),
        "batch_size": at_least_one,
        "tasks": names,
        "measures": names,
        "output_dir": path,
        "data_dir": (lambda v: isinstance(v, str), "a path"),
        "model_dir": path,
        "trust_model": (lambda v: isinstance(v, bool), "true or false"),
        "head": (lambda v: v is None or isinstance(v, str), "null or the name of a head"),
        "output": path,
        "force": (lambda v: isinstance(v, bool), "true or false"),
        "test": (lambda v: isinstance(v, bool), "true or false"),
        "study": section,
        "study.heads": names,
        "study.measures": names,
        "study.margin": above_zero,
        "study.resamples": at_least_one,
        "probe": section,
        **dict.fromkeys(("input", "ir_dataset", "queries", "docs", "run"), path),
        **dict.fromkeys(("top_k", "keep"), none_or_at_least_one),
        "depth": at_least_one,
    }
    for key, (is_right, words) in expected.items():
        node: Any = config
        for part in key.split("."):
            node = node.get(part, _check_values) if isinstance(node, dict) else _check_values
        if node is not _check_values and not is_right(node):
            raise ConfigError(f"{key} is {node!r}, expected {words}.")


def _body_of(folder: str | None) -> str:
    """What the body of a trained model is called, for model/body=trained."""
    from mtlrank.model.start import backbone_of  # here, as most configs need no torch

    if not folder:
        raise ConfigError("model/body=trained needs model.start_from, the `model` folder of a finished run.")
    return backbone_of(fetch_folder(folder, mirror(folder)))


OmegaConf.register_new_resolver("body_of", _body_of, use_cache=True)


def _options(text: str) -> list[str]:
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Available options")), len(lines))
    return sorted(
        line.strip() for line in lines[start + 1 :] if line.startswith("\t") and line.strip() and ":" not in line
    )
