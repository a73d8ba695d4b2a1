"""Assembling batches: from a prepared dataset's tokens, and by tokenising texts for each batch.

    python -m benchmarks.batches

Prints samples per second of one process, medians of interleaved repetitions, and their ratio.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mtlrank.build import build_dataset
from mtlrank.compose import compose_config, select_tasks
from mtlrank.prepare import prepare_dataset

BATCH_SIZE = 32
REPETITIONS = 5


def main() -> None:
    torch.set_num_threads(1)
    config = select_tasks(compose_config(["tasks=[trec2019]"], trusted=True))
    with tempfile.TemporaryDirectory() as folder:
        split = prepare_dataset(config, "trec2019", Path(folder) / "trec2019").split("test")
        dataset = build_dataset(config["datamodule"]["dataset"]["datasets"]["trec2019"])
        records = list(dataset.records("test"))
        tokenizer = dataset.preprocessor.load().tokenizer
        order = np.random.default_rng(0).permutation(len(split))
        batches = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]

        def prepared(batch: np.ndarray) -> None:
            split.collate(batch)

        def tokenised(batch: np.ndarray) -> None:
            queries, texts = [records[i].query for i in batch], [records[i].text for i in batch]
            tokenizer(queries, texts, truncation=True, max_length=256, padding=True, return_tensors="pt")

        speeds: dict[str, list[float]] = {"prepared": [], "tokenised": []}
        for _ in range(REPETITIONS):
            for name, assemble in (("prepared", prepared), ("tokenised", tokenised)):
                start = time.process_time()
                for batch in batches:
                    assemble(batch)
                speeds[name].append(len(order) / (time.process_time() - start))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, value in medians.items():
        print(f"{name:>10}: {value:>10,.0f} samples per CPU-second")
    print(f"{'ratio':>10}: {medians['prepared'] / medians['tokenised']:>10.1f}")


if __name__ == "__main__":
    main()
