"""Which model is in use: a folder of published models and a pointer to one, local or on Google Cloud Storage."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mtlrank.errors import ConfigError, ConflictError, DataError
from mtlrank.storage import (
    MANIFEST,
    Version,
    exists,
    fetch_folder,
    join,
    listed_files,
    mirror,
    publish_folder,
    read_manifest,
    read_versioned,
    safe_name,
    write_bytes,
)

POINTER = "current.json"
MODELS = "models"
MODEL = "model"  # folders of what is published: the model, and how each head was judged
EVALUATION = "evaluation"
_ID_LENGTH = 12
_ROLLED_BACK = "rolled back"


class Change(NamedTuple):
    """The pointer moved."""

    model: str  # that is in use since
    replaced: str | None  # that was in use before; None for the first model
    when: str  # UTC, as in 2026-11-24T16:30:00Z
    how: str  # promoted or rolled back
    note: str  # why


class Registry:
    """Models by name below `path`/models, and `path`/current.json with every change of the model in use, oldest first.

    A model's name is a hash of all its files. Nothing is ever removed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        join(self.path, POINTER)  # a path that cannot be used is found now

    def history(self) -> tuple[list[Change], Version]:
        """All changes, and the version of the pointer that they were read from."""
        data, version = read_versioned(join(self.path, POINTER))
        if data is None:
            return [], version
        try:
            changes = [Change(**row) for row in json.loads(data)["changes"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"{join(self.path, POINTER)} is damaged: {error}. Restore an older version of it."
            ) from error
        fields = [field for change in changes for field in change._asdict().items()]
        if not all(isinstance(value, str) or (name, value) == ("replaced", None) for name, value in fields):
            raise DataError(
                f"{join(self.path, POINTER)} is damaged: changes contain a value that is not text. Restore an older one."
            )
        for change in changes:
            safe_name(change.model, f"A model in {join(self.path, POINTER)}")
        return changes, version

    def current(self) -> str | None:
        """The name of the model in use."""
        changes, _ = self.history()
        return changes[-1].model if changes else None

    def folder(self, model: str) -> str:
        """Where a model lies, with its evaluation."""
        return join(self.path, MODELS, model)

    def fetch(self, model: str) -> Path:
        """A local copy of a model with its evaluation, or the folder itself if it is local."""
        return fetch_folder(self.folder(model), mirror(self.folder(model)))

    def publish(self, entry: Path) -> str:
        """Make a local folder with a manifest one of the models; gives its name. The same folder twice is one model."""
        model = hashlib.sha256((entry / MANIFEST).read_bytes()).hexdigest()[:_ID_LENGTH]
        publish_folder(entry, self.folder(model))
        return model

    def promote(self, model: str, note: str, read: tuple[list[Change], Version]) -> Change:
        """Promote a published model. `read` is the history that this was decided on.

        Raises `ConflictError` if the pointer has moved since: of two that decide at once, exactly one succeeds.
        """
        changes, _ = read
        return self._move(model, "promoted", note, read, replaced=changes[-1].model if changes else None)

    def roll_back(self, to: str | None = None, note: str = "") -> Change:
        """Roll back to what the current model replaced, or to any published model. Repeated, it goes further back."""
        changes, version = self.history()
        if not changes:
            raise ConfigError(f"{self.path} has no model in use: nothing can be rolled back.")
        now = changes[-1].model
        if to is None:
            to = changes[_origins(changes)[-1]].replaced
        if to is None:
            raise ConfigError(f"{now} is the first model of {self.path}: it replaced none. Name another with --to.")
        if to == now:
            raise ConfigError(f"{to} is in use already.")
        if not exists(join(self.folder(safe_name(to, "--to")), MANIFEST)):
            known = ", ".join(dict.fromkeys(change.model for change in changes))
            raise ConfigError(f"{self.path} has no model {to!r}. Models that were in use: {known}.")
        if mirror(self.folder(to)) == Path(self.folder(to)):  # what is fetched from a bucket is checked on the way
            read_manifest(self.folder(to))
        return self._move(to, _ROLLED_BACK, note, (changes, version), replaced=now)

    def rejection(self, model: str, changes: Sequence[Change]) -> Change | None:
        """The change by which a model, or one with the same weights, was taken back, unless it came again since.

        That a rollback leads forward, to a later model or one that never was in use, does not speak against what it leaves.
        """
        origins = _origins(changes)
        backwards = [changes[place] for place in range(1, len(changes)) if origins[place] < origins[place - 1]]
        left = {change.replaced for change in backwards}
        same = {name for name in left if name and self.same_weights(model, name)}
        for change in reversed(changes):
            if change.model in same | {model}:
                return None
            if change in backwards and change.replaced in same:
                return change
        return None

    def same_weights(self, model: str, other: str) -> bool:
        """Whether two models are the same to the bit, though perhaps kept with other settings."""
        return model == other or ((mine := self._weights(model)) is not None and mine == self._weights(other))

    def _weights(self, model: str) -> str | None:
        """The hash of a model's weights; None if it has none, is damaged, or is not there any more."""
        from mtlrank.model.saved import WEIGHTS  # here, as it brings torch

        data, _ = read_versioned(join(self.folder(model), MANIFEST))
        try:
            return None if data is None else listed_files(data, self.folder(model)).get(f"{MODEL}/{WEIGHTS}")
        except DataError:
            return None

    def _move(
        self, model: str, how: str, note: str, read: tuple[list[Change], Version], replaced: str | None
    ) -> Change:
        changes, version = read
        change = Change(model, replaced, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", how, note)
        rows = [row._asdict() for row in [*changes, change]]
        text = json.dumps({"current": model, "changes": rows}, indent=2, ensure_ascii=False) + "\n"
        try:
            write_bytes(join(self.path, POINTER), text.encode(), expected=version)
        except ConflictError as error:
            raise ConflictError(
                f"Another model was promoted in {self.path} meanwhile, so {model} was not. Run the same command again "
                "to compare it with that one."
            ) from error
        return change


def _origins(changes: Sequence[Change]) -> list[int]:
    """For each change, by its place, the one that its model is in use by: itself, or the earlier one that it goes back to.

    That is the latest one before what it undoes, so that repeated rollbacks never come forward again; failing that, the
    latest one at all, as after a rollback too far.
    """
    origins: list[int] = []
    for place, change in enumerate(changes):
        places = [i for i in range(place) if changes[i].model == change.model] if change.how == _ROLLED_BACK else []
        before = [i for i in places if i < origins[-1]]
        origins.append(origins[(before or places)[-1]] if places else place)
    return origins


def model_folder(path: str | Path | None) -> Path:
    """The local folder of a saved model: a folder, local or on Google Cloud Storage, or the model in use of a registry."""
    if path is None:
        raise ConfigError("model_dir has no value: expected the folder of a finished run, of its model, or a registry.")
    if "://" not in str(path) and Path(path).is_file():
        raise ConfigError(f"{path} is a file: expected the folder of a finished run, of its model, or a registry.")
    if exists(join(path, POINTER)):
        registry = Registry(path)
        current = registry.current()
        if current is None:
            raise ConfigError(f"{path} has no model in use. Promote one with `mtlrank promote`.")
        return registry.fetch(current) / MODEL
    if exists(join(path, MODEL, MANIFEST)):  # the folder of a run
        path = join(path, MODEL)
    if _is_published(str(path)):
        found = f"{path} is no model of mtlrank's" if Path(path).is_dir() else f"There is no folder {path} here"
        raise ConfigError(
            f"{found}. A cross-encoder of Hugging Face's becomes a model of mtlrank's with `mtlrank train "
            f"datamodule/dataset=my_dataset model/body=pretrained model.body.backbone={path} "
            "model/heads@model.default_head=cross_encoder output_dir=runs/published`; training.epochs=0 leaves its weights "
            "as they are (docs/methods.md, Published cross-encoders)."
        )
    return fetch_folder(path, mirror(path))


def _is_published(path: str) -> bool:
    """Whether a path is the folder of a Hugging Face model or, where there is nothing, looks like the name of one."""
    folder = Path(path)
    if folder.is_dir():
        of_ours = any((folder / name).exists() for name in (MANIFEST, "labels.json"))
        return (folder / "config.json").is_file() and not of_ours
    return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None and not folder.parent.exists()
