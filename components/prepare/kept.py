"""Prepared datasets that outlive runs and images, in a folder that a pipeline's parameter names."""

from collections.abc import Sequence
from pathlib import Path

from mtlrank.building.dataset import prepared_folder
from mtlrank.composing.compose import pipeline_config
from mtlrank.composing.selection import select_tasks
from mtlrank.config import Config, with_num_shards
from mtlrank.errors import ConflictError, DataError, StorageError, one_line
from mtlrank.prepare import merge, prepare_shard
from mtlrank.progress import say, warn
from mtlrank.shard import Shard
from mtlrank.storage import MANIFEST, fetch_folder, is_complete, publish_folder, read_json, read_manifest, write_text

INSTEAD = "kept.txt"  # in the place of a shard: where the whole dataset is kept


def config_of(task: str, experiment: str, body: str, overrides: Sequence[str]) -> Config:
    """The config of one task; it is composed as a study's, which has the keys of all pipelines."""
    settings = {"experiment": experiment, "tasks": [task], "model/body": body or None}
    return select_tasks(pipeline_config(settings, overrides, name="study"))


def prepare_or_find(config: Config, key: str, shard: Shard, part: Path, kept_in: str) -> None:
    """Prepare a shard in `part`, unless the whole dataset is kept in `kept_in`: then `part` says where."""
    kept = _kept(config, key, shard.total, kept_in)
    if kept and is_complete(kept):
        write_text(part / INSTEAD, kept)
        say(f"{key} is prepared already: {kept}")
    else:
        say(f"preparing {key}, shard {shard.number}/{shard.total}")
        prepare_shard(config, key, shard, part)


def merge_or_fetch(config: Config, key: str, parts: Sequence[Path], folder: Path, kept_in: str) -> None:
    """Make the dataset of its shards in `folder` and keep it in `kept_in`, or fetch the one that is kept there.

    If it cannot be kept, the run goes on: keeping only saves later runs work.

    Raises:
        DataError: It was kept when the shards were asked for, and is not any more, or not whole.

    """
    kept = _kept(config, key, len(parts), kept_in)
    if kept and is_complete(kept):
        _fetch(kept, folder)
        say(f"{key} is prepared already: {kept}")
        return
    if gone := [part for part in parts if (part / INSTEAD).exists()]:
        raise DataError(
            f"{(gone[0] / INSTEAD).read_text()} was there when this run began and is gone. Start a new run without cached "
            "results, or with another folder as `prepared`."
        )
    merge(config, key, parts, folder)
    made_from = read_json(folder / MANIFEST)["fingerprint"]  # its sources may have changed since
    if kept := _kept(config, key, len(parts), kept_in, made_from):
        try:
            publish_folder(folder, kept)
        except ConflictError:
            say(f"another run kept {key} first: {kept}")
        except StorageError as error:
            warn(f"{key} is not kept in {kept}, so later runs prepare it again; this run goes on: {one_line(error)}")


def _fetch(kept: str, folder: Path) -> None:
    """Copy the dataset that is kept to `folder`."""
    try:
        if fetch_folder(kept, folder) != folder:  # a local one is only found
            read_manifest(kept)
            publish_folder(kept, folder)
    except DataError as error:
        what, _, _ = str(error).rpartition(". ")  # without the way out of a published folder
        raise DataError(
            f"{what}. Remove {kept}, and start a new run without cached results (--no-cache), which makes it again."
        ) from error


def _kept(config: Config, key: str, num_shards: int, folder: str, made_from: str | None = None) -> str | None:
    """Where a dataset that is prepared in so many shards is kept: as `prepare` with `data_dir=folder` keeps it."""
    config = {**with_num_shards(config, num_shards), "data_dir": folder}
    return prepared_folder(config, key, made_from) if folder else None
