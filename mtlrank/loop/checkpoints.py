"""Checkpoints: the best by one measure, the last to continue from."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from mtlrank.errors import ConfigError, DataError, TerminatedError
from mtlrank.loop.multitask import MultiTaskLoop

_VALUES = "mtlrank_values"


class Monitored(NamedTuple):
    """The metric that chooses a checkpoint, and whether less or more is better (`min`, `max`)."""

    key: str
    mode: str


class Checkpoints(ModelCheckpoint):
    """Keeps the best checkpoint and the last one, and goes on from the last one unless told to `start_over`."""

    def __init__(self, folder: Path, monitored: Monitored, *, start_over: bool = False) -> None:
        super().__init__(
            dirpath=folder, filename="best", monitor=monitored.key, mode=monitored.mode, save_last=True, save_top_k=1,
            enable_version_counter=False,
        )  # fmt: skip
        self.folder = folder
        if start_over:
            for name in ("last.ckpt", "best.ckpt"):
                (folder / name).unlink(missing_ok=True)
        self._terminated = False

    def resume_from(self) -> str | None:
        """The checkpoint to continue from; None for a new run."""
        last = self.folder / "last.ckpt"
        if not last.exists():
            return None
        state = self._load(last)
        epoch = state["MTLDataModule"]["train"]["epoch"]
        print(f"resuming at epoch {epoch + 1}, step {state['global_step']}", file=sys.stderr, flush=True)
        return str(last)

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            raise DataError(f"{path} is not a checkpoint that can be read. Start over with force=true.") from error
        return state

    # -- SIGTERM -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Note a SIGTERM instead of dying in the middle of a step; this replaces Lightning's own handler."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Stop between two steps if asked to."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self._terminated:
            raise TerminatedError("stopped by SIGTERM: the same command continues from the last checkpoint.")

    def _note(self, signum: int, frame: Any) -> None:
        self._terminated = True

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics with the weights that reached them."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        checkpoint[_VALUES] = metrics

    def restore_best(self, loop: MultiTaskLoop) -> dict[str, float]:
        """Put the best weights into the loop and return the metrics of that checkpoint."""
        if not (self.folder / "best.ckpt").exists():
            raise ConfigError(f"Training ended before {self.monitor} was measured once: it needs batches and an epoch.")
        state = self._load(self.folder / "best.ckpt")
        loop.load_state_dict(state["state_dict"])
        values: dict[str, float] = state[_VALUES]
        return values
