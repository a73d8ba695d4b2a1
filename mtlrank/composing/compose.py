"""From command-line overrides, or a pipeline's parameters, to one config of plain values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mtlrank.checks import nearest
from mtlrank.composing.explain import explain, explain_yaml, key_of, names_group, nearest_key
from mtlrank.composing.settings import (
    check_parts,
    check_settings,
    unread,
    unread_of_collection,
)
from mtlrank.composing.tree import nodes
from mtlrank.composing.untrusted import (
    check_overrides,
    check_places,
    check_targets,
    config_files,
    is_config_name,
    own_collections,
    own_config_dir,
)
from mtlrank.config import Config
from mtlrank.errors import ConfigError, one_line

_PARAMETERS = {  # pipeline parameters that are not named after the last word of the key that they set
    "loop.optimizer.lr": "learning_rate",
    "trainer.accelerator": "gpus",
    "trainer.devices": "gpus",
}
_NOT_FOR_PIPELINES = {  # overrides that a pipeline refuses, and why
    "force": "each retry would start over. To start anew, give another folder as the pipeline's parameter checkpoints.",
    "training.checkpoint_dir": "the pipeline's parameter checkpoints says where. Give that one instead.",
}


def compose_config(
    overrides: Sequence[str] = (), typed: Sequence[str] = (), *, trusted: bool, name: str = "train"
) -> Config:
    """The resolved config for command-line overrides.

    Overrides from outside (`trusted=False`: pipeline parameters) may choose among what is installed but not name code,
    Hydra's own settings or interpolations; `typed` ones, which a pipeline writes itself, may. Raises `ConfigError` for what
    is forbidden or cannot be composed.
    """
    everything = [*overrides, *typed]
    try:
        if not trusted:
            check_overrides(overrides)
        composed = _composed(name, everything)
        return resolve(composed, trusted=trusted, name=name, overrides=everything, own=own_config_dir())
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if isinstance(error, ConfigError) or (reason := explain_composing(error, name, everything)) is None:
            raise
        raise ConfigError(reason) from error


def pipeline_config(settings: Mapping[str, Any], overrides: Sequence[str], name: str = "train") -> Config:
    """The config for a pipeline's typed parameters (`settings`, by config key) and its free overrides.

    Both come from outside. A parameter that is None leaves the config's value. An override may not set what a parameter
    sets.
    """
    for text in overrides:
        key = key_of(text).strip()
        if reason := _NOT_FOR_PIPELINES.get(key):
            raise ConfigError(f"overrides has {text!r}, but {reason}")
        if settings.get(key) is not None:
            raise ConfigError(f"overrides has {text!r}, but {_set_by(key, settings)}")
    typed = [f"{key}={literal(key, value)}" for key, value in settings.items() if value is not None]
    return compose_config(overrides, typed, trusted=False, name=name)


def _set_by(key: str, settings: Mapping[str, Any]) -> str:
    """Why an override of `key` is refused: the end of the message."""
    if key in ("test", "output_dir", "data_dir"):
        return f"the pipeline sets {key} itself. Leave it out."
    if key == "trainer.num_nodes" and settings[key] == 1:  # of the pipelines, only mtl_ranking_nodes has num_nodes
        return "training has one node here: the pipeline mtl_ranking_nodes has more, by its parameter num_nodes."
    name = _PARAMETERS.get(key) or re.split("[./]", key.partition("@")[0])[-1]
    if key == "seed" and "study.seeds" in settings:
        name = "seeds"
    return f"the pipeline's parameter {name} sets {key}. Give that one instead."


def quoted(text: str) -> str:
    """A text in Hydra's quotes, in which only backslashes before a quote are doubled."""
    return "'" + re.sub(r"\\+(?='|\Z)", r"\g<0>\g<0>", text).replace("'", r"\'") + "'"


