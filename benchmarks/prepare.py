"""Preparing datasets against bare tokenising and at two sizes, BM25 labels at two sizes, and BM25 indexes against bm25s.

    python -m benchmarks.prepare

Speeds are per CPU-second of one process, medians of interleaved repetitions; memory is the peak of a fresh process.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import bm25s
import numpy as np

from benchmarks.memory import peak
from benchmarks.passages import TOKENIZER, Passages, passages
from mtlrank.annotate.bm25 import BM25Index
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.shard import Shard

REPETITIONS = 3
WORDS = 55  # as many as an MS MARCO passage has


def plain(texts: list[str]) -> bm25s.BM25:
    """An index built by bm25s alone."""
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False), show_progress=False)
    return index


INDEXES: dict[str, Callable[[list[str]], object]] = {"bm25s": plain, "mtlrank": BM25Index.build}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default=TOKENIZER, help="a Hugging Face name or folder")
    parser.add_argument("--texts", type=Path, help="real passages, as a TSV file with an id and a text")
    parser.add_argument("--part", type=float, default=1.0, help="of the usual number of passages, for a quick look")
    parser.add_argument("--peak", type=int, help="only print the peak memory of preparing so many short passages")
    parser.add_argument(
        "--index", choices=INDEXES, help="only print the bytes per passage that building an index takes"
    )
    arguments = parser.parse_args()
    part = arguments.part
    if arguments.index:
        print(bytes_per_passage(INDEXES[arguments.index], max(10_000, int(60_000 * part)), arguments.texts))
        return
    if arguments.peak:
        write(passages(arguments.peak, words=8), TOKENIZER)
        print(peak())
        return
    real = [text for _, text in Collection({"docs": str(arguments.texts)}).docs] if arguments.texts else None
    tokenising(real or list(passages(int(50_000 * part), WORDS)), arguments.tokenizer)
    labelling(int(5_000 * part), int(100_000 * part))
    memory(int(100_000 * part), int(1_000_000 * part))
    indexing(["--part", str(part), *(["--texts", str(arguments.texts)] if arguments.texts else [])])


def write(texts: Iterable[str], tokenizer: str) -> None:
    """Prepare passages as one shard."""
    with tempfile.TemporaryDirectory() as folder:
        Passages(texts, tokenizer).prepare_shard(Path(folder) / "shard", Shard(), Reading())


def tokenising(texts: list[str], tokenizer: str) -> None:
    """The whole preparation (reading, checking, tokenising, writing) against the tokenizer alone on the same texts."""
    backend = Preprocessor(tokenizer).load().tokenizer.backend_tokenizer

    def bare() -> None:
        for start in range(0, len(texts), 2_000):
            backend.encode_batch_fast(texts[start : start + 2_000], add_special_tokens=False)

    speeds = medians({"encode_batch_fast": bare, "prepared": lambda: write(texts, tokenizer)}, len(texts))
    report("passages per CPU-second", speeds, speeds["prepared"] / speeds["encode_batch_fast"])


def memory(few: int, many: int) -> None:
    """The peak memory of a process that prepares few passages, and of one that prepares many."""
    peaks = {}
    for number in (few, many):
        command = [sys.executable, "-m", "benchmarks.prepare", "--peak", str(number)]
        peaks[f"{number:,}"] = int(subprocess.run(command, check=True, capture_output=True).stdout) / 1024
    first, second = peaks.values()
    report("MiB at the peak", peaks, second / first)


def indexing(words: list[str]) -> None:
    """The memory that building a BM25 index takes above the texts, by mtlrank and by bm25s alone."""
    found = {}
    for name in INDEXES:
        command = [sys.executable, "-m", "benchmarks.prepare", "--index", name, *words]
        found[name] = float(subprocess.run(command, check=True, capture_output=True).stdout)
    report("bytes per passage to build a BM25 index", found, found["mtlrank"] / found["bm25s"])


def bytes_per_passage(index: Callable[[list[str]], object], number: int, path: Path | None) -> float:
    """The rise of this process's peak memory while an index is built, per passage."""
    texts = [text for _, text in Collection({"docs": str(path)}).docs] if path else list(passages(number, WORDS))
    index(texts[:10])
    before = peak()
    index(texts)
    return (peak() - before) * 1024 / len(texts)


def labelling(few: int, many: int) -> None:
    """BM25 scores of (query, passage) pairs among few and many passages, against scoring all passages for each query."""
    small, large = labels_per_second(few), labels_per_second(many)
    names = ["all passages, then some", f"{few:,} passages", f"{many:,} passages"]
    speeds = dict(zip(names, (small["all"], small["pairs"], large["pairs"]), strict=True))
    report("BM25 labels per CPU-second", speeds, large["pairs"] / small["pairs"])


def labels_per_second(size: int, number: int = 20_000, per_query: int = 10) -> dict[str, float]:
    """The speed of both methods in a collection of `size` passages."""
    texts = list(passages(size, WORDS))
    index = BM25Index.build(texts)
    queries = [" ".join(text.split()[5:11]) for text in texts[: number // per_query]]
    asked = [query for query in queries for _ in range(per_query)]
    positions = np.random.default_rng(0).integers(0, size, len(asked)).tolist()
    some = queries[:100]
    pairs = medians({"pairs": lambda: index.score_pairs(asked, positions)}, len(asked))
    return pairs | medians({"all": lambda: [index.scores(query) for query in some]}, len(some) * per_query)


def medians(ways: Mapping[str, Callable[[], object]], number: int) -> dict[str, float]:
    """`number` per CPU-second of each function, medians of repetitions in turns."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            speeds[name].append(number / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}


def report(what: str, values: Mapping[str, float], ratio: float) -> None:
    print(what)
    for name, value in values.items():
        print(f"{name:>26}: {value:>12,.0f}")
    print(f"{'ratio':>26}: {ratio:>12.2f}\n", flush=True)


if __name__ == "__main__":
    main()
