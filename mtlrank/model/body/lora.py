"""Low-rank updates of a body's linear layers, which learn while the layers themselves are frozen (Hu et al. 2022, LoRA)."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from mtlrank.errors import ConfigError


def adapt(
    encoder: Any,
    usual: Sequence[str],
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> None:
    """Give linear layers an update of `rank`, scaled by `alpha` / `rank`; nothing else of the encoder learns then.

    `targets` are the ends of layers' names, as in `query` or `output.dense`; null means the `usual` ones of the family. A
    layer that is frozen gets no update. An update is zero at first, so that the encoder computes what it did.
    Needs peft: `pip install 'mtlrank[lora]'`.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("model.body.lora needs peft: pip install 'mtlrank[lora]'.") from error
    if targets is None and not usual:
        raise ConfigError(
            f"model.body.lora.targets must name layers, as this body has no usual ones. There are: "
            f"{_linear_layers(encoder)}."
        )
    chosen = _choose(encoder, list(usual if targets is None else targets))
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    inject_adapter_in_model(config, encoder)


def merge(encoder: Any) -> None:
    """Add the updates to the weights that they adapt; the encoder is as before `adapt`, but for what was learnt."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            encoder.set_submodule(name, module.get_base_layer())


def plain_name(name: str) -> str:
    """The name of a weight in an encoder that is not adapted."""
    return name.replace(".base_layer.", ".")


def _choose(encoder: Any, targets: list[str]) -> list[str]:
    """The full names of the linear layers that match `targets` and are not frozen."""
    linear = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    unknown = [target for target in targets if not any(_matches(name, target) for name in linear)]
    if unknown or not targets:
        found = f"names {unknown[0]!r}, which is not a linear layer of the body" if unknown else "is empty"
        raise ConfigError(f"model.body.lora.targets {found}. There are: {_linear_layers(encoder)}.")
    learning = [name for name, module in linear.items() if module.weight.requires_grad]
    chosen = [name for name in learning if any(_matches(name, target) for target in targets)]
    if not chosen:
        raise ConfigError("model.body.frozen_layers leaves no layer for model.body.lora. Freeze fewer, or remove lora.")
    return chosen


def _linear_layers(encoder: Any) -> str:
    """The last parts of the names of the linear layers."""
    names = (name for name, module in encoder.named_modules() if isinstance(module, nn.Linear))
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def _matches(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")
