"""Errors of Hydra, OmegaConf and YAML in the user's words: one line that says the way out."""

import difflib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from mtlrank.checks import nearest
from mtlrank.composing.objects import parameters_of, supplied, takes_any
from mtlrank.composing.settings import CLOSED, INSTEAD, value_of
from mtlrank.composing.tree import nodes
from mtlrank.errors import one_line

ConfigWithout = Callable[[str], dict[str, Any]]


def explain(error: Exception, config_without: ConfigWithout) -> str:
    """Hydra's or OmegaConf's error as one line with the way out.

    `config_without(key)` is the config, not resolved, if the override of that key is left out.
    """
    for explained in _EXPLANATIONS:
        if reason := explained(error, config_without):
            return reason
    return f"{one_line(error).removeprefix('ConfigError raised while resolving interpolation: ')} (config)"


def _explain_parsing(error: Exception, _: object) -> str | None:
    """An override that is not `key=value`, or whose value needs quotes."""
    if not isinstance(error, OverrideParseException):
        return None
    key, equals, value = str(error.override).partition("=")
    if not equals:
        return f"Cannot read {error.override!r}: expected key=value."
    if value.count("[") != value.count("]") or value.count("{") != value.count("}"):
        return (
            f"Cannot read {error.override!r}: a bracket is not closed. Leave out blanks, or put the whole word into "
            f"quotes, as in '{key}=[a, b]'."
        )
    if value[:1] + value[-1:] in ("{}", "[]"):
        return (
            f"Cannot read {error.override!r}. Quote texts in it that have other characters than letters, digits and _, "
            f"as in '{key}=[\"a b\"]'; names before a colon cannot have any: write these in a YAML file."
        )
    return f"Cannot read {error.override!r}. Quote its value so that the shell keeps the quotes: \"{key}='{value}'\""


def _explain_experiment(error: Exception, _: object) -> str | None:
    """An experiment whose overrides Hydra places below the key `experiment`."""
    if misplaced := re.search(r"'\S+@experiment\.\S+'", one_line(error)):
        return f"There is no {misplaced[0]}: does the experiment's file begin with the line `# @package _global_`?"
    return None


def _explain_option(error: Exception, _: object) -> str | None:
    """A config group, or an option of one, that does not exist."""
    if not isinstance(error, MissingConfigException):
        return None
    group, _slash, option = str(error.missing_cfg_file or "").rpartition("/")
    if error.missing_cfg_file and not any(error.options or ()) and (own := _nearest_group(group)):
        return (
            f"There is no config group {group!r}. Write a slash before {own!r} in the defaults list, as in "
            f"`/{own}@...`: without it, the group is looked for below the file's own."
        )
    if not error.options:
        return None
    if group == "loop/logger" and option.lower() in ("csv", "tensorboard"):
        return (
            f"loop/logger={option} is not needed: CSV and TensorBoard logs are always written, into the run's folder."
        )
    hint, options = nearest(option, error.options), ", ".join(error.options)
    more = "" if hint else " Configs of your own are found by --config-dir FOLDER."
    return f"{group or 'The config'} has no option {option!r}.{hint} It has: {options}.{more}"


def _nearest_group(group: str) -> str:
    """The longest end of an unknown group's name that is a group of mtlrank; empty if there is none."""
    if files("mtlrank.conf").joinpath(group).is_dir():
        return ""
    words = group.split("/")
    ends = ("/".join(words[start:]) for start in range(1, len(words)))
    return next((end for end in ends if files("mtlrank.conf").joinpath(end).is_dir()), "")


def _explain_missing_value(error: Exception, _: object) -> str | None:
    """A setting that is `???`."""
    if isinstance(error, MissingMandatoryValue):
        name = error.full_key
    elif isinstance(error, InterpolationToMissingValueError):
        name = one_line(error).rpartition(" ")[2]
    else:
        return None
    return f"{name} has no value. Give it one: {name}=..."


def _explain_interpolation(error: Exception, _: object) -> str | None:
    """`${oc.env:NAME}` or `${key}` without a value."""
    if variable := re.search(r"Environment variable '(\w+)' not found", one_line(error)):
        return f"The environment variable {variable[1]} is not set: this config reads it."
    if unset := re.search(r"Interpolation key '([^']+)' not found", one_line(error)):
        return (
            f"The config refers to {unset[1]}, which is not set. Choose a dataset (datamodule/dataset=...), or an "
            "experiment or a collection (collection=...) that sets it."
        )
    return None


def _explain_several_values(error: Exception, _: object) -> str | None:
    """`key=a,b` without `-m`."""
    if several := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
        as_list = "" if names_group(key_of(several[1])) else ", [brackets] make them a list"
        return f"{several[1]} names several values: -m runs the command with each{as_list}."
    return None


