"""Progress of training: a bar on a terminal, plain lines in a log."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from mtlrank.progress import Progress


class Bar(TQDMProgressBar):
    """Lightning's bar with the recent loss, which is fetched from the device only when the bar is drawn again."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """The values beside the bar."""
        return {"loss": f"{pl_module.training_log.recent_loss:.4f}"}


class PlainProgress(pl.Callback):
    """A line now and then: where training is, how fast it goes and how long it will take."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.progress = Progress("train", "steps", pl_module.total_steps, _steps(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.progress.done = _steps(trainer)
        if trainer.is_global_zero and self.progress.is_due():
            epoch, loss = f"{trainer.current_epoch + 1}/{trainer.max_epochs}", pl_module.training_log.recent_loss
            self.progress.what = f"train epoch {epoch}, loss {loss:.4f}"
            self.progress.tell()


def _steps(trainer: pl.Trainer) -> int:
    """The schedule's step: unlike Lightning's count, it is converted to the current number of processes."""
    return int(trainer.lr_scheduler_configs[0].scheduler.last_epoch)
