"""The embedded collection: a small invented world with ground truth for every task, made from a seed without a network.

Passages about people, companies, places and works answer questions that are asked in other words, so BM25 finds the right
entity but not the right fact. Everything is written once as ordinary files (TSV, TREC qrels and runs, CoNLL, JSONL, a
Hugging Face model folder) that are read as anyone's files are; `mtlrank-embedded/train`, `/val` and `/test` are registered
with ir_datasets, and a path below `mtlrank-embedded/` names a file of the collection wherever a path is expected.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mtlrank.embedded.tiny_bert import write_tiny_bert
from mtlrank.embedded.world import SPLITS, World
from mtlrank.storage import home, is_complete, new_folder, write_manifest

__all__ = ["NAME", "SPLITS", "folder", "is_read_by", "locate"]

NAME = "mtlrank-embedded"
VERSION = 2  # raise it whenever the files change: prepared datasets and results record it


@cache
def folder() -> Path:
    """The folder of the collection, which is written first if it does not exist."""
    target = home() / f"{NAME}-{VERSION}"
    if not is_complete(target):
        with new_folder(target) as part:
            World(seed=1).write(part)
            texts = [part / "docs.tsv", part / "train" / "queries.tsv"]
            write_tiny_bert(part / "tiny-bert", [line for path in texts for line in path.read_text().splitlines()])
            write_manifest(part, {"name": NAME, "version": VERSION})
    return target


def locate(path: str) -> str:
    """`path`, or the file of the collection that it names, as `mtlrank-embedded/ner/train.conll` does."""
    first, _, rest = path.partition("/")
    return str(folder() / rest) if first == NAME and rest else path


def is_read_by(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset (its config) has data of the collection. The collection's tokenizer may read any data."""
    return NAME in str({key: value for key, value in dataset.items() if key != "preprocessor"})
