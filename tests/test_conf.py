"""The configs mirror the code: every file composes, and every `_target_` takes what the file gives it."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import mtlrank.conf
from mtlrank.composing.objects import supplied

ROOT = Path(mtlrank.conf.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.yaml"))
# The user's word for a group, where it is not the name of the package.
PACKAGES = {"model/heads": "model/head", "task": "task", "datamodule/preprocessor": "datamodule/preprocessor"}
BUILT = {"body", "heads", "datasets", "dataset", "model"}  # from other parts of the config


def nodes(value):
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for child in value.values():
            yield from nodes(child)


def load(target):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def parameters_of(target):
    """What a function or class takes, and what it hands on to its bases."""
    taken = dict(inspect.signature(target).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()) and inspect.isclass(target):
        for base in target.__mro__:
            if inspect.isfunction(base.__init__):
                taken = {**inspect.signature(base.__init__).parameters, **taken}
    return {name: parameter for name, parameter in taken.items() if name != "self"}


def composed(*overrides):
    with initialize_config_module("mtlrank.conf", version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=False)


def choices(path):
    """An override that selects the file, wherever its group may be used."""
    group, name = path.parent.as_posix(), path.stem
    places = {
        "datamodule/sampler": "datamodule/sampler@datamodule.train_sampler",
        "datamodule/preprocessor": "datamodule/preprocessor@datamodule.dataset.datasets.trec2019.preprocessor",
        "annotate": "annotate@datamodule.dataset.datasets.msm_bm25.annotator",
        "task": "task@datamodule.dataset.datasets.msm_bm25.task",
        "model/heads": "model/heads@model.heads.trec2019",
        "model/heads/pooler": "model/heads/pooler@model.heads.trec2019.pooler",
    }
    return f"{places.get(group, group)}={name}"


def test_all_files_are_looked_at():
    assert len(FILES) > 40


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.as_posix() != "."], ids=str)
def test_every_file_can_be_chosen_and_its_targets_take_its_keys(path):
    config = composed(choices(path))
    targets = list(nodes(config))
    assert targets
    for node in targets:
        parameters = parameters_of(load(node["_target_"]))
        given = {key for key in node if not key.startswith("_")} - {
            "default_head",
            "start_from",
            "licence",
            "logger",
        }  # build takes these
        assert given <= set(parameters), node["_target_"]
        required = {
            name for name, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        }
        assert required <= given | BUILT | set(supplied(parameters)), node["_target_"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_lies_where_its_class_lies(path):
    target = yaml.safe_load((ROOT / path).read_text()).get("_target_", "")
    if target.startswith("mtlrank."):
        folder = path.parent.as_posix()
        for group, package in PACKAGES.items():
            folder = folder.replace(group, package)
        assert target.removeprefix("mtlrank.").startswith(folder.replace("/", "."))


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "experiment"], ids=str)
def test_an_experiment_begins_with_what_it_is_and_how_to_run_it(path):
    lines = (ROOT / path).read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert "python -m mtlrank.train" in lines[1]


@pytest.mark.parametrize("package", ["datamodule.dataset", "datamodule.sampler", "task", "model.head"])
def test_each_part_is_named_by_a_file(package):
    """Models that were trained with a part that no file names could be used only with `trust_model=true`."""
    module = importlib.import_module(f"mtlrank.{package}")
    parts = {getattr(module, name) for name in module.__all__}
    own = {part for part in parts if inspect.isclass(part) and part.__module__.startswith(module.__name__)}
    targets = {node["_target_"] for path in FILES for node in nodes(yaml.safe_load((ROOT / path).read_text()))}
    named = {load(target) for target in targets if target.startswith("mtlrank.")}
    assert len(own) > 3
    assert {part for part in own if not inspect.isabstract(part)} <= named
