"""Warnings about settings that are allowed but usually a mistake."""

from collections.abc import Mapping
from typing import Any

import torch

from mtlrank import embedded
from mtlrank.building.devices import is_on_gpus
from mtlrank.config import Config
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.loop.loss import Combiner, DynamicWeightAverage
from mtlrank.model.body import MTLBody
from mtlrank.progress import warn
from mtlrank.task.distillation import Distillation
from mtlrank.words import of_dataset

_HIGH_RATE = 2e-4
_WIDE, _USUAL = 50.0, 3.0  # standard deviations of scores: a teacher's that are warned of, and a head's


def advise(config: Config, body: MTLBody, datasets: Mapping[str, PreparedDataset], loss: Combiner) -> None:
    """Warn before the training starts."""
    _check_body(config)
    _check_lengths(body, datasets)
    _check_rate(config)
    _check_epochs(config, loss)
    _check_speed(config["trainer"])
    _check_teachers(datasets)


def _check_body(config: Config) -> None:
    """The tiny body knows nothing, and only the words of the invented collection."""
    body, mixture = config["model"]["body"], config["datamodule"]["dataset"]
    own = [key for key, node in mixture["datasets"].items() if not embedded.is_read_by(node)]
    if str(body["backbone"]).startswith(embedded.NAME) and own:
        warn(
            f"the tiny body is for the invented collection, and not for other data ({', '.join(own)}): "
            "experiment=finetune has a pretrained one, as have model/body=bert_base_uncased and model/body=pretrained "
            "model.body.backbone=..."
        )


def _check_lengths(body: MTLBody, datasets: Mapping[str, PreparedDataset]) -> None:
    """Rotary positions and distances have no end, but a body has learnt them up to one."""
    most = getattr(body.config, "max_position_embeddings", None)
    longest = max(dataset.preprocessor.lengths.max_length for dataset in datasets.values())
    if body.max_length is None and most and longest > most:
        warn(f"max_length is {longest}, but {body.backbone} was trained with texts of up to {most} tokens")


def _check_rate(config: Config) -> None:
    """A pretrained body may forget what it knows at a rate for random weights, which is ten times higher."""
    body, optimizer = config["model"]["body"], config["loop"]["optimizer"]
    is_adam = str(optimizer["_target_"]).endswith(("Adam", "AdamW"))
    learns = config["training"]["epochs"] and not body.get("lora")
    is_high = is_adam and learns and body.get("pretrained") and optimizer["lr"] > _HIGH_RATE
    if is_high:
        warn(f"loop.optimizer.lr is {optimizer['lr']:g}: pretrained bodies usually learn with 1e-5 to 1e-4")


def _check_epochs(config: Config, loss: Combiner) -> None:
    """The training ends before dynamic weight averaging has weights."""
    epochs = config["training"]["epochs"]
    if isinstance(loss, DynamicWeightAverage) and epochs < 3:
        warn(f"loop/loss=dwa weighs all tasks alike in two epochs, and training.epochs is {epochs}")


def _check_speed(trainer: Mapping[str, Any]) -> None:
    """A GPU could be faster. In full precision, attention also runs padded."""
    if not is_on_gpus(trainer):
        return
    is_full = str(trainer["precision"]) in ("32", "32-true")
    if is_full and torch.cuda.is_bf16_supported(including_emulation=False):
        warn(
            "trainer.precision is 32-true: bf16-mixed would use the GPU's tensor cores and its kernel for packed attention"
        )
    parses_once = hasattr(torch.backends.cuda, "cublas_workspace_size")
    if trainer["deterministic"] and not parses_once:
        warn(
            f"trainer.deterministic costs torch {torch.__version__} about 0.1 ms per matrix product, 30 ms per step of "
            "BERT-base even in small batches: use torch 2.13, or trainer.deterministic=false"
        )


def _check_teachers(datasets: Mapping[str, PreparedDataset]) -> None:
    """A teacher's scores, such as a lexical model's, are on a much larger scale than logits."""
    for key, dataset in datasets.items():
        if isinstance(dataset.task, Distillation):
            spread = dataset.manifest["labels"]["std"]
            if spread * dataset.task.teacher_scale > _WIDE:
                setting = of_dataset(key, f"task.teacher_scale={_USUAL / spread:.1g}")
                warn(
                    f"the teacher's scores of {dataset.name} have a standard deviation of {spread:.3g}, a head's scores "
                    f"usually have 1 to 5: to scale the teacher's to that, set {setting}"
                )
