"""A head as an ONNX graph with any number of pairs of any length, beside the tokenizer that feeds it."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtlrank.errors import ConfigError
from mtlrank.exporting.check import Score
from mtlrank.exporting.plain import check_one_logit
from mtlrank.exporting.stock import stock_model, stock_tokenizer
from mtlrank.trained_head import TrainedHead

GRAPH = "model.onnx"


class _Logits(nn.Module):
    """A classifier that gives a tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(pairs, 1) logits of padded pairs, (pairs, tokens) each."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def write_onnx(folder: Path, head: TrainedHead) -> Score:
    """Write the graph, the tokenizer and the config; returns how to score with what was written."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"format=onnx needs {', '.join(missing)}: pip install 'mtlrank[onnx]'.")
    check_one_logit(head, "onnx")
    model, tokenizer = stock_model(head), stock_tokenizer(head)
    model.set_attn_implementation("eager")  # the others choose their kernel by looking at the mask
    example = tokenizer(["one", "two words"], ["a passage", "of some length"], padding=True, return_tensors="pt")
    axes = {0: torch.export.Dim("pairs"), 1: torch.export.Dim("tokens")}
    logging.getLogger("torch.onnx._internal.exporter._registration").addFilter(_is_no_torchvision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about the exporter itself
        torch.onnx.export(
            _Logits(model),
            kwargs=dict(example),
            f=folder / GRAPH,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(example, axes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)
    return scorer(folder, tokenizer)


def _is_no_torchvision(record: logging.LogRecord) -> bool:
    """Whether a message is not about operators of torchvision, which no head has."""
    return not record.getMessage().startswith("torchvision is not installed")


def scorer(folder: Path, tokenizer: Any) -> Score:
    """Scores with ONNX Runtime on a CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])

    def score(pairs: list[tuple[str, ...]]) -> Tensor:
        texts = map(list, zip(*pairs, strict=True))
        encoded = tokenizer(*texts, truncation=True, padding=True, return_tensors="np")
        (logits,) = session.run(["logits"], dict(encoded))
        return torch.from_numpy(logits)

    return score
