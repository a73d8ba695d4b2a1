"""Prepare datasets: read, check, tokenise once, write.

python -m mtlrank.prepare tasks=[trec2019,msm_bm25]
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("prepare", config="train")

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from mtlrank.backbone import max_length_of
from mtlrank.building.dataset import build_dataset, check_length, dataset_fingerprint, prepared_folder
from mtlrank.composing.selection import select_tasks
from mtlrank.config import Config, datasets_of, with_num_shards
from mtlrank.datamodule.dataset import PreparedDataset, Shard
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.preparation_notes import notes
from mtlrank.processes import end_with_parent
from mtlrank.progress import say
from mtlrank.storage import (
    MANIFEST,
    fetch_folder,
    is_complete,
    join,
    locked,
    mirror,
    publish_folder,
    read_json,
    remove_folder,
    sweep,
    writable_folder,
)

_BODY = "mtlrank.model.body.MTLBody"  # a user's own body may divide longer texts itself


def run(config: Config, folders: Mapping[str, str | Path] | None = None) -> dict[str, PreparedDataset]:
    """Prepare what is missing and open everything, by key. `folders` says where; the default is in `data_dir`.

    Folders on Google Cloud Storage are made, and kept, below `$MTLRANK_HOME` too.

    With `prepare.shard`, only that shard of each dataset is prepared, and nothing is opened.
    """
    config = select_tasks(config)
    keys = list(datasets_of(config))
    shard = Shard.parse(config["prepare"]["shard"]) if config["prepare"]["shard"] else None
    if shard:
        config = with_num_shards(config, shard.total)
    made_from = dict[str, str]()
    if folders is None:
        made_from = {key: dataset_fingerprint(config, key) for key in keys}
        folders = {key: prepared_folder(config, key, made_from[key]) for key in keys}
    missing = [key for key in keys if key not in folders]
    if missing:
        raise ConfigError(f"No prepared folder for {', '.join(missing)}. There are: {', '.join(folders)}.")
    datasets = {}
    complete = {key for key in keys if is_complete(folders[key])}
    for key in keys:
        if key not in complete:
            _check(config, key)
    for key in keys:
        if shard:
            prepare_shard(config, key, shard, shard_folder(folders[key], shard), made_from.get(key))
        else:
            datasets[key] = prepare_dataset(config, key, folders[key], made_from.get(key))
            _say(datasets[key], f"prepared {key} before" if key in complete else f"prepared {key}", folders[key])
    return datasets


def _check(config: Config, key: str) -> None:
    """Check what can be checked before data is read."""
    node, body = datasets_of(config)[key], config["model"]["body"]
    dataset = build_dataset(node)
    dataset.check_sources()
    if body["_target_"] == _BODY and dataset.preprocessor.tokenizer_name == body["backbone"]:
        check_length(key, node, body["backbone"], max_length_of(body["backbone"]))


def prepare_dataset(config: Config, key: str, folder: str | Path, made_from: str | None = None) -> PreparedDataset:
    """Prepare a dataset in `folder` unless it is there already, and open it. Existing shards are kept.

    `made_from` is its fingerprint, by default that of now.
    """
    dataset = build_dataset(datasets_of(config)[key])
    if not is_complete(folder):
        writable_folder(mirror(folder).parent)
        with locked(mirror(shards_folder(folder)), f"another process is preparing {key}: waiting for it"):
            if not is_complete(folder):
                _prepare_all_shards(config, key, folder, made_from or dataset_fingerprint(config, key))
    _remove_shards(config, folder)
    dataset.open(fetch_folder(folder, mirror(folder)))
    return dataset


def _prepare_all_shards(config: Config, key: str, folder: str | Path, made_from: str) -> None:
    places = _shard_folders(config, folder)
    made_elsewhere = {shard: place for shard, place in places.items() if is_complete(place)}
    here = {shard: mirror(place) for shard, place in places.items() if shard not in made_elsewhere}
    try:
        _prepare_shards(config, key, here, made_from)
    except BaseException:
        for place in here.values():
            sweep(place)
        _remove_if_empty(mirror(shards_folder(folder)))
        raise
    merge(config, key, list(places.values()), folder)
    for merged in made_elsewhere.values():  # on a bucket, they would cost as much as the dataset
        remove_folder(merged)


def _shard_folders(config: Config, folder: str | Path) -> dict[Shard, str]:
    """Where each shard of a dataset waits to be merged."""
    total = config["prepare"]["num_shards"]
    return {shard: shard_folder(folder, shard) for shard in (Shard(i, total) for i in range(1, total + 1))}


def _remove_shards(config: Config, folder: str | Path) -> None:
    """Remove the shards that were merged into a dataset, also those that a killed process has left.

    Only these: another process may be preparing a shard beside them.
    """
    if (shards := mirror(shards_folder(folder))).is_dir():
        for made in _shard_folders(config, folder).values():
            shutil.rmtree(mirror(made), ignore_errors=True)
        with suppress(OSError):  # where nothing can be written
            _remove_if_empty(shards)


def prepare_shard(config: Config, key: str, shard: Shard, folder: str | Path, made_from: str | None = None) -> None:
    """Prepare one shard of a dataset in `folder` unless it is there already.

    Raises `DataError` if what it is read from has changed meanwhile, since it had the fingerprint `made_from` (by default
    that of now): the folder would be taken for what it was made from before.
    """
    if is_complete(folder):
        return
    dataset = build_dataset(datasets_of(config)[key])
    settings = config["prepare"]
    config = with_num_shards(config, shard.total)
    what = key if shard.total == 1 else f"{key} {shard.number}/{shard.total}"
    here = mirror(folder)
    writable_folder(here.parent)
    if not is_complete(here):
        made_from = made_from or dataset_fingerprint(config, key)
        reading = Reading(settings["on_bad_row"], settings["max_bad_rows"], what)
        dataset.prepare_shard(here, shard, reading, made_from, partial(_check_unchanged, config, key, made_from))
    publish_folder(here, folder)
    if shard.total > 1:
        say(f"prepared shard {shard.number}/{shard.total} of {key} ({folder})")


def _check_unchanged(config: Config, key: str, made_from: str) -> None:
    if dataset_fingerprint(config, key) != made_from:
        raise DataError(
            f"What {key} is made of has changed while it was read: a file of its data, or one with classes of your own. "
            "Run the same command again when it is complete."
        )


def merge(config: Config, key: str, shards: Sequence[str | Path], folder: str | Path) -> None:
    """Make one prepared dataset of all its shards."""
    node = datasets_of(config)[key]
    dataset = build_dataset(node)
    here = mirror(folder)
    parts = [mirror(shard) for shard in shards]
    for part, shard in zip(parts, shards, strict=True):
        if not is_complete(part):
            fetch_folder(shard, part)
    dataset.merge(here, parts, key, node.get("licence"), config["prepare"]["max_bad_rows"])
    publish_folder(here, folder)


def shard_folder(folder: str | Path, shard: Shard) -> str:
    """Where a shard waits to be merged into `folder`."""
    return join(shards_folder(folder), shard.folder)


def shards_folder(folder: str | Path) -> str:
    """Where the shards of the dataset in `folder` are gathered."""
    return f"{folder}.shards"


def folders_by_key(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Prepared folders by the key that their manifests name."""
    return {read_json(Path(folder) / MANIFEST)["key"]: Path(folder) for folder in folders}


