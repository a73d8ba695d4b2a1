"""From a command line's words, or a pipeline's parameters, to one config of plain values."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from mtlrank.checks import nearest
from mtlrank.errors import ConfigError
from mtlrank.settings import CLOSED, INSTEAD, check_parts, check_settings, unread
from mtlrank.untrusted import check_overrides, check_targets, is_config_name, own_config_dir

Config = dict[str, Any]

_PARAMETERS = {  # of pipelines, which otherwise are called as the last word of what they set
    "loop.optimizer.lr": "learning_rate",
    "trainer.accelerator": "gpus",
    "trainer.devices": "gpus",
}
_BY_NAME = ("limits", "probabilities", "weights")  # settings of samplers and losses that are tables by dataset name


def compose_config(overrides: Sequence[str] = (), *, trusted: bool, name: str = "train") -> Config:
    """The resolved config for overrides in the command line's words.

    Overrides from outside (`trusted=False`: pipeline parameters) may choose among what is installed but not name code,
    Hydra's own settings or interpolations. Raises `ConfigError` for what is forbidden or cannot be composed.
    """
    return _compose(overrides, trusted=trusted, name=name)


def pipeline_config(settings: Mapping[str, Any], overrides: Sequence[str], name: str = "train") -> Config:
    """The config for a pipeline's typed parameters, by config key, and its free overrides; both come from outside.

    A parameter that is None is left to the config. What a parameter says, an override may not say too.
    """
    for text in overrides:
        key = _key(text).strip()
        if settings.get(key) is not None:
            raise ConfigError(f"overrides has {text!r}, but {_set_by(key)}")
    typed = [f"{key}={_literal(key, value)}" for key, value in settings.items() if value is not None]
    return _compose(overrides, typed, trusted=False, name=name)


def _set_by(key: str) -> str:
    """What sets a setting of a pipeline in place of an override."""
    if key in ("test", "output_dir", "data_dir"):
        return f"the pipeline sets {key} itself. Leave it out."
    name = _PARAMETERS.get(key) or re.split("[./]", key.partition("@")[0])[-1]
    return f"the pipeline's parameter {name} sets {key}. Give that one instead."


def quoted(text: str) -> str:
    """A text in Hydra's quotes, where only backslashes that stand before a quote are doubled."""
    return "'" + re.sub(r"\\+(?='|\Z)", r"\g<0>\g<0>", text).replace("'", r"\'") + "'"


def select_tasks(config: Config) -> Config:
    """The config with datasets and heads matched by key, and cut down to `tasks`. Nothing is read or built yet.

    Tasks come in the order of `tasks`: the first is the main one. A single dataset becomes a mixture of one, whose head
    is the one of its name or the default head. In a mixture, a head without a dataset or a dataset without a head is an
    error that lists both sides. Tasks may share a head (`of`), also one of a task that is not chosen.
    """
    dataset, model = config["datamodule"]["dataset"], config["model"]
    heads = model.get("heads") or {}
    if "datasets" not in dataset:
        missing = [key for key in ("_target_", "name", "task") if key not in dataset]
        if missing:
            raise ConfigError(
                f"The config of the dataset has no {', '.join(missing)}: see trec2019.yaml for an example."
            )
        datasets = {str(dataset["name"]): dataset}
    else:
        datasets = dataset["datasets"]
    wanted = config.get("tasks") or list(dict.fromkeys([*datasets, *heads]))
    unknown = [key for key in wanted if key not in datasets and key not in heads]
    if unknown:
        hint = nearest(unknown[0], datasets)
        raise ConfigError(f"Unknown task {unknown[0]!r} in tasks.{hint} Datasets: {', '.join(datasets)}.")
    if "datasets" not in dataset:
        wanted = list(datasets)  # tasks choose among a mixture, perhaps that of the experiment
        heads = {**heads, **{key: heads.get(key, model["default_head"]) for key in datasets}}
        dataset = {"_target_": "mtlrank.datamodule.dataset.MTLDataset"}
        config = {**config, "tasks": None}
    without_head = [key for key in wanted if key in datasets and key not in heads]
    without_dataset = [key for key in wanted if key in heads and key not in datasets]
    if without_head or without_dataset:
        raise ConfigError(
            f"Heads without a dataset: {', '.join(without_dataset) or 'none'}. "
            f"Datasets without a head: {', '.join(without_head) or 'none'}. "
            f"Datasets: {', '.join(datasets)}. Heads: {', '.join(heads)}. "
            "Add what is missing, or choose with tasks=[...]."
        )
    chosen = {key: datasets[key] for key in wanted if key in datasets}
    gone = {str(datasets[key]["name"]) for key in datasets if key not in wanted}
    return {
        **config,
        "loop": _without(gone, config["loop"]),
        "datamodule": {**_without(gone, config["datamodule"]), "dataset": {**dataset, "datasets": chosen}},
        "model": {**{k: v for k, v in model.items() if k != "default_head"}, "heads": _chosen_heads(heads, chosen)},
    }


