"""Prepare one shard of one dataset."""

from typing import List

from kfp import dsl

from components.base import step


@step
def prepare(
    task: str,
    shard: str,
    experiment: str,
    body: str,
    overrides: List[str],
    prepared: str,
    part: dsl.Output[dsl.Dataset],
):
    """Read, check and tokenise a shard of a dataset, unless the dataset is kept from an earlier run."""
    from pathlib import Path

    from components.prepare.kept import config_of, prepare_or_find
    from mtlrank.shard import Shard

    config = config_of(task, experiment, body, overrides)
    prepare_or_find(config, task, Shard.parse(shard), Path(part.path), prepared)
