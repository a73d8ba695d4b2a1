"""Progress of training: a bar on a terminal, plain lines in a log."""

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar


class Bar(TQDMProgressBar):
    """Lightning's bar with the loss, which is fetched from the device only when the bar is drawn again."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        loss = trainer.callback_metrics.get("train/loss")
        return {} if loss is None else {"loss": f"{float(loss):.4f}"}


class PlainProgress(pl.Callback):
    """A line now and then: where training is, how fast it goes and how long it will take."""

    def __init__(self, every_seconds: float = 10.0) -> None:
        self.every_seconds = every_seconds
        self.started = self.last = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = self.last = time.monotonic()
        self.first_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self.last >= self.every_seconds:
            self.last = now
            self._say(trainer, now)

    def _say(self, trainer: pl.Trainer, now: float) -> None:
        total: int = trainer.lightning_module.total_steps
        done = trainer.global_step - self.first_step
        rate = done / (now - self.started)
        left = timedelta(seconds=round((total - trainer.global_step) / rate)) if rate else "?"
        loss = trainer.callback_metrics.get("train/loss")
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{total}  "
            f"loss {float(loss) if loss is not None else float('nan'):.4f}  {rate:.1f} steps/s  {left} left",
            file=sys.stderr,
            flush=True,
        )
