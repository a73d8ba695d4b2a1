"""Merge the shards of one dataset."""

from typing import List

from kfp import dsl

from components.base import step


@step
def merge(
    task: str,
    parts: dsl.Input[List[dsl.Dataset]],
    experiment: str,
    body: str,
    overrides: List[str],
    dataset: dsl.Output[dsl.Dataset],
    card: dsl.Output[dsl.HTML],
):
    """Merge the shards of a dataset into one self-contained dataset, and write its card.

    Args:
        task: Key of the dataset, as in datamodule/dataset/mtl.yaml.
        parts: All shards of it.
        experiment: Name of the experiment's config.
        body: Name of the body's config. Empty: the experiment's.
        overrides: Further settings, written as on the command line.
        dataset: The prepared dataset.
        card: What is in it, what was left out and why.

    """
    from pathlib import Path
    from shutil import copyfile

    from mtlrank.composing.compose import pipeline_config
    from mtlrank.composing.selection import select_tasks
    from mtlrank.prepare import merge as merge_shards
    from mtlrank.progress import say
    from mtlrank.storage import MANIFEST, read_json

    settings = {"experiment": experiment, "tasks": [task], "model/body": body or None}
    config = select_tasks(pipeline_config(settings, overrides, name="study"))  # it has the keys of all pipelines
    folder = Path(dataset.path)
    merge_shards(config, task, [Path(part.path) for part in parts], folder)
    copyfile(folder / "card.html", card.path)
    manifest = read_json(folder / MANIFEST)
    samples = {split: counts["samples"] for split, counts in manifest["splits"].items()}
    dataset.metadata.update({"name": manifest["name"], "bad_rows": manifest["bad_rows"], **samples})
    say(f"merged {task}: {', '.join(f'{split} {number:,}' for split, number in samples.items())} samples")
