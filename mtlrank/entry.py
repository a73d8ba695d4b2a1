"""Starts a step from the command line: Hydra composes its config; a user's mistake becomes one line and an exit code."""

import logging
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mtlrank.composing.compose import explain_composing, resolve, written
from mtlrank.composing.explain import explain
from mtlrank.composing.selection import check_typed_tasks
from mtlrank.composing.untrusted import check_names, own_config_dir
from mtlrank.composing.usage import usage
from mtlrank.config import Config
from mtlrank.errors import ConfigError
from mtlrank.guard import errors_in_one_line, guarded
from mtlrank.progress import say
from mtlrank.storage import fingerprint, join

OmegaConf.register_new_resolver("usage", usage)  # the configs name it as Hydra's template of --help


def start(step: str, config: str | None = None) -> NoReturn:
    """Compose a step's config from the command line, which is trusted, and call `run` of the step's module with it.

    The module is imported only then, as most load torch: help and typing mistakes should not wait for that. `config` is
    the name of the config if it differs from the step's. If the module has an `objective`, that turns the result of `run`
    into the number that Hydra's sweepers optimise.
    """
    name = config or step
    _start(step, name, lambda composed: _resolved(composed, name))


def start_variants(step: str) -> NoReturn:
    """Like `start`, for a step that needs several configs: it gets a function that changes keys before resolving."""

    def vary(config: DictConfig, changes: Mapping[str, Any]) -> Config:
        changed = config.copy()
        for key, value in changes.items():
            OmegaConf.update(changed, key, value)
        return _resolved(changed, step)

    _start(step, step, lambda composed: partial(vary, composed))


def _resolved(config: DictConfig, name: str) -> Config:
    return resolve(config, trusted=True, name=name, overrides=_overrides(), own=_config_dir())


def start_command(name: str) -> NoReturn:
    """Do what `mtlrank <name>` does with these command-line arguments."""
    # The command imports the step's module, so a module calls this above its own imports.
    import_module("mtlrank.cli").app([name, *sys.argv[1:]], prog_name="mtlrank")
    sys.exit()


def _start(step: str, name: str, given: Callable[[DictConfig], Any]) -> NoReturn:
    """`given` turns the composed config into the argument of the step's `run`."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra shortens tracebacks
    logging.raiseExceptions = False  # else `--info all | head` shows a traceback for each unread line
    sys.path.insert(0, os.getcwd())  # for a user's own classes in the current folder

    is_composed = False

    def run(config: DictConfig) -> Any:
        nonlocal is_composed
        is_composed = True
        with errors_in_one_line():  # here, because Hydra prints every exception itself
            sweep = HydraConfig.get()
            is_sweep = sweep.mode is RunMode.MULTIRUN
            if is_sweep:
                say(_job(sweep))
            try:
                check_typed_tasks(config, _overrides())
                argument = given(config)
                if is_sweep and step in ("train", "probe"):
                    argument = _apart(argument, written(config))
                module = import_module(f"mtlrank.{step}")
                with guarded():
                    found = module.run(argument)
                    return module.objective(argument, found) if hasattr(module, "objective") else None
            except OmegaConfBaseException as error:
                raise ConfigError(explain(error, lambda _: written(config))) from error

    with errors_in_one_line():
        _tidy_command_line()
        try:
            hydra.main(version_base="1.3", config_path="pkg://mtlrank.conf", config_name=name)(run)()
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            if is_composed or (reason := explain_composing(error, name, [*_searched(), *_overrides()])) is None:
                raise
            raise ConfigError(reason) from error
    sys.exit()


def _apart(config: Config, unresolved: Config) -> Config:
    """The config of a run of a sweep: in folders that are the same for all, it has one that is named by its config."""
    from mtlrank.run_folder import run_identity  # here, as only sweeps need it

    given = OverridesParser.create().parse_overrides(_overrides())
    swept = {each.get_key_element() for each in given if each.is_sweep_override()}
    name = fingerprint(run_identity(config))

    def own(key: str, folder: str | None, unread: str | None) -> str | None:
        return folder if not folder or "${" in str(unread) or key in swept else join(folder, name)

    training = config["training"]
    checkpoints = own("training.checkpoint_dir", training["checkpoint_dir"], unresolved["training"]["checkpoint_dir"])
    output = own("output_dir", config["output_dir"], unresolved["output_dir"])
    return {**config, "output_dir": output, "training": {**training, "checkpoint_dir": checkpoints}}


def _job(sweep: HydraConf) -> str:
    """`job 1/2: loop.optimizer.lr=1e-05`: the overrides in which a job of a sweep differs from the others."""
    given = OverridesParser.create().parse_overrides(_overrides())
    shared = {each.get_key_element() for each in given if not each.is_sweep_override()}
    own = [word for word in sweep.overrides.task if word.partition("=")[0] not in shared]
    total = ""
    if sweep.sweeper._target_ == BasicSweeperConf._target_:  # others have no fixed number of jobs
        with suppress(HydraException):  # glob(*) cannot be counted
            total = f"/{math.prod(len(list(each.sweep_iterator())) for each in given if each.is_sweep_override())}"
    return f"job {sweep.job.num + 1}{total}: {' '.join(own)}"


def _tidy_command_line() -> None:
    """Put Hydra's options first, as it does not accept them between overrides, and add the folder of further configs."""
    for word in _parsed()[1]:
        wanted = word.lstrip("-") if "=" in word else "training.epochs=3"
        raise ConfigError(
            f"There is no option {word}. Settings are typed without dashes, as in {wanted}: --help lists them."
        )
    if folder := _config_dir():
        check_names(Path(folder))
    elif own := own_config_dir():
        sys.argv += ["--config-dir", str(own)]
    overrides = _overrides()
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in overrides] + overrides


def _overrides() -> list[str]:
    """The overrides on the command line: all arguments but options and their values."""
    overrides: list[str] = _parsed()[0].overrides
    return overrides


def _config_dir() -> str | None:
    folder: str | None = _parsed()[0].config_dir
    return folder


def _parsed() -> tuple[Namespace, list[str]]:
    """The command line as Hydra reads it, and the words that it does not know."""
    return get_args_parser().parse_known_intermixed_args(sys.argv[1:])


def _searched() -> list[str]:
    """The folder of further configs as an override."""
    return [f"hydra.searchpath=[file://{os.path.abspath(folder)}]"] if (folder := _config_dir()) else []
