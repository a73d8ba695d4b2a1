"""What happens between two optimizer steps: validation, checkpoints, stopping early or because somebody asks."""

import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl

from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.predictions import Judgement
from mtlrank.inference.scoring import gather, predict
from mtlrank.loop.agreement import Agreement
from mtlrank.loop.checkpoints import Checkpoint, Checkpoints, VerifiedIO, check_same
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.resume import continue_at, follow, take_over
from mtlrank.loop.stopping import StopSignals
from mtlrank.progress import say, warn


class Monitored(NamedTuple):
    """The metric that chooses a checkpoint, and whether less or more is better (`min`, `max`)."""

    key: str
    mode: str

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value beats the best one so far."""
        return than is None or (value < than if self.mode == "min" else value > than)


class Plan(NamedTuple):
    """When things happen."""

    val_checks_per_epoch: int = 1  # 0: never
    patience: int | None = None  # validations without improvement before training stops
    checkpoint_minutes: float | None = 10.0  # checkpoints are also written after each validation
    checkpoint_steps: int | None = None
    epochs: int | None = None  # the end, as far as it is known
    max_steps: int | None = None
    at_start: bool = False  # the weights that training starts from are trained, so they are judged too


class Milestones(pl.Callback):
    """Validates, saves and stops, at points that all processes pass together; also sets where a resumed run continues.

    Why not Lightning's own: its checkpoints in the middle of an epoch lose a validation that was due, its loops cannot be
    stopped while they validate, and one process alone cannot tell the others to stop. So a checkpoint holds where in the
    epoch training stands, and its loops are told so when it is read, on any number of processes.
    `identity` says what is learnt (data, tokenizer, heads), by keys that begin with their kind, and `code` by which code.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        monitored: Monitored,
        signals: StopSignals,
        plan: Plan,
        identity: Mapping[str, Any],
        accept_changes: list[str],
        code: str = "",
    ) -> None:
        self.checkpoints = checkpoints
        self.monitored = monitored
        self.signals = signals
        self.plan = plan
        self.identity = dict(identity)
        self.accept_changes = accept_changes
        self.io = VerifiedIO()
        self.values: dict[str, float] = {}  # of the last validation
        self.best: float | None = None
        self.best_step: int | None = None
        self.waited = 0
        self.pending = plan.at_start  # a validation that is due
        self.epoch, self.batches = 0, 0  # finished epochs, batches of the current one over all processes
        self.step = 0  # optimizer steps
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self.processes = 1
        self.code = code
        self._has_lost_best = False
        self._best_before: int | None = None  # of the state that was saved last
        self._is_restored = False  # the optimizer too, so that what is saved is whole
        self._agreement = Agreement()

    # -- continuing ----------------------------------------------------------------------------------------------------

    def resume_from(self, loop: MultiTaskLoop) -> str | None:
        """The checkpoint to hand to the trainer; None to start at the first step, perhaps from a checkpoint's weights."""
        newest = self.checkpoints.newest()
        if newest is None:
            return None
        found, state = newest
        mine = state["callbacks"][self.state_key]
        where = self.checkpoints.path(found)
        if not check_same(self.identity, mine["identity"], where, self.accept_changes):
            loaded, changed = take_over(state["state_dict"], loop), ", ".join(self.accept_changes)
            say(f"starting over with the weights of {where}: {loaded} loaded, {changed} changed")
            self.pending = True
            return None  # its checkpoints go when this run has one
        for setting, end, done in (
            ("epochs", self.plan.epochs, mine["epoch"]),
            ("max_steps", self.plan.max_steps, found.step),
        ):
            if end is not None and end < done:
                raise ConfigError(f"training.{setting} is {end}, but {done} are over. Expected more.")
        self._check_best(mine["best_step"])
        say(f"resuming at epoch {mine['epoch'] + 1}, step {found.step} ({where})")
        if (code := mine.get("code", self.code)) != self.code:
            warn(f"that checkpoint is of {code}, and this is {self.code}: the result may be neither's")
        return where

    def _check_best(self, step: int | None) -> None:
        """If the best weights are damaged, what is best from here on takes their place."""
        try:
            if step is not None:
                self.checkpoints.read(Checkpoint("best", step))
        except DataError as error:
            warn(f"the best weights so far are lost: {error}")
            self._has_lost_best = True

    def state_dict(self) -> dict[str, Any]:
        counts = ("waited", "pending", "epoch", "batches", "step", "processes")
        return {name: getattr(self, name) for name in ("code", "identity", "values", "best", "best_step", *counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            if name != "code":
                setattr(self, name, value)
        self._best_before = self.best_step
        if self._has_lost_best:
            self.best, self.best_step, self.waited = None, None, 0

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        continue_at(checkpoint["callbacks"][self.state_key], trainer, pl_module, checkpoint)

    # -- Lightning's hooks ---------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._agreement.open()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A validation of what training starts from, or one that a stop has cut short, comes first."""
        self._saved_step, self.processes = self.step, trainer.world_size
        if self.pending:
            self._validate(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Lightning has put its own handler of signals in the place of ours, and a checkpoint its last learning rates."""
        self.signals.listen()
        for each in trainer.lr_scheduler_configs:
            follow(each.scheduler)
        self._is_restored, self._saved_at = True, time.monotonic()
        self._stop_early_if_due(trainer)
        if trainer.should_stop:
            say(f"training.patience={self.plan.patience} has ended this run at step {self.step}: a larger one goes on")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After an optimizer step, do what is due."""
        done, whole = batch_idx + 1, int(trainer.num_training_batches)
        if done % trainer.accumulate_grad_batches and done < whole:
            return
        self.step, self.epoch, self.batches = trainer.global_step, trainer.current_epoch, done * trainer.world_size
        if done == whole:
            self.epoch, self.batches = self.epoch + 1, 0
        is_last = self.step == trainer.max_steps
        self.pending = is_last or self._is_validation_due(done, whole, trainer.accumulate_grad_batches)
        is_late = self._leave_if_asked(trainer)
        if self.pending:
            self._validate(trainer, pl_module)
            self._save(trainer)
            self._stop_early_if_due(trainer)
        elif is_late or self.step - self._saved_step >= (self.plan.checkpoint_steps or sys.maxsize):
            self._save(trainer)

    # -- judging -------------------------------------------------------------------------------------------------------

    def _is_validation_due(self, done: int, whole: int, step: int) -> bool:
        """Validations lie evenly in an epoch, at the ends of optimizer steps, the last one at its end."""
        checks = min(self.plan.val_checks_per_epoch, whole)
        ends = [whole * number // checks for number in range(1, checks + 1)]
        return any(min(whole, -(-end // step) * step) == done for end in ends)

    def _validate(self, trainer: pl.Trainer, loop: MultiTaskLoop) -> None:
        loop.finite.require_some(self.step)
        loader = trainer.datamodule.loader("val")
        precision = trainer.precision_plugin.val_step_context
        predictions = predict(
            loop.model,
            loop.datasets,
            "val",
            loader,
            len(loader),
            precision,
            after_batch=partial(self._leave_if_asked, trainer),
            with_losses=True,
        )
        gather(predictions)
        judged = {name: found.judge() for name, found in predictions.items() if found.num_samples}
        self.values = {f"val/{name}/{m}": v for name, found in judged.items() for m, v in found.values.items()}
        self.pending = False
        losses = {f"val/{name}/loss": loss for name in judged if (loss := predictions[name].loss()) is not None}
        baselines = {f"baseline/{name}/{m}": v for name, found in judged.items() for m, v in found.baseline.items()}
        for logger in trainer.loggers:
            logger.log_metrics({**self.values, **losses, **baselines}, step=self.step)
            logger.save()
        say("\n".join([f"validation at step {self.step}", *(_in_words(name, each) for name, each in judged.items())]))
        self._keep_the_best(loop)

    def _keep_the_best(self, loop: MultiTaskLoop) -> None:
        value = self.values.get(self.monitored.key)
        if value is None or not self.monitored.is_better(value, self.best):
            self.waited += 1
            return
        self.best, self.best_step, self.waited = value, self.step, 0
        self._agreement.on_first(lambda: self.checkpoints.write_best(self.step, loop.state_dict(), self.values))

    def _stop_early_if_due(self, trainer: pl.Trainer) -> None:
        if self.plan.patience is not None and self.waited and self.waited >= self.plan.patience:
            trainer.should_stop = True

    def restore_best(self, loop: MultiTaskLoop) -> dict[str, float]:
        """Put the best weights into the loop and return the metrics that they reached."""
        if self.best_step is None:
            raise ConfigError(
                f"Training ended before {self.monitored.key} was measured: expected at least one batch and one epoch. "
                "If the best weights were lost, force=true starts over, or in a pipeline another folder as checkpoints."
            )
        state = self.checkpoints.read(Checkpoint("best", self.best_step))
        loop.load_state_dict(state["state_dict"])
        values: dict[str, float] = state["values"]
        return values

    def chosen(self) -> str:
        """Which weights are the best, and by what."""
        kept = f"step {self.best_step}, the best by {self.monitored.key} ({self.best:.4f})"
        why = "training did not improve on what it started from" if self.step else "nothing was trained"
        return kept if self.best_step else f"{kept}: {why}"

    # -- saving --------------------------------------------------------------------------------------------------------

    def _save(self, trainer: pl.Trainer) -> None:
        self._agreement.on_first(self.checkpoints.check_own)
        trainer.save_checkpoint(self.checkpoints.path(Checkpoint("step", self.step)), weights_only=False)
        self._agreement.raise_on_all(self.io.error)
        self._agreement.on_first(lambda: self.checkpoints.prune(self.step, {self.best_step, self._best_before}))
        self._best_before = self.best_step
        self._saved_at, self._saved_step = time.monotonic(), self.step

    def _leave_if_asked(self, trainer: pl.Trainer) -> bool:
        """Save and raise if any process was asked to stop; else, whether the last checkpoint was long ago for any."""
        minutes = self.plan.checkpoint_minutes
        is_late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        asked, late = self._agreement.largest([self.signals.noted, int(is_late)])
        if asked:
            if self._is_restored:
                self._save(trainer)
            raise self.signals.error(asked)
        return bool(late)


def _in_words(name: str, judged: Judgement) -> str:
    """A head's values in a line, the first one beside that of its baseline."""
    (measure, value), *others = judged.values.items()
    baseline = f"({judged.baseline_name} {judged.baseline[measure]:.4f})"
    return "  ".join([f"  {name}: {measure} {value:.4f} {baseline}", *(f"{m} {v:.4f}" for m, v in others)])
