"""Merging shards into one prepared dataset: labels are counted over all shards, files are linked unchanged."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlrank.datamodule.dataset.card import card
from mtlrank.datamodule.dataset.split import PreparedSplit, open_splits
from mtlrank.datamodule.preprocessor import Lengths
from mtlrank.errors import DataError
from mtlrank.shard import Shard
from mtlrank.storage import MANIFEST, new_folder, read_manifest, write_manifest, write_text
from mtlrank.task import Buckets, Classification, Task
from mtlrank.trec import read_qrels

SCHEMA = 6
WITHOUT_CANDIDATES = "judged queries without candidates"
UNREACHABLE = "relevant documents without a text"
LEARNT_TOO = "texts that are in train too"
_EMPTY = sha256().hexdigest()  # of a file with nothing in it
_BLOCK = 2**20  # labels that are in memory at a time
_SHARED = ("schema", "fingerprint", "kind", "tokenizer", "template", *Lengths._fields, "train_passages", "source")


def merge_shards(
    target: Path, shards: Sequence[Path], task: Task, description: Mapping[str, Any], max_bad_rows: int
) -> None:
    """Write a prepared dataset of all shards into the folder `target`; its `description` goes into the manifest.

    Raises `DataError` for shards that are missing, damaged or of another config, and for data that cannot be learnt from.
    """
    name = description["name"]
    shards, manifests = _in_order(shards)
    labels = _learn_labels(shards, manifests, name, task)
    splits = {split: _sum(manifest["splits"][split] for manifest in manifests) for split in manifests[0]["splits"]}
    counts = {split: _sum(m["counts"].get(split, {}) for m in manifests) for split in splits}
    for split in manifests[0]["source"]:
        if split in splits and not splits[split]["samples"]:
            raise DataError(_why_empty(split, name, shards, manifests, counts[split]))
    if task.kind == "ranking":
        _check_ranking(shards, splits, counts, name, task, learns=not _is_only_judged(manifests, task))
    with new_folder(target) as folder:
        names = _link_all(shards, manifests, folder)
        bad_rows = _bad_rows(shards)
        if len(bad_rows) > max_bad_rows:
            raise DataError(f"{name}: {len(bad_rows)} bad rows in all, more than prepare.max_bad_rows={max_bad_rows}.")
        if bad_rows:
            write_text(folder / "bad_rows.jsonl", "".join(bad_rows))
        manifest = {
            **description,
            **{key: manifests[0][key] for key in _SHARED},
            "relevance_level": task.relevance_level,
            "shards": names,
            "labels": labels,
            "splits": splits,
            "counts": counts,
            "bad_rows": len(bad_rows),
            "tokens": _sum(m["tokens"] for m in manifests),  # of all shards' texts
        }
        if task.kind != "ranking":  # of a ranking, queries are compared instead: see `LeakedQueries`
            for split, times in _learnt_too(open_splits(folder, manifest, task)).items():
                counts[split][LEARNT_TOO] = times
        write_text(folder / "card.html", card(folder, manifest, task))
        write_manifest(folder, manifest)


def _learnt_too(opened: Mapping[str, PreparedSplit]) -> dict[str, int]:
    """How many texts of each other split are in training too; splits without any are left out."""
    judged = {split: Counter(found.digests()) for split, found in opened.items() if split != "train"}
    learnt = set[bytes]().union(*judged.values()).intersection(opened["train"].digests())
    times = {split: sum(count for text, count in texts.items() if text in learnt) for split, texts in judged.items()}
    return {split: count for split, count in times.items() if count}


def _why_empty(
    split: str, name: str, shards: Sequence[Path], manifests: Sequence[dict[str, Any]], counts: Mapping[str, int]
) -> str:
    """Why a split that has a source is left without samples."""
    if WITHOUT_CANDIDATES in counts:
        return _nothing_found(split, name, manifests[0]["source"])
    if isinstance(share := manifests[0]["source"].get(split), float):
        return (
            f"The split {split!r} of {name} has no samples: it is the share {share:g} of the training data, drawn by a "
            f"hash, and nothing fell into it. Raise {split}, or name a source of its own."
        )
    return (
        f"The split {split!r} of {name} has a source but no samples. Correct it, or set it to null"
        f"{_what_was_read(shards, manifests, split)}."
    )


def _nothing_found(split: str, name: str, source: Mapping[str, Any]) -> str:
    """Why no query of a split has candidates. A share of the training data is read from the source of train."""
    read = source[split] if isinstance(source[split], Mapping) else source["train"]
    reason = (
        "the run has none of these queries. Correct it, or let BM25 retrieve"
        if read["first_stage"].startswith("run")
        else "BM25 finds no document with a word of theirs. It needs words between blanks: for other languages give a `run`"
    )
    return f"No query of the split {split!r} of {name} has candidates: {reason}."


def _what_was_read(shards: Sequence[Path], manifests: Sequence[dict[str, Any]], split: str) -> str:
    """For an error about a split without samples: its source, and how much of it was left out."""
    left_out = _sum(manifest["counts"].get(split, {}) for manifest in manifests)
    left_out["items whose spans are cut off"] += sum(m["splits"][split]["items_dropped"] for m in manifests)
    left_out["bad rows of all splits"] += len(_bad_rows(shards))
    facts = [", ".join(_names(manifests[0]["source"].get(split))), *(f"{k}: {n:,}" for k, n in left_out.items() if n)]
    return f" ({text})" if (text := "; ".join(filter(None, facts))) else ""


def _names(source: Any) -> Iterator[str]:
    """The ids and files in the description of a source, with those that are empty marked."""
    if isinstance(source, Mapping):
        for name in (source[key] for key in ("id", "file") if key in source):
            yield f"{name} (empty)" if source.get("sha256") == _EMPTY else str(name)
        for part in source.values():
            yield from _names(part)
        yield from (name for part in source.get("parts", ()) for name in _names(part) if part["sha256"] == _EMPTY)


def _in_order(shards: Sequence[Path]) -> tuple[list[Path], list[dict[str, Any]]]:
    """Shards 1 to n with their manifests, if they are all there and belong together."""
    manifests = [read_manifest(shard) for shard in shards]
    for shard, manifest in zip(shards, manifests, strict=True):
        if "shard" not in manifest:
            raise DataError(
                f"{shard} is not a shard of a dataset. Give the folders that `prepare` writes for each shard."
            )
        for key in _SHARED:
            if manifest.get(key) != manifests[0].get(key):
                raise DataError(
                    f"{shard} and {shards[0]} were prepared differently: their {key} differs. Prepare one of them again."
                )
    found = [tuple(manifest["shard"]) for manifest in manifests]
    total = found[0][1]
    missing = [f"{number}/{total}" for number in range(1, total + 1) if (number, total) not in found]
    if missing or len(found) != total:
        have = ", ".join(f"{number}/{of}" for number, of in found)
        raise DataError(
            f"Expected the shards 1 to {total} once each, found {have}; missing: {', '.join(missing) or 'none'}."
        )
    order = [found.index((number, total)) for number in range(1, total + 1)]
    return [shards[i] for i in order], [manifests[i] for i in order]


def _learn_labels(shards: Sequence[Path], manifests: Sequence[dict[str, Any]], name: str, task: Task) -> dict[str, Any]:
    """Statistics of the training labels: classes with their counts, or mean and standard deviation, and buckets' edges.

    Empty for a ranking that has only test sets.
    """
    if _is_only_judged(manifests, task):
        return {}
    if not sum(manifest["splits"]["train"]["items"] for manifest in manifests):
        raise DataError(
            f"Dataset {name!r} has no training records. Check its source{_what_was_read(shards, manifests, 'train')}."
        )
    if isinstance(task, Classification) and not isinstance(task, Buckets):
        return _learn_classes(shards, manifests, name, task)
    count = sum(len(block) for block in _labels(shards))
    mean = sum(float(block.sum(dtype=np.float64)) for block in _labels(shards)) / count
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in _labels(shards))
    if task.kind == "regression" and count > 1 and _are_equal(_labels(shards)):
        raise DataError(f"All labels of {name}/train are {mean:g}: there is nothing to learn. Is it the right column?")
    labels: dict[str, Any] = {"mean": mean, "std": (squares / count) ** 0.5}
    if isinstance(task, Buckets):
        everything = np.concatenate(list(_labels(shards)))  # four bytes for each item: quantiles need all of them
        labels["edges"] = task.find_edges(everything)
        if not labels["edges"]:
            raise DataError(f"The training labels of {name} are too similar for {task.num_buckets} buckets.")
        bucket = np.searchsorted(labels["edges"], everything, side="right")
        labels["counts"] = np.bincount(bucket, minlength=len(labels["edges"]) + 1).tolist()
    return labels


def _is_only_judged(manifests: Sequence[dict[str, Any]], task: Task) -> bool:
    """Whether a ranking has only test sets: it has sources, but none for train."""
    source = manifests[0]["source"]
    return task.kind == "ranking" and bool(source) and "train" not in source


def _learn_classes(
    shards: Sequence[Path], manifests: Sequence[dict[str, Any]], name: str, task: Classification
) -> dict[str, Any]:
    counts = Counter[str]()
    for shard, manifest in zip(shards, manifests, strict=True):
        for block in _labels([shard]):
            numbers = np.bincount(block.astype(np.int64), minlength=len(manifest["classes"]))
            counts.update({label: int(n) for label, n in zip(manifest["classes"], numbers, strict=True) if n})
    if len(counts) < 2:
        raise DataError(f"{name}/train has only the class {next(iter(counts))!r}: there is nothing to learn.")
    classes = task.classes_of(counts)
    for manifest in manifests:
        for split, places in manifest["first_place"].items():
            for label, place in places.items():
                if label not in classes:
                    known = ", ".join(classes)
                    raise DataError(
                        f"{place}: label {label!r} of {name}/{split} is not a class of its training split: {known}"
                    )
    return {"classes": classes, "counts": [counts[label] for label in classes]}


def _check_ranking(
    shards: Sequence[Path],
    splits: Mapping[str, Mapping[str, int]],
    counts: Mapping[str, Mapping[str, int]],
    name: str,
    task: Task,
    *,
    learns: bool,
) -> None:
    """A ranking without relevant documents teaches nothing and measures nothing. A teacher's scores are no grades."""
    if learns and task.grouped and splits["train"]["items"] == splits["train"]["samples"]:
        raise DataError(
            f"{name}/train has no sample of two documents, so {type(task).__name__} has nothing to compare. Give the "
            "records of a query the same `group`, one after another."
        )
    level = task.level
    if learns and not task.distils and not any((block >= level).any() for block in _labels(shards)):
        raise DataError(
            f"{name}/train has no document of grade {level} or more: there is nothing to learn. Set the task's "
            "relevance_level to the lowest relevant grade."
        )
    for split in (split for split in splits if split != "train" and splits[split]["samples"]):
        files = [file for shard in shards if (file := shard / split / "qrels.txt").exists()]
        relevant = [qrel for qrel in read_qrels(*files) if qrel.relevance >= level]
        if len(relevant) > 1 and counts[split].get(UNREACHABLE) == len(relevant):
            raise DataError(
                f"{name}/{split}: none of {len(relevant):,} relevant documents, such as {relevant[0].doc_id!r}, has a text "
                "in the collection. Give the documents that the judgements were made for."
            )
        if not relevant:
            raise DataError(
                f"{name}/{split} has no document of grade {level} or more: nothing can be measured. Set relevance_level to "
                "the lowest relevant grade."
            )