def _chosen_heads(heads: Mapping[str, Any], chosen: Iterable[str]) -> dict[str, Any]:
    """The heads of chosen tasks. Of those that share one, the first has its settings, and the others name that task."""
    found, first = dict[str, Any](), dict[str, str]()  # the latter by the task that has the settings in the config
    for key in chosen:
        owner = _owner(heads, key)
        found[key] = {"of": first[owner]} if owner in first else heads[owner]
        first.setdefault(owner, key)
    return found


def _owner(heads: Mapping[str, Any], key: str) -> str:
    """The task that has the settings of a task's head: itself, unless its head is that of another one."""
    passed = [key]
    while isinstance(head := heads[passed[-1]], dict) and "of" in head:
        place, other = f"model.heads.{passed[-1]}", str(head["of"])
        if other not in heads:
            raise ConfigError(f"{place}.of is {other!r}, expected a task with a head.{nearest(other, heads)}")
        if other in passed:
            raise ConfigError(f"{place}.of is {other!r}, whose head is that of {key} again: one of them needs its own.")
        passed.append(other)
    return passed[-1]


def check_monitor(config: Config) -> None:
    """Refuse a metric that no validation can compute, as far as the configs of tasks name their measures."""
    monitor, datasets = config["training"]["monitor"], config["datamodule"]["dataset"]["datasets"].values()
    keys = [f"val/{each['name']}/{measure}" for each in datasets for measure in each["task"].get("measures") or ()]
    if monitor and monitor not in keys and all("measures" in each["task"] for each in datasets):
        raise ConfigError(
            f"training.monitor is {monitor!r}.{nearest(monitor, keys)} Expected one of {', '.join(keys)}."
        )


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


def resolve(config: DictConfig, *, trusted: bool, name: str) -> Config:
    """Plain values of what was composed from the config called `name`, interpolations filled in.

    From outside, every `_target_` is checked before anything is imported.
    """
    written = OmegaConf.to_container(config, resolve=False)
    check_parts(written)
    for key in unread(written, name):
        known = [other for other in keys_of(config) if other.partition(".")[0] != key]
        raise ConfigError(f"There is no setting {key}, and no ${{{key}}} refers to it.{_nearest_key(key, known)}")
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
    check_settings(plain)
    return plain  # type: ignore[return-value]


def explain(error: Exception, keys_without: Callable[[str], list[str]]) -> str:
    """Hydra's complaint in one line, with the nearest key that exists.

    `keys_without` gives the keys of the config if nothing is said of the one that is complained of.
    """
    first = str(error).strip().splitlines()[0]
    if isinstance(error, OverrideParseException):
        return _explain_parsing(error)
    if misplaced := re.search(r"'\S+@experiment\.\S+'", first):
        return f"There is no {misplaced[0]}: does the experiment's file begin with the line `# @package _global_`?"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if not any(error.options or ()) and (own := _nearest_group(group)):
            return (
                f"There is no config group {group!r}. Write a slash before {own!r} in the defaults list, as in "
                f"`/{own}@...`: without it, the group is looked for below the file's own."
            )
    if isinstance(error, MissingConfigException) and error.options:
        hint, options = nearest(option, error.options), ", ".join(error.options)
        own = "" if hint else " Configs of your own are found by --config-dir FOLDER."
        return f"{group or 'The config'} has no option {option!r}.{hint} It has: {options}.{own}"
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        name = error.full_key if isinstance(error, MissingMandatoryValue) else first.rpartition(" ")[2]
        return f"{name} has no value. Give it one: {name}=..."
    if variable := re.search(r"Environment variable '(\w+)' not found", first):
        return f"The environment variable {variable[1]} is not set: this config reads it."
    if unset := re.search(r"Interpolation key '([^']+)' not found", first):
        return (
            f"The config refers to {unset[1]}, which is not set. Choose a dataset (datamodule/dataset=...), or an "
            "experiment or a collection that sets it."
        )
    if several := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
        as_list = "" if _names_group(_key(several[1])) else ", [brackets] make them a list"
        return f"{several[1]} names several values: -m runs the command with each{as_list}."
    typed = re.match(r"Could not override '([^']+)'", first)
    if typed and (known := re.search(r"Did you mean to override (?:one of )?(.+)\?", str(error))):
        hint = "" if "/" in typed[1] else _nearest_key(typed[1], keys_without(typed[1]))
        adding = f" `+{typed[1]}=...` adds a head." if typed[1].startswith("model/heads@model.heads.") else ""
        return f"{typed[1]!r} chooses nothing in this config.{hint} What can be chosen: {known[1]}.{adding}"
    unknown = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(unknown, ConfigAttributeError | ConfigKeyError) and unknown.full_key:
        key = (
            typed[1] if typed and "." in unknown.full_key else unknown.full_key
        )  # the whole of it, if its group is known
        return _explain_key(key.lstrip("+~"), keys_without)
    return f"{first.removeprefix('ConfigError raised while resolving interpolation: ')} (config)"