def resolve(
    config: DictConfig, *, trusted: bool, name: str, overrides: Iterable[str] = (), own: str | Path | None = None
) -> Config:
    """The plain values of a composed config (called `name`), interpolations resolved, after all checks.

    `overrides` are those that it was composed with, and `own` is the user's folder of further configs. If the config is
    not trusted, every `_target_` is checked before anything is imported.
    """
    config = _without_others(config, name, overrides)
    unresolved = written(config)
    check_parts(unresolved)
    for key in unread(unresolved, name):
        known = [other for other, _ in nodes(unresolved) if other.partition(".")[0] != key]
        raise ConfigError(f"There is no setting {key}, and no ${{{key}}} refers to it.{nearest_key(key, known)}")
    not_read, read = unread_of_collection(unresolved, config_files(own), "".join(own_collections(own)))
    for key in not_read:
        raise ConfigError(f"There is no setting {key}, and no config refers to ${{{key}}}.{nearest(key, read)}")
    plain = OmegaConf.to_container(_without_unused(config), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
        check_places(plain)
    check_settings(plain)
    return plain  # type: ignore[return-value]


def _without_others(config: DictConfig, name: str, overrides: Iterable[str]) -> DictConfig:
    """The config without what an experiment may say for other commands, how it is studied and probed.

    What is typed stays, so that it is refused.
    """
    typed = {key_of(override).partition(".")[0] for override in overrides}
    others = [key for key in ("study", "probe") if key in config and key not in {name} | typed]
    if others:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        for key in others:
            del config[key]
    return config


def _without_unused(config: DictConfig) -> DictConfig:
    """The config without datasets that `tasks` leaves out and that have no values, such as what the collection lacks."""
    datasets, tasks = OmegaConf.select(config, "datamodule.dataset.datasets"), OmegaConf.select(config, "tasks")
    if not datasets or not tasks:
        return config
    config = config.copy()
    OmegaConf.set_struct(config, False)
    for key in datasets:
        if key not in tasks:
            try:
                OmegaConf.to_container(datasets._get_node(key), resolve=True, throw_on_missing=True)
            except OmegaConfBaseException:
                del config.datamodule.dataset.datasets[key]
    return config


def explain_composing(error: Exception, name: str, overrides: Sequence[str]) -> str | None:
    """Why the config `name` cannot be composed with these overrides; None if that is not what the error is about."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, partial(_config_without, name, overrides))
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return explain_yaml(error)
    if "Invalid defaults list in" in str(error):
        return f"{one_line(error)}: each line of it begins with `- `."
    if "Config group override must be" in str(error):
        return "A config group cannot be null. Remove it with ~, as in ~experiment."
    return None


def _config_without(name: str, overrides: Sequence[str], wrong: str) -> Config:
    """The config `name`, not resolved, without the override of the key `wrong`.

    If more overrides are wrong, only those that choose configs are kept.
    """
    others = [override for override in overrides if key_of(override) != wrong]
    for tried in (others, [override for override in others if names_group(key_of(override))]):
        with suppress(HydraException, OmegaConfBaseException, YAMLError, ValueError):
            return written(_composed(name, tried))
    return {}


def written(config: DictConfig) -> Config:
    """A config as plain values, with interpolations unresolved."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return plain  # type: ignore[no-any-return]


def _composed(name: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=[file://{folder}]"] if (folder := own_config_dir()) else []
    with initialize_config_module("mtlrank.conf", version_base="1.3"):
        return compose(name, overrides=[*more, *overrides])


def literal(key: str, value: Any) -> str:
    """A value in Hydra's grammar. Text is quoted; the name of a config is not, and must look like one."""
    is_group = "/" in key or key == "experiment"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(literal(key, item) for item in value)}]"
    if isinstance(value, str):
        if "$" in value:
            raise ConfigError(f"{key} is {value!r}: '$' is not allowed in a parameter of a pipeline.")
        if is_group and not is_config_name(value):
            raise ConfigError(
                f"{value!r} is not the name of a config for {key}: expected letters, digits, '_' and '-'."
            )
        return value if is_group else quoted(value)
    return repr(value)


def _body_of(folder: str | None) -> str:
    """The backbone of a trained model, for model/body=trained."""
    from mtlrank.model.start import backbone_of  # here, as most configs need no torch
    from mtlrank.registry import model_folder

    if not folder:
        raise ConfigError("model/body=trained needs model.start_from, the folder of a finished run or its `model`.")
    return backbone_of(model_folder(folder))


OmegaConf.register_new_resolver("body_of", _body_of, use_cache=True)
