"""The program of each process of a TrainJob: it trains together with the others; the first one publishes the result.

torchrun -m components.train.node '{"settings": {...}, "overrides": [], "datasets": [...], "output": ..., ...}'
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from components.train.order import Order
from mtlrank import train
from mtlrank.composing.compose import pipeline_config
from mtlrank.guard import guarded
from mtlrank.prepare import folders_by_key
from mtlrank.progress import say
from mtlrank.storage import (
    fetch_folder,
    fingerprint,
    home,
    is_complete,
    mirror,
    publish_folder,
    write_manifest,
)


def run(order: Order, environment: Mapping[str, str] = os.environ) -> None:
    """Train, and publish the run's folder at `order.output`, unless an earlier attempt has done so.

    The folder's manifest is published last: a folder with one is complete. Nodes share only the places in `order`.
    """
    if is_complete(order.output):
        print(f"already finished: {order.output}", file=sys.stderr)  # in the log of each node
        return
    here = home() / "nodes" / fingerprint(order.output)
    folders = folders_by_key([fetch_folder(dataset, mirror(dataset)) for dataset in order.datasets])
    settings = {**order.settings, **processes(environment), "output_dir": str(here)}
    config = pipeline_config(settings, order.overrides)
    train.run_step(config, order.checkpoints, folders)
    if environment.get("RANK", "0") == "0":
        write_manifest(here, {"kind": "run"})
        publish_folder(here, order.output)
        say(f"published {order.output}")


def processes(environment: Mapping[str, str]) -> dict[str, Any]:
    """How many nodes and processes there are, from variables that torchrun sets for each process.

    Trainer sets them for torchrun in PET_NNODES and PET_NPROC_PER_NODE, but those may hold words such as `auto`.
    """
    return {
        "trainer.num_nodes": int(environment.get("GROUP_WORLD_SIZE", "1")),
        "trainer.devices": int(environment.get("LOCAL_WORLD_SIZE", "1")),
    }


if __name__ == "__main__":
    with guarded():
        run(Order.loads(sys.argv[1]))
