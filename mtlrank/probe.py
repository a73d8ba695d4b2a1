"""Find the layers of a frozen body from which each task can be read, and suggest layers for the heads.

python -m mtlrank.probe tasks=[msm_bm25,msm_ner] model.body.backbone=/path/to/a/bert
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("probe")

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtlrank import prepare
from mtlrank.about import PROBED, RUN
from mtlrank.building.dataset import check_tokenizers
from mtlrank.building.model import build_body, build_model, warn_of_templates, with_start_fetched
from mtlrank.composing.selection import select_tasks
from mtlrank.composing.tree import by_key
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.preprocessor import tokenizer_hash
from mtlrank.errors import ConfigError
from mtlrank.inference.scoring import evaluation_device
from mtlrank.made_from import MadeFrom, around_data
from mtlrank.model.body import MTLBody
from mtlrank.model.saved import BACKBONE, load_body
from mtlrank.probing.mdl import check_portions
from mtlrank.probing.probes import Training
from mtlrank.probing.results import notes, overrides, print_table, suggestions, write_results
from mtlrank.probing.task import Amounts, probe_task
from mtlrank.probing.vectors import frozen_pooler
from mtlrank.progress import say
from mtlrank.registry import model_folder
from mtlrank.storage import fingerprint, read_json, writable_folder
from mtlrank.trained_head import read_trained


def run(config: Config, prepared: Mapping[str, Path] | None = None) -> dict[str, int]:
    """Probe each task's labels in each layer; writes a folder and returns the suggested layer by task name.

    With `model_dir`, the body is that of a trained model; tasks, data and heads are still those of the config.
    """
    own_heads = config["model"].get("heads") or {}
    config = select_tasks(config)
    settings, identity = config["probe"], _identity(config)
    name = str(config["model_dir"] or config["model"]["body"]["backbone"])
    config = _with_models_fetched(config)
    made_from = around_data(config)
    named = Path("runs") / f"probe-{fingerprint([identity, made_from.weights])}"
    output = writable_folder(config["output_dir"] or named)
    _check_owner(output, config, identity, made_from)
    torch.manual_seed(config["seed"])
    body, control = bodies(config)
    amounts, training = _amounts(config, body), _training(config)
    datasets = prepare.run(config, prepared)
    made_from = made_from.read(datasets)
    _check_owner(output, config, identity, made_from)  # now that the data are known
    _check_tokenizers(config, datasets, name)
    splits = {key: _split(dataset, settings["split"]) for key, dataset in datasets.items()}

    model = build_model(config, body, datasets).eval()  # built for training: dropout would blur the vectors
    made_from.check_weights(config)
    results = []
    for key, dataset in datasets.items():
        pooler = frozen_pooler(model.head(dataset.name).pooler, body, settings["pooler"])
        results.append(probe_task(body, pooler, dataset, splits[key], amounts, training, control))

    places = {key: f"model.heads.{key}" if key in own_heads else "model.default_head" for key in datasets}
    heads = [place if "pooler" in config["model"]["heads"][key] else None for key, place in places.items()]
    _check_owner(output, config, identity, made_from)  # again, as another probe may have written there
    write_results(output, results, heads, settings["margin"], name, identity, made_from._asdict())
    suggested = suggestions(results, settings["margin"])
    print_table(results, settings["margin"])
    for note in notes(results, settings["margin"]):
        say(note)
    if words := overrides(results, heads, suggested):
        print(" ".join(words))
    print(f"results: {output}   page: {output / 'probe.html'}")
    return suggested


def _identity(config: Config) -> dict[str, Any]:
    """The settings that decide the results, by dotted key, with the tasks that are probed, however they were chosen."""
    chosen = {key: value for key, value in config.items() if key not in ("output_dir", "data_dir", "force")}
    return {**by_key(chosen), "tasks": list(datasets_of(config))}


def _with_models_fetched(config: Config) -> Config:
    """The config with the local folders of the models that it names, whatever their registries have in use later."""
    fetched = str(model_folder(config["model_dir"])) if config["model_dir"] else None
    return {**with_start_fetched(config), "model_dir": fetched}


def _check_owner(folder: Path, config: Config, identity: Mapping[str, Any], made_from: MadeFrom) -> None:
    """Refuse a folder with a run and, unless `force` is set, with a probe of other settings, weights or (if known) data."""
    mine = {"settings": identity, "weights": made_from.weights, **({"data": made_from.data} if made_from.data else {})}
    found = read_json(folder / PROBED) if (folder / PROBED).exists() and not config["force"] else mine
    if (folder / RUN).exists() or any(found.get(key) != value for key, value in mine.items()):
        raise ConfigError(
            f"{folder} holds the results of another command. Choose another output_dir, or replace those of another probe "
            "with force=true."
        )


def bodies(config: Config) -> tuple[MTLBody, MTLBody | None]:
    """The frozen body and, with `probe.control`, one of its kind with random weights."""
    if config["model_dir"]:
        folder = model_folder(config["model_dir"])
        saved = read_trained(folder, trust=config["trust_model"])[0]["model"]["body"]
        body = build_body(_with_body(config, saved))
        load_body(folder, body)
    else:
        saved = config["model"]["body"]
        body = build_body(config)
    control = None
    if config["probe"]["control"]:
        random = {**saved, "pretrained": False, **({"initialisation": None} if "initialisation" in saved else {})}
        control = build_body(_with_body(config, random, start_from=None))
    device = evaluation_device()
    return body.to(device).eval(), control.to(device).eval() if control else None


def _with_body(config: Config, body: Config, **more: Any) -> Config:
    return {**config, "model": {**config["model"], "body": body, **more}}


def _split(dataset: PreparedDataset, wanted: str | None) -> str:
    """The split for measures: by default validation, if there is one, as suggestions use them. Raises if it is missing."""
    split = wanted or ("val" if dataset.has("val") else "test")
    dataset.require_measures(split)
    dataset.split(split)
    return split


def _amounts(config: Config, body: MTLBody) -> Amounts:
    settings = config["probe"]
    check_portions(settings["portions"])
    layers = sorted(set(settings["layers"] or range(body.num_layers + 1)))
    if layers[-1] > body.num_layers:
        raise ConfigError(
            f"probe.layers names layer {layers[-1]}, but the body has {body.num_layers} layers. Expected 0 (embeddings) to "
            f"{body.num_layers}."
        )
    wanted = {name: settings[name] for name in ("max_train", "max_test", "portions")}
    return Amounts(layers=layers, max_bytes=settings["max_memory_gb"] * 1e9, **wanted)


def _training(config: Config) -> Training:
    settings = config["probe"]
    names = ("hidden_dim", "epochs", "patience", "batch_size", "lr")
    return Training(**{name: settings[name] for name in names}, seed=config["seed"])


def _check_tokenizers(config: Config, datasets: Mapping[str, PreparedDataset], name: str) -> None:
    """Datasets must have been prepared with the tokenizer of the body that reads them."""
    check_tokenizers(config, datasets)
    if config["model_dir"]:
        folder = model_folder(config["model_dir"])
        warn_of_templates(folder, datasets.values())
        trained_with = tokenizer_hash(str(folder / BACKBONE))
        if any(dataset.manifest["tokenizer"]["sha256"] != trained_with for dataset in datasets.values()):
            raise ConfigError(
                f"The model in {name} was trained with another tokenizer than that of "
                f"{config['model']['body']['backbone']!r}, for which the data is prepared. Add the overrides it was "
                "trained with, such as experiment=... and model.body.backbone=..."
            )
