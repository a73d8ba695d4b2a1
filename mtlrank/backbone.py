"""Where a body's weights, config and tokenizer come from: a hub name, a local folder or the embedded collection.

A hub name may end in a branch, a tag or a commit: `google-bert/bert-base-uncased@main`.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mtlrank import embedded
from mtlrank.errors import ConfigError, one_line

DECODERS = ("llama", "mistral", "qwen2", "qwen3")  # families that write text and can be bodies
_ENCODERS_TOO = ("bert-generation",)  # families that write text, unless the config says is_decoder: false
_DTYPE = "float32"  # of weights, even if a checkpoint is in half precision: training needs the full one


def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of `name`."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, name, "tokenizer")
    if not tokenizer.is_fast:
        raise ConfigError(f"The tokenizer of {name!r} gives no character offsets: expected one with a tokenizer.json.")
    return tokenizer


def load_config(name: str) -> Any:
    """The Hugging Face config of `name`."""
    from transformers import AutoConfig

    return _load(AutoConfig, name, "config")


def check_kind(name: str, config: Any) -> None:
    """Refuse encoder-decoders and decoders of unknown families, by their config."""
    from transformers.models.auto import modeling_auto as auto

    kind, writers = config.model_type, set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    reads_whole = getattr(config, "use_bidirectional_attention", None) in (True, "all")  # EmbeddingGemma
    if getattr(config, "is_encoder_decoder", False):
        reason = "an encoder-decoder"
    elif getattr(config, "is_decoder", False):
        reason = "is_decoder is true"
    elif kind in DECODERS:
        return
    elif kind in writers.difference(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, _ENCODERS_TOO) and not reads_whole:
        reason = "a family that writes text"
    else:
        return
    raise ConfigError(
        f"The body {name!r} is no encoder ({kind}: {reason}). Choose an encoder, in which each token reads the whole text, "
        f"such as BERT or ModernBERT, or a decoder of these families: {', '.join(DECODERS)}."
    )


def load_encoder(name: str, *, pretrained: bool, **overrides: Any) -> Any:
    """The encoder of `name`, with its weights or, if not `pretrained`, freshly initialised from its config."""
    from transformers import AutoModel

    config = load_config(name)
    for key, value in overrides.items():
        if not hasattr(config, key):
            raise ConfigError(f"The config of {name!r} ({config.model_type}) has no {key!r} to set.")
        setattr(config, key, value)
    if not pretrained:
        return AutoModel.from_config(config, dtype=_DTYPE, trust_remote_code=False)
    return _load(AutoModel, name, "weights", config=config, dtype=_DTYPE)


def is_classifier(config: Any) -> bool:
    """Whether a Hugging Face config is of a sequence classifier, which cross-encoders are."""
    return any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ())


def load_classifier(name: str) -> Any:
    """The sequence classifier of `name`, with its weights. Raises `ConfigError` if some are missing."""
    from transformers import AutoModelForSequenceClassification

    model, found = _load(AutoModelForSequenceClassification, name, "classifier", dtype=_DTYPE, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(f"The classifier of {name!r} is incomplete: its weights lack {missing[0]}.")
    return model


def max_length(encoder: Any) -> int | None:
    """Tokens of the longest sequence that an encoder has positions for; None if there is no table of positions."""
    from torch.nn import Embedding

    positions = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if not isinstance(positions, Embedding):
        return None
    reserved = 0 if positions.padding_idx is None else positions.padding_idx + 1  # RoBERTa counts from after it
    return positions.num_embeddings - reserved


def max_length_of(name: str) -> int | None:
    """The `max_length` of the encoder of `name`, without loading its weights. Raises `ConfigError` if it can be no body."""
    import torch

    check_kind(name, load_config(name))
    with torch.device("meta"):
        return max_length(load_encoder(name, pretrained=False))


def _load(auto: Any, name: str, what: str, **kwargs: Any) -> Any:
    """Load from the hub or a folder; code from outside is never run, nor does transformers ask whether it may."""
    path = embedded.locate(name)
    if path.startswith((".", "/", "~")):
        path = str(Path(path).expanduser())
        if not Path(path).is_dir():
            raise ConfigError(f"The body {name!r} is not a folder. Expected a local model folder or a hub name.")
    elif not Path(path).is_dir() and "@" in path:
        path, _, kwargs["revision"] = path.partition("@")
    try:
        return auto.from_pretrained(path, trust_remote_code=False, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"Cannot load the {what} of {name!r}: {one_line(error)} "
            "Expected a Hugging Face model name (needs a network once) or a local folder."
        ) from error