def _nearest_group(group: str) -> str:
    """The group that is meant by one that there is not: its end, if mtlrank has a group of that name."""
    if files("mtlrank.conf").joinpath(group).is_dir():
        return ""
    words = group.split("/")
    ends = ("/".join(words[start:]) for start in range(1, len(words)))
    return next((end for end in ends if files("mtlrank.conf").joinpath(end).is_dir()), "")


def _explain_parsing(error: OverrideParseException) -> str:
    key, equals, value = str(error.override).partition("=")
    if not equals:
        return f"Cannot read {error.override!r}: expected key=value."
    return f"Cannot read {error.override!r}. Quote its value so that the shell keeps the quotes: \"{key}='{value}'\""


def _explain_key(name: str, keys_without: Callable[[str], list[str]]) -> str:
    if other := INSTEAD.get(name):
        return f"Unknown config key {name!r}: use {other}."
    hint = _nearest_key(name, keys_without(name))
    group, dot, _ = name.partition(".")
    adding = f"; `+{name}=...` adds a new one" if dot and group not in CLOSED else ""
    return f"Unknown config key {name!r}.{hint} (`--cfg job` prints all keys{adding}.)"


def explain_composing(error: Exception, name: str, overrides: Sequence[str]) -> str | None:
    """Why the config `name` cannot be composed with these overrides; None if the error is of something else."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, partial(_keys_without, name, overrides))
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return _explain_yaml(error)
    if "Invalid defaults list in" in str(error):
        return f"{str(error).strip().splitlines()[0]}: each line of it begins with `- `."
    if "Config group override must be" in str(error):
        return "A config group cannot be null. Remove it with ~, as in ~experiment."
    return None


def _explain_yaml(error: YAMLError | UnicodeDecodeError) -> str:
    """What is wrong with a file of configs, and where."""
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 1]
        return f"A config is not UTF-8: found the byte {found!r} after {error.object[: error.start][-40:]!r}."
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark else "A config"
    problem = getattr(error, "problem", None) or str(error)
    return f"{place} is not YAML: {' '.join(str(problem).split())}"


def _nearest_key(name: str, known: list[str]) -> str:
    """A hint at the key that was meant, in the same group if there is that group: one called so, else one that looks so."""
    group, _, last = name.rpartition(".")
    prefix = f"{group}." if group in known else ""
    inside = [key.removeprefix(prefix) for key in known if key.startswith(prefix)]
    near = [key for key in inside if key.endswith(f".{last}")]
    if len(near) != 1:
        near = difflib.get_close_matches(name.removeprefix(prefix), inside, n=1)
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


def _keys_without(name: str, overrides: Sequence[str], wrong: str) -> list[str]:
    """Every key of the config `name` without what is said of one key. More may be wrong: then of the chosen parts only."""
    others = [override for override in overrides if _key(override) != wrong]
    for tried in (others, [override for override in others if _names_group(_key(override))]):
        with suppress(HydraException, OmegaConfBaseException, YAMLError, ValueError):
            return keys_of(_composed(name, tried))
    return []


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _names_group(key: str) -> bool:
    """Whether what is overridden is the choice of a config, as in `experiment` and `task@datamodule.dataset.task`."""
    group = key.partition("@")[0]
    return group == "hydra.searchpath" or files("mtlrank.conf").joinpath(group).is_dir()


def keys_of(config: DictConfig) -> list[str]:
    """Every key of a config, dotted."""
    keys = list[str]()

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return keys


def _compose(overrides: Sequence[str], typed: Sequence[str] = (), *, trusted: bool, name: str) -> Config:
    everything = [*overrides, *typed]
    try:
        if not trusted:
            check_overrides(overrides)
        return resolve(_composed(name, everything), trusted=trusted, name=name)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if isinstance(error, ConfigError) or (reason := explain_composing(error, name, everything)) is None:
            raise
        raise ConfigError(reason) from error


def _composed(name: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=[file://{folder}]"] if (folder := own_config_dir()) else []
    with initialize_config_module("mtlrank.conf", version_base="1.3"):
        return compose(name, overrides=[*more, *overrides])


def _literal(key: str, value: Any) -> str:
    """A value in Hydra's grammar. Text is quoted, but for the name of a config, which must look like one."""
    is_group = "/" in key or key == "experiment"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(_literal(key, item) for item in value)}]"
    if isinstance(value, str):
        if "$" in value:
            raise ConfigError(f"{key} is {value!r}: '$' is not allowed in a parameter of a pipeline.")
        if is_group and not is_config_name(value):
            raise ConfigError(f"{value!r} is not the name of a config for {key}: expected letters, digits and '_'.")
        return value if is_group else quoted(value)
    return repr(value)


def _body_of(folder: str | None) -> str:
    """What the body of a trained model is called, for model/body=trained."""
    from mtlrank.model.start import backbone_of  # here, as most configs need no torch
    from mtlrank.registry import model_folder

    if not folder:
        raise ConfigError("model/body=trained needs model.start_from, the folder of a finished run or its `model`.")
    return backbone_of(model_folder(folder))


OmegaConf.register_new_resolver("body_of", _body_of, use_cache=True)
