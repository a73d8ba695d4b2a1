"""The folder of a run: what makes two runs the same, and whose a folder is."""

from pathlib import Path
from typing import Any

from mtlrank.compose import Config
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import fingerprint, read_json, writable_folder, write_json

RUN = "run.json"  # the config that a folder is of
METRICS = "metrics.json"  # what a run reached, by key: a run that has it is finished
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
)
_KINDS = {
    "data": ("datamodule.dataset.", "collection.", "prepare.", "tasks"),
    "heads": ("model.heads.", "model.default_head.", "datamodule.dataset.", "tasks"),
    "body": ("model.body.",),
    "tokenizer": ("model.body.", "datamodule.dataset."),
}  # settings that differ if what training.accept_changes names does


def output_folder(config: Config) -> Path:
    """The folder of a run, proven writable; by default it is named after the config, so a command finds its own.

    A folder that holds a run of another config is refused, with the keys that differ, unless `force` is set.
    """
    folder = writable_folder(config["output_dir"] or Path("runs") / fingerprint(run_identity(config)))
    if (folder / RUN).exists() and not config["force"]:
        ours, theirs = run_identity(config), _claimed(folder / RUN)
        excused = tuple(prefix for kind in config["training"]["accept_changes"] for prefix in _KINDS[kind])
        differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        differing = [key for key in differing if not key.startswith(excused)]
        if differing:
            shown = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in differing[:5])
            raise ConfigError(
                f"{folder} holds a run of another config ({len(differing)} keys differ: {shown}). "
                "Choose another output_dir, or replace that run with force=true."
            )
    return folder


def _claimed(path: Path) -> dict[str, Any]:
    """Whose run a folder holds."""
    try:
        claimed = read_json(path)
        if isinstance(claimed, dict):
            return claimed
    except DataError:
        pass
    raise DataError(f"{path} is damaged. Choose another output_dir, or replace the run there with force=true.")


def claim(folder: Path, config: Config) -> None:
    """Record which run a folder belongs to: once training starts, so that an earlier mistake leaves nothing."""
    write_json(folder / RUN, run_identity(config))


def run_identity(config: Config) -> dict[str, Any]:
    """What makes two runs the same, as dotted keys."""
    flat = dict[str, Any]()

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[prefix] = node

    walk({k: v for k, v in config.items() if k not in ("output_dir", "data_dir", "test", "force")}, "")
    return {key: value for key, value in flat.items() if not key.startswith(_NOT_OF_IDENTITY)}
