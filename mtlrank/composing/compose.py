"""From a command line's words, or a pipeline's parameters, to one config of plain values."""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
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
from mtlrank.composing.objects import parameters_of, takes_any
from mtlrank.composing.settings import (
    CLOSED,
    INSTEAD,
    check_parts,
    check_settings,
    unread,
    unread_of_collection,
    value_of,
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
from mtlrank.errors import ConfigError, one_line

Config = dict[str, Any]

_PARAMETERS = {  # of pipelines, which otherwise are called as the last word of what they set
    "loop.optimizer.lr": "learning_rate",
    "trainer.accelerator": "gpus",
    "trainer.devices": "gpus",
}
_NOT_OF_A_PIPELINE = {
    "force": "each retry would start over. To start anew, give another folder as the pipeline's parameter checkpoints.",
    "training.checkpoint_dir": "the pipeline's parameter checkpoints says where. Give that one instead.",
}


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
        if reason := _NOT_OF_A_PIPELINE.get(key):
            raise ConfigError(f"overrides has {text!r}, but {reason}")
        if settings.get(key) is not None:
            raise ConfigError(f"overrides has {text!r}, but {_set_by(key, settings)}")
    typed = [f"{key}={_literal(key, value)}" for key, value in settings.items() if value is not None]
    return _compose(overrides, typed, trusted=False, name=name)


def _set_by(key: str, settings: Mapping[str, Any]) -> str:
    """What sets a setting of a pipeline in place of an override."""
    if key in ("test", "output_dir", "data_dir"):
        return f"the pipeline sets {key} itself. Leave it out."
    name = _PARAMETERS.get(key) or re.split("[./]", key.partition("@")[0])[-1]
    if key == "seed" and "study.seeds" in settings:
        name = "seeds"
    return f"the pipeline's parameter {name} sets {key}. Give that one instead."


def quoted(text: str) -> str:
    """A text in Hydra's quotes, where only backslashes that stand before a quote are doubled."""
    return "'" + re.sub(r"\\+(?='|\Z)", r"\g<0>\g<0>", text).replace("'", r"\'") + "'"


def resolve(config: DictConfig, *, trusted: bool, name: str, own: str | Path | None = None) -> Config:
    """Plain values of what was composed from the config called `name`, interpolations filled in.

    `own` is the folder of further configs. From outside, every `_target_` is checked before anything is imported.
    """
    unresolved = written(config)
    check_parts(unresolved)
    for key in unread(unresolved, name):
        known = [other for other, _ in nodes(unresolved) if other.partition(".")[0] != key]
        raise ConfigError(f"There is no setting {key}, and no ${{{key}}} refers to it.{_nearest_key(key, known)}")
    not_read, read = unread_of_collection(unresolved, config_files(own), "".join(own_collections(own)))
    for key in not_read:
        raise ConfigError(f"There is no setting {key}, and no config refers to ${{{key}}}.{nearest(key, read)}")
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if not trusted:
        check_targets(plain)
        check_places(plain)
    check_settings(plain)
    return plain  # type: ignore[return-value]


def explain(error: Exception, config_without: Callable[[str], Config]) -> str:
    """Hydra's complaint in one line, with the nearest key that exists.

    `config_without` gives the config, not resolved, if nothing is said of the key that is complained of.
    """
    first = one_line(error)
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
        hint = "" if "/" in typed[1] else _nearest_key(typed[1], [key for key, _ in nodes(config_without(typed[1]))])
        adding = f" `+{typed[1]}=...` adds a head." if typed[1].startswith("model/heads@model.heads.") else ""
        return f"{typed[1]!r} chooses nothing in this config.{hint} What can be chosen: {known[1]}.{adding}"
    unknown = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(unknown, ConfigAttributeError | ConfigKeyError) and unknown.full_key:
        key = (
            typed[1] if typed and "." in unknown.full_key else unknown.full_key
        )  # the whole of it, if its group is known
        whole = re.search(r"To append to your config use \+(.+)", str(error))
        return _explain_key(key.lstrip("+~"), config_without, whole[1] if whole else f"{key}=...")
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
    if value[:1] + value[-1:] in ("{}", "[]"):
        return (
            f"Cannot read {error.override!r}. Quote texts in it that have other characters than letters, digits and _, "
            f"as in '{key}=[\"a b\"]'; names before a colon cannot have any: write these in a YAML file."
        )
    return f"Cannot read {error.override!r}. Quote its value so that the shell keeps the quotes: \"{key}='{value}'\""


def _explain_key(name: str, config_without: Callable[[str], Config], typed: str) -> str:
    """What to do about a key that there is not; `typed` is the whole override."""
    if other := INSTEAD.get(name):
        return f"Unknown config key {name!r}: use {other}."
    config = config_without(name)
    keys = [key for key, _ in nodes(config)]
    hint = _nearest_key(name, keys)
    if not hint and (other := INSTEAD.get(f"training.{name}")) in keys:
        hint = f" Did you mean {other!r}?"
    if argument := _of_class(name, value_of(config, name.rpartition(".")[0]), typed, hint):
        return f"Unknown config key {name!r}{argument}"
    group, dot, _ = name.partition(".")
    adding = f"; `+{name}=...` adds a new one" if dot and group not in CLOSED else ""
    return f"Unknown config key {name!r}.{hint} (`--cfg job` prints all keys{adding}.)"


def _of_class(name: str, node: Any, typed: str, hint: str) -> str:
    """What the class that is built of `node` says of a key that the node has not; nothing if it cannot tell.

    The class is imported, and torch with most. What the code supplies is left out: arguments without a default, and what
    all samplers take.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return ""
    group, _, last = name.rpartition(".")
    target = str(node["_target_"])
    title, taken = target.rpartition(".")[2], parameters_of(target)
    supplied = parameters_of("mtlrank.datamodule.sampler.MTLSampler") if group.endswith("_sampler") else {}
    free = {
        key: json.dumps(p.default, default=str)
        for key, p in taken.items()
        if key not in node and key not in supplied and p.default is not p.empty
    }
    if last in free:
        return f": {title} takes {last} (default {free[last]}). Write `+{typed}`."
    if hint or last in taken or not taken or takes_any(taken):
        return ""
    known = [key for key in free if not key.startswith("_") and f"{group}.{key}" not in INSTEAD]
    if near := difflib.get_close_matches(last, known, n=1):
        return f". Did you mean `+{group}.{near[0]}=...`? {title} takes it (default {free[near[0]]})."
    more = f" With a + in front it takes {', '.join(known)}." if known else " (`--cfg job` prints all keys.)"
    return f": {title} takes no {last}.{more}"


def explain_composing(error: Exception, name: str, overrides: Sequence[str]) -> str | None:
    """Why the config `name` cannot be composed with these overrides; None if the error is of something else."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, partial(_config_without, name, overrides))
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return _explain_yaml(error)
    if "Invalid defaults list in" in str(error):
        return f"{one_line(error)}: each line of it begins with `- `."
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
        near = difflib.get_close_matches(
            name.removeprefix(prefix), (key for key in inside if prefix + key != name), n=1
        )
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


def _config_without(name: str, overrides: Sequence[str], wrong: str) -> Config:
    """The config `name` without what is said of one key, not resolved. More may be wrong: then of the chosen parts only."""
    others = [override for override in overrides if _key(override) != wrong]
    for tried in (others, [override for override in others if _names_group(_key(override))]):
        with suppress(HydraException, OmegaConfBaseException, YAMLError, ValueError):
            return written(_composed(name, tried))
    return {}


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _names_group(key: str) -> bool:
    """Whether what is overridden is the choice of a config, as in `experiment` and `task@datamodule.dataset.task`."""
    group = key.partition("@")[0]
    return group == "hydra.searchpath" or files("mtlrank.conf").joinpath(group).is_dir()


def written(config: DictConfig) -> Config:
    """A config as plain values, interpolations as they are written."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return plain  # type: ignore[no-any-return]


def _compose(overrides: Sequence[str], typed: Sequence[str] = (), *, trusted: bool, name: str) -> Config:
    everything = [*overrides, *typed]
    try:
        if not trusted:
            check_overrides(overrides)
        return resolve(_composed(name, everything), trusted=trusted, name=name, own=own_config_dir())
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
            raise ConfigError(
                f"{value!r} is not the name of a config for {key}: expected letters, digits, '_' and '-'."
            )
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
