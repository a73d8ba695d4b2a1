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
    prepared: str,
    dataset: dsl.Output[dsl.Dataset],
    card: dsl.Output[dsl.HTML],
):
    """Merge the shards of a dataset into one self-contained dataset, and write its card.

    With `prepared`, the dataset is kept there for later runs, and fetched if it is there already.
    """
    from pathlib import Path
    from shutil import copyfile

    from components.prepare.kept import config_of, merge_or_fetch
    from mtlrank.progress import say
    from mtlrank.storage import MANIFEST, read_json

    config = config_of(task, experiment, body, overrides)
    folder = Path(dataset.path)
    merge_or_fetch(config, task, [Path(each.path) for each in parts], folder, prepared)
    copyfile(folder / "card.html", card.path)
    manifest = read_json(folder / MANIFEST)
    samples = {split: counts["samples"] for split, counts in manifest["splits"].items()}
    dataset.metadata.update({"name": manifest["name"], "bad_rows": manifest["bad_rows"], **samples})
    say(f"merged {task}: {', '.join(f'{split} {number:,}' for split, number in samples.items())} samples")
