"""Two nodes for real: two torchrun with what Trainer tells them, a home each, and nothing in common but a bucket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.train.node import processes
from components.train.order import Order
from components.train.settings import train_settings
from mtlrank import evaluate
from mtlrank.composing.compose import pipeline_config
from mtlrank.prepare import folders_by_key
from mtlrank.storage import exists, fetch_folder, list_files, publish_folder, read_manifest
from mtlrank.trained_head import load_head
from tests.components.train.parameters import parameters

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
TASKS = ["trec2019", "msm_ner"]
TORCHRUN = str(Path(sys.executable).parent / "torchrun")


@pytest.fixture
def order(bucket, datasets, data_dir):
    """A small run whose datasets lie in the bucket."""
    for key in TASKS:
        publish_folder(data_dir / key, f"gs://bucket/data/{key}")
    settings = train_settings(parameters(tasks=TASKS, batch_size=8, epochs=2, seed=7))
    overrides = ["training.max_val_queries=10", "+trainer.limit_train_batches=4", "training.checkpoint_steps=2"]
    places = [f"gs://bucket/data/{key}" for key in TASKS]
    return Order(settings, overrides, places, "gs://bucket/runs/1/model", "gs://bucket/checkpoints")


def begin(order, homes):
    """A torchrun for each node, with the variables that Trainer's torch plugin sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "OMP_NUM_THREADS": "1",
        "PET_NNODES": str(len(homes)),
        "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }
    command = [TORCHRUN, "-m", "components.train.node", order.dumps()]
    return [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=(home.parent / f"{home.name}.log").open("a"),
            env={**os.environ, **common, "PET_NODE_RANK": str(rank), "MTLRANK_HOME": str(home)},
        )
        for rank, home in enumerate(homes)
    ]


def finish(nodes, homes):
    """(exit codes, what each said)."""
    codes = [node.wait(timeout=400) for node in nodes]
    return codes, [home.with_name(f"{home.name}.log").read_text() for home in homes]


@pytest.mark.slow
def test_two_nodes_train_and_the_first_publishes_what_the_next_steps_read(order, tmp_path, data_dir):
    homes = [tmp_path / "first", tmp_path / "second"]
    codes, said = finish(begin(order, homes), homes)
    assert codes == [0, 0], said
    assert "MEMBER: 2/2" in said[1]
    assert "published gs://bucket/runs/1/model" in said[0]
    assert "published" not in said[1]
    folder = fetch_folder(order.output, tmp_path / "fetched")
    assert read_manifest(folder)["kind"] == "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "val/trec2019/nDCG@10" in metrics
    assert load_head(folder / "model", "trec2019").name == "trec2019"
    assert list_files(order.checkpoints)
    settings = {"model_dir": f"{folder}/model", "tasks": ["trec2019"], "output_dir": f"{tmp_path}/judged"}
    values = evaluate.run(
        pipeline_config(settings, [], name="evaluate"), folders_by_key([data_dir / key for key in TASKS])
    )
    assert any(key.startswith("test/trec2019/") for key in values)

    again = begin(order, homes)  # as after a restart of all nodes
    codes, said = finish(again, homes)
    assert codes == [0, 0], said
    assert all("already finished: gs://bucket/runs/1/model" in text for text in said)


@pytest.mark.slow
def test_a_node_that_is_taken_away_stops_both_and_others_go_on(order, tmp_path):
    """SIGTERM, as on a spot machine; the pods that take their places have empty disks."""
    limits = "datamodule.train_sampler.limits={trec2019: 200, msm_ner: 200}"  # 25 steps an epoch
    order = order._replace(overrides=["training.max_val_queries=10", "training.checkpoint_steps=4", limits])
    homes = [tmp_path / "first", tmp_path / "second"]
    nodes = begin(order, homes)
    for _ in range(1200):
        if any("/step-" in name and name.endswith("manifest.json") for name in list_files(order.checkpoints)):
            break
        time.sleep(0.1)
    nodes[1].send_signal(signal.SIGTERM)
    codes, said = finish(nodes, homes)
    assert all(code != 0 for code in codes), said
    assert not exists(f"{order.output}/manifest.json")

    homes = [tmp_path / "third", tmp_path / "fourth"]
    codes, said = finish(begin(order, homes), homes)
    assert codes == [0, 0], said
    assert "resuming at epoch" in said[0]
    assert exists(f"{order.output}/manifest.json")


@pytest.mark.slow
def test_a_mistake_is_told_in_a_line_and_nothing_is_published(order, tmp_path):
    wrong = order._replace(overrides=["training.epoch=3"])
    environment = {**os.environ, "MTLRANK_HOME": str(tmp_path), "MTLRANK_TRACEBACK": ""}
    command = [sys.executable, "-m", "components.train.node", wrong.dumps()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mtlrank:")]
    assert "Unknown config key 'training.epoch'" in line
    assert not list_files(order.output)


def test_the_numbers_are_torchrun_s():
    torchrun = {"GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "8", "PET_NPROC_PER_NODE": "auto"}
    assert processes(torchrun) == {"trainer.num_nodes": 2, "trainer.devices": 8}
    assert processes({}) == {"trainer.num_nodes": 1, "trainer.devices": 1}
