"""A prepared dataset's card: what is in it, what was left out and why, what it looks like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mtlrank.config import SPLITS
from mtlrank.datamodule.dataset.split import PreparedSplit, open_splits
from mtlrank.dtypes import Ints
from mtlrank.pages import figures, render
from mtlrank.task import Classification, Task
from mtlrank.trec import read_qrels

_BINS = 30
_FEW = 10  # different labels, such as grades, that are counted one by one
_MEASURED = 20_000  # sequences whose length is measured, spread evenly
_SHOWN = 3  # sequences of each split


class Queries(NamedTuple):
    """Numbers about the queries of a ranking's split; only validation and test have judgements."""

    queries: int  # with a passage to rank
    median: int  # passages per query
    most: int
    judged: int | None  # queries with a judgement, also those without a passage
    relevant: float | None  # relevant passages per judged query
    recall: float | None  # share of them that is among the passages


def card(folder: Path, manifest: dict[str, Any], task: Task) -> str:
    """The page of a prepared dataset whose files lie in `folder`."""
    opened = open_splits(folder, manifest, task)
    splits = {name: opened[name] for name in sorted(opened, key=_place) if len(opened[name])}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    return render(
        "card.html.j2",
        manifest=manifest,
        splits={name: manifest["splits"][name] for name in splits},
        queries={name: queries_of(split, task) for name, split in splits.items() if task.kind == "ranking"},
        notes=[(split, what, n) for split, counts in manifest["counts"].items() for what, n in counts.items()],
        bad_rows=_bad_rows(folder / "bad_rows.jsonl"),
        labels=_labels(splits, task),
        lengths=_lengths(splits),
        sequences=[row for name, split in splits.items() for row in _examples(name, split, task, tokenizer)],
        source=yaml.safe_dump(manifest["source"], sort_keys=False, allow_unicode=True),
    )


def _place(split: str) -> tuple[int, str]:
    """Training comes first, further test sets last."""
    return SPLITS.index(split.partition("@")[0]), split


def queries_of(split: PreparedSplit, task: Task) -> Queries:
    """How many queries and candidates a split of a ranking has, and how many of the relevant ones are candidates."""
    first, second, _ = split.sequences.all().astype(np.int64).T
    width = int(second.max()) + 1
    pairs = np.unique(first * width + second)  # a passage may be in several groups of its query
    _, counts = np.unique(pairs // width, return_counts=True)
    size = Queries(len(counts), int(np.median(counts)), int(counts.max()), None, None, None)
    qrels = read_qrels(*(path for path in split.files("qrels.txt") if path.exists()))
    relevant = {(row.query_id, row.doc_id) for row in qrels if row.relevance >= task.level}
    if not relevant:
        return size
    judged = len({row.query_id for row in qrels})
    return size._replace(
        judged=judged, relevant=len(relevant) / judged, recall=len(relevant & set(split.ids)) / len(relevant)
    )


def _labels(splits: Mapping[str, PreparedSplit], task: Task) -> str:
    labels = {name: split.labels.all() for name, split in splits.items()}
    if isinstance(task, Classification):
        counts = {name: np.bincount(v.astype(int), minlength=task.output_dim).tolist() for name, v in labels.items()}
        return figures.bars(counts, task.classes)
    found = np.unique(np.concatenate([np.unique(values) for values in labels.values()]))
    if len(found) <= _FEW:
        counts = {name: [int((values == label).sum()) for label in found] for name, values in labels.items()}
        return figures.bars(counts, [f"{label:g}" for label in found])
    return _histogram(labels, np.linspace(found[0], found[-1], _BINS + 1), "label")


def _lengths(splits: Mapping[str, PreparedSplit]) -> str:
    lengths = dict[str, Ints]()
    for name, split in splits.items():
        sequences = np.unique(np.linspace(0, len(split.sequences) - 1, _MEASURED).astype(np.int64))
        lengths[name] = split.store.lengths(split.sequences[sequences].astype(np.int64))
    longest = max(int(tokens.max()) for tokens in lengths.values())
    return _histogram(lengths, np.linspace(0, longest, _BINS + 1), "tokens")


def _histogram(values: Mapping[str, NDArray[Any]], edges: NDArray[Any], xlabel: str) -> str:
    counts = {name: np.histogram(numbers, edges)[0].tolist() for name, numbers in values.items()}
    return figures.histogram(counts, edges.tolist(), xlabel)


def _examples(name: str, split: PreparedSplit, task: Task, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The first sequences of a split, as the model reads them; of a document that is read in passages, the first."""
    rows = []
    for sample in range(min(_SHOWN, len(split))):
        batch = split.collate([sample])
        end = int(batch.cu_seqlens[1])
        first, _ = split.samples[np.array([sample])]
        _, in_first = split.items[first]
        items = [
            _item(float(label), [batch.input_ids[a:b].tolist() for a, b in spans], task, tokenizer)
            for label, spans in zip(batch.labels[: in_first[0]], batch.spans.tolist(), strict=False)
        ]
        query_id, doc_id = split.ids_of(int(first[0]))
        text = tokenizer.decode(batch.input_ids[:end].tolist(), skip_special_tokens=False)
        rows.append({"split": name, "query_id": query_id, "doc_id": doc_id, "text": text, "items": items})
    return rows


def _item(label: float, spans: list[list[int]], task: Task, tokenizer: Tokenizer) -> str:
    what = task.classes[int(label)] if isinstance(task, Classification) else f"{label:.4g}"
    return " - ".join([*(f"'{tokenizer.decode(ids)}'" for ids in spans), f"label {what}"])


def _bad_rows(path: Path) -> list[dict[str, str]]:
    """The first rows that were set aside."""
    lines = path.read_text("utf-8").split("\n")[:20] if path.exists() else []
    return [json.loads(line) for line in lines if line]
