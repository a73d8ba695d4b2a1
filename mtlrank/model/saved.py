"""A trained model as a folder: safetensors, the backbone's config and tokenizer, what labels mean, and its config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtlrank.about import WEIGHTS
from mtlrank.errors import DataError
from mtlrank.model.body import MTLBody
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.storage import new_folder, read_json, read_manifest, write_json, write_manifest

BACKBONE = "backbone"
SOURCES = "sources.json"


def save_model(
    folder: Path,
    model: MultiTaskModel,
    tokenizer: Any,
    config: dict[str, Any],
    labels: dict[str, Any],
    sources: dict[str, Any] | None = None,
    own_code: Sequence[str] = (),
) -> None:
    """Write all that is needed to use the model elsewhere.

    By dataset key, `labels` holds the facts about each task's labels, such as classes, and `sources` what each dataset was
    made from. `own_code` holds the hashes of the files with user-defined classes that the config names.

    Low-rank updates of the body are merged into its weights first, in `model` too.
    """
    model.body.merge()
    with new_folder(folder) as part:
        save_file(_apart(model.state_dict()), part / WEIGHTS)
        model.body.config.save_pretrained(part / BACKBONE)
        tokenizer.save_pretrained(part / BACKBONE)
        write_json(part / "config.json", config, sort_keys=False)  # the order of tasks is theirs
        write_json(part / "labels.json", labels)
        write_json(part / SOURCES, sources or {})
        own = {"own_code": list(own_code)} if own_code else {}
        write_manifest(part, {"kind": "model", "heads": sorted(model.heads), "head_kinds": model.head_kinds(), **own})


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that share no memory, as safetensors requires: a weight with two names is copied."""
    apart, seen = dict[str, Tensor](), set[int]()
    for name, weight in weights.items():
        memory = weight.untyped_storage().data_ptr()
        apart[name] = weight.clone(memory_format=torch.contiguous_format) if memory in seen else weight.contiguous()
        seen.add(memory)
    return apart


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config, labels) of a saved model whose files match their manifest; the config names the saved body."""
    read_model_manifest(folder)
    config: dict[str, Any] = read_json(folder / "config.json")
    whole = {"backbone": str(folder / BACKBONE), "pretrained": False, "lora": None}  # updates were merged
    body, heads = config["model"]["body"], config["model"]["heads"]
    heads = {
        key: {**head, "backbone": whole["backbone"]} if head.get("backbone") == body["backbone"] else head
        for key, head in heads.items()
    }
    model = {**config["model"], "body": {**body, **whole}, "heads": heads, "start_from": None}
    return {**config, "model": model}, read_json(folder / "labels.json")


def read_model_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved model, whose files match it. Raises `DataError` for another folder."""
    manifest = read_manifest(folder)
    if manifest.get("kind") != "model":
        raise DataError(f"{folder} is not a model folder. Expected the `model` folder of a training run.")
    return manifest


def load_weights(folder: Path, model: MultiTaskModel) -> None:
    """Fill a model that was built from the saved config."""
    model.load_state_dict(load_file(folder / WEIGHTS))


def load_body(folder: Path, body: MTLBody) -> None:
    """Fill only the body, for other heads than those it was trained with."""
    body.load_state_dict(body_weights(folder))


def body_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a saved model's body, by their names in it."""
    prefix = "body."
    weights = load_file(folder / WEIGHTS)
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
