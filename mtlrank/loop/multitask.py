"""The loop holds the model instead of being it, so that a model can be used and exported without Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.evaluation.head import Judgement, Predictions
from mtlrank.loop.loss import Combiner
from mtlrank.model.multitask import MultiTaskModel

Batches = Mapping[str, TaskBatch]


class MultiTaskLoop(pl.LightningModule):
    """Trains a model on several datasets and judges each head, under keys like `val/trec2019/nDCG@10`.

    `optimizer` is a function of parameter groups, `schedule` one of (optimizer, total_steps).
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Mapping[str, PreparedDataset],
        loss: Combiner,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.datasets = dict(datasets)
        self.optimizer = optimizer
        self.schedule = schedule
        self.total_steps = total_steps
        self.output_dims = {name: dataset.task.output_dim for name, dataset in self.datasets.items()}
        self.judgements: dict[str, Judgement] = {}
        self._predictions: dict[str, Predictions] = {}

    # -- learn -------------------------------------------------------------------------------------------------------

    def training_step(self, batches: Batches, batch_idx: int) -> Tensor:  # noqa: D102
        losses = self._losses(batches)
        total: Tensor = self.loss(losses, self.output_dims)
        count = sum(len(loss) for loss in losses.values())
        self.log("train/loss", total.detach(), batch_size=count, prog_bar=True)
        for name, loss in losses.items():
            self.log(f"train/{name}/loss", loss.detach().mean(), batch_size=len(loss), on_step=False, on_epoch=True)
        return total

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

    def _losses(self, batches: Batches) -> dict[str, Tensor]:
        logits = self.model(batches)
        return {name: self.datasets[name].task.loss(logits[name], batch) for name, batch in batches.items()}

    # -- judge -------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._start("val")

    def on_test_epoch_start(self) -> None:  # noqa: D102
        self._start("test")

    def validation_step(self, batches: Batches, batch_idx: int) -> None:  # noqa: D102
        self._predict(batches)

    def test_step(self, batches: Batches, batch_idx: int) -> None:  # noqa: D102
        self._predict(batches)

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        self._judge("val")

    def on_test_epoch_end(self) -> None:  # noqa: D102
        self._judge("test")

    def _start(self, split: str) -> None:
        self._predictions = {n: Predictions(d, split) for n, d in self.datasets.items() if d.has(split)}

    def _predict(self, batches: Batches) -> None:
        for name, logits in self.model(batches).items():
            scores = self.datasets[name].task.scores(logits)
            self._predictions[name].add(batches[name].sample_ids, batches[name].item_sample, scores)

    def _judge(self, split: str) -> None:
        _gather(self._predictions)
        self.judgements = {name: p.judge() for name, p in self._predictions.items() if p.by_sample}
        for name, judgement in self.judgements.items():
            values = {f"{split}/{name}/{measure}": value for measure, value in judgement.values.items()}
            self.log_dict(values, rank_zero_only=False)


def _gather(predictions: Mapping[str, Predictions]) -> None:
    """Give every process the scores of all."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    gathered: list[dict[str, dict[int, Tensor]] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, {name: p.by_sample for name, p in predictions.items()})
    for part in gathered:
        for name, scores in (part or {}).items():
            predictions[name].by_sample.update(scores)


@torch.inference_mode()
def predict(model: MultiTaskModel, dataset: PreparedDataset, split: str, batches: Any) -> Predictions:
    """Score a split of one dataset; `batches` are those of a loader over it."""
    model.eval()
    device = next(model.parameters()).device
    predictions = Predictions(dataset, split)
    for batch in batches:
        moved = {name: TaskBatch(*(_to(field, device) for field in part)) for name, part in batch.items()}
        for name, logits in model(moved).items():
            predictions.add(moved[name].sample_ids, moved[name].item_sample, dataset.task.scores(logits))
    return predictions


def _to(field: Any, device: torch.device) -> Any:
    return field.to(device) if isinstance(field, Tensor) else field
