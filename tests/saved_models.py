"""Model folders with random weights, as training leaves them."""

import torch

from mtlrank.backbone import load_tokenizer
from mtlrank.building.model import build_saved_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.model.saved import save_model


def save_random(folder, config, datasets, spread=1.0, seed=3):
    """A model of the config; `spread` multiplies the heads' weights, so that scores differ well."""
    labels = {key: dataset.manifest["labels"] for key, dataset in datasets.items()}
    sources = {key: dataset.manifest["source"] for key, dataset in datasets.items()}
    return save_labelled(folder, config, labels, spread, sources, seed)


def save_labelled(folder, config, labels, spread=1.0, sources=None, seed=3):
    """The same, without datasets: `labels` is what each task knows of its labels."""
    torch.manual_seed(seed)
    model = build_saved_model(config, labels)
    for head in model.heads.values():
        for weight in head.parameters():
            weight.data.mul_(spread)
    save_model(folder, model, load_tokenizer(config["model"]["body"]["backbone"]), config, labels, sources)
    return folder


def settings(step, **values):
    """The config of a step for some values."""
    words = ["{}={}".format(key, "null" if value is None else value) for key, value in values.items()]
    return compose_config(words, trusted=True, name=step)


def composed(*words):
    return select_tasks(compose_config(list(words), trusted=True))
