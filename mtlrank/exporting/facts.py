"""What a model's folder, and the run around it, tell of it: its body, how it was trained, its measures."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank import embedded
from mtlrank.about import MODEL, WEIGHTS, read_about
from mtlrank.config import Config, datasets_of
from mtlrank.evaluation.judged_head import SUMMARY, head_folders
from mtlrank.storage import file_hash, read_json
from mtlrank.words import counted

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_OF_A_STEP = (
    "accumulate_grad_batches",
    "devices",
    "num_nodes",
)  # settings of the trainer by which a step has more batches
_NOT_OF_THE_LOSS = ("measures", "relevance_level")  # settings of tasks


class Measured(NamedTuple):
    """A measure of a head on a test set."""

    head: str
    split: str
    measure: str
    value: float
    interval: tuple[float, float] | None  # 95 %; None for one query
    units: str  # what the head was judged on, as in 43 queries
    baseline: float
    baseline_name: str


def body(config: Config) -> str:
    """The body's name, and where its weights came from."""
    settings, start = config["model"]["body"], config["model"].get("start_from")
    name = str(settings["backbone"])
    told = [without_folder(name)]
    if own := _name_in_config(name):
        told.append(f"a local folder whose config names {without_folder(own)}")
    if not settings.get("pretrained", True):
        told.append("its weights drawn anew")
    if start:
        told.append(f"started from the model {without_folder(str(start))}")
    if lora := settings.get("lora"):
        told.append(f"learnt by LoRA of rank {lora.get('rank')}")
    if frozen := settings.get("frozen_layers"):
        told.append(f"frozen layers: {frozen}")
    return ", ".join(told)


def base_model(config: Config) -> str | None:
    """The hub's name of the model that was trained further; None if there is none, or it is not known."""
    settings = config["model"]["body"]
    name = str(settings["backbone"])
    on_hub = _HUB_NAME.fullmatch(name) and not name.startswith((".", embedded.NAME)) and not Path(name).exists()
    is_base = settings.get("pretrained", True) and not config["model"].get("start_from")
    return name.partition("@")[0] if on_hub and is_base else None


def training(config: Config, folder: Path) -> Iterator[tuple[str, str]]:
    """(fact, value) of how the model was trained, as far as its settings and the run around its folder tell."""
    loop, settings, trainer = config["loop"], config["training"], config["trainer"]
    for node in datasets_of(config).values():
        yield f"Loss of {node['name']}", _part(node["task"])
    yield "Combined by", _part(loop["loss"])
    yield "Sampler", _part(config["datamodule"]["train_sampler"])
    run = _run_of(folder)
    most = [counted(settings["epochs"], "epoch")]
    most += [counted(settings["max_steps"], "step")] if settings.get("max_steps") is not None else []
    yield "Steps", f"{run['steps']:,}" if "steps" in run else f"at most {' and '.join(most)}"
    if "weights" in run:
        yield "Weights", str(run["weights"])
    size, tokens = counted(settings["batch_size"], "sample"), settings.get("max_tokens")
    batch = [size if tokens is None else f"at most {counted(tokens, 'token')}"]
    batch += [f"{name} {trainer[name]}" for name in _OF_A_STEP if _is_more(trainer.get(name, 1))]
    yield "Batch", ", ".join(batch)
    optimizer = loop["optimizer"]
    rates = [f"{optimizer['lr']:g}"] if "lr" in optimizer else []
    rates += [f"{loop['head_lr']:g} for heads"] if loop.get("head_lr") is not None else []
    rates += [f"times {loop['layer_decay']:g} for each layer below"] if loop.get("layer_decay", 1) != 1 else []
    yield "Learning rate", ", ".join([*rates, _class(optimizer), _part(loop["schedule"])])
    yield "Seed", str(config["seed"])
    if run:
        commit = "" if run["commit"] == "unknown" else f", commit {run['commit']}"
        yield "Trained with", f"mtlrank {run['mtlrank']}{commit}"


def measures(folder: Path) -> Iterator[Measured]:
    """The measures of the model in the evaluation folders beside it, which may be of other models, too."""
    own = file_hash(folder / WEIGHTS)
    for path in head_folders(sorted(folder.absolute().parent.glob("evaluation*"))):
        head = read_json(path / SUMMARY)
        if head["weights"] != own:
            continue
        for measure, value in head["values"].items():
            found = head["intervals"][measure]["value"]
            interval = None if found is None else (found[0], found[1])
            told = head["name"], head["split"], measure, value, interval, _units(head)
            yield Measured(*told, head["baseline"][measure], head["baseline_name"])


def without_folders(value: Any) -> Any:
    """A description in which paths are names, without the folders of somebody's machine."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return without_folder(value) if isinstance(value, str) else value


def without_folder(text: str) -> str:
    """A name without the folders of somebody's machine."""
    return Path(text).name if text.startswith(("/", "~", ".")) else text


def _name_in_config(backbone: str) -> str:
    """The name that the config of a local folder holds: in older checkpoints, that of the model they were made from."""
    try:
        name = json.loads((Path(backbone).expanduser() / "config.json").read_bytes()).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return name if isinstance(name, str) else ""


def _run_of(folder: Path) -> dict[str, Any]:
    """The description of the run that made the model, if the folder is that of a run and the run has ended."""
    described = read_about(folder.absolute().parent) if folder.name == MODEL else {}
    return described if {"steps", "mtlrank", "commit"} <= described.keys() else {}


def _units(head: dict[str, Any]) -> str:
    if head["kind"] != "ranking":
        return counted(head["num_samples"], "sample")
    return (
        f"{counted(head['num_queries'], 'query', 'queries')} of at most {counted(head['max_candidates'], 'candidate')}"
    )


def _part(node: dict[str, Any]) -> str:
    """A part of a config by its class, with its settings."""
    told = [
        f"{name} {without_folders(value)}"
        for name, value in node.items()
        if value is not None and not name.startswith("_") and name not in _NOT_OF_THE_LOSS
    ]
    return _class(node) + (f" ({', '.join(told)})" if told else "")


def _class(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _is_more(value: Any) -> bool:
    """Whether a setting of the trainer makes a step larger than a batch."""
    return isinstance(value, list | int) and value != 1
