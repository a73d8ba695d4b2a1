"""Assembling batches from a prepared dataset's tokens, against tokenising the texts of each batch.

    python -m benchmarks.batches

Prints samples per CPU-second of one process (medians of interleaved repetitions) and their ratio, for the batch sizes of a
laptop and of a GPU.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch

from benchmarks.passages import TOKENIZER, Passages, passages
from mtlrank.datamodule.reading import Reading
from mtlrank.shard import Shard

BATCH_SIZES = (32, 256)
REPETITIONS = 5
WORDS = 55  # as many as an MS MARCO passage has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default=TOKENIZER, help="a Hugging Face name or folder")
    torch.set_num_threads(1)
    dataset = Passages(list(passages(5_000, WORDS)), parser.parse_args().tokenizer)
    records = list(dataset.records("train"))
    tokenizer = dataset.preprocessor.load().tokenizer
    order = np.random.default_rng(0).permutation(len(records))
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "shard"
        dataset.prepare_shard(shard, Shard(), Reading())
        dataset.merge(Path(folder) / "whole", [shard])
        dataset.open(Path(folder) / "whole")
        split = dataset.split("train")

        def prepared(batch: np.ndarray) -> None:
            split.collate(batch)

        def tokenised(batch: np.ndarray) -> None:
            queries, texts = [records[i].query for i in batch], [records[i].text for i in batch]
            tokenizer(queries, texts, truncation=True, max_length=256, padding=True, return_tensors="pt")

        for size in BATCH_SIZES:
            batches = [order[i : i + size] for i in range(0, len(order), size)]
            speeds: dict[str, list[float]] = {"prepared": [], "tokenised": []}
            for _ in range(REPETITIONS):
                for name, assemble in (("prepared", prepared), ("tokenised", tokenised)):
                    start = time.process_time()
                    for batch in batches:
                        assemble(batch)
                    speeds[name].append(len(order) / (time.process_time() - start))
            report(size, {name: statistics.median(values) for name, values in speeds.items()})


def report(size: int, medians: dict[str, float]) -> None:
    print(f"batches of {size}")
    for name, value in medians.items():
        print(f"{name:>10}: {value:>10,.0f} samples per CPU-second")
    print(f"{'ratio':>10}: {medians['prepared'] / medians['tokenised']:>10.1f}")


if __name__ == "__main__":
    main()
