"""The groups of weights that an optimizer treats in the same way."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from mtlrank.loop.gradients import trained
from mtlrank.model.multitask import MultiTaskModel


def parameter_groups(
    model: MultiTaskModel, layer_decay: float = 1.0, head_lr: float | None = None
) -> list[dict[str, Any]]:
    """Two groups of the weights that learn: weights decay, biases and norms do not. Few groups make few kernels.

    With `layer_decay` below 1 there are two for the heads and two for each layer of the body, whose `lr_factor` is
    layer_decay^(depth - layer): 1 for the last layer, the least for the embeddings, which are layer 0. (Howard and Ruder
    2018, section 3.2, discriminative fine-tuning; Clark et al. 2020, appendix B, layerwise decay. Theirs gives the
    last layer less than the heads.)

    With `head_lr` the heads have groups of their own too, with this as their `lr`. Learning rates are logged under the
    group's `name`.
    """
    if layer_decay == 1.0 and head_lr is None:
        return _pair("lr", trained(model))
    own = {} if head_lr is None else {"lr": head_lr}
    groups = [{**group, **own} for group in _pair("lr/heads", trained(model.heads))]
    if layer_decay == 1.0:
        groups += _pair("lr/body", trained(model.body))
    else:
        layers = model.body.by_layer()
        for layer, weights in enumerate(layers):
            factor = layer_decay ** (len(layers) - 1 - layer)
            pair = _pair(f"lr/layer_{layer}", (weight for weight in weights if weight.requires_grad))
            groups += [{**group, "lr_factor": factor} for group in pair]
    return [group for group in groups if group["params"]]


def _pair(name: str, weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    weights = list(weights)
    return [
        {"name": name, "params": [weight for weight in weights if weight.ndim >= 2]},
        {"name": name, "params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
