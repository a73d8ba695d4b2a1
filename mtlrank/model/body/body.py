"""The shared encoder: any Hugging Face encoder of the BERT family, on packed tokens and only as deep as is needed."""

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from mtlrank.backbone import load_encoder
from mtlrank.errors import ConfigError
from mtlrank.model.body.attention import PACKED, Packing
from mtlrank.model.body.initialise import mimetic

_BERT_FAMILY = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


class MTLBody(nn.Module):
    """An encoder that gives the hidden states of each layer; layer 0 is the embeddings.

    `backbone` is a hub name, a local folder or a model of the embedded collection. Without `pretrained`, the weights are
    drawn anew from its config. `attention_dropout` replaces the config's: 0 keeps the fast attention kernels, and is what
    recent encoders are trained with. `initialisation="mimetic"` replaces the random start of a body without pretraining.
    """

    def __init__(
        self,
        backbone: str,
        pretrained: bool = True,
        attention_dropout: float | None = 0.0,
        initialisation: str | None = None,
    ) -> None:
        super().__init__()
        overrides = {} if attention_dropout is None else {"attention_probs_dropout_prob": attention_dropout}
        self.backbone = backbone
        self.encoder = load_encoder(backbone, pretrained=pretrained, **overrides)
        self.config = self.encoder.config
        if initialisation == "mimetic" and not pretrained:
            mimetic(self.encoder)
        elif initialisation not in (None, "mimetic"):
            raise ConfigError(f"Unknown initialisation {initialisation!r}. Expected mimetic or null.")
        self.is_packed = self.config.model_type in _BERT_FAMILY
        if self.is_packed:
            self.encoder.set_attn_implementation(PACKED)
            if getattr(self.encoder, "pooler", None) is not None:
                self.encoder.pooler = None  # BERT's own pooler feeds no head of ours: unused weights break DDP
        else:
            warnings.warn(
                f"{backbone} ({self.config.model_type}) runs padded and at full depth: packed are {_BERT_FAMILY}.",
                stacklevel=2,
            )

    @property
    def out_dim(self) -> int:
        """Size of a hidden state."""
        return int(self.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """Transformer layers, not counting the embeddings."""
        return int(self.config.num_hidden_layers)

    def encode(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        cu_seqlens: Tensor,
        parts: Sequence[tuple[int, int, int]],
        max_seqlen: int,
    ) -> list[Tensor]:
        """Hidden states of every layer, each (tokens that need it, hidden).

        `parts` describes runs of sequences as (depth, sequences, tokens), deepest first: after layer `depth` the run has
        been read by its heads and takes no further part, so layer l holds the tokens of all runs with depth >= l, which
        are the first ones.
        """
        depths = [depth for depth, _, _ in parts]
        assert depths == sorted(depths, reverse=True), "parts come deepest first"
        if not self.is_packed:
            return self._encode_padded(input_ids, token_type_ids, cu_seqlens, max_seqlen)
        hidden = self._embed(input_ids, token_type_ids, cu_seqlens)
        states = [hidden]
        layers = list(self.encoder.encoder.layer)
        for (sequences, tokens), group in groupby(self._live(parts), key=lambda live: live[1:]):
            packing = Packing.of(cu_seqlens[: sequences + 1], max_seqlen)
            hidden = hidden[:tokens]
            for layer, _, _ in group:
                hidden = _first(layers[layer](hidden[None], packing=packing))[0]
                states.append(hidden)
        return states

    @staticmethod
    def _live(parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """(layer, sequences, tokens) that still run in each layer."""
        deepest = max(depth for depth, _, _ in parts)
        live = []
        for layer in range(deepest):
            needed = [(sequences, tokens) for depth, sequences, tokens in parts if depth > layer]
            live.append((layer, sum(n for n, _ in needed), sum(n for _, n in needed)))
        return live

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Embeddings of packed tokens: positions start again with each sequence."""
        lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
        starts = torch.repeat_interleave(cu_seqlens[:-1].long(), lengths, output_size=len(input_ids))
        positions = torch.arange(len(input_ids), device=input_ids.device) - starts
        if "roberta" in self.config.model_type or self.config.model_type == "camembert":
            positions = positions + self.config.pad_token_id + 1  # RoBERTa counts positions from after the padding id
        types = token_type_ids.clamp(max=self.config.type_vocab_size - 1)
        embedded: Tensor = self.encoder.embeddings(
            input_ids=input_ids[None], token_type_ids=types[None], position_ids=positions[None]
        )
        if hasattr(self.encoder, "embeddings_project"):  # ELECTRA
            embedded = self.encoder.embeddings_project(embedded)
        return embedded[0]

    def _encode_padded(
        self, input_ids: Tensor, token_type_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int
    ) -> list[Tensor]:
        """The model's own forward on a padded batch, for families whose layers are not known here."""
        packing = Packing.of(cu_seqlens, max_seqlen)
        mask = packing.mask[:, 0, 0]
        ids = input_ids.new_full(mask.shape, self.config.pad_token_id or 0).masked_scatter(mask, input_ids)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if getattr(self.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids.new_zeros(mask.shape).masked_scatter(mask, token_type_ids)
        states = self.encoder(**inputs, output_hidden_states=True).hidden_states
        return [state[mask] for state in states]


def _first(output: Any) -> Tensor:
    """Layers give a tensor or a tuple that starts with it, depending on the family and version."""
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
