"""The folder of a run: what makes two runs the same, and whose a folder is."""

import json
from pathlib import Path
from typing import Any

from mtlrank.checks import differing
from mtlrank.composing.compose import Config
from mtlrank.composing.tree import nodes
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import fingerprint, join, read_versioned, writable_folder, write_bytes
from mtlrank.words import counted

ABOUT = "about.json"  # the command, commit and versions of a run's last attempt
RUN = "run.json"  # the config that a folder is of
METRICS = "metrics.json"  # what a run reached, by key: a run that has it is finished
DATA = "data.json"  # what the datasets of a finished run, and the classes of somebody's own, were
_REPLACED = ("model", "evaluation", "report")  # folders that a run makes anew
_ERRAND = ("output_dir", "data_dir", "test", "force")  # where to and what else to do, not what is learnt
_NOT_OF_IDENTITY = (  # settings with which the same run continues
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
    "max_length",  # what datasets make of it is theirs
    "max_query_length",
)
_KINDS = {
    "data": ("datamodule.dataset.", "collection.", "prepare.", "tasks"),
    "heads": ("model.heads.", "model.default_head.", "datamodule.dataset.", "tasks"),
    "body": ("model.body.",),
    "tokenizer": ("model.body.", "datamodule.dataset."),
    "epochs": ("training.epochs", "training.max_steps", "training.patience"),
}  # settings that differ if what training.accept_changes names does


def output_folder(config: Config) -> Path:
    """The folder of a run, proven writable; by default it is named after the config, so a command finds its own.

    A folder that holds a run of another config is refused, with the keys that differ, unless `force` is set. So is one that
    is no run's and has what a run would replace.
    """
    folder = writable_folder(config["output_dir"] or Path("runs") / fingerprint(run_identity(config)))
    if not (folder / RUN).exists() and (strange := [name for name in _REPLACED if (folder / name).exists()]):
        raise ConfigError(
            f"{folder} is not the folder of a run, and training would replace {' and '.join(strange)} there. Choose "
            "another output_dir."
        )
    check_owner(folder, config, "output_dir")
    return folder


def check_owner(folder: str | Path, config: Config, setting: str) -> None:
    """Raise `ConfigError` if a folder, which `setting` names, holds another config's run, unless `force` is set."""
    if config["force"] or (theirs := _claimed(folder, setting)) is None:
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
    """Whether a folder holds this run, finished."""
    theirs = _claimed(folder, "output_dir") if (folder / METRICS).exists() else None
    # An older run has not every key that is null by default.
    return theirs is not None and not differing(run_identity(config), theirs)


def _claimed(folder: str | Path, setting: str) -> dict[str, Any] | None:
    """Whose run a folder holds, local or on Google Cloud Storage; None if it says nothing."""
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


def about(folder: Path) -> dict[str, Any]:
    """What a run says of itself; nothing if it does not, as what was trained long ago."""
    try:
        told = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def claim(folder: str | Path, config: Config) -> None:
    """Record which run a folder belongs to: once training starts, so that an earlier mistake leaves nothing."""
    write_bytes(join(str(folder), RUN), (json.dumps(run_identity(config), indent=2, sort_keys=True) + "\n").encode())


def run_identity(config: Config) -> dict[str, Any]:
    """What makes two runs the same, as dotted keys."""
    chosen = {key: value for key, value in config.items() if key not in _ERRAND}
    return {
        key: value
        for key, value in nodes(chosen)
        if not (isinstance(value, dict) and value) and not key.startswith(_NOT_OF_IDENTITY)
    }


def without_places(config: Config) -> Config:
    """A config as it is kept with a model: the same wherever that was learnt, so that it can be recognised."""
    training = {k: v for k, v in config["training"].items() if k != "checkpoint_dir"}
    return {**{k: v for k, v in config.items() if k not in _ERRAND}, "training": training}
