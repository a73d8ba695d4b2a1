"""The shared encoder: any Hugging Face encoder, on packed tokens and only as deep as is needed."""

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtlrank.backbone import load_config, load_encoder
from mtlrank.errors import ConfigError
from mtlrank.model.body.attention import PACKED, Packing
from mtlrank.model.body.family import FAMILIES, first
from mtlrank.model.body.initialise import mimetic


class MTLBody(nn.Module):
    """An encoder that gives the hidden states of each layer; layer 0 is the embeddings.

    `backbone` is a hub name, a local folder or a model of the embedded collection. Without `pretrained`, the weights are
    drawn anew from its config. `attention_dropout` replaces the config's: 0 keeps the fast attention kernels, and is what
    recent encoders are trained with; null keeps what the config says. With `activation_checkpointing`, layers run again in
    the backward pass instead of keeping what is inside them: a third more work for a fraction of the memory.
    `initialisation="mimetic"` replaces the random start of a body without pretraining.
    """

    def __init__(
        self,
        backbone: str,
        pretrained: bool = True,
        attention_dropout: float | None = 0.0,
        activation_checkpointing: bool = False,
        initialisation: str | None = None,
    ) -> None:
        super().__init__()
        config = load_config(backbone)
        self.family = FAMILIES.get(config.model_type)
        overrides = {}
        if self.family is None:
            warnings.warn(
                f"{backbone} ({config.model_type}) runs padded, at full depth and with its own attention dropout. "
                f"Packed are {', '.join(FAMILIES)}.",
                stacklevel=2,
            )
        elif attention_dropout is not None:
            overrides[self.family.attention_dropout] = attention_dropout
        self.backbone = backbone
        self.encoder = load_encoder(backbone, pretrained=pretrained, **overrides)
        self.config = self.encoder.config
        self.activation_checkpointing = activation_checkpointing
        if initialisation == "mimetic" and not pretrained:
            mimetic(self.encoder)
        elif initialisation not in (None, "mimetic"):
            raise ConfigError(f"Unknown initialisation {initialisation!r}. Expected mimetic or null.")
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # BERT's own pooler feeds no head of ours
        if self.family is not None:
            self.encoder.set_attn_implementation(PACKED)
        elif activation_checkpointing:
            self.encoder.gradient_checkpointing_enable({"use_reentrant": False})

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
        whole = Packing(cu_seqlens, len(input_ids), max_seqlen)
        if self.family is None:
            return self._encode_padded(input_ids, token_type_ids, whole)
        hidden = self.family.embed(self.encoder, input_ids, token_type_ids, whole)
        states, layers = [hidden[0]], self.layers
        for (sequences, tokens), group in groupby(self._live(parts), key=lambda live: live[1:]):
            packing = Packing(cu_seqlens[: sequences + 1], tokens, max_seqlen)
            hidden = hidden[:, :tokens]
            arguments = self.family.arguments(self.encoder, hidden, packing)
            for layer, _, _ in group:
                hidden = self._run(layers[layer], hidden, {"packing": packing, **arguments(layer)})
                states.append(hidden[0])
        if len(states) == self.num_layers + 1:
            states[-1] = self.family.finish(self.encoder, hidden)[0]
        return states

    def unreached(self, depth: int) -> list[nn.Parameter]:
        """The weights that sequences of this depth do not go through; with a family that is not known, none for sure."""
        if self.family is None:
            return []
        deeper = self.layers[depth:]
        final = getattr(self.encoder, "final_norm", None)  # ModernBERT's, which follows the last layer
        modules = [*deeper, *([final] if deeper and final is not None else [])]
        return [p for module in modules for p in module.parameters()]

    @property
    def layers(self) -> list[nn.Module]:
        """The transformer layers, of a family that is known."""
        assert self.family is not None
        return list(self.family.layers(self.encoder))

    def _run(self, layer: nn.Module, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
        if self.activation_checkpointing and self.training:
            return first(checkpoint(layer, hidden, use_reentrant=False, **arguments))
        return first(layer(hidden, **arguments))

    @staticmethod
    def _live(parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """(layer, sequences, tokens) that still run in each layer."""
        deepest = max(depth for depth, _, _ in parts)
        live = []
        for layer in range(deepest):
            needed = [(sequences, tokens) for depth, sequences, tokens in parts if depth > layer]
            live.append((layer, sum(n for n, _ in needed), sum(n for _, n in needed)))
        return live

    def _encode_padded(self, input_ids: Tensor, token_type_ids: Tensor, packing: Packing) -> list[Tensor]:
        """The model's own forward on a padded batch, for families whose layers are not known here."""
        mask = packing.mask[:, 0, 0]
        ids = input_ids.new_full(mask.shape, self.config.pad_token_id or 0).masked_scatter(mask, input_ids)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if getattr(self.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids.new_zeros(mask.shape).masked_scatter(mask, token_type_ids)
        states = self.encoder(**inputs, output_hidden_states=True).hidden_states
        return [state[mask] for state in states]