def _prepare_shards(config: Config, key: str, folders: Mapping[Shard, Path], made_from: str) -> None:
    """Prepare shards, several at a time if there are several processes; after an error all of them end."""
    workers = min(config["prepare"]["num_workers"], len(folders))
    if workers <= 1:
        for shard, folder in folders.items():
            prepare_shard(config, key, shard, folder, made_from)
        return
    others, waiting, running = active_children(), iter(folders.items()), set[Future[None]]()
    threads = max(1, torch.get_num_threads() // workers)
    executor = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    try:
        while True:
            for shard, folder in islice(waiting, workers - len(running)):  # more would start even after an error
                running.add(executor.submit(prepare_shard, config, key, shard, folder, made_from))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for task in done:
                task.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"A process that prepared {key!r} was killed, perhaps for lack of memory. Finished shards are kept: run the "
            "same command again, with a smaller prepare.num_workers or a larger prepare.num_shards."
        ) from error
    except BaseException:
        for process in set(active_children()).difference(others):
            process.kill()
        raise
    finally:
        executor.shutdown()


def _start_worker(threads: int) -> None:
    end_with_parent()
    torch.set_num_threads(threads)


def _remove_if_empty(folder: Path) -> None:
    """Leave no empty folder behind."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _say(dataset: PreparedDataset, what: str, folder: str | Path) -> None:
    splits = dataset.manifest["splits"]
    sizes = ", ".join(f"{name} {splits[name]['samples']:,}" for name in dataset.splits if dataset.has(name))
    say("; ".join([f"{what}: {sizes} samples", *notes(dataset)]) + f" ({folder})")
