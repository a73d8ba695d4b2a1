"""A head in plain numbers that a stock model can compute: an encoder's depth, a way to pool, two matrices."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MLP, CrossEncoderHead, Linear
from mtlrank.model.head.pooler import Average, CLSToken, LastToken
from mtlrank.task import Regression, RelevanceClasses
from mtlrank.trained_head import TrainedHead, unfit

_POOLINGS = {CLSToken: "cls", Average: "mean", LastToken: "lasttoken"}  # as sentence-transformers calls them


class PlainHead(NamedTuple):
    """logits = weight @ hidden(x) + bias, where x is pooled from the states of layer `depth`.

    There is one logit, the score, or one for each class. `hidden` is None (Linear), or a linear layer with an activation
    and perhaps a norm behind it. `weight` and `bias` include the conversion to the labels' own unit.
    """

    depth: int
    pooling: str  # "cls", "mean" or "lasttoken"
    hidden: nn.Sequential | None
    weight: Tensor  # (logits, hidden size)
    bias: Tensor  # (logits,)


@torch.no_grad()
def plain_head(head: TrainedHead) -> PlainHead:
    """Take a head apart. Raises `ConfigError`, with what to choose instead, for one that stock classes cannot compute."""
    module, body = head.module, head.model.body
    pooling = _POOLINGS.get(type(module.pooler))
    if head.task.num_spans:
        reason = f"it {unfit(head.dataset)}, and stock models judge whole ones"
        raise _refused(head, reason, "use it with `mtlrank predict`, or keep it with format=multitask")
    choose = f"train with {other_head(head)}, or keep it with format=multitask"
    if pooling is None:
        kind = type(module.pooler).__name__
        raise _refused(head, f"it pools with {kind}, which no stock model has", choose)
    if len(module.layers) != 1:
        raise _refused(head, f"it reads the layers {module.layers}, and stock models read one", choose)
    if type(module) not in (Linear, MLP, CrossEncoderHead):
        raise _refused(head, f"it is a {type(module).__name__}, expected Linear, MLP or CrossEncoderHead", choose)
    if body.family is None:
        raise _refused(
            head, f"mtlrank does not know the layers of {body.config.model_type}", "format=multitask keeps it"
        )
    (depth,) = module.layers
    if body.separate_layers:
        raise _refused(
            head, "its body reads the two texts of a pair apart, and stock models together", "format=multitask keeps it"
        )
    if depth == 0:
        raise _refused(head, "it reads the embeddings, and stock models have layers", choose)
    if depth < body.num_layers and body.has_final_norm:
        kind = body.config.model_type
        reason = f"it reads layer {depth} of {body.num_layers}, and {kind} normalises what its last layer gives"
        raise _refused(head, reason, f"train with model.heads.{head.key}.pooler.layers=[-1]")
    projection: Any = module.projection
    last = projection if type(module) is Linear else projection[-1]
    hidden = None if type(module) is Linear or len(projection) == 1 else projection[:-1]
    weight, bias = last.weight, torch.zeros_like(last.weight[:, 0]) if last.bias is None else last.bias
    if isinstance(head.task, Regression):
        weight, bias = weight * head.task.std, bias * head.task.std + head.task.mean
    if isinstance(head.task, RelevanceClasses):
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    if len(bias) != 1 and head.task.kind != "classification":
        reason = f"its {type(head.task).__name__} task makes one score of {len(bias)} logits, and stock models have one"
        raise _refused(head, reason, "format=multitask keeps it")
    return PlainHead(depth, pooling, hidden, weight, bias)


def check_scores_pairs(head: TrainedHead, layout: str) -> None:
    """Refuse a head on classes, or on single texts, for a format that is for scores of pairs."""
    if reason := unfit(head.dataset):
        others = "format=transformers and format=onnx are for both"
        raise _refused(head, f"it {reason}, and format={layout} is for scores of pairs", others)


def copy_body(body: MTLBody, depth: int, encoder: nn.Module) -> None:
    """Fill a stock encoder of some depth. Its own pooler, which the body lacks, gets zeros."""
    deeper = {id(weight) for weight in body.deeper_than(depth)}
    left_out = {name for name, weight in body.encoder.named_parameters() if id(weight) in deeper}
    state = {name: value.cpu() for name, value in body.encoder.state_dict().items() if name not in left_out}
    stock = encoder.state_dict()
    unmatched = sorted(set(state) - set(stock)) + sorted(
        n for n in set(stock) - set(state) if not n.startswith("pooler.")
    )
    if unmatched:
        raise ConfigError(
            f"The body is not a plain {body.config.model_type}: {unmatched[0]!r} is in one of them only. Merge adapters "
            "into the body first, or keep the whole model with format=multitask."
        )
    zeros = {name: torch.zeros_like(value) for name, value in stock.items() if name not in state}
    encoder.load_state_dict({**state, **zeros})


def stock_config(body: MTLBody, depth: int, model_type: str, **settings: Any) -> Any:
    """The body's config with `depth` layers."""
    from transformers import AutoConfig

    left_out = ("model_type", "architectures", "transformers_version", "_name_or_path", "id2label", "label2id")
    values = {key: value for key, value in body.config.to_dict().items() if key not in left_out}
    config = AutoConfig.for_model(model_type, **{**values, **settings})
    if depth < body.num_layers:
        config.num_hidden_layers = depth
    return config


@torch.no_grad()
def stock_encoder(body: MTLBody, depth: int) -> Any:
    """A stock encoder with the layers of the body up to `depth`."""
    from transformers import AutoModel

    encoder = AutoModel.from_config(stock_config(body, depth, body.config.model_type)).float().eval()
    copy_body(body, depth, encoder)
    return encoder


def label_settings(head: TrainedHead) -> dict[str, Any]:
    """What a stock config says of the logits."""
    is_choice = head.task.kind == "classification"
    names = head.task.classes if is_choice else [head.name]  # type: ignore[attr-defined]
    return {
        "num_labels": len(names),
        "problem_type": "single_label_classification" if is_choice else "regression",
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def other_head(head: TrainedHead) -> str:
    """The override with which a head that can be exported is trained."""
    alone = (
        " (for a dataset trained by itself, model/heads@model.default_head=cls)" if len(head.model.heads) == 1 else ""
    )
    last = f" model/heads/pooler@model.heads.{head.key}.pooler=last_token" if head.model.body.is_causal else ""
    return f"model/heads@model.heads.{head.key}=cls{last}{alone}"


def _refused(head: TrainedHead, reason: str, instead: str) -> ConfigError:
    return ConfigError(f"Head {head.name!r} cannot be exported: {reason}. Instead, {instead}.")
