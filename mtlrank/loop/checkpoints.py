"""Checkpoints: the best by one measure, the last to continue from."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from mtlrank.loop.multitask import MultiTaskLoop

_VALUES = "mtlrank_values"


class Monitored(NamedTuple):
    """The metric that chooses a checkpoint, and whether less or more is better (`min`, `max`)."""

    key: str
    mode: str


class Checkpoints(ModelCheckpoint):
    """Keeps the best checkpoint and the last one; finished runs leave a mark, so that only unfinished ones go on."""

    def __init__(self, folder: Path, monitored: Monitored) -> None:
        super().__init__(
            dirpath=folder, filename="best", monitor=monitored.key, mode=monitored.mode, save_last=True, save_top_k=1,
            enable_version_counter=False,
        )  # fmt: skip
        self.folder = folder

    def resume_from(self) -> str | None:
        """The checkpoint of an unfinished run in this folder; a finished run starts over."""
        last, done = self.folder / "last.ckpt", self.folder / "finished"
        if done.exists() or not last.exists():
            for old in (last, done, self.folder / "best.ckpt"):
                old.unlink(missing_ok=True)
            return None
        state = torch.load(last, map_location="cpu", weights_only=True)
        print(f"resuming at epoch {state['epoch'] + 1}, step {state['global_step']}", file=sys.stderr, flush=True)
        return str(last)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics with the weights that reached them."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        checkpoint[_VALUES] = metrics

    def restore_best(self, loop: MultiTaskLoop) -> dict[str, float]:
        """Put the best weights into the loop, mark the run as finished and return the metrics of that checkpoint."""
        state = torch.load(self.folder / "best.ckpt", map_location="cpu", weights_only=True)
        loop.load_state_dict(state["state_dict"])
        (self.folder / "finished").touch()
        values: dict[str, float] = state[_VALUES]
        return values
