"""The cost of combining gradients, against the plain mean of losses: time per step and peak memory with five tasks.

python -m benchmarks.balance [--body /path/to/a/bert]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.memory import peak
from mtlrank import prepare
from mtlrank.building.datamodule import build_datamodule
from mtlrank.building.loop import build_loop
from mtlrank.building.model import build_body, build_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.guard import quiet

PLAIN = "task_mean"
COMBINED = ("gradnorm", "pcgrad", "mgda", "upgrad", "cagrad")


class Clock(pl.Callback):
    """CPU seconds of each step, as the machine may be busy with other things."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.started = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(time.process_time() - self.started)


def train(loss: str, steps: int, folder: str, words: Sequence[str]) -> None:
    """Train in this process; prints the median seconds of a step and the peak memory in MiB."""
    quiet()
    torch.set_num_threads(1)
    config = select_tasks(compose_config([f"data_dir={folder}", f"loop/loss={loss}", *words], trusted=True))
    body, datasets = build_body(config), prepare.run(config)
    datamodule = build_datamodule(config, datasets)
    loop = build_loop(config, build_model(config, body, datasets), datasets, total_steps=steps)
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(loop, datamodule)
    print(statistics.median(clock.seconds), peak() / 1024)


def measure(loss: str, arguments: argparse.Namespace, folder: str, words: Sequence[str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.balance", "--loss", loss, "--folder", folder]
    command += ["--steps", str(arguments.steps), *words]
    seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", help="a local BERT; else the tiny one of the embedded collection")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=COMBINED, nargs="+", default=COMBINED, help="these beside the mean")
    parser.add_argument("--loss", help="measure this one alone, in this process")
    parser.add_argument("--folder", help="where the data is prepared")
    parser.add_argument("words", nargs="*", help="further overrides")
    arguments = parser.parse_args()
    if arguments.loss:
        train(arguments.loss, arguments.steps, arguments.folder, arguments.words)
        return
    words = list(arguments.words)
    if arguments.body:
        words += ["model/body=pretrained", f"model.body.backbone={arguments.body}"]
    found: dict[str, list[tuple[float, float]]] = {loss: [] for loss in (PLAIN, *arguments.only)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for loss in found:
                found[loss].append(measure(loss, arguments, folder, words))
    seconds, memory = (
        {loss: statistics.median(row[column] for row in rows) for loss, rows in found.items()} for column in (0, 1)
    )
    print(f"{'loss':<12}{'CPU-ms per step':>16}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}")
    for loss in found:
        ratio, more = seconds[loss] / seconds[PLAIN], memory[loss] / memory[PLAIN]
        print(f"{loss:<12}{1000 * seconds[loss]:>16.1f}{ratio:>8.2f}{memory[loss]:>10.0f}{more:>8.2f}")


if __name__ == "__main__":
    main()
