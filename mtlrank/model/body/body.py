"""The shared body: any Hugging Face encoder, or a decoder, on packed tokens and only as deep as is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtlrank.backbone import check_kind, load_config, load_encoder, max_length
from mtlrank.batch import text_starts
from mtlrank.checks import differing
from mtlrank.errors import ConfigError
from mtlrank.model.body import lora as low_rank
from mtlrank.model.body.attention import PACKED, Packing
from mtlrank.model.body.compilation import compiled
from mtlrank.model.body.family import FAMILIES, Family, check_config, family_of, is_causal, unlike_its_family
from mtlrank.model.body.initialise import mimetic
from mtlrank.model.body.padded import check_padded, checkpoint_layers, encode_padded
from mtlrank.model.body.part import Part, Reader
from mtlrank.model.layer import resolve_layer
from mtlrank.progress import warn


class MTLBody(nn.Module):
    """An encoder that gives the hidden states of each layer; layer 0 is the embeddings.

    It may be a decoder without its language model: then a token reads those before it, and the last one all of them.
    `backbone` is a hub name, a local folder or a model of the embedded collection. Without `pretrained`, the weights
    are drawn again from its config. `attention_dropout` replaces the config's: 0 keeps the fast attention kernels, and
    is what recent encoders are trained with; null keeps what the config says. `dropout` does so for the dropout of
    hidden states. With `activation_checkpointing`, layers run again in the backward pass instead of keeping what is inside
    them: a third more work for a fraction of the memory. `initialisation="mimetic"` replaces the random start of a body
    without pretraining. The embeddings and the first `frozen_layers` layers do not learn: 0 freezes nothing, -1 or
    "all" the whole body. `lora` holds settings of `adapt`: then only low-rank updates learn, and the weights of the
    encoder are frozen. In the first `separate_layers` layers the two texts of a pair do not read each other, and
    positions restart at the second (PreTTR, MacAvaney et al. 2020, section 3.1): the weights of a bi-encoder stay
    useful; with -1 the body is a bi-encoder. In a decoder that is `bidirectional`, each token reads the whole text
    (BehnamGhader et al. 2024, LLM2Vec, section 2.1); it has to learn what to do with it.

    The model calls `encode`: a subclass that overrides `forward` changes nothing.
    """

    def __init__(
        self,
        backbone: str,
        pretrained: bool = True,
        attention_dropout: float | None = 0.0,
        activation_checkpointing: bool = False,
        initialisation: str | None = None,
        frozen_layers: int | float | str = 0,
        lora: Mapping[str, Any] | None = None,
        separate_layers: int | float | str = 0,
        dropout: float | None = None,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        config = load_config(backbone)
        check_kind(backbone, config)
        self.family = family_of(config)
        if self.family is not None:
            check_config(config, backbone)
        else:
            kind = f"{config.model_type} {unlike_its_family(config)}".rstrip()
            warn(
                f"{backbone} ({kind}) runs padded, at full depth and with its own attention dropout. "
                f"These run packed: {', '.join(FAMILIES)}."
            )
        self.backbone = backbone
        changed = _dropouts(self.family, config.model_type, attention_dropout, dropout)
        self.encoder = load_encoder(backbone, pretrained=pretrained, **changed)
        self.config = self.encoder.config
        if bidirectional and not (self.family and self.family.is_decoder):
            raise ConfigError(f"model.body.bidirectional is true, but {backbone} is so already: expected false.")
        if self.is_causal:  # of a saved bidirectional one, the config says it already
            self.config.is_causal = not bidirectional  # where transformers looks too
        self.activation_checkpointing = activation_checkpointing
        if initialisation not in (None, "mimetic"):
            raise ConfigError(f"model.body.initialisation is {initialisation!r}, expected null or mimetic.")
        if initialisation and pretrained:
            warn(f"model.body.initialisation={initialisation} is ignored: {backbone} is pretrained")
        elif initialisation:
            mimetic(self.encoder)
        if getattr(self.encoder, "pooler", None) is not None:  # BERT's own pooler feeds no head of ours
            self.encoder.pooler = None if self.family else nn.Identity()  # some families call it in any case
        self._compiled: dict[bool, Callable[..., Tensor]] = {}  # by `training`
        if self.family is None:
            check_padded(self.encoder, backbone)
            if activation_checkpointing:
                checkpoint_layers(self.encoder, backbone)
        elif not self.family.has_own_attention:
            self.encoder.set_attn_implementation(PACKED)
        self.frozen_layers = self._freeze(frozen_layers)
        self.separate_layers = self._separate(separate_layers)
        self.lora = dict(lora) if lora is not None else None
        if lora is not None:
            low_rank.adapt(self.encoder, self.family.adapted if self.family else (), **lora)

    @property
    def out_dim(self) -> int:
        """Size of a hidden state."""
        return int(self.config.hidden_size)

    @property
    def is_causal(self) -> bool:
        """Whether a token reads those before it only, so that a sequence's last token alone reads all of it."""
        return is_causal(self.config)

    @property
    def has_final_norm(self) -> bool:
        """Whether the states of the last layer are normalised as those of the others are not, in a known family."""
        return self.family is not None and any(True for _ in self.family.final(self.encoder).parameters())

    @property
    def num_layers(self) -> int:
        """Transformer layers, not counting the embeddings."""
        return int(self.config.num_hidden_layers)

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest sequence that the positions allow; None if there is no limit."""
        return max_length(self.encoder)

    def encode(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        cu_seqlens: Tensor,
        parts: Sequence[Part],
        max_seqlen: int,
        second_starts: Tensor,
    ) -> list[list[Tensor]]:
        """The states of each part's layers: (tokens, hidden), or (sequences, hidden) if one token of each is read.

        The parts lie one after another, deepest first. After its deepest layer a part leaves the batch, and of that layer
        only what is read is computed. `second_starts` is as in a `TaskBatch`.
        """
        depths = [part.depth for part in parts]
        assert depths == sorted(depths, reverse=True), "parts come deepest first"

        def packing_of(layer: int, sequences: int, tokens: int) -> Packing:
            if layer < self.separate_layers:
                return Packing(text_starts(cu_seqlens, second_starts)[: 2 * sequences + 1], tokens, max_seqlen)
            return Packing(cu_seqlens[: sequences + 1], tokens, max_seqlen)

        packing = packing_of(0, len(cu_seqlens) - 1, len(input_ids))
        reader = Reader(parts, cu_seqlens)
        if self.family is None:
            states = encode_padded(self.encoder, input_ids, token_type_ids, packing)
            for layer in sorted({layer for part in parts for layer in part.layers}):
                reader.read(layer, states[layer].flatten(0, 1).index_select(0, packing.cells))
            return reader.states
        hidden = self.family.embed(self.encoder, input_ids, token_type_ids, packing)
        reader.read(0, hidden[0])
        arguments_of = self.family.arguments(self.encoder, hidden, packing)
        for layer, module in enumerate(self.layers[: depths[0]]):
            sequences, tokens = reader.live(layer)
            if tokens < packing.num_tokens or 0 < layer == self.separate_layers:
                packing, hidden = packing_of(layer, sequences, tokens), hidden[:, :tokens]
                arguments_of = self.family.arguments(self.encoder, hidden, packing)
            arguments = {"packing": packing, **arguments_of(layer)}
            rows = reader.rows(layer + 1)
            hidden = self._run(module, hidden, rows, arguments)
            is_last = layer + 1 == self.num_layers
            read = self.family.final(self.encoder)(hidden) if is_last else hidden
            reader.read(layer + 1, read[0], rows is not None)
        return reader.states

    def deeper_than(self, depth: int) -> list[nn.Parameter]:
        """The weights above layer `depth`; none if the family is not known."""
        if self.family is None or depth >= self.num_layers:
            return []
        modules = [*self.layers[depth:], self.family.final(self.encoder)]
        modules += self.family.of_all_layers(self.encoder) if depth == 0 else []
        return [weight for module in modules for weight in module.parameters()]

    def by_layer(self) -> list[list[nn.Parameter]]:
        """The weights of each layer of a known family, from the embeddings; a final norm belongs to the last layer."""
        assert self.family is not None
        layers = [list(layer.parameters()) for layer in self.layers]
        layers[-1] += self.family.final(self.encoder).parameters()
        inside = {id(weight) for layer in layers for weight in layer}
        return [[weight for weight in self.encoder.parameters() if id(weight) not in inside], *layers]

    def compile_layers(self, device: torch.device, *, scoring: bool = False) -> None:
        """Let torch compile the layers for training on a device, or for scoring; the other use stays uncompiled.

        Raises `ConfigError` if the layers are not known or run again in the backward pass, and `ResourceError` if this
        machine cannot compile.
        """
        setting = "compile" if scoring else "training.compile"
        if self.activation_checkpointing and not scoring:
            raise ConfigError(
                "training.compile and model.body.activation_checkpointing exclude each other: torch does not compile "
                "what it runs again in the backward pass. Set one of them to false."
            )
        self.require_family(f"{setting} is true", "false")
        assert self.family is not None
        self._compiled[not scoring] = compiled(self.family.run, device, setting)

    def describe(self) -> str:
        """The backbone and what of it learns: bodies with equal ones can continue each other's training."""
        frozen = f", {self.frozen_layers} layers frozen" if self.frozen_layers else ""
        adapted = f", LoRA {dict(sorted(self.lora.items()))}" if self.lora is not None else ""
        separate = f", {self.separate_layers} layers separate" if self.separate_layers else ""
        mask = ", bidirectional" if self.family and self.family.is_decoder and not self.is_causal else ""
        return f"{self.backbone}{frozen}{adapted}{separate}{mask}"

    def merge(self) -> None:
        """Merge low-rank updates into the weights that they adapt. The hidden states stay the same."""
        if self.lora is not None:
            low_rank.merge(self.encoder)
            self.lora = None

    def load_plain(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a body without low-rank updates. Raises `ConfigError` if they do not fit."""
        names = {low_rank.plain_name(name): name for name in self.state_dict() if ".lora_" not in name}
        mine = {name: tuple(self.state_dict()[full].shape) for name, full in names.items()}
        theirs = {name: tuple(weight.shape) for name, weight in weights.items()}
        if others := differing(mine, theirs):
            first = others[0]
            raise ConfigError(
                f"{len(others)} weights of the body differ: {first} is {theirs.get(first, 'missing')} in the saved "
                f"model, {mine.get(first, 'missing')} in this one."
            )
        self.load_state_dict({names[name]: weight for name, weight in weights.items()}, strict=False)

    @property
    def layers(self) -> list[nn.Module]:
        """The transformer layers, of a family that is known."""
        assert self.family is not None
        return list(self.family.layers(self.encoder))

    def require_family(self, setting: str, expected: str) -> None:
        """Raise `ConfigError` if the layers, which `setting` needs, are not known."""
        if self.family is None:
            raise ConfigError(
                f"{setting}, but the layers of {self.backbone} ({self.config.model_type}) are not known: "
                f"expected {expected}."
            )

    def _freeze(self, frozen_layers: int | float | str) -> int:
        """Freeze the embeddings and the first layers; returns the number of these layers."""
        depth = self._depth("frozen_layers", frozen_layers)
        if depth == self.num_layers:
            self.encoder.requires_grad_(False)
        elif depth:
            self.require_family(f"model.body.frozen_layers is {frozen_layers}", "0 or all")
            for weight in (weight for layer in self.by_layer()[: depth + 1] for weight in layer):
                weight.requires_grad_(False)
        return depth

    def _separate(self, separate_layers: int | float | str) -> int:
        """The number of layers in which the texts of a pair do not read each other."""
        depth = self._depth("separate_layers", separate_layers)
        if depth:
            self.require_family(f"model.body.separate_layers is {separate_layers}", "0")
        return depth

    def _depth(self, setting: str, layers: int | float | str) -> int:
        """The number of layers that a setting stands for."""
        if isinstance(layers, str) and layers != "all":
            raise ConfigError(f"model.body.{setting} is {layers!r}, expected a number of layers, a share, or all.")
        try:
            return self.num_layers if isinstance(layers, str) else resolve_layer(layers, self.num_layers)
        except ConfigError as error:
            raise ConfigError(f"model.body.{setting}: {error}") from error

    def _run(self, layer: nn.Module, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        """A layer's output, at all tokens or at some rows."""
        assert self.family is not None
        run: Callable[..., Tensor] = self._compiled.get(self.training, self.family.run)
        if self.activation_checkpointing and self.training:
            output: Tensor = checkpoint(run, layer, hidden, rows, arguments, use_reentrant=False)
            return output
        return run(layer, hidden, rows, arguments)


def _dropouts(
    family: Family | None, model_type: str, attention_dropout: float | None, dropout: float | None
) -> dict[str, float]:
    """The values of a backbone's config that replace its own; of an unknown family there are none."""
    if family is None:
        if dropout is not None:
            raise ConfigError(
                f"model.body.dropout is {dropout}, but its name in the config of {model_type} is not known: expected null."
            )
        return {}
    if dropout and not family.dropout:
        raise ConfigError(
            f"model.body.dropout is {dropout}, but {model_type} has no dropout of hidden states: expected 0."
        )
    wanted = {family.attention_dropout: attention_dropout, **dict.fromkeys(family.dropout, dropout)}
    return {key: value for key, value in wanted.items() if value is not None}
