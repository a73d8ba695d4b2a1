"""A head as a CrossEncoder of sentence-transformers' own modules: encoder, pooling, dense layers; no custom code."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtlrank.errors import ConfigError
from mtlrank.exporting.check import Score
from mtlrank.exporting.plain import check_scores_pairs, plain_head, stock_encoder
from mtlrank.exporting.stock import stock_tokenizer
from mtlrank.trained_head import TrainedHead


def write_cross_encoder(folder: Path, head: TrainedHead) -> Score:
    """Write the model; returns how to score with what was written."""
    try:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling
    except ImportError as error:
        raise ConfigError(
            "format=sentence-transformers needs sentence-transformers 6: pip install 'mtlrank[annotate]'."
        ) from error
    plain, size = plain_head(head), head.model.body.out_dim
    check_scores_pairs(head, "sentence-transformers")
    if plain.hidden is not None and len(plain.hidden) > 2:
        raise ConfigError(
            f"Head {head.name!r} has a norm, and sentence-transformers' layers have none. Instead, format=transformers "
            "holds it as it is, and its CrossEncoder loads that too."
        )
    with tempfile.TemporaryDirectory() as encoder:
        stock_encoder(head.model.body, plain.depth).save_pretrained(encoder)
        stock_tokenizer(head).save_pretrained(encoder)
        modules: list[nn.Module] = [Transformer(encoder), Pooling(size, pooling_mode=plain.pooling)]
        if plain.hidden is not None:
            inner: Any
            inner, activation = plain.hidden
            modules.append(Dense(size, size, True, activation, inner.weight.data.clone(), inner.bias.data.clone()))
        weights = plain.weight.detach().clone(), plain.bias.detach().clone()
        modules.append(Dense(size, 1, True, nn.Identity(), *weights, module_output_name="scores"))
        model = CrossEncoder(modules=modules, activation_fn=nn.Identity(), device="cpu")
        model.save_pretrained(str(folder), create_model_card=False)
    loaded = CrossEncoder(str(folder), device="cpu")
    return lambda pairs: torch.from_numpy(loaded.predict(pairs, show_progress_bar=False))[:, None]
