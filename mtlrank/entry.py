"""Starts a step from the command line: Hydra composes its config; a user's mistake becomes one line and an exit code."""

import errno
import logging
import math
import os
import re
import select
import signal
import sqlite3
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from sysconfig import get_paths
from traceback import walk_tb
from types import FrameType
from typing import Any, NamedTuple, NoReturn

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
from safetensors import SafetensorError
from yaml import YAMLError

from mtlrank.composing.compose import explain_composing, resolve, written
from mtlrank.composing.explain import explain
from mtlrank.composing.selection import check_typed_tasks
from mtlrank.composing.untrusted import check_names, own_config_dir
from mtlrank.composing.usage import usage
from mtlrank.config import Config
from mtlrank.errors import (
    ConfigError,
    OwnCodeError,
    ResourceError,
    SigTerm,
    StorageError,
    TerminatedError,
    UserError,
    all_lines,
    one_line,
)
from mtlrank.progress import say, write_line
from mtlrank.storage import fingerprint, join

OmegaConf.register_new_resolver("usage", usage)  # the configs name it as Hydra's template of --help

_REFUSALS = (  # errors of the system that are no bug
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY),
)
_FULL = ("No space left", "Disk quota exceeded", "database or disk is full")
_ELSEWHERE = "Choose another place, or fix this one."
_OURS = os.path.join(os.path.dirname(__file__), "")
_STANDARD = tuple({path for name, path in get_paths().items() if name != "data"})
_LIGHTNING = ("pytorch_lightning.", "lightning_fabric.")
_TAKES_FOLDER = ("--config-dir", "-cd")
_TAKES_WORD = (
    *(*_TAKES_FOLDER, "--config-path", "-cp", "--config-name", "-cn"),
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
)
_NOT_READ = 128 + signal.SIGPIPE  # the exit code of a program whose output nobody reads any more
_REFUSALS_OF_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


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


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with one line and an exit code for an error that a user can fix; a bug keeps its traceback."""
    try:
        yield
        sys.stdout.flush()  # here, so that a closed pipe is noticed inside this block
    except BrokenPipeError:
        if _is_read():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again to flush what is left
        sys.exit(_NOT_READ)
    except UserError as error:
        _stop(error)
    except Exception as error:
        if (explained := _of_system(error) or _of_own_code(error)) is None:
            raise
        _stop(explained)
    except SigTerm:
        _stop(TerminatedError("stopped by SIGTERM: the same command continues."))
    except KeyboardInterrupt:
        write_line("mtlrank: interrupted")
        sys.exit(130)


@contextmanager
def guarded() -> Iterator[None]:
    """Around a step: errors in one line, quiet libraries, and a SIGTERM that leaves nothing half-written."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a fork after Rust threads hangs
    quiet()
    signal.signal(signal.SIGTERM, _terminate)
    with errors_in_one_line():
        yield


def _is_read() -> bool:
    """Whether stdout is still read; `head` closes it after some lines."""
    stdout = select.poll()
    stdout.register(sys.stdout, 0)  # errors are always reported
    return not stdout.poll(0)


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
    for word in get_args_parser().parse_known_args(sys.argv[1:])[1]:
        if word.startswith("-"):
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
    return [word for before, word in pairwise(sys.argv) if not word.startswith("-") and before not in _TAKES_WORD]


def _config_dir() -> str | None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument(*_TAKES_FOLDER, dest="folder")
    parser.add_argument("--cfg", "-c")  # else argparse takes it for an abbreviation
    folder: str | None = parser.parse_known_args()[0].folder
    return folder


def _searched() -> list[str]:
    """The folder of further configs as an override."""
    return [f"hydra.searchpath=[file://{os.path.abspath(folder)}]"] if (folder := _config_dir()) else []


