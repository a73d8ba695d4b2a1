"""Where families of bodies keep their parts, so that packed tokens can go through the layers one by one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtlrank.backbone import DECODERS
from mtlrank.errors import ConfigError
from mtlrank.model.body.attention import Packing
from mtlrank.model.body.disentangled import disentangled, distances_in

_OF_A_BATCH = ("dynamic", "longrope")  # kinds of rotary positions that depend on all texts of a batch


class Family(NamedTuple):
    """How to drive a body layer by layer. Everything is (1, tokens, hidden)."""

    embed: Callable[[Any, Tensor, Tensor, Packing], Tensor]  # encoder, input_ids, token_type_ids, packing
    layers: Callable[[Any], Sequence[nn.Module]]
    arguments: Callable[[Any, Tensor, Packing], Callable[[int], dict[str, Any]]]  # of each layer, by number
    # One layer, computed at some positions (None: all); attention reads every token.
    run: Callable[[Any, Tensor, Tensor | None, dict[str, Any]], Tensor]
    final: Callable[[Any], nn.Module]  # what the states of the last layer go through
    attention_dropout: str  # its name in the config
    dropout: tuple[str, ...]  # names in the config, for hidden states
    adapted: tuple[str, ...]  # the layers that LoRA adapts by default: queries and values (Hu et al. 2022, table 5)
    of_all_layers: Callable[[Any], Sequence[nn.Module]] = lambda encoder: ()  # modules that each layer reads
    has_own_attention: bool = False  # computed in `run`, not where transformers lets it be replaced
    is_decoder: bool = False  # a token reads those before it only, unless the config says is_causal: false


def _bert_embed(encoder: Any, ids: Tensor, types: Tensor, packing: Packing) -> Tensor:
    types = types.clamp(max=max(encoder.config.type_vocab_size - 1, 0))  # DeBERTa may have no types
    embedded: Tensor = encoder.embeddings(
        input_ids=ids[None], token_type_ids=types[None], position_ids=packing.positions[None]
    )
    if hasattr(encoder, "embeddings_project"):  # ELECTRA
        embedded = encoder.embeddings_project(embedded)
    return embedded


def _roberta_embed(encoder: Any, ids: Tensor, types: Tensor, packing: Packing) -> Tensor:
    types = types.clamp(max=encoder.config.type_vocab_size - 1)
    positions = packing.positions + encoder.config.pad_token_id + 1  # RoBERTa counts from after the padding id
    embedded: Tensor = encoder.embeddings(input_ids=ids[None], token_type_ids=types[None], position_ids=positions[None])
    return embedded


def _distilbert_embed(encoder: Any, ids: Tensor, types: Tensor, packing: Packing) -> Tensor:
    embedded: Tensor = encoder.embeddings(input_ids=ids[None], position_ids=packing.positions[None])
    return embedded


def _deberta_arguments(encoder: Any, hidden: Tensor, packing: Packing) -> Callable[[int], dict[str, Any]]:
    """Its layers share what tokens see of their distances, at a cost that depends on the longest sequence."""
    arguments = {"distances": distances_in(encoder, packing, hidden.device)}
    return lambda layer: arguments


def _deberta_run(layer: Any, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    mixed = disentangled(layer.attention.self, _cast_once(hidden), **arguments)
    return _bert_feed_forward(layer, mixed, hidden, rows)


def _modernbert_embed(encoder: Any, ids: Tensor, types: Tensor, packing: Packing) -> Tensor:
    embedded: Tensor = encoder.embeddings(input_ids=ids[None])
    return embedded


def _modernbert_arguments(encoder: Any, hidden: Tensor, packing: Packing) -> Callable[[int], dict[str, Any]]:
    """Its layers take rotary position embeddings, which depend on the kind of layer."""
    kinds = encoder.config.layer_types
    rotations = {kind: encoder.rotary_emb(hidden, packing.positions[None], kind) for kind in set(kinds)}
    return lambda layer: {"position_embeddings": rotations[kinds[layer]]}


def _llama_embed(encoder: Any, ids: Tensor, types: Tensor, packing: Packing) -> Tensor:
    embedded: Tensor = encoder.embed_tokens(ids[None])
    return embedded


def _llama_arguments(encoder: Any, hidden: Tensor, packing: Packing) -> Callable[[int], dict[str, Any]]:
    arguments = {
        "position_embeddings": encoder.rotary_emb(hidden, packing.positions[None]),
        "is_causal": is_causal(encoder.config),
    }
    return lambda layer: arguments


def _bert_run(layer: Any, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    mixed = hidden_of(layer.attention.self(_cast_once(hidden), **arguments))
    return _bert_feed_forward(layer, mixed, hidden, rows)


def _bert_feed_forward(layer: Any, mixed: Tensor, hidden: Tensor, rows: Tensor | None) -> Tensor:
    attended = layer.attention.output(_at(mixed, rows), _at(hidden, rows))
    output: Tensor = layer.output(layer.intermediate(attended), attended)
    return output


def _distilbert_run(layer: Any, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    mixed = hidden_of(layer.attention(_cast_once(hidden), **arguments))
    attended = layer.sa_layer_norm(_at(mixed, rows) + _at(hidden, rows))
    output: Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return output


def _modernbert_run(layer: Any, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    mixed = hidden_of(layer.attn(layer.attn_norm(hidden), **arguments))
    attended = _at(hidden, rows) + _at(mixed, rows)
    output: Tensor = attended + layer.mlp(layer.mlp_norm(attended))
    return output


def _llama_run(layer: Any, hidden: Tensor, rows: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    normed = _cast_once(layer.input_layernorm(hidden))
    mixed = hidden_of(layer.self_attn(normed, attention_mask=None, **arguments))
    attended = _at(hidden, rows) + _at(mixed, rows)
    output: Tensor = attended + layer.mlp(layer.post_attention_layernorm(attended))
    return output


def _at(states: Tensor, rows: Tensor | None) -> Tensor:
    return states if rows is None else states.index_select(1, rows)


def _cast_once(hidden: Tensor) -> Tensor:
    """Cast here, as autocast would cast for queries, keys and values one by one, and their gradients back."""
    device = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden


def _no_arguments(encoder: Any, hidden: Tensor, packing: Packing) -> Callable[[int], dict[str, Any]]:
    return lambda layer: {}


def _nothing(encoder: Any) -> nn.Module:
    return nn.Identity()


_BERT = Family(
    embed=_bert_embed,
    layers=lambda e: e.encoder.layer,
    arguments=_no_arguments,
    run=_bert_run,
    final=_nothing,
    attention_dropout="attention_probs_dropout_prob",
    dropout=("hidden_dropout_prob",),
    adapted=("query", "value"),
)
_ROBERTA = _BERT._replace(embed=_roberta_embed)
_DEBERTA = _BERT._replace(
    arguments=_deberta_arguments,
    run=_deberta_run,
    adapted=("query_proj", "value_proj"),
    has_own_attention=True,
    of_all_layers=lambda e: [
        e.encoder.rel_embeddings,
        *([e.encoder.LayerNorm] if hasattr(e.encoder, "LayerNorm") else []),
    ],
)
_LLAMA = Family(
    embed=_llama_embed,
    layers=lambda e: e.layers,
    arguments=_llama_arguments,
    run=_llama_run,
    final=lambda e: e.norm,
    attention_dropout="attention_dropout",
    dropout=(),
    adapted=("q_proj", "v_proj"),
    is_decoder=True,
)
FAMILIES = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "deberta-v2": _DEBERTA,  # v3 has this type too
    "distilbert": Family(
        embed=_distilbert_embed,
        layers=lambda e: e.transformer.layer,
        arguments=_no_arguments,
        run=_distilbert_run,
        final=_nothing,
        attention_dropout="attention_dropout",
        dropout=("dropout",),
        adapted=("q_lin", "v_lin"),
    ),
    "modernbert": Family(
        embed=_modernbert_embed,
        layers=lambda e: e.layers,
        arguments=_modernbert_arguments,
        run=_modernbert_run,
        final=lambda e: e.final_norm,
        attention_dropout="attention_dropout",
        dropout=("embedding_dropout", "mlp_dropout"),
        adapted=("Wqkv",),  # queries, keys and values in one
    ),
    **dict.fromkeys(DECODERS, _LLAMA),
}  # by the config's model_type


def family_of(config: Any) -> Family | None:
    """The family of a Hugging Face config; None if it has layers that are not known here."""
    return None if unlike_its_family(config) else FAMILIES.get(config.model_type)


def unlike_its_family(config: Any) -> str:
    """What is unlike the rest of a known family; else empty."""
    if config.model_type != "deberta-v2":
        return ""
    if getattr(config, "conv_kernel_size", 0):
        return "with a convolution"
    is_relative = config.relative_attention and {"c2p", "p2c"}.intersection(config.pos_att_type or ())
    return "" if is_relative else "without attention to distances"


def check_config(config: Any, name: str) -> None:
    """Refuse a config of a known family without what its layers are driven with."""
    family = family_of(config)
    if getattr(config, "type_vocab_size", 1) < 1 and family is not _DEBERTA:
        raise ConfigError(f"The config of {name!r} has type_vocab_size {config.type_vocab_size}, expected at least 1.")
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if kind in _OF_A_BATCH:
        raise ConfigError(
            f"The config of {name!r} has the rope_type {kind}, whose positions depend on the longest text of a batch, so "
            "that scores would: choose another body, or another rope_type (linear, yarn and llama3 are of each text)."
        )
    if family is _ROBERTA and config.pad_token_id is None:
        raise ConfigError(
            f"The config of {name!r} has no pad_token_id, from which {config.model_type} counts positions. Set it there "
            "(published ones have 1)."
        )


def is_causal(config: Any) -> bool:
    """Whether a token reads those before it only, so that a sequence's last token alone reads all of it."""
    family = family_of(config)
    return family is not None and family.is_decoder and getattr(config, "is_causal", True) is not False


def hidden_of(output: Any) -> Tensor:
    """Layers give a tensor or a tuple that starts with it, depending on the family and version."""
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
