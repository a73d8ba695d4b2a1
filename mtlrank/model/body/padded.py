"""Encoders of families whose layers are not known here: their own forward, on a padded batch."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlrank.errors import ConfigError, with_type
from mtlrank.model.body.attention import Packing

_SHORT, _LONG = 4, 9  # tokens of the texts that an encoder is tried with
_TOLERANCE = 1e-3  # of the largest number: far above what rounding does


def encode_padded(encoder: Any, input_ids: Tensor, token_type_ids: Tensor, packing: Packing) -> Sequence[Tensor]:
    """The states of each layer, (sequences, longest, hidden)."""
    mask = packing.mask[:, 0, 0]
    ids = input_ids.new_full(mask.shape, encoder.config.pad_token_id or 0).masked_scatter(mask, input_ids)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
    if getattr(encoder.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = token_type_ids.new_zeros(mask.shape).masked_scatter(mask, token_type_ids)
    if "global_attention_mask" in inspect.signature(encoder.forward).parameters:  # Longformer: else [CLS] sees a window
        inputs["global_attention_mask"] = torch.zeros_like(ids).index_fill(1, ids.new_zeros(1), 1)
    states: Sequence[Tensor] = encoder(**inputs, output_hidden_states=True).hidden_states
    return states


def checkpoint_layers(encoder: Any, name: str) -> None:
    """Let layers run again in the backward pass. Raises `ConfigError` for a family whose layers cannot."""
    if not encoder.supports_gradient_checkpointing:
        raise ConfigError(
            f"model.body.activation_checkpointing is true, but the layers of {name} ({encoder.config.model_type}) cannot "
            "run again: expected false."
        )
    # Its older name is deprecated in transformers 5.23.
    newer = getattr(encoder, "activation_checkpointing_enable", None)
    (newer or encoder.gradient_checkpointing_enable)({"use_reentrant": False})


@torch.no_grad()
def check_padded(encoder: Any, name: str) -> None:
    """Try an encoder with two texts. Raises `ConfigError` if mtlrank would use it wrongly."""
    config, learns = encoder.config, encoder.training

    def refusal(reason: str) -> ConfigError:
        return ConfigError(
            f"The body {name!r} ({config.model_type}) cannot be used here: {reason}. Choose another one."
        )

    def states(*lengths: int, last: int = 0) -> Sequence[Tensor]:
        """Of texts that begin alike; `last` changes the last token."""
        ids = torch.cat([torch.arange(5, 5 + length) for length in lengths])
        ids[-1] += last
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return encode_padded(encoder, ids, torch.zeros_like(ids), Packing(ends, len(ids), max(lengths)))

    encoder.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            short, both, changed = states(_SHORT), states(_SHORT, _LONG), states(_SHORT, last=_LONG)
        shapes = [tuple(state.shape) for state in short]
        expected = [(1, _SHORT, config.hidden_size)] * (config.num_hidden_layers + 1)
    except Exception as error:  # whatever a family makes of inputs that it was not written for
        raise refusal(f"it fails with {with_type(error)}") from error
    finally:
        encoder.train(learns)
    if shapes != expected:
        raise refusal("it does not give the hidden states of each token in each layer")
    if torch.equal(short[-1][0, 0], changed[-1][0, 0]):
        raise refusal("its first token does not read the tokens after it")
    alone, beside = short[-1][0], both[-1][0, :_SHORT]
    if not float((alone - beside).abs().max()) <= _TOLERANCE * float(alone.abs().max()):
        raise refusal("what it makes of a text depends on the texts beside it in a batch")
