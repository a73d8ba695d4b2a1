"""The loop holds the model instead of being it, so that a model can be used and exported without Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mtlrank.batch import MTLBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.loop.guard import FiniteSteps, Learnt, gradient_norm
from mtlrank.loop.loss import Combiner
from mtlrank.model.multitask import MultiTaskModel


class MultiTaskLoop(pl.LightningModule):
    """Trains a model on several datasets. What happens between steps (judging, checkpoints) is in `Milestones`.

    `optimizer` is a function of parameter groups, `schedule` one of (optimizer, total_steps). More than `max_bad_steps`
    steps whose gradients are not finite end the training.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Mapping[str, PreparedDataset],
        loss: Combiner,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        total_steps: int,
        max_bad_steps: int = 10,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.datasets = dict(datasets)
        self.optimizer = optimizer
        self.schedule = schedule
        self.total_steps = total_steps
        self.output_dims = {name: dataset.task.output_dim for name, dataset in self.datasets.items()}
        self.finite = FiniteSteps(max_bad_steps, self._name_of)
        self._learnt: list[tuple[str, Tensor, Tensor]] = []  # since the last optimizer step
        self._drawn = set[str]()  # tasks that any process has learnt from since then

    def on_train_epoch_start(self) -> None:
        """An epoch is what Lightning says it is, also after one that was cut short."""
        self.trainer.datamodule.start_at(0 if self.trainer.overfit_batches else self.current_epoch)

    def training_step(self, batch: MTLBatch, batch_idx: int) -> Tensor:  # noqa: D102
        torch.manual_seed(batch.seed)  # dropout belongs to the batch: a run that goes on needs no state of generators
        logits = self.model(batch.tasks)
        losses = {name: self.datasets[name].task.loss(logits[name], part) for name, part in batch.tasks.items()}
        self._learnt += [(name, loss.detach(), batch.tasks[name].sample_ids) for name, loss in losses.items()]
        self._drawn |= set(batch.totals)
        total: Tensor = self.loss(self._shares(losses, batch) if self.loss.by_task else losses, self.output_dims)
        self._log_losses(total, losses)
        weight = float(batch.weight > 0) if self.loss.by_task else batch.weight
        # 1, or NaN if the loss is no number: so are its gradients then, and every process that averages them knows.
        total = total * (weight + 0.0 * total.detach())
        return total + self._touch_idle(batch) if self._is_distributed else total

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """What no process has used has no gradient, so that neither momentum nor decay moves it."""
        if self._is_distributed:
            for weight in self.model.idle(self._drawn):
                weight.grad = None

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm, which also tells whether the step may be taken."""
        by_value = gradient_clip_algorithm == "value"
        norm = gradient_norm(self.parameters(), None if by_value else gradient_clip_val)
        if by_value:
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val or float("inf"))
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # a gradient scaler skips by itself
            self.finite.check(norm, optimizer, Learnt(self.global_step + 1, self._learnt))
        self._learnt, self._drawn = [], set()

    def on_train_end(self) -> None:
        """The last step's norm is looked at too."""
        self.finite.look()

    def configure_optimizers(self) -> Any:
        """AdamW and its like on two groups: weights decay, biases and norms do not."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = self.optimizer(groups)
        # The number of steps comes from our own samplers: asking the trainer for it drops restored loader positions.
        schedule = self.schedule(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _shares(self, losses: Mapping[str, Tensor], batch: MTLBatch) -> dict[str, Tensor]:
        """Losses whose mean, averaged over the processes, is the mean over all samples of the task in this step."""
        world_size = dist.get_world_size() if self._is_distributed else 1
        return {name: loss * (len(loss) * world_size / batch.totals[name]) for name, loss in losses.items()}

    @property
    def _is_distributed(self) -> bool:
        return dist.is_initialized() and dist.get_world_size() > 1

    def _touch_idle(self, batch: MTLBatch) -> Tensor:
        """Zero, through every weight that this process's batch does not use: processes wait for each other's gradients."""
        weights = self.model.idle(batch.tasks) if self.model.body.family else self.model.parameters()
        idle = [weight for weight in weights if weight.requires_grad]
        return torch.stack([weight.flatten()[0] for weight in idle]).sum() * 0.0 if idle else torch.zeros(())

    def _log_losses(self, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        count = sum(len(loss) for loss in losses.values())
        self.log("train/loss", total.detach(), batch_size=count, prog_bar=True)
        for name, loss in losses.items():
            self.log(f"train/{name}/loss", loss.detach().mean(), batch_size=len(loss), on_step=False, on_epoch=True)

    def _name_of(self, name: str, sample: int) -> str:
        return self.datasets[name].split("train").name_of(sample)
