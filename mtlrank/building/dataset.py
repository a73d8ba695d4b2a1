"""Builds datasets. Apart from the other builders, so that preparing need not import Lightning."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mtlrank import embedded
from mtlrank.building.own_classes import own_code
from mtlrank.composing.objects import build_object, parameters_of
from mtlrank.composing.tree import leaves
from mtlrank.config import Config, datasets_of, has_folds
from mtlrank.datamodule import hub
from mtlrank.datamodule.collection.source import RETRIEVED
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.folds import number_of_folds
from mtlrank.datamodule.dataset.merge import SCHEMA
from mtlrank.datamodule.named_files import locate_all
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation import measures
from mtlrank.own_parts import instance_of
from mtlrank.storage import file_hash, fingerprint, join, local
from mtlrank.storage.patterns import is_pattern
from mtlrank.task import Task
from mtlrank.words import of_dataset

# Settings that are never paths, even if a folder of that name exists.
_NO_PATHS = {"_target_", "id", "name", "split", "measures", "licence", "format", "columns", "score_column", "clusters"}
_NO_PATHS |= {"query", "positives", "negatives", "template"}
_NO_PATHS |= {"grouping", "learn_from", "leaked_queries", "missing_texts", "stopwords", "stemmer"}
_PREPARED = re.compile("-[0-9a-f]{12}([.]|$)")  # in the name of a prepared dataset and of its shards
_WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".h5")


def build_dataset(config: Mapping[str, Any]) -> PreparedDataset:
    """A dataset, not prepared yet. Its `licence` goes only into the manifest."""
    built = build_object({key: value for key, value in config.items() if key != "licence"})
    dataset = instance_of(f"The dataset {config.get('name')!r}", built, PreparedDataset, "manifest")
    instance_of(f"The task of {dataset.name!r}", dataset.task, Task, "measures")
    measures.check(dataset.task)
    return dataset


def check_tokenizers(config: Config, datasets: Mapping[str, PreparedDataset]) -> None:
    """Refuse datasets that were not prepared with the body's tokenizer."""
    backbone = config["model"]["body"]["backbone"]
    found = {key: dataset.manifest["tokenizer"] for key, dataset in datasets.items()}
    if len({tokenizer["sha256"] for tokenizer in found.values()}) > 1 or any(
        tokenizer["name"] != backbone for tokenizer in found.values()
    ):
        table = ", ".join(f"{key}: {tokenizer['name']}" for key, tokenizer in found.items())
        raise ConfigError(f"The body is {backbone!r}, but datasets were prepared for other tokenizers: {table}.")


def check_length(key: str, dataset: Mapping[str, Any], backbone: str, most: int | None) -> None:
    """Refuse a max_length above `most`, the number of positions that a body has."""
    length = dataset.get("preprocessor", {}).get("max_length", 0)
    if most and type(length) is int and length > most:
        raise ConfigError(
            f"The max_length of {key}'s preprocessor is {length}, but {backbone} has positions for {most} tokens: set "
            f"max_length={most} or, if it has its own, {of_dataset(key, f'preprocessor.max_length={most}')}."
        )


def prepared_folder(config: Config, key: str, made_from: str | None = None) -> str:
    """The folder of a prepared dataset; its name changes with everything that it is made from, its fingerprint."""
    return join(config["data_dir"], f"{key}-{made_from or dataset_fingerprint(config, key)}")


def dataset_fingerprint(config: Config, key: str) -> str:
    """A hash of a dataset's settings and of the content of its files, the same on every machine."""
    dataset = {k: v for k, v in datasets_of(config)[key].items() if k != "name"}
    if isinstance(folds := dataset.get("folds"), str):
        number_of_folds(key, folds)  # refused now: a folder given by mistake would be hashed
    names_files, task = {**dataset}, build_object(dataset["task"])
    if type(task).__module__.startswith("mtlrank.task."):  # ours know what data depends on, and name no files
        names_files["task"], dataset["task"] = {}, task.identity()
    words = sorted(
        {
            (value, path[0] == "preprocessor")
            for path, value in leaves(names_files)
            if isinstance(value, str)
            and value
            and path[-1] not in _NO_PATHS
            and (path[-1], value) != ("run", RETRIEVED)
        }
    )
    prepared = Path(config["data_dir"]).resolve()
    found = [_content(_paths_named(word), prepared, only_tokenizer=is_tokenizer) for word, is_tokenizer in words]
    how = {k: config["prepare"][k] for k in ("num_shards", "on_bad_row")}
    own = own_code(dataset)  # for changes of our own code there is `SCHEMA`
    return fingerprint([dataset, [files for files in found if files], how, embedded.VERSION, SCHEMA, *own])


def _paths_named(word: str) -> list[Path]:
    """The files or folder that a setting names, if any; the hub is asked, as its files may have changed."""
    try:
        return locate_all(word, "file") if hub.is_uri(word) or is_pattern(word) else [Path(word)]
    except (ConfigError, DataError):
        return []  # the error is raised when it is built


def _content(paths: Sequence[Path], prepared: Path, *, only_tokenizer: bool) -> list[list[str | int]]:
    """[name, hash] of each file that a setting names: itself, by a pattern, or as a folder.

    Datasets that are prepared in the folder `prepared`, which may lie there, are left out. Model weights beside a tokenizer
    are not hashed, but measured: they may have gigabytes, and do not change the data.
    """
    try:
        files = [file for path in paths for file in ([path] if path.is_file() else _files_below(path, prepared))]
        return [
            [
                file.name,
                file.stat().st_size if only_tokenizer and file.suffix in _WEIGHTS else _hash(file, *local.stamp(file)),
            ]
            for file in files
        ]
    except OSError as error:
        raise DataError(f"Cannot read {str(paths[0])[:200]!r}, which the dataset names: {error.strerror}.") from error


def _files_below(folder: Path, prepared: Path) -> list[Path]:
    """The files of a folder, without those of datasets that were prepared in it."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    if not prepared.is_relative_to(folder.resolve()):
        return files
    inside = folder / prepared.relative_to(folder.resolve())
    return [
        file
        for file in files
        if not (file.is_relative_to(inside) and _PREPARED.search(file.relative_to(inside).parts[0]))
    ]


@cache
def _hash(file: Path, *state: int) -> str:
    return file_hash(file)


def has_split(config: Config, split: str) -> bool:
    """Whether a dataset's config gives it a split; assumed of a class that has no such setting."""
    if has_folds(config):
        return True
    if split in config:
        return config[split] is not None
    parameter = parameters_of(str(config["_target_"])).get(split)
    return parameter is None or parameter.default is not None
