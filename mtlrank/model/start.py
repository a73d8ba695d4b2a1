"""Starting a training with the weights of an earlier model: its body, and the heads that are of the same kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mtlrank.backbone import load_config, load_tokenizer
from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import BACKBONE, WEIGHTS, read_model
from mtlrank.storage import read_json, read_manifest


def start_body(folder: Path, body: MTLBody) -> None:
    """Load the body of a saved model. Raises `ConfigError` if its architecture, sizes or vocabulary differ."""
    read_model(folder)  # checks the files
    where = folder / BACKBONE
    mine, theirs = body.config, load_config(str(where))
    expected = f"The body is {body.backbone!r}, but model.start_from has another one. "
    way_out = f"Use model/body=trained, or model.body.backbone={backbone_of(folder)}."
    for key in ("model_type", "num_attention_heads"):  # the shapes of weights do not show them
        there, here = (getattr(config, key, None) for config in (theirs, mine))
        if there != here:
            raise ConfigError(f"{expected}{key} is {there} in model.start_from, {here} in this body. {way_out}")
    weights = load_file(folder / WEIGHTS)
    try:
        body.load_plain({name.removeprefix("body."): w for name, w in weights.items() if name.startswith("body.")})
    except ConfigError as error:
        raise ConfigError(f"{expected}{error} {way_out}") from error
    if load_tokenizer(body.backbone).get_vocab() != load_tokenizer(str(where)).get_vocab():
        raise ConfigError(f"{expected}Their vocabularies differ. {way_out}")


def start_heads(
    folder: Path, model: MultiTaskModel, labels: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Load heads of a saved model that have the same name, kind and classes; returns the names of (these, the others).

    For a head that several tasks share, the name is that of the task whose settings it has.

    `labels` holds the facts about each task's labels by dataset name.
    """
    config, saved_labels = read_model(folder)
    kinds, weights = read_manifest(folder).get("head_kinds", {}), load_file(folder / WEIGHTS)
    datasets = config["datamodule"]["dataset"]["datasets"]
    classes = {node["name"]: saved_labels[key].get("classes") for key, node in datasets.items()}
    own = [name for name in model.heads if name not in model.shared]
    taken, mine = list[str](), model.head_kinds()
    for name in own:
        prefix = f"heads.{name}."
        if kinds.get(name) == mine[name] and classes.get(name) == labels[name].get("classes"):
            model.head(name).load_state_dict(
                {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
            )
            taken.append(name)
    return taken, [name for name in own if name not in taken]


def backbone_of(folder: Path) -> str:
    """The backbone of a saved model: its name in training or, if that was a folder that is gone, the saved copy."""
    read_model(folder)
    name = str(read_json(folder / "config.json")["model"]["body"]["backbone"])
    is_gone = name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir()
    return str(folder / BACKBONE) if is_gone else name
