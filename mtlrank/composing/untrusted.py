"""Configs from outside (pipeline parameters, saved models) are data: checks of what they may set."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mtlrank import conf
from mtlrank.composing.tree import leaves
from mtlrank.errors import ConfigError
from mtlrank.storage.patterns import is_pattern, matching

_VALUES_AT_ROOT = {
    "tasks",
    "seed",
    "data_dir",
    "output_dir",
    "test",
    "model_dir",
    "split",
    "batch_size",
    "measures",
    "template",
}
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/run", "/var/run")  # the last has the token of a pod's account
_KEY = "GOOGLE_APPLICATION_CREDENTIALS"


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides from outside that name code, Hydra's own settings, interpolations or files as configs.

    They are parsed by Hydra's own parser, so that no unusual spelling can pass the checks.
    """
    for text in overrides:
        if "$" in text or "\\" in text:
            raise _forbidden(text, "it may not contain '$' or a backslash")
        (override,) = OverridesParser.create().parse_overrides([text])
        group, package = override.key_or_group, override.package or ""
        words = re.split(r"[./@:]", f"{group}.{package}")
        if any(word.startswith("_") or word == "hydra" for word in words):
            raise _forbidden(text, "it may not name Hydra's settings or a key that begins with '_'")
        value = override.value()
        keys = {key for path, _ in leaves(value) for key in path}
        if "annotator" in words[:-1] or "annotator" in keys:
            raise _forbidden(text, "it may not name an annotator's model, as spaCy models can contain code")
        if "logger" in keys or ("." in group and "logger" in words):
            raise _forbidden(text, "it may not set a logger, to which a step sends values and credentials")
        if override.is_sweep_override():
            raise _forbidden(text, "it may not be a sweep")
        if "." not in group and group not in _VALUES_AT_ROOT and not is_config_name(value):
            raise _forbidden(text, f"{value!r} is not the name of a config")
        if any(key.startswith("_") for key in keys):
            raise _forbidden(text, "it may not contain a key that begins with '_'")


def check_targets(config: Any) -> None:
    """Refuse every `_target_` that neither mtlrank's own configs name nor `$MTLRANK_ALLOWED_TARGETS` allows.

    The variable holds prefixes such as `my_package.`, separated by commas; it is the image builder's to set. Text that
    would be interpolated once more when objects are built is refused too.
    """
    config_dir = own_config_dir()
    prefixes = [prefix for prefix in os.environ.get("MTLRANK_ALLOWED_TARGETS", "").split(",") if prefix.endswith(".")]
    own = _targets_below(Path(conf.__file__).parent) | (_targets_below(config_dir) if config_dir else frozenset())
    for path, value in leaves(config):
        if "${" in str(value):
            raise ConfigError(f"{path[-1]} is {value!r}: interpolations are not allowed in a config from outside.")
        if path[-1] == "_target_" and value not in own and not str(value).startswith(tuple(prefixes)):
            raise ConfigError(
                f"_target_ {value!r} is not allowed in a config from outside: no config of mtlrank names it. "
                "The image's builder can allow a package in MTLRANK_ALLOWED_TARGETS."
            )


def check_places(config: Any) -> None:
    """Refuse paths of system files and of the Google Cloud key: error messages quote bad data in a step's log."""
    places = [os.path.realpath(place) for place in (*_OF_THE_SYSTEM, os.environ.get(_KEY)) if place]
    for path, value in leaves(config):
        if isinstance(value, str) and ("/" in value or value.startswith("~")):
            if "\0" in value:
                raise ConfigError(f"{path[-1]} is {value!r}: NUL is no part of a path.")
            if any(each.is_relative_to(place) for each in _real_paths(value) for place in places):
                raise ConfigError(
                    f"{path[-1]} is {value!r}: a config from outside may not name files of the system or keys. Put data "
                    "elsewhere."
                )


def _real_paths(name: str) -> list[Path]:
    """The paths that a name or pattern stands for, links resolved."""
    path = Path(os.path.expanduser(name))
    try:
        there = os.listdir(path.parent) if is_pattern(name) else []
    except OSError:
        there = []  # the error is raised when the data is read
    return [Path(os.path.realpath(each)) for each in (path, *map(path.with_name, matching(path.name, there)))]


def own_config_dir() -> Path | None:
    """The folder of further configs in $MTLRANK_CONFIG_DIR, which an image's builder or a user sets; None if unset."""
    named = os.environ.get("MTLRANK_CONFIG_DIR")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"MTLRANK_CONFIG_DIR is {named!r}, which is not a folder.")
    check_names(folder)
    return folder


def check_names(folder: Path) -> None:
    """Refuse a user's config that Hydra would not read: it ends in .yml, or mtlrank has a config of that name."""
    ours = Path(conf.__file__).parent
    for path in sorted(folder.rglob("*.y*ml")):
        group = path.relative_to(folder).parent
        if path.suffix == ".yml" and group != Path() and (ours / group).is_dir():
            raise ConfigError(f"{path} would not be read: names of configs end in .yaml. Rename it.")
        if (ours / group / path.name).is_file():
            raise ConfigError(f"{path} has the name of an option of mtlrank, which would be used instead: rename it.")


def config_files(own: str | Path | None) -> Iterator[str]:
    """The texts of all configs, mtlrank's and the user's own, without collections: only the chosen one is in use."""
    for folder in (Path(conf.__file__).parent, *([] if own is None else [Path(own)])):
        for path in sorted(folder.rglob("*.yaml")):
            if path.parent != folder / "collection":
                yield path.read_text(encoding="utf-8", errors="replace")


def own_collections(own: str | Path | None) -> Iterator[str]:
    """The texts of the user's own collections."""
    for path in sorted((Path(own) / "collection").glob("*.yaml")) if own is not None else ():
        yield path.read_text(encoding="utf-8", errors="replace")


@cache
def _targets_below(root: Path) -> frozenset[str]:
    """Every `_target_` in the configs of a folder."""
    return frozenset(
        value
        for file in root.rglob("*.yaml")
        for path, value in leaves(yaml.safe_load(file.read_text()))
        if path[-1:] == ("_target_",)
    )


def is_config_name(value: Any) -> bool:
    """Whether a value can be the name of a config; null chooses none."""
    return value is None or (not isinstance(value, bool) and _NAME.fullmatch(str(value)) is not None)


def _forbidden(override: str, reason: str) -> ConfigError:
    return ConfigError(
        f"The override {override!r} is not allowed from a pipeline: {reason}. "
        "Choose among installed configs, or build an image with your own."
    )
