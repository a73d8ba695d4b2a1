"""Starting weights for a BERT that is not pretrained: attention that looks for similar tokens from the first step.

After "Mimetic Initialization of Self-Attention Layers" (Trockman and Kolter 2023): in trained transformers the product of
the query and key weights resembles the identity, so it starts there. Without it, small data does not teach a small
transformer to compare a query with a passage in any reasonable time.
"""

from typing import Any

import torch
from torch import nn

from mtlrank.errors import ConfigError


@torch.no_grad()
def mimetic(encoder: Any) -> None:
    """Set query and key weights equal and orthogonal in each head, and let tokens outweigh positions."""
    if encoder.config.model_type not in ("bert", "electra"):
        raise ConfigError(f"initialisation=mimetic is for BERT and ELECTRA, found {encoder.config.model_type!r}.")
    embeddings = encoder.embeddings
    for table, std in (
        (embeddings.word_embeddings, 1.0),
        (embeddings.token_type_embeddings, 0.3),
        (embeddings.position_embeddings, 0.1),
    ):
        nn.init.normal_(table.weight, std=std)
    for layer in encoder.encoder.layer:
        attention = layer.attention.self
        size, width = attention.attention_head_size, attention.query.in_features
        heads = [nn.init.orthogonal_(torch.empty(size, width)) for _ in range(attention.num_attention_heads)]
        for linear in (attention.query, attention.key):
            linear.weight.copy_(torch.cat(heads))
        for linear in (attention.value, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense):
            nn.init.xavier_uniform_(linear.weight)
