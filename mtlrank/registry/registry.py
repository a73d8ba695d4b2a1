"""Which model is in use: a folder of published models and a pointer to one, local or on Google Cloud Storage."""

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mtlrank.about import MODEL, WEIGHTS
from mtlrank.errors import ConfigError, ConflictError, DataError, StorageError
from mtlrank.registry.history import PROMOTED, ROLLED_BACK, Change, Source, previous, rollbacks_to_earlier, source_of
from mtlrank.registry.pointer import Pointer, dump, parse, without, written
from mtlrank.storage import (
    MANIFEST,
    check_folder,
    exists,
    fetch_folder,
    is_complete,
    join,
    list_files,
    listed_files,
    locked,
    mirror,
    publish_folder,
    read_versioned,
    remove_folder,
    safe_name,
    sizes_and_times,
    write_bytes,
)
from mtlrank.storage.patterns import some_of

POINTER = "current.json"
MODELS = "models"
_ID_LENGTH = 12
_TRIES = 3  # removals of a folder that somebody writes to at the same time
_LONGEST_REMOVAL = timedelta(hours=1)
_MARGIN = timedelta(minutes=10)  # a removal stops this long before others take it for dead
_SKEW = timedelta(minutes=5)  # between the clocks of this machine and of the storage


class Published(NamedTuple):
    """The files of a model, also if its publishing or removal was interrupted."""

    size: int  # bytes
    when: datetime  # the latest file was written


