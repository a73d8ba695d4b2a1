"""The folder of a run: which run it holds, and when two runs are the same."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mtlrank.about import EVALUATION, METRICS, MODEL, REPORT, RUN
from mtlrank.checks import differing
from mtlrank.composing.tree import by_key
from mtlrank.config import Config
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.storage import fingerprint, join, read_versioned, writable_folder, write_bytes
from mtlrank.words import counted

_REPLACED = (MODEL, EVALUATION, REPORT)  # folders that a run replaces
_NOT_LEARNT = ("output_dir", "data_dir", "test", "force")  # settings that do not change what is learnt
_NOT_OF_IDENTITY = (  # prefixes of settings that may change when a run continues
    "training.checkpoint_",
    "training.accept_changes",
    "datamodule.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "loop.diagnose_every_n_steps",
    "loop.logger.",
    "prepare.num_workers",
    "prepare.max_bad_rows",
    "max_length",  # compared in the datasets' own settings
    "max_query_length",
    "template",
)
_KINDS = {
    "data": ("datamodule.dataset.", "collection.", "prepare.", "tasks"),
    "heads": ("model.heads.", "model.default_head.", "datamodule.dataset.", "tasks"),
    "body": ("model.body.",),
    "tokenizer": ("model.body.", "datamodule.dataset."),
    "epochs": ("training.epochs", "training.max_steps", "training.patience"),
}  # prefixes of the settings that may differ, by kind in training.accept_changes


def output_folder(config: Config) -> Path:
    """The folder of a run, proven writable. By default it is named after the config, so that a command finds its own.

    Refused are, unless `force` is set, a folder with a run of another config and, always, a folder without a run that has
    what a run would replace.
    """
    folder = writable_folder(config["output_dir"] or Path("runs") / fingerprint(run_identity(config)))
    if not (folder / RUN).exists() and (strange := [name for name in _REPLACED if (folder / name).exists()]):
        raise ConfigError(
            f"{folder} is not the folder of a run, and training would replace {' and '.join(strange)} there. Choose "
            "another output_dir."
        )
    check_owner(folder, config, "output_dir")
    return folder


def check_replaceable(folder: Path) -> None:
    """Raise `StorageError` if what a run replaces in its folder cannot be replaced, as it belongs to somebody else."""
    for name in _REPLACED:
        for inside in (folder / name, *(folder / name).rglob("*/")):
            if inside.exists() and not os.access(inside, os.W_OK):
                raise StorageError(f"{inside} cannot be replaced: this user may not write there. Fix its permissions.")


def empty(folder: Path) -> None:
    """Remove a folder or, if it is a link to one, what that holds. One that is missing is empty."""
    if not folder.is_dir():
        return
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for inside in folder.iterdir():
        empty(inside) if inside.is_dir() and not inside.is_symlink() else inside.unlink()


def check_owner(folder: str | Path, config: Config, setting: str) -> None:
    """Raise `ConfigError` if a folder (given as `setting`) holds a run of another config, unless `force` is set."""
    if config["force"] or (theirs := _identity_in(folder, setting)) is None:
        return
    ours = run_identity(config)
    excused = tuple(prefix for kind in config["training"]["accept_changes"] for prefix in _KINDS[kind])
    wrong = [key for key in differing(ours, theirs) if not key.startswith(excused)]
    if wrong:
        shown = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in wrong[:5])
        raise ConfigError(
            f"{folder} holds a run of another config (it differs in {counted(len(wrong), 'key')}: {shown}). "
            f"Choose another {setting}, or replace that run with force=true."
        )


def holds(folder: Path, config: Config) -> bool:
    """Whether a folder holds this run, and it is finished."""
    theirs = _identity_in(folder, "output_dir") if (folder / METRICS).exists() else None
    # An older run may lack keys that are null by default.
    return theirs is not None and not differing(run_identity(config), theirs)


def _identity_in(folder: str | Path, setting: str) -> dict[str, Any] | None:
    """The identity of the run in a folder, local or on Google Cloud Storage; None if there is no run."""
    data, _ = read_versioned(join(str(folder), RUN))
    if data is None:
        return None
    try:
        claimed = json.loads(data)
        if isinstance(claimed, dict):
            return claimed
    except ValueError:
        pass
    raise DataError(f"{folder}/{RUN} is damaged. Choose another {setting}, or replace the run there with force=true.")


def claim(folder: str | Path, config: Config) -> None:
    """Record which run a folder belongs to. Called when training starts, so that an earlier mistake leaves no trace."""
    write_bytes(join(str(folder), RUN), (json.dumps(run_identity(config), indent=2, sort_keys=True) + "\n").encode())


def run_identity(config: Config) -> dict[str, Any]:
    """The settings, by dotted key, by which two runs are the same."""
    chosen = {key: value for key, value in config.items() if key not in _NOT_LEARNT}
    return {key: value for key, value in by_key(chosen).items() if not key.startswith(_NOT_OF_IDENTITY)}


def without_places(config: Config) -> Config:
    """A config as it is saved with a model: without paths, so that equal models have equal configs."""
    training = {k: v for k, v in config["training"].items() if k != "checkpoint_dir"}
    return {**{k: v for k, v in config.items() if k not in _NOT_LEARNT}, "training": training}
