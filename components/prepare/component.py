"""Prepare one dataset."""

from typing import List

from kfp import dsl

from components import step


@step
def prepare(task: str, experiment: str, body: str, overrides: List[str], dataset: dsl.Output[dsl.Dataset]):
    """Read, check and tokenise one dataset into a self-contained folder.

    Args:
        task: Key of the dataset, as in datamodule/dataset/mtl.yaml.
        experiment: Name of the experiment's config.
        body: Name of the body's config: datasets are tokenised for it. Empty: the experiment's.
        overrides: Further settings in the command line's words.
        dataset: The prepared dataset.

    """
    from pathlib import Path

    from mtlrank import prepare
    from mtlrank.compose import pipeline_config

    config = pipeline_config({"experiment": experiment, "tasks": [task], "model/body": body or None}, overrides)
    opened = prepare.run(config, {task: Path(dataset.path)})[task]
    dataset.metadata.update({"name": opened.name, **{s: n["samples"] for s, n in opened.manifest["splits"].items()}})
