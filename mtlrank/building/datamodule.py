"""Builds the datamodule over prepared datasets."""

from collections.abc import Mapping

from mtlrank.checks import all_known
from mtlrank.composing.objects import build_object
from mtlrank.config import SPLITS, Config, head_names
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.own_parts import instance_of


def build_datamodule(config: Config, datasets: Mapping[str, PreparedDataset]) -> MTLDataModule:
    """The datamodule over opened datasets (by key). Cuts their val splits to training.max_val_queries."""
    if (most := config["training"]["max_val_queries"]) is not None:
        for dataset in datasets.values():
            if dataset.has("val"):
                dataset.limit("val", most)
    node = {k: v for k, v in config["datamodule"].items() if k != "dataset"}
    mixture = {k: v for k, v in config["datamodule"]["dataset"].items() if k != "datasets"}
    built = build_object(node, dataset=build_object(mixture, datasets=dict(datasets)))
    return instance_of("datamodule", built, MTLDataModule)


def check_samplers(config: Config) -> None:
    """Refuse settings that a sampler does not take and, in our samplers, unknown dataset names, before data is read."""
    names = head_names(config)
    for split in SPLITS:
        node = config["datamodule"][f"{split}_sampler"]
        build_object(node)
        for table in ("limits", "probabilities"):
            if str(node["_target_"]).startswith("mtlrank.") and isinstance(node.get(table), dict):
                all_known(table, node[table], names, "datasets")