def _labels(shards: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """The labels of training, some at a time."""
    for shard in shards:
        labels = np.load(shard / "train" / "labels.npy", mmap_mode="r")
        for start in range(0, len(labels), _BLOCK):
            yield np.array(labels[start : start + _BLOCK])


def _bad_rows(shards: Sequence[Path]) -> list[str]:
    """The bad rows of all shards, each once: several shards may have read the same row."""
    paths = (shard / "bad_rows.jsonl" for shard in shards)
    return list(dict.fromkeys(line for path in paths if path.exists() for line in _lines(path)))


def _lines(path: Path) -> list[str]:
    return [f"{line}\n" for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for part in counts:
        total.update(part)
    return total


def _link_all(shards: Sequence[Path], manifests: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Put the shards' files into `folder`, with one tokenizer for all; gives the names of their folders in it."""
    names = [Shard(number, len(shards)).folder for number in range(1, len(shards) + 1)]
    for shard, manifest, short in zip(shards, manifests, names, strict=True):
        for file in (*manifest["files"], MANIFEST):
            if not file.startswith("tokenizer/"):
                _link(shard / file, folder / short / file)
    for file in manifests[0]["files"]:
        if file.startswith("tokenizer/"):
            _link(shards[0] / file, folder / file)
    return names


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot do that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _are_equal(blocks: Iterable[np.ndarray]) -> bool:
    """Whether all numbers are the same."""
    return len({number for block in blocks for number in (block.min(), block.max())}) == 1
