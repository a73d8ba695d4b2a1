"""The loop holds the model instead of being it, so that a model can be used and exported without Lightning."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Adafactor, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mtlrank.batch import MTLBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError
from mtlrank.loop.finite_steps import FiniteSteps, Learnt, gradient_norm
from mtlrank.loop.gradients import TaskGradients, combined, losses_of, task_gradients, trained
from mtlrank.loop.loss import ByGradient, Combiner, Learner
from mtlrank.loop.parameter_groups import parameter_groups
from mtlrank.loop.training_log import TrainingLog
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.start import Labels, facts_of
from mtlrank.own_parts import instance_of, name_of, shaped
from mtlrank.processes import world_size


class MultiTaskLoop(pl.LightningModule):
    """Trains a model on several datasets. What happens between steps (judging, checkpoints) is in `Milestones`.

    `loss` makes a combiner from each task's `Learner`, `optimizer` takes parameter groups, and `schedule` takes (optimizer,
    total_steps).
    More than `max_bad_steps` steps whose gradients are not finite end the training. Each `diagnose_every_n_steps` batches
    the tasks' gradients at the body are computed one by one and compared (0: never); training is the same with it.
    With `layer_decay` below 1, the learning rate of the body falls from layer to layer towards the embeddings. Heads learn
    with `head_lr`, if there is one, in place of the optimizer's rate, and follow the same schedule.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Mapping[str, PreparedDataset],
        loss: Callable[..., Combiner],
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        total_steps: int,
        max_bad_steps: int = 10,
        diagnose_every_n_steps: int = 0,
        layer_decay: float = 1.0,
        head_lr: float | None = None,
    ) -> None:
        super().__init__()
        if layer_decay != 1.0:
            model.body.require_family(f"loop.layer_decay is {layer_decay}", "1.0")
        self.model = model
        self.datasets = dict(datasets)
        tasks = {name: dataset.task for name, dataset in self.datasets.items()}
        self.loss = loss({name: Learner(task.num_outcomes, task.is_squared_error) for name, task in tasks.items()})
        self.optimizer = optimizer
        self.schedule = schedule
        self.total_steps = total_steps
        self.diagnose_every_n_steps = diagnose_every_n_steps
        self.layer_decay = layer_decay
        self.head_lr = head_lr
        self.examples = Counter[str]()  # samples of each task that were learnt from so far
        self.finite = FiniteSteps(max_bad_steps, self._name_of)
        self.training_log = TrainingLog(self.datasets)
        self._learnt: list[tuple[str, Tensor, Tensor]] = []  # since the last optimizer step
        self._drawn = set[str]()  # tasks that any process has learnt from since then
        self._step_batches = 1  # that are accumulated in the current step
        self._by_task: TaskGradients | None = None  # of the step so far, if gradients are combined
        self._gradients: list[tuple[torch.nn.Parameter, Tensor]] | None = None  # computed task by task, for `backward`

    def on_train_epoch_start(self) -> None:
        """Set the data to Lightning's epoch, also after one that a limit cut short."""
        self.trainer.datamodule.start_at(0 if self.trainer.overfit_batches else self.current_epoch)
        self.loss.start_epoch(self.current_epoch)

    def training_step(self, batch: MTLBatch, batch_idx: int) -> Tensor:
        self._step_batches = batch.step.batches
        if not batch.step.place:
            self.loss.start_step()
        if self._is_watched(batch_idx) and not isinstance(self.loss, ByGradient):
            _seed_dropout(batch.seed, self.device)
            self.training_log.write_gradients(
                task_gradients(self.model, self.datasets, batch), self.examples, self.global_step
            )
        _seed_dropout(batch.seed, self.device)
        if isinstance(self.loss, ByGradient):
            return self._step_by_task(self.loss, batch, batch_idx)
        losses = losses_of(self.model, self.datasets, batch.tasks)
        shares = shares_of(losses, batch, world_size()) if self.loss.by_task else losses
        total = self._total(shares, batch)
        self._note(total, {name: loss.detach() for name, loss in losses.items()}, batch)
        weight = self._weight(batch)
        # Times 1, or NaN if the loss is not finite: then its gradients are NaN, on every process after they are averaged.
        total = total * (weight + 0.0 * total.detach())
        return total + self._touch_idle(batch) if world_size() > 1 else total

    def _step_by_task(self, loss: ByGradient, batch: MTLBatch, batch_idx: int) -> Tensor:
        """Compute the step's gradients here; `backward` hands them to the weights after the step's last batch."""
        gradients = task_gradients(self.model, self.datasets, batch)
        if self._is_watched(batch_idx):
            self.training_log.write_gradients(gradients, self.examples, self.global_step)
        total: Tensor = loss(shares_of(gradients.losses, batch, world_size()), list(batch.step.totals))
        self._note(total, gradients.losses, batch)
        shares = {name: len(losses) / batch.step.totals[name] for name, losses in gradients.losses.items()}
        self._by_task = gradients.of_step(shares, self._by_task if batch.step.place else None)
        self._gradients = []
        if batch.step.place == batch.step.batches - 1:
            self._gradients, self._by_task = combined(loss, self.model, self._by_task, list(self.datasets)), None
        return total

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the loss, or those that were computed task by task."""
        if self._gradients is None:
            # Lightning has divided by the batches of a whole step, also in a shorter one.
            whole = self.trainer.accumulate_grad_batches
            (loss if self._step_batches == whole else loss * (whole / self._step_batches)).backward(*args, **kwargs)
            return
        for weight, gradient in self._gradients:  # tasks may share a head
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
        self._gradients = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Weights that no process has used get no gradient, so that neither momentum nor decay moves them."""
        if world_size() > 1:
            for weight in [*self.model.idle(self._drawn), *self.loss.idle(self._drawn)]:
                weight.grad = None

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradients; the step is skipped if their norm is not finite."""
        by_value = gradient_clip_algorithm == "value"
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = gradient_norm(weights, None if by_value else gradient_clip_val)
        self.training_log.add_step(norm, optimizer)
        if by_value:
            torch.nn.utils.clip_grad_value_(weights, gradient_clip_val or float("inf"))
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # A gradient scaler skips steps that overflow, and halves its scale. At a scale of 1 it is not the cause any more.
        if scaler is None or scaler.get_scale() <= 1:
            self.finite.check(norm, optimizer, Learnt(self.global_step + 1, self._learnt))
        self._learnt, self._drawn = [], set()

    def on_train_start(self) -> None:
        self.training_log.begin(self.loggers, self.device, self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: MTLBatch, batch_idx: int) -> None:
        """Log now and then, not in each step, as that would wait for the GPU."""
        if self.global_step % self.trainer.log_every_n_steps == 0:
            self.write_log()

    def on_train_epoch_end(self) -> None:
        self.write_log()

    def write_log(self) -> None:
        """Log what has not been logged yet. All processes must call this in the same step."""
        self.training_log.write(self.global_step, self.loss.changing_weights())

    def labels(self) -> dict[str, Labels]:
        """What the logits of each task's head stand for, by dataset name."""
        return {name: facts_of(each.manifest["labels"], each.task) for name, each in self.datasets.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.finite.check_pending()
        checkpoint["examples"] = dict(self.examples)
        checkpoint["labels"] = self.labels()
        checkpoint["skipped"] = self.finite.skipped_before + self.finite.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.examples = Counter(checkpoint["examples"])
        self.finite.skipped_before = checkpoint["skipped"]
        self.finite.known = set(self.examples)

    def on_train_end(self) -> None:
        """Check the last step, too."""
        self.finite.check_pending()

    def configure_optimizers(self) -> Any:
        """The optimizer, on groups of weights, and its schedule."""
        groups = parameter_groups(self.model, self.layer_decay, self.head_lr)
        if weights := trained(self.loss):
            if self.loss.lr is None:
                raise ConfigError(
                    f"{name_of(self.loss)} has weights of its own, but no learning rate for them: set its `lr`."
                )
            groups.append({"name": "lr/loss", "params": weights, "weight_decay": 0.0, "lr": self.loss.lr})
        names = [group.pop("name") for group in groups]
        optimizer = instance_of("loop.optimizer", self.optimizer(groups), Optimizer, "param_groups")
        if len(optimizer.param_groups) != len(groups):  # it has made groups of its own
            names = [f"lr/group_{number}" for number in range(len(optimizer.param_groups))]
        self.training_log.names_of_rates = names
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * group.pop("lr_factor", 1.0)
        if weights and isinstance(optimizer, Adafactor):
            # Its steps are relative to the size of a weight, and those of a loss begin at 0.
            optimizer.param_groups[-1]["eps"] = (optimizer.defaults["eps"][0], 1.0)
        # The number of steps comes from our own samplers: asking the trainer for it drops restored loader positions.
        schedule = instance_of("loop.schedule", self.schedule(optimizer, total_steps=self.total_steps), LRScheduler)
        if isinstance(schedule, ReduceLROnPlateau):
            raise ConfigError(
                f"loop.schedule is a {name_of(schedule)}, which follows a metric: expected one that follows the steps."
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _touch_idle(self, batch: MTLBatch) -> Tensor:
        """A zero that depends on each weight that this process's batch does not use: others wait for its gradient."""
        weights = self.model.idle(batch.tasks) if self.model.body.family else self.model.parameters()
        idle = [weight for weight in weights if weight.requires_grad]
        return _Zero.apply(*idle) if idle else torch.zeros(())

    def _total(self, losses: Mapping[str, Tensor], batch: MTLBatch) -> Tensor:
        what = f"loop.loss ({name_of(self.loss)})"
        total = shaped(what, self.loss(losses, list(batch.step.totals)), (), "one number")
        if not total.requires_grad and any(loss.requires_grad for loss in losses.values()):
            raise ConfigError(f"{what} gives a number without a gradient: is it detached from the losses?")
        return total

    def _note(self, total: Tensor, losses: Mapping[str, Tensor], batch: MTLBatch) -> None:
        """Keep what a step has learnt from, and its losses for the log."""
        self._learnt += [(name, loss, batch.tasks[name].sample_ids) for name, loss in losses.items()]
        self._drawn |= set(batch.step.totals)
        self.examples.update(batch.totals)
        self.training_log.add_loss(total, self._weight(batch) / (batch.step.batches * world_size()))
        for name, loss in losses.items() if batch.weight else ():
            self.training_log.add_task_loss(name, loss)

    def _weight(self, batch: MTLBatch) -> float:
        """The factor of a batch's loss in the mean over those of its step."""
        return 1.0 if self.loss.by_task else batch.weight

    def _is_watched(self, batch_idx: int) -> bool:
        return bool(self.diagnose_every_n_steps) and batch_idx % self.diagnose_every_n_steps == 0

    def _name_of(self, name: str, sample: int) -> str:
        return self.datasets[name].split("train").name_of(sample)


class _Zero(torch.autograd.Function):
    """Zero, as a function of weights whose gradients are zero: few kernels, however many weights there are."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        zero = weights[0].new_zeros(())
        ctx.gradients = tuple(zero.to(weight.dtype).expand(weight.shape) for weight in weights)
        return zero

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = ctx.gradients
        return gradients


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Seed dropout by the batch, so that a run that continues needs no generator state."""
    # torch.manual_seed spends a millisecond on devices that do not exist.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def shares_of(losses: Mapping[str, Tensor], batch: MTLBatch, world_size: int) -> dict[str, Tensor]:
    """Losses whose mean, averaged over processes and accumulated batches, is that over all of the task's in this step."""
    # A process without a batch repeats a sample, with weight 0.
    batches = world_size * batch.step.batches * (batch.weight > 0)
    return {name: loss * (len(loss) * batches / batch.step.totals[name]) for name, loss in losses.items()}
