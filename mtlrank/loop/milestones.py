"""What happens between two optimizer steps: validation, checkpoints, and stopping, early or on a signal."""

import sys
import time
from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import pytorch_lightning as pl

from mtlrank.errors import ConfigError, DataError, DivergedError
from mtlrank.evaluation.measures import is_better
from mtlrank.evaluation.predictions import HeadMeasures, Predictions
from mtlrank.inference.scoring import gather, score_split
from mtlrank.loop.agreement import Agreement
from mtlrank.loop.checkpoints import Checkpoint, Checkpoints, VerifiedIO, check_same
from mtlrank.loop.finite_steps import FiniteSteps
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.resume import continue_at, set_rates, take_over
from mtlrank.loop.stopping import StopSignals
from mtlrank.progress import say, warn
from mtlrank.words import counted


class Monitored(NamedTuple):
    """The measure that chooses a checkpoint, or several whose mean does."""

    names: tuple[str, ...]  # as in trec2019/nDCG@10
    measure: str  # of the first; of all of several, more is better

    @property
    def name(self) -> str:
        """The measure with its head; of several, what their mean is called."""
        if len(self.names) == 1:
            return self.names[0]
        return f"(mean)/{', '.join(name.replace('/', ' ') for name in self.names)}"  # no dataset can be called (mean)

    @property
    def heads(self) -> list[str]:
        """The heads that are measured."""
        return [name.rpartition("/")[0] for name in self.names]

    @property
    def key(self) -> str:
        """The key of the value that decides, as in val/trec2019/nDCG@10."""
        return f"val/{self.name}"

    def mean(self, values: Mapping[str, float], kind: str) -> dict[str, float]:
        """The mean of several measures among the `values` of a kind (val, baseline) by its key, if all are there."""
        keys = [f"{kind}/{name}" for name in self.names]
        return {f"{kind}/{self.name}": fmean(values[key] for key in keys)} if values.keys() >= {*keys} else {}

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value beats the best one so far."""
        return than is None or is_better(self.measure, value, than)


class Best(NamedTuple):
    """The best validation so far, by the monitored metric."""

    value: float | None = None
    step: int | None = None
    waited: int = 0  # validations since then, without improvement


class Position(NamedTuple):
    """How far training is."""

    epoch: int = 0  # finished epochs
    batches: int = 0  # of the current epoch, over all processes
    step: int = 0  # optimizer steps
    processes: int = 1


class Plan(NamedTuple):
    """When to validate, save and stop."""

    val_checks_per_epoch: int = 1
    patience: int | None = None  # validations without improvement before training stops
    checkpoint_minutes: float | None = 10.0  # checkpoints are also written after each validation
    checkpoint_steps: int | None = None
    epochs: int | None = None  # the end of training, if it is known
    max_steps: int | None = None
    at_start: bool = False  # judge the weights that training starts from, as those that are measured are trained


class Milestones(pl.Callback):
    """Validates, saves and stops, at points that all processes pass together; also sets where a resumed run continues.

    Lightning's own callbacks would not do: their checkpoints in the middle of an epoch lose a validation that was due, its
    loops cannot be stopped while they validate, and one process alone cannot tell the others to stop. So a checkpoint holds
    the position in the epoch, and Lightning's loops are set to it when the checkpoint is read, on any number of processes.
    `identity` describes what is learnt (data, tokenizer, heads, body), by keys that begin with their kind; `code` is the
    version of the code that trains. `started` is when the run was, as `time.time` counts; by default now.
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
        started: float | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.monitored = monitored
        self.signals = signals
        self.plan = plan
        self.identity = dict(identity)
        self.accept_changes = accept_changes
        self.io = VerifiedIO()
        self.values: dict[str, float] = {}  # of the last validation
        self.best = Best()
        self.pending = plan.at_start  # a validation that is due
        self.position = Position()
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self.code = code
        self._started = time.time() if started is None else started
        self._seconds_before = 0.0
        self._has_lost_best = False
        self._best_before: int | None = None  # the step of the best weights at the last save
        self._is_restored = False  # the optimizer, too: a state that is saved before would lack it
        self._found = -1  # the step of the checkpoint that was found; -1 for none
        self._agreement = Agreement()

    # -- continuing ----------------------------------------------------------------------------------------------------

    def resume_from(self, loop: MultiTaskLoop) -> str | None:
        """The checkpoint to hand to the trainer; None to start at the first step, perhaps from a checkpoint's weights."""
        newest = self.checkpoints.newest()
        if newest is None:
            return None
        checkpoint, state = newest
        self._found = checkpoint.step
        mine = state["callbacks"][self.state_key]
        where = self.checkpoints.path(checkpoint)
        if not check_same(self.identity, mine["identity"], where, self.accept_changes):
            loaded, changed = take_over(state, loop), ", ".join(self.accept_changes)
            say(f"starting over with the weights of {where}: {loaded} loaded, {changed} changed")
            self.pending = True
            return None  # those checkpoints are removed when this run writes its first
        begun = mine["epoch"] + bool(mine["batches"])
        for setting, end, least, which in (
            ("epochs", self.plan.epochs, begun, "have begun"),
            ("max_steps", self.plan.max_steps, checkpoint.step, "are done"),
        ):
            if end is not None and end < least:
                raise ConfigError(f"training.{setting} is {end}, but {least} {which}. Expected at least {least}.")
        if other := sorted(loop.state_dict().keys() ^ state["state_dict"].keys()):
            raise ConfigError(
                f"{where} was written by {mine['code']}, whose model had other parts than that of {self.code} (such as "
                f"{other[0]}). Continue it with that version, or start over with force=true."
            )
        self._check_best(mine["best_step"])
        say(f"resuming at epoch {mine['epoch'] + 1}, step {checkpoint.step} ({where})")
        if (code := mine["code"]) != self.code:
            warn(
                f"the checkpoint was written by {code} and is continued by {self.code}: the result may differ from that of "
                "either"
            )
        return where

    def _check_best(self, step: int | None) -> None:
        """If the best weights are damaged, search for the best again from here on."""
        try:
            if step is not None:
                self.checkpoints.read(Checkpoint("best", step))
        except DataError as error:
            warn(f"the best weights so far are lost: {error}")
            self._has_lost_best = True

    def state_dict(self) -> dict[str, Any]:
        best = {"best": self.best.value, "best_step": self.best.step, "waited": self.best.waited}
        own = {
            "seconds": self.seconds(),
            "code": self.code,
            "identity": self.identity,
            "values": self.values,
            "pending": self.pending,
        }
        return {**own, **best, **self.position._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values, self.pending = state_dict["values"], state_dict["pending"]
        self._seconds_before = state_dict["seconds"]
        self.position = Position(**{name: state_dict[name] for name in Position._fields})
        self._best_before = state_dict["best_step"]
        if not self._has_lost_best:
            self.best = Best(state_dict["best"], state_dict["best_step"], state_dict["waited"])

    def seconds(self) -> float:
        """How long the run has taken so far: this attempt, and earlier ones up to the checkpoint that it continues from."""
        return self._seconds_before + time.time() - self._started

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        continue_at(checkpoint["callbacks"][self.state_key], trainer, pl_module, checkpoint)

    # -- Lightning's hooks ---------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._agreement.open()
        newest, minus_oldest = self._agreement.largest([self._found, -self._found])
        if newest != -minus_oldest:
            raise ConfigError(
                f"One process found a checkpoint of step {newest} in {self.checkpoints.folder}, another "
                f"{'none' if minus_oldest == 1 else f'one of step {-minus_oldest}'}: give all nodes the same folder as "
                "training.checkpoint_dir, on a disk that they share or gs://."
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Validate first if that is due: at the start, or where a stop has interrupted a validation."""
        self._saved_step, self.position = self.position.step, self.position._replace(processes=trainer.world_size)
        if self.pending:
            self._validate(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Restore what Lightning has replaced: our signal handlers, and the learning rates of the schedule's step."""
        self.signals.listen()
        for each in trainer.lr_scheduler_configs:
            set_rates(each.scheduler)
        self._is_restored, self._saved_at = True, time.monotonic()
        self._stop_early_if_due(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After an optimizer step, validate, save and stop if that is due."""
        done, whole = batch_idx + 1, int(trainer.num_training_batches)
        if done % trainer.accumulate_grad_batches and done < whole:
            return
        step, epoch, processes = trainer.global_step, trainer.current_epoch, trainer.world_size
        if done == whole:
            self.position = Position(epoch + 1, 0, step, processes)
        else:
            self.position = Position(epoch, done * processes, step, processes)
        is_last = step == trainer.max_steps
        self.pending = is_last or self._is_validation_due(done, whole, trainer.accumulate_grad_batches)
        is_late = self._leave_if_asked(trainer)
        if self.pending:
            self._validate(trainer, pl_module)
            self._save(trainer)
            self._stop_early_if_due(trainer)
        elif is_late or step - self._saved_step >= (self.plan.checkpoint_steps or sys.maxsize):
            self._save(trainer)

    # -- judging -------------------------------------------------------------------------------------------------------

    def _is_validation_due(self, done: int, whole: int, accumulated: int) -> bool:
        """Validations lie evenly among the optimizer steps of an epoch, the last one at its end."""
        step, steps = -(-done // accumulated), -(-whole // accumulated)
        checks = min(self.plan.val_checks_per_epoch, steps)
        return step in [steps * number // checks for number in range(1, checks + 1)]

    def _validate(self, trainer: pl.Trainer, loop: MultiTaskLoop) -> None:
        loop.finite.require_some(self.position.step)
        predictions = score_split(
            loop.model,
            loop.datasets,
            "val",
            trainer.datamodule.loader("val"),
            trainer.precision_plugin.val_step_context,
            after_batch=partial(self._leave_if_asked, trainer),
            with_losses=True,
        )
        gather(predictions)
        judged = {name: _judged(made, loop.finite) for name, made in predictions.items() if made.num_samples}
        self.values = {f"val/{name}/{m}": v for name, each in judged.items() for m, v in each.values.items()}
        self.values |= self.monitored.mean(self.values, "val")
        self.pending = False
        losses = {f"val/{name}/loss": loss for name in judged if (loss := predictions[name].loss()) is not None}
        baselines = {f"baseline/{name}/{m}": v for name, each in judged.items() for m, v in each.baseline.items()}
        baselines |= self.monitored.mean(baselines, "baseline")
        for logger in trainer.loggers:
            logger.log_metrics({**self.values, **losses, **baselines}, step=self.position.step)
            logger.save()
        say(
            "\n".join(
                [f"validation at step {self.position.step}", *(_in_words(name, each) for name, each in judged.items())]
            )
        )
        self._keep_the_best(loop, baselines.get(f"baseline/{self.monitored.name}"))

    def _keep_the_best(self, loop: MultiTaskLoop, baseline: float | None) -> None:
        value = self.values.get(self.monitored.key)
        if value is None or not self.monitored.is_better(value, self.best.value):
            has_begun = not value == self.best.value == baseline  # else it predicts what is most frequent, as at first
            self.best = self.best._replace(waited=self.best.waited + has_begun)
            return
        step = self.position.step
        self.best = Best(value, step)
        self._agreement.on_first(lambda: self.checkpoints.write_best(step, loop.state_dict(), self.values))

    def _stop_early_if_due(self, trainer: pl.Trainer) -> None:
        if self.plan.patience is not None and self.best.waited and self.best.waited >= self.plan.patience:
            trainer.should_stop = True
            if self.position.step < trainer.estimated_stepping_batches:
                say(
                    f"training stops at step {self.position.step}: {counted(self.best.waited, 'validation')} without a "
                    f"better {self.monitored.key} (training.patience={self.plan.patience}; a higher one lets it go on)"
                )

    def restore_best(self, loop: MultiTaskLoop) -> dict[str, float]:
        """Load the best weights into the loop; returns the metrics of their validation."""
        if self.best.step is None:
            raise ConfigError(
                f"Training ended before {self.monitored.key} was measured: expected at least one batch and one epoch. "
                "If the best weights were lost, force=true starts over, or in a pipeline another folder as checkpoints."
            )
        state = self.checkpoints.read(Checkpoint("best", self.best.step))
        loop.load_state_dict(state["state_dict"])
        values: dict[str, float] = state["values"]
        return values

    def chosen(self) -> str:
        """Which weights are the best, and why, in words."""
        kept = f"step {self.best.step}, the best by {self.monitored.key} ({self.best.value:.4f})"
        why = "training did not improve on what it started from" if self.position.step else "nothing was trained"
        return kept if self.best.step else f"{kept}: {why}"

    # -- saving --------------------------------------------------------------------------------------------------------

    def _save(self, trainer: pl.Trainer) -> None:
        self._agreement.on_first(self.checkpoints.check_own)
        step = self.position.step
        trainer.lightning_module.write_log()  # a run that continues from here logs only what follows
        trainer.save_checkpoint(self.checkpoints.path(Checkpoint("step", step)), weights_only=False)
        self._agreement.raise_on_all(self.io.error)
        self._agreement.on_first(lambda: self.checkpoints.prune(step, {self.best.step, self._best_before}))
        self._best_before = self.best.step
        self._saved_at, self._saved_step = time.monotonic(), step

    def _leave_if_asked(self, trainer: pl.Trainer) -> bool:
        """Save and raise if any process was asked to stop; else, whether it is time for a checkpoint by the clock."""
        minutes = self.plan.checkpoint_minutes
        is_late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        asked, late = self._agreement.largest([self.signals.noted, int(is_late)])
        if asked:
            if self._is_restored:
                self._save(trainer)
            raise self.signals.error(asked)
        return bool(late)


def _judged(predictions: Predictions, finite: FiniteSteps) -> HeadMeasures:
    """The measures of a head. The error says if its scores are not finite because no loss of its task ever was."""
    try:
        return predictions.judge()
    except DivergedError as error:
        name = predictions.dataset.name
        if never := finite.never_finite(name):
            raise DivergedError(f"The head {name!r} predicts NaN or infinity. {never}") from error
        raise


def _in_words(name: str, judged: HeadMeasures) -> str:
    """A head's measures in a line, the first one with the baseline's value."""
    (measure, value), *others = judged.values.items()
    baseline = f"({judged.baseline_name} {judged.baseline[measure]:.4f})"
    return "  ".join([f"  {name}: {measure} {value:.4f} {baseline}", *(f"{m} {v:.4f}" for m, v in others)])
