"""The head that a published cross-encoder comes with."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mtlrank.backbone import DECODERS, is_classifier, load_classifier, load_config
from mtlrank.errors import ConfigError
from mtlrank.model.head.head import MTLHead, Published
from mtlrank.model.head.pooler import Average, CLSToken, LastToken, Pooler

# The steps of each family's sequence classifier after pooling: modules by name, and activations that are functions.
CLASSIFIERS: dict[str, tuple[str | type[nn.Module], ...]] = {
    "bert": ("bert.pooler.dense", nn.Tanh, "classifier"),
    "electra": ("classifier.dense", nn.GELU, "classifier.out_proj"),
    "roberta": ("classifier.dense", nn.Tanh, "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", nn.Tanh, "classifier.out_proj"),
    "camembert": ("classifier.dense", nn.Tanh, "classifier.out_proj"),
    "deberta-v2": ("pooler.dense", nn.GELU, "classifier"),
    "distilbert": ("pre_classifier", nn.ReLU, "classifier"),
    "modernbert": ("head.dense", "head.act", "head.norm", "classifier"),
    **dict.fromkeys(DECODERS, ("score",)),
}


class CrossEncoderHead(MTLHead):
    """The stock sequence classifier of the body's family, on the last layer's first token; in decoders, the last one.

    This is what Hugging Face's `AutoModelForSequenceClassification` puts on the encoder: a dense layer, an activation, in
    ModernBERT a norm, and a linear layer; on a decoder, a linear layer without a bias. Dropout comes before all of it, as
    in our other heads. ModernBERT's config says whether it reads the first token or the average of the tokens.

    `backbone` is the body's, whose classifier must have as many outputs as the task; `load_published` takes its weights,
    which are random until then. Raises `ConfigError` for a checkpoint without a classifier or of another family.
    """

    def __init__(self, body_dim: int, num_layers: int, output_dim: int, backbone: str, dropout: float = 0.1) -> None:
        config = load_config(backbone)
        if not is_classifier(config):
            kind = ", ".join(config.architectures or ()) or "no class"
            raise ConfigError(
                f"{backbone!r} has no sequence classifier to start from (its config names {kind}). Expected a "
                "cross-encoder such as cross-encoder/ms-marco-MiniLM-L6-v2; or choose another head, such as cls, which "
                "starts at random."
            )
        if config.model_type not in CLASSIFIERS:
            raise ConfigError(
                f"the classifier of {backbone!r} is of {config.model_type}, whose layers are not known. Known: "
                f"{', '.join(CLASSIFIERS)}. Choose another head, such as cls, which starts at random."
            )
        if (activation := getattr(config, "pooler_hidden_act", "gelu")) != "gelu":  # DeBERTa's
            raise ConfigError(
                f"the classifier of {backbone!r} has pooler_hidden_act {activation}, expected gelu. Choose another head, "
                "such as cls, which starts at random."
            )
        names = [str(config.id2label.get(i)) for i in range(config.num_labels)]
        # LABEL_0 is transformers' name for an unnamed class.
        classes = [re.sub(r"^LABEL_(?=\d+$)", "", name) for name in names]
        self.published: Published = Published(backbone, len(classes), classes)
        pooler: type[Pooler] = CLSToken
        if config.model_type in DECODERS:
            pooler = LastToken
        elif getattr(config, "classifier_pooling", "cls") == "mean":
            pooler = Average
        super().__init__(body_dim, num_layers, output_dim, pooler, dropout)

    def project(self, in_dim: int, out_dim: int) -> nn.Module:
        from transformers import AutoModelForSequenceClassification

        config = load_config(self.published.backbone)
        config.num_labels = out_dim
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        parts = CLASSIFIERS[config.model_type]
        return nn.Sequential(
            *(part() if isinstance(part, type) else _drawn(model.get_submodule(part)) for part in parts)
        )

    def load_published(self) -> None:
        """Load the weights of the checkpoint. Raises `ConfigError` if it lacks some."""
        model = load_classifier(self.published.backbone)
        for theirs, own in self.layers_in(model):
            own.load_state_dict(theirs.state_dict())
        self.is_pretrained = True

    def layers_in(self, model: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Each module of a stock classifier, with the corresponding one of this head."""
        layers: Any = self.projection
        for part, own in zip(CLASSIFIERS[model.config.model_type], layers, strict=True):
            if isinstance(part, str):
                yield model.get_submodule(part), own


def _drawn(module: Any) -> nn.Module:
    """The module with random weights; so far it has shapes only."""
    if hasattr(module, "reset_parameters"):  # an activation has no weights
        module.to_empty(device="cpu").reset_parameters()
    drawn: nn.Module = module
    return drawn