def _of_system(error: Exception) -> UserError | None:
    """The error to report if the system refused something (disk, memory); None for other errors."""
    is_plain = type(error) is Exception  # as tokenizers raises
    if (is_plain or isinstance(error, OSError | sqlite3.OperationalError | SafetensorError)) and (
        reason := _refusal(error)
    ):
        notes = [note for note in getattr(error, "__notes__", ()) if note.removeprefix("while writing ") not in reason]
        noted = "".join(f" ({note})" for note in notes)
        way_out = "Free some space, or choose another place." if reason.startswith(_FULL) else _ELSEWHERE
        return StorageError(f"Cannot read or write: {reason}{noted}. {way_out}")
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):  # of Path.home
        return StorageError(
            "This user has no home folder, where libraries keep files: set HOME to one that can be written."
        )
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):  # torch raises it anywhere
        return ResourceError(
            f"A process that assembles batches died: {all_lines(error).rstrip('.')}. Set datamodule.num_workers=0 (batches "
            "come from memory-mapped tokens, so it costs little), or give the machine more memory."
        )
    if type(error).__name__ == "OutOfMemoryError":  # by name, as not every command loads torch
        way_out = "Use smaller batches: training.eval_batch_size in training, batch_size in other commands."
        return ResourceError(f"The GPU ran out of memory: {one_line(error)} {way_out}")
    return None


def _of_own_code(error: Exception) -> OwnCodeError | None:
    """The error to report if it was raised in a user's own class that we called: the last line of that code. Else None.

    An optimizer that calls Lightning's closure is not what fails in it. If the last call of ours is of a method that a
    user's class inherits, the class is named.
    """
    calls = [_Call(frame, line) for frame, line in walk_tb(error.__traceback__)]
    ours = [number for number, call in enumerate(calls) if call.file.startswith(_OURS) and call.file != __file__]
    if not ours:
        return None
    closures = [number for number in range(ours[-1]) if calls[number].module.startswith(_LIGHTNING)]
    for call in reversed(calls[max([ours[0], *closures]) + 1 :]):
        if _is_own(call.file, call.module):
            return _own(f"{call.module}.{call.frame.f_code.co_qualname}", call, error)
    kind = type(calls[ours[-1]].frame.f_locals.get("self"))
    if _is_own(getattr(sys.modules.get(kind.__module__), "__file__", None) or "<", kind.__module__):
        return _own(f"{kind.__module__}.{kind.__qualname__}", calls[ours[-1]], error)
    return None


class _Call(NamedTuple):
    """A call of a traceback."""

    frame: FrameType
    line: int

    @property
    def file(self) -> str:
        return self.frame.f_code.co_filename

    @property
    def module(self) -> str:
        return str(self.frame.f_globals.get("__name__"))


def _is_own(file: str, module: str) -> bool:
    """Whether code is a user's own, neither ours nor a library's. torch compiles into files elsewhere."""
    is_installed = file.startswith((_OURS, *_STANDARD, "<")) or "-packages" in file
    return not (is_installed or module.startswith("torch."))


def _own(what: str, call: _Call, error: Exception) -> OwnCodeError:
    where = f"{os.path.relpath(call.file)}:{call.line}"
    return OwnCodeError(f"{what}, {where}: {type(error).__name__}: {error} (MTLRANK_TRACEBACK=1 shows the calls.)")


def _refusal(error: Exception) -> str:
    """Why the system refuses to read or write; empty for other errors."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error) if error.sqlite_errorcode in _REFUSALS_OF_SQLITE else ""
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        return reason if error.errno in _REFUSALS else ""
    # Safetensors has its own words, and shutil.copytree quotes an error for each file.
    found = re.search(r"(?:os error|Errno) (\d+)", str(error))
    return os.strerror(int(found[1])) if found and int(found[1]) in _REFUSALS else ""


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as after an error, so that nothing half-written stays. Training has its own handler, to end between two steps."""
    raise SigTerm


def _stop(error: UserError) -> NoReturn:
    """Print an error in one line and exit."""
    if os.environ.get("MTLRANK_TRACEBACK"):
        raise error
    write_line(f"mtlrank: {' '.join(str(error).split())}")
    sys.exit(error.exit_code)


def quiet() -> None:
    """Silence library messages that users cannot act on."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # also read by transformers
    if "huggingface_hub" in sys.modules:  # it has read that already
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    # The second one too, as Lightning sets the level of the first one if it is imported later.
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|torch|lightning_fabric|lightning_utilities")