class Registry:
    """Models by name below `path`/models, and `path`/current.json with every change of the model in use, oldest first.

    A model's name is a hash of all its files. Removals are noted in current.json first, so that nobody uses these models.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        join(self.path, POINTER)  # refuses a path that cannot be used

    def history(self) -> list[Change]:
        """All changes of the model in use, oldest first."""
        return self.pointer().changes

    def pointer(self) -> Pointer:
        """The current state of current.json."""
        return parse(*read_versioned(join(self.path, POINTER)), join(self.path, POINTER))

    def current(self) -> str | None:
        """The name of the model in use."""
        changes = self.history()
        return changes[-1].model if changes else None

    def folder(self, model: str) -> str:
        """Where a model lies, with its evaluation."""
        return join(self.path, MODELS, model)

    def fetch(self, model: str) -> Path:
        """A local copy of a model with its evaluation, or the folder itself if it is local."""
        if not self.exists(model):
            raise ConfigError(
                f"{self.path} has no model {model!r}, which is in use: somebody has removed it. Promoting the run that it "
                "came from again brings it back, and `mtlrank rollback` puts another one in use."
            )
        return fetch_folder(self.folder(model), mirror(self.folder(model)))

    def publish(self, entry: Path) -> str:
        """Publish a local folder with a manifest; returns the model's name.

        The same folder twice is one model. If that has been damaged, it is repaired.
        """
        model = model_name(entry)
        self._check_not_removing(model, self.pointer())
        publish_folder(entry, self.folder(model), repair=True)  # as the name says what the folder contains
        return model

    def promote(self, model: str, note: str, changes: Sequence[Change], source: Source | None = None) -> Change:
        """Promote a published model. `changes` is the history on which this was decided.

        Raises `ConflictError` if it has changed since: of two that decide at the same time, exactly one succeeds.
        """
        replaced = changes[-1].model if changes else None
        return self._move(Change(model, replaced, _now(), PROMOTED, note, source), changes)

    def roll_back(self, to: str | None = None, note: str = "") -> Change:
        """Roll back to what the current model replaced, or to any published model. Repeated, it goes further back."""
        changes = self.history()
        if not changes:
            raise ConfigError(f"{self.path} has no model in use: nothing can be rolled back.")
        now = changes[-1].model
        if to is None:
            to = previous(changes)
        if to is None:
            raise ConfigError(
                f"{now} is the first model of {self.path}: it replaced none. Promote another one, if need be with "
                "--force REASON."
            )
        if to == now:
            raise ConfigError(f"{to} is in use already.")
        self._check_exists(safe_name(to, "--to"))
        try:
            check_folder(self.folder(to))
        except (DataError, StorageError) as error:
            self._check_exists(to)  # perhaps it is damaged because it is being removed
            if isinstance(error, StorageError):
                raise
            raise DataError(f"{error} Promoting the run that {to} came from again repairs it.") from error
        return self._move(Change(to, now, _now(), ROLLED_BACK, note, source_of(to, changes)), changes)

    def published(self) -> dict[str, Published]:
        """The published models by name."""
        found = dict[str, Published]()
        for name, file in sizes_and_times(join(self.path, MODELS)).items():
            model, _, inside = name.partition("/")
            if inside and re.fullmatch(f"[0-9a-f]{{{_ID_LENGTH}}}", model):  # other folders are somebody else's
                size, when = found.get(model, (0, file.written))
                found[model] = Published(size + file.size, max(when, file.written))
        return found

    def remove(self, models: Sequence[str], read: Pointer, done: Callable[[str], None]) -> None:
        """Remove models, and call `done` for each. `read` is the pointer on which this was decided.

        They are noted as being removed before the first file is deleted: from then on nobody can put them in use, as this
        changes the version of the pointer. Raises `ConflictError` if it has changed since it was read, and `StorageError`
        on a machine whose clock is wrong: others would not see for how long the note holds.
        """
        left = [model for model in read.removing if self.is_removing(model, read)]  # other processes are removing these
        noted = {**read.removed, **dict.fromkeys(models, _now())}
        try:
            self._write(read._replace(removed=noted, removing=[*left, *models]))
        except ConflictError as error:
            raise ConflictError(f"{self.path} was changed meanwhile: nothing was removed. Run again.") from error
        gone = list[str]()
        try:
            self._check_clock()
            for model in models:
                if not self.is_removing(model, self.pointer(), _LONGEST_REMOVAL - _MARGIN):  # others may use it soon
                    raise ConflictError(f"Removing took too long: {model} and those after it stay. Run again.")
                self._remove(model)
                gone.append(model)
                done(model)
        finally:
            whole = [model for model in models if model not in gone and self.exists(model)]
            self._settle(models, whole)

    def _check_clock(self) -> None:
        """Compare the clock with that of the storage, which has just written the pointer."""
        ahead = _time() - sizes_and_times(self.path)[POINTER].written
        if abs(ahead) > _SKEW:
            raise StorageError(
                f"The clock of this machine differs by {abs(ahead)} from that of {self.path}: nothing was removed. Set it "
                "right, as models are spared and removed by their age."
            )

    def is_removing(self, model: str, pointer: Pointer, longest: timedelta = _LONGEST_REMOVAL) -> bool:
        """Whether the files of a model are being removed now. After `longest`, a removal counts as dead."""
        return model in pointer.removing and pointer.removed.get(model, "") > written(_time() - longest)

    def rejection(self, model: str, changes: Sequence[Change]) -> Change | None:
        """The rollback that rejected a model, or one with the same weights, unless it was in use again since.

        A rollback to a later model, or to one that was never in use, does not reject the model that it replaces.
        """
        backwards = rollbacks_to_earlier(changes)
        left = {change.replaced for change in backwards}
        mine = self._weights(model)
        same = {name for name in left if name and (name == model or (mine and mine == self._weights(name)))}
        for change in reversed(changes):
            if change.model in same | {model}:
                return None
            if change in backwards and change.replaced in same:
                return change
        return None

    def same_weights(self, model: str, other: str) -> bool:
        """Whether two models have equal weights, perhaps with other settings."""
        return model == other or ((mine := self._weights(model)) is not None and mine == self._weights(other))

    def _weights(self, model: str) -> str | None:
        """The hash of a model's weights; None if it has none, is damaged, or is missing."""
        data, _ = read_versioned(join(self.folder(model), MANIFEST))
        try:
            return None if data is None else listed_files(data, self.folder(model)).get(f"{MODEL}/{WEIGHTS}")
        except DataError:
            return None

    def _move(self, change: Change, decided_on: Sequence[Change]) -> Change:
        """Put a model in use if the history has not changed. A removal of other models meanwhile does no harm."""
        while True:
            pointer = self.pointer()
            if pointer.changes != decided_on:
                raise ConflictError(
                    f"Another model was promoted in {self.path} meanwhile, so {change.model} was not. Run the same "
                    "command again to compare it with that one."
                )
            self._check_not_removing(change.model, pointer)
            if not self.exists(change.model):  # checked last: a removal from now on changes the pointer first
                raise ConflictError(
                    f"{self.folder(change.model)} was removed meanwhile, so it is not in use. Run the same command again."
                )
            moved = without(pointer, [change.model])._replace(changes=[*pointer.changes, change])
            try:
                self._write(moved)
                return change
            except ConflictError:
                continue

    def _write(self, pointer: Pointer) -> None:
        """Write the pointer. Raises `ConflictError` if the file has changed since it was read."""
        if pointer.unknown:
            raise ConfigError(
                f"{join(self.path, POINTER)} has keys that this version of mtlrank does not know and would lose: "
                f"{', '.join(pointer.unknown)}. Change what is in use with the later version that wrote them."
            )
        write_bytes(join(self.path, POINTER), dump(pointer), expected=pointer.version)

    def exists(self, model: str) -> bool:
        """Whether a model is there with its manifest."""
        return is_complete(self.folder(model))

    def _check_not_removing(self, model: str, pointer: Pointer) -> None:
        if self.is_removing(model, pointer):
            raise ConflictError(
                f"{self.folder(model)} is being removed, since {pointer.removed[model]}. Run the same command again when "
                "`mtlrank models --prune` has ended; if that was killed, an hour later."
            )

    def _check_exists(self, model: str) -> None:
        """Raise an error for a model that is missing or being removed."""
        self._check_not_removing(model, self.pointer())
        if not self.exists(model):
            raise self._missing(model)

    def _missing(self, model: str) -> ConfigError:
        """The error for a model that is missing or not complete."""
        pointer = self.pointer()
        were = list(dict.fromkeys(change.model for change in pointer.changes))
        there = ", ".join(name for name in were if name not in {*pointer.removed, model})
        if model in pointer.removed:
            how = f"it was removed at {pointer.removed[model]} (`mtlrank models --prune`)"
        elif model in were:
            how = "somebody removed it"
        else:
            return ConfigError(f"{self.path} has no model {model!r}. Models that were in use: {there}.")
        return ConfigError(f"{self.path} has no model {model!r} any more: {how}. Choose another with --to: {there}.")

    def _remove(self, model: str) -> None:
        """Remove the files of a model, also those that somebody publishes at the same time."""
        folder = self.folder(model)
        with nullcontext() if "://" in folder else locked(Path(folder).parent):  # publishing holds it too
            for _ in range(_TRIES):
                remove_folder(folder)
                if not list_files(folder):
                    return
        raise StorageError(f"{folder} cannot be removed: files remain. Check its permissions, and run again.")

    def _settle(self, models: Sequence[str], whole: Sequence[str]) -> None:
        """Note that the removal of `models` has ended: those that are still `whole` stay as they were."""
        while True:
            pointer = self.pointer()
            left = [model for model in pointer.removing if model not in models]
            try:
                return self._write(without(pointer._replace(removing=left), whole))
            except ConflictError:
                continue


