"""Checkpoints as folders with a manifest: complete or not there at all, checked when they are read, local or on gs://."""

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
from mtlrank.errors import ConfigError, ConflictError, DataError, StorageError, UserError, one_line
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
    writable_folder,
    write_bytes,
    write_manifest,
)

STATE = "state.pt"
CHECKPOINTS = "checkpoints"  # in the folder of a run, unless its config names another place
_OWNER = "owner"  # a file that says which process writes here
_NAME = re.compile(r"(step|best)-(\d{8})")


class Checkpoint(NamedTuple):
    """Which checkpoint of a run; `step` counts optimizer steps."""

    kind: str  # "step": everything that training needs to continue; "best": the weights that judged best
    step: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.kind}-{self.step:08d}"


class Checkpoints:
    """The checkpoints of one run in a folder, local or on Google Cloud Storage.

    The newest two states of training are kept, so that one that is damaged costs little, and the best weights. The folder
    belongs to the process that took it last: another one that still trains the same run must not remove what that writes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        self._owner: bytes | None = None
        writable_folder(mirror(self.folder))
        if "://" in self.folder:
            write_bytes(join(self.folder, "writable"), b"")  # before the first step, not after the first hour

    def take(self) -> None:
        """Make the folder this process's, and no longer that of a clone or of a pod that is only believed to be gone."""
        self._owner = f"{socket.gethostname()} {secrets.token_hex(8)}\n".encode()
        write_bytes(join(self.folder, _OWNER), self._owner)

    def check_own(self) -> None:
        """Raise `ConflictError` if another process has taken the folder since this one did."""
        owner, _ = read_versioned(join(self.folder, _OWNER)) if self._owner else (None, None)
        if owner not in (None, self._owner):
            host = owner.decode(errors="replace").split(" ")[0]
            raise ConflictError(
                f"A later process, on {host}, trains the same run and goes on from its checkpoints in {self.folder}. This "
                "one ends, and leaves them alone. If both should run, give one of them another training.checkpoint_dir (of "
                "a pipeline: checkpoints)."
            )

    def path(self, checkpoint: Checkpoint) -> str:
        """Where a checkpoint lies."""
        return join(self.folder, checkpoint.name)

    def all(self, kind: str) -> list[Checkpoint]:
        """The checkpoints that seem complete without being read, newest first."""
        names = [name.removesuffix(f"/{MANIFEST}") for name in list_files(self.folder) if name.endswith(f"/{MANIFEST}")]
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        found = [Checkpoint(match[1], int(match[2])) for match in matches if match[1] == kind]
        return sorted(found, key=lambda checkpoint: -checkpoint.step)

    def newest(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest state that is as it was written, with its content; damaged ones are reported and skipped.

        None for a new run. Raises `DataError` if there are states, but none that can be read.
        """
        candidates, reasons = self.all("step"), []
        for found in candidates:
            try:
                content = self.read(found)
            except DataError as error:
                reasons.append(f"{self.path(found)} cannot be used: {error}")
                continue
            for reason in reasons:
                warn(reason)
            return found, content
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
        """Keep weights and what they reached in validation."""
        self.check_own()
        write_checkpoint({"state_dict": dict(weights), "values": dict(values)}, self.path(Checkpoint("best", step)))

    def prune(self, step: int, best: set[int | None]) -> None:
        """Keep the newest two states up to `step` and their `best` weights.

        Those of later steps are of a course that was given up.
        """
        states = self.all("step")
        kept = [found for found in states if found.step <= step][:2]
        for found in [*states, *self.all("best")]:
            if found not in kept and not (found.kind == "best" and found.step in best):
                self._remove(found)

    def clear(self) -> None:
        """Remove everything: the run starts over."""
        for found in self.all("step") + self.all("best"):
            self._remove(found)

    def _remove(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint, and what was fetched of it."""
        remove_folder(self.path(checkpoint))
        remove_folder(mirror(self.path(checkpoint)))


class VerifiedIO(CheckpointIO):
    """How Lightning's trainer writes and reads checkpoints here.

    Only one of several processes writes. If it cannot, the others must hear of it instead of waiting, so the error is kept
    in `error` for whoever asked to save.
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
    """Write a checkpoint completely or not at all. Raises `StorageError`, leaving nothing, if there is no space."""
    here = mirror(path)
    try:
        with new_folder(here) as part:
            torch.save(content, part / STATE)
            write_manifest(part, {"kind": "checkpoint", "torch": torch.__version__})
    except (OSError, RuntimeError) as error:  # torch tells of a full disk as a RuntimeError
        free = shutil.disk_usage(here.parent).free
        raise StorageError(
            f"Cannot write the checkpoint {here}: {one_line(error)}. It needs {_bytes(content) >> 20:,} MiB, "
            f"{free >> 20:,} MiB are free. Earlier checkpoints are kept. Free some space, and run the same command again."
        ) from error
    if str(here) != path:
        remove_folder(path)  # a damaged one of the same step
        publish_folder(here, path)
        remove_folder(here)


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint whose files are as they were written; code in it is never run."""
    here = fetch_folder(path, mirror(path))
    if read_manifest(here).get("kind") != "checkpoint":
        raise DataError(f"{path} is not a checkpoint.")
    try:
        content: dict[str, Any] = torch.load(here / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another version fails in many ways
        raise DataError(
            f"{path} is undamaged, but torch {torch.__version__} cannot read it: {one_line(error)}"
        ) from error
    return content


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, accepted: list[str]) -> bool:
    """Whether training can continue exactly: nothing differs between what is learnt now and in the checkpoint.

    Keys begin with their kind, as in `data.trec2019`. Raises `ConfigError` with all that differs, unless of an `accepted`
    kind: then training starts over with the weights.
    """
    found = differing(ours, theirs)
    refused = [key for key in found if key.partition(".")[0] not in accepted]
    if refused:
        table = "; ".join(f"{key}: {_shown(theirs.get(key))} there, {_shown(ours.get(key))} now" for key in refused)
        kinds = ",".join(sorted({key.partition(".")[0] for key in refused}))
        raise ConfigError(
            f"{where} does not fit this run. {table}. Start over with force=true, choose another output_dir, or start from "
            f"its weights with training.accept_changes=[{kinds}]."
        )
    return not found


def _shown(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)


def _bytes(content: Any) -> int:
    """About how large a checkpoint is."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else []
    return sum(_bytes(part) for part in parts)
