"""Checkpoints as folders with a manifest: complete or absent, checked when they are read, local or on gs://."""

import json
import re
import secrets
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from mtlrank.checks import differing
from mtlrank.errors import ConfigError, ConflictError, DataError, StorageError, UserError, all_lines
from mtlrank.progress import warn
from mtlrank.storage import (
    MANIFEST,
    fetch_folder,
    join,
    list_files,
    mirror,
    new_folder,
    publish_folder,
    read_manifest,
    read_versioned,
    remove_folder,
    sweep_all,
    writable_folder,
    write_bytes,
    write_manifest,
)

STATE = "state.pt"
CHECKPOINTS = "checkpoints"  # in the folder of a run, unless its config names another place
_OWNER = "owner"  # a file that says which process writes here
_NAME = re.compile(r"(step|best)-(\d{8})")


class Checkpoint(NamedTuple):
    """The name of a checkpoint; `step` counts optimizer steps."""

    kind: str  # "step": everything that training needs to continue; "best": the weights of the best validation
    step: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.kind}-{self.step:08d}"


class Checkpoints:
    """The checkpoints of one run in a folder, local or on Google Cloud Storage.

    Keeps the newest two states of training, so that a damaged one costs little, and the best weights. The folder belongs to
    the process that took it over last: an older process that still trains the same run must not remove its files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        self._owner: bytes | None = None
        writable_folder(mirror(self.folder))
        if "://" in self.folder:
            write_bytes(join(self.folder, "writable"), b"")  # before the first step, not after the first hour

    def take(self) -> None:
        """Take the folder over, also from a clone, or from a pod that is presumed dead but still runs.

        What a process that was killed has written of a checkpoint is removed.
        """
        self._owner = f"{socket.gethostname()} {secrets.token_hex(8)}\n".encode()
        write_bytes(join(self.folder, _OWNER), self._owner)
        sweep_all(mirror(self.folder), _NAME.pattern)  # each has the size of a checkpoint

    def check_own(self) -> None:
        """Raise `ConflictError` if another process has taken the folder since this one did."""
        owner, _ = read_versioned(join(self.folder, _OWNER)) if self._owner else (None, None)
        if owner not in (None, self._owner):
            host = owner.decode(errors="replace").split(" ")[0]
            raise ConflictError(
                f"A later process, on {host}, trains the same run with the checkpoints in {self.folder}. This process "
                "stops, and leaves them alone. To run both, give one of them another training.checkpoint_dir (in a "
                "pipeline: checkpoints)."
            )

    def path(self, checkpoint: Checkpoint) -> str:
        """Where a checkpoint lies."""
        return join(self.folder, checkpoint.name)

    def all(self, kind: str) -> list[Checkpoint]:
        """The checkpoints that have a manifest, newest first; they are not read."""
        names = [name.removesuffix(f"/{MANIFEST}") for name in list_files(self.folder) if name.endswith(f"/{MANIFEST}")]
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        found = [Checkpoint(match[1], int(match[2])) for match in matches if match[1] == kind]
        return sorted(found, key=lambda checkpoint: -checkpoint.step)

    def newest(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest undamaged state with its content; damaged ones are reported and skipped.

        None for a new run. Raises `DataError` if there are states, but none that can be read.
        """
        candidates, reasons = self.all("step"), []
        for checkpoint in candidates:
            try:
                content = self.read(checkpoint)
            except DataError as error:
                reasons.append(f"{self.path(checkpoint)} cannot be used: {error}")
                continue
            for reason in reasons:
                warn(reason)
            return checkpoint, content
        if candidates:
            raise DataError(
                f"No checkpoint in {self.folder} can be read. {reasons[0]} Start over with force=true, or in a pipeline "
                "with another folder as checkpoints."
            )
        return None

    def read(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """A checkpoint's content. Raises `DataError` if a byte of it changed."""
        return read_checkpoint(self.path(checkpoint))

    def write_best(self, step: int, weights: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Write weights and the metrics of their validation."""
        self.check_own()
        write_checkpoint({"state_dict": dict(weights), "values": dict(values)}, self.path(Checkpoint("best", step)))

    def prune(self, step: int, best: set[int | None]) -> None:
        """Keep the newest two states up to `step` and their `best` weights.

        States of later steps belong to an abandoned attempt and are removed.
        """
        states = self.all("step")
        kept = [checkpoint for checkpoint in states if checkpoint.step <= step][:2]
        for checkpoint in [*states, *self.all("best")]:
            if checkpoint not in kept and not (checkpoint.kind == "best" and checkpoint.step in best):
                self._remove(checkpoint)

    def clear(self) -> None:
        """Remove everything: the run starts over."""
        for checkpoint in self.all("step") + self.all("best"):
            self._remove(checkpoint)

    def _remove(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint and its local copy."""
        remove_folder(self.path(checkpoint))
        remove_folder(mirror(self.path(checkpoint)))


class VerifiedIO(CheckpointIO):
    """Lightning's trainer writes and reads checkpoints through this.

    Only one of several processes writes. If it fails, the others must not wait for it: the failure is kept in `error`, and
    the caller raises it on all processes.
    """

    def __init__(self) -> None:
        self.error: UserError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            write_checkpoint(checkpoint, str(path))
        except UserError as error:
            self.error = error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(str(path))

    def remove_checkpoint(self, path: Any) -> None:
        remove_folder(str(path))


def write_checkpoint(content: dict[str, Any], path: str) -> None:
    """Write a checkpoint completely or not at all.

    Raises `StorageError` if there is no space, and `ConfigError` for a state that could not be read again; then nothing is
    left.
    """
    here = mirror(path)
    try:
        with new_folder(here) as part:
            torch.save(content, part / STATE)
            if unreadable := torch.serialization.get_unsafe_globals_in_checkpoint(part / STATE):
                raise ConfigError(
                    f"The state of training has {' and '.join(sorted(unreadable))}, which is not read from a checkpoint, "
                    "as that could run code. Let optimizers, schedules, losses and callbacks of yours keep numbers, texts, "
                    "lists, dicts and tensors: float(x) in place of a NumPy number."
                )
            write_manifest(part, {"kind": "checkpoint", "torch": torch.__version__})
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        free = shutil.disk_usage(here.parent).free
        raise StorageError(
            f"Cannot write the checkpoint {here}: {all_lines(error)}. It needs {_bytes(content) >> 20:,} MiB, "
            f"{free >> 20:,} MiB are free. Earlier checkpoints are kept. Free some space, and run the same command again."
        ) from error
    if str(here) != path:
        remove_folder(path)  # a damaged one of the same step
        publish_folder(here, path)
        remove_folder(here)


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint whose files match its manifest; no code in it is run."""
    here = fetch_folder(path, mirror(path))
    if read_manifest(here).get("kind") != "checkpoint":
        raise DataError(f"{path} is not a checkpoint.")
    try:
        content: dict[str, Any] = torch.load(here / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another version fails in many ways
        raise DataError(
            f"{path} is undamaged, but torch {torch.__version__} cannot read it: {all_lines(error)}"
        ) from error
    return content


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, accepted: list[str]) -> bool:
    """Whether training can continue exactly, as this run's identity equals that of the checkpoint.

    Keys begin with their kind, as in `data.trec2019`. False if all that differs is of an `accepted` kind: then training
    starts over with the checkpoint's weights. Raises `ConfigError` with all other differences.
    """
    changed = differing(ours, theirs)
    refused = [key for key in changed if key.partition(".")[0] not in accepted]
    if refused:
        table = "; ".join(
            f"{key}: {_shown(theirs.get(key))} in the checkpoint, {_shown(ours.get(key))} now" for key in refused
        )
        kinds = ",".join(sorted({key.partition(".")[0] for key in refused}))
        raise ConfigError(
            f"{where} does not fit this run. {table}. Start over with force=true, choose another output_dir, or start from "
            f"its weights with training.accept_changes=[{kinds}]."
        )
    return not changed


def _shown(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)


def _bytes(content: Any) -> int:
    """The approximate size of a checkpoint."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else []
    return sum(_bytes(part) for part in parts)