def model_name(entry: Path) -> str:
    """The name in a registry of a local folder with a manifest."""
    return hashlib.sha256((entry / MANIFEST).read_bytes()).hexdigest()[:_ID_LENGTH]


def _time() -> datetime:
    return datetime.now(UTC)


def _now() -> str:
    return written(_time())


def saved_weights(path: str) -> str | None:
    """The hash of the weights of a saved model, which `model_folder` would fetch; None if there is none."""
    if exists(join(path, POINTER)):
        current = Registry(path).current()
        path = join(Registry(path).folder(current), MODEL) if current else path
    elif is_complete(join(path, MODEL)):  # the folder of a run
        path = join(path, MODEL)
    data, _ = read_versioned(join(path, MANIFEST))
    return None if data is None else listed_files(data, path).get(WEIGHTS)


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
    if is_complete(join(path, MODEL)):  # the folder of a run
        path = join(path, MODEL)
    if _is_published(str(path)):
        found = f"{path} is not a model of mtlrank" if Path(path).is_dir() else f"There is no folder {path} here"
        raise ConfigError(
            f"{found}. A cross-encoder from Hugging Face becomes a model of mtlrank with `mtlrank train "
            f"datamodule/dataset=my_dataset model/body=pretrained model.body.backbone={path} "
            "model/heads@model.default_head=cross_encoder output_dir=runs/published`; training.epochs=0 leaves its weights "
            "as they are (docs/methods.md, Published cross-encoders)."
        )
    if not is_complete(path):
        found = "There is no model in" if "://" in str(path) or Path(path).is_dir() else "There is no folder"
        runs = [] if "://" in str(path) else sorted(Path(path).glob(f"*/{MODEL}/{MANIFEST}"))
        below = f" Runs in it: {some_of([file.parts[-3] for file in runs])}." if runs else ""
        raise DataError(f"{found} {path}: expected the folder of a finished run, of its model, or a registry.{below}")
    return fetch_folder(path, mirror(path))


def _is_published(path: str) -> bool:
    """Whether a path is the folder of a Hugging Face model or, where there is nothing, looks like the name of one."""
    folder = Path(path)
    if folder.is_dir():
        of_ours = any((folder / name).exists() for name in (MANIFEST, "labels.json"))
        return (folder / "config.json").is_file() and not of_ours
    return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None and not folder.parent.exists()
