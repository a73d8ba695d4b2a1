"""A head as an ONNX graph of any number of texts or pairs, as long as the body has positions, and the tokenizer for it."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtlrank.backbone import max_length
from mtlrank.errors import ConfigError
from mtlrank.exporting.check import Score
from mtlrank.exporting.plain import PlainHead, label_settings, plain_head, stock_encoder
from mtlrank.exporting.stock import stock_tokenizer
from mtlrank.trained_head import TrainedHead

GRAPH = "model.onnx"


class _Logits(nn.Module):
    """A head on its encoder, as it is: no stock classifier is needed."""

    def __init__(self, encoder: Any, plain: PlainHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = plain.pooling
        self.hidden = nn.Identity() if plain.hidden is None else plain.hidden
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Logits of padded texts: (texts, tokens) each to (texts, logits)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        kept = attention_mask[..., None].to(states.dtype)
        if self.pooling == "mean":
            pooled = (states * kept).sum(1) / kept.sum(1)
        elif self.pooling == "lasttoken":
            last = attention_mask.sum(1) - 1
            pooled = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        else:
            pooled = states[:, 0]
        return nn.functional.linear(self.hidden(pooled), self.weight, self.bias)


def write_onnx(folder: Path, head: TrainedHead) -> Score:
    """Write the graph, the tokenizer and the config; returns how to score with what was written."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"format=onnx needs {', '.join(missing)}: pip install 'mtlrank[onnx]'.")
    plain, tokenizer = plain_head(head), stock_tokenizer(head)
    encoder = stock_encoder(head.model.body, plain.depth)
    encoder.set_attn_implementation("eager")  # the others choose their kernel by looking at the mask
    texts = (["one", "two words"], ["a passage", "of some length"])[: 1 if head.form.is_single else 2]
    example = tokenizer(*texts, padding=True, return_tensors="pt")
    most = max_length(encoder) or encoder.config.max_position_embeddings  # without a limit, DeBERTa is traced wrongly
    axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=most)}
    logging.getLogger("torch.onnx._internal.exporter._registration").addFilter(is_no_torchvision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about the exporter itself
        torch.onnx.export(
            _Logits(encoder, plain).eval(),
            kwargs=dict(example),
            f=folder / GRAPH,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(example, axes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    tokenizer.save_pretrained(folder)
    encoder.config.update(label_settings(head))
    encoder.config.save_pretrained(folder)
    return scorer(folder)


def is_no_torchvision(record: logging.LogRecord) -> bool:
    """Whether a message is not about operators of torchvision, which no head has."""
    return not record.getMessage().startswith("torchvision is not installed")


def scorer(folder: Path) -> Score:
    """Scores with ONNX Runtime on a CPU, from what was written."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])

    def score(texts: list[tuple[str, ...]]) -> Tensor:
        encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="np")
        (logits,) = session.run(["logits"], dict(encoded))
        return torch.from_numpy(logits)

    return score