def _explain_choice(error: Exception, config_without: ConfigWithout) -> str | None:
    """The choice of a config at a place where the defaults list chooses none."""
    if (typed := _not_overridden(error)) and (
        known := re.search(r"Did you mean to override (?:one of )?(.+)\?", str(error))
    ):
        hint = "" if "/" in typed else nearest_key(typed, _keys(config_without(typed)))
        adding = f" `+{typed}=...` adds a head." if typed.startswith("model/heads@model.heads.") else ""
        return f"{typed!r} chooses nothing in this config.{hint} What can be chosen: {known[1]}.{adding}"
    return None


def _explain_key(error: Exception, config_without: ConfigWithout) -> str | None:
    """A key that does not exist."""
    unknown = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if not (isinstance(unknown, ConfigAttributeError | ConfigKeyError) and unknown.full_key):
        return None
    # The whole key if its group exists; else the group, which is what does not exist.
    name = (_not_overridden(error) if "." in unknown.full_key else "") or unknown.full_key
    name = name.lstrip("+~")
    if other := INSTEAD.get(name):
        return f"Unknown config key {name!r}: use {other}."
    config = config_without(name)
    keys = _keys(config)
    hint = nearest_key(name, keys)
    if not hint and (other := INSTEAD.get(f"training.{name}")) in keys:
        hint = f" Did you mean {other!r}?"
    override = re.search(r"To append to your config use \+(.+)", str(error))
    typed = override[1] if override else f"{name}=..."
    if argument := _argument_of_class(name, value_of(config, name.rpartition(".")[0]), typed, hint):
        return f"Unknown config key {name!r}{argument}"
    group, dot, _ = name.partition(".")
    if name.startswith("model.heads.") and not isinstance(value_of(config, ".".join(name.split(".")[:3])), dict):
        head = name.split(".")[2]
        single = " A dataset that is trained by itself has the head model.default_head." if _is_single(config) else ""
        return f"Unknown config key {name!r}.{hint}{single} `+model/heads@model.heads.{head}=...` adds a head."
    adding = f"; `+{name}=...` adds a new one" if dot and group not in CLOSED else ""
    return f"Unknown config key {name!r}.{hint} (`--cfg job` prints all keys{adding}.)"


def _is_single(config: Any) -> bool:
    """Whether the config has one dataset, which is no mixture."""
    return not isinstance(value_of(config, "datamodule.dataset.datasets"), dict)


def _not_overridden(error: Exception) -> str:
    """The key that Hydra could not override; empty if the error is another one."""
    found = re.match(r"Could not override '([^']+)'", one_line(error))
    return found[1] if found else ""


def _argument_of_class(name: str, node: Any, typed: str, hint: str) -> str:
    """What the class of `node` takes, to end the message about a key that the node lacks; empty if that cannot help.

    The class is imported, and torch with most. Arguments that the program supplies are left out, and those without a
    default.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return ""
    group, _, last = name.rpartition(".")
    target = str(node["_target_"])
    title, taken = target.rpartition(".")[2], parameters_of(target)
    left_out = {*node, *supplied(taken)}
    free = {
        key: json.dumps(p.default, default=str)
        for key, p in taken.items()
        if key not in left_out and p.default is not p.empty
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


def explain_yaml(error: YAMLError | UnicodeDecodeError) -> str:
    """What is wrong with a config file, and where."""
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 1]
        return f"A config is not UTF-8: found the byte {found!r} after {error.object[: error.start][-40:]!r}."
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark else "A config"
    problem = getattr(error, "problem", None) or str(error)
    return f"{place} is not YAML: {' '.join(str(problem).split())}"


def nearest_key(name: str, known: list[str]) -> str:
    """A hint at the key that was meant: one in its group (if that exists) with the same last word, else a similar one."""
    group, _, last = name.rpartition(".")
    prefix = f"{group}." if group in known else ""
    inside = [key.removeprefix(prefix) for key in known if key.startswith(prefix)]
    near = [key for key in inside if key.endswith(f".{last}")]
    if len(near) != 1:
        near = difflib.get_close_matches(
            name.removeprefix(prefix), (key for key in inside if prefix + key != name), n=1
        )
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


def _keys(config: Any) -> list[str]:
    return [key for key, _ in nodes(config)]


def key_of(override: str) -> str:
    """The key of `key=value`, `+key=value` or `~key`."""
    return override.lstrip("+~").partition("=")[0]


def names_group(key: str) -> bool:
    """Whether an override of this key chooses a config, as `experiment` and `task@datamodule.dataset.task` do."""
    group = key.partition("@")[0]
    return group == "hydra.searchpath" or files("mtlrank.conf").joinpath(group).is_dir()


_EXPLANATIONS: tuple[Callable[[Exception, ConfigWithout], str | None], ...] = (  # the first that knows it
    _explain_parsing,
    _explain_experiment,
    _explain_option,
    _explain_missing_value,
    _explain_interpolation,
    _explain_several_values,
    _explain_choice,
    _explain_key,
)
