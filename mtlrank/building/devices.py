"""Processes and devices of a training, from the trainer's settings."""

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from mtlrank.errors import ConfigError


def num_processes(trainer: Mapping[str, Any]) -> int:
    """How many processes train on all nodes together, each on its own device."""
    devices = trainer["devices"]
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices) in ("auto", "-1"):
        count = torch.cuda.device_count() if is_on_gpus(trainer) else 1
    else:
        count = devices
    if not is_on_gpus(trainer) and int(count) > max(os.cpu_count() or 1, 8):
        raise ConfigError(f"trainer.devices is {count}, but this machine has no GPU and {os.cpu_count()} processors.")
    return int(count) * int(trainer["num_nodes"])


def check_started(trainer: Mapping[str, Any]) -> None:
    """Refuse another number of processes than torchrun has started: each would train by itself, in the same folder."""
    if not dist.is_torchelastic_launched():
        return
    here, nodes = (int(os.environ[f"{of}_WORLD_SIZE"]) for of in ("LOCAL", "GROUP"))
    found = {name: trainer[name] for name in ("devices", "num_nodes")}
    if (here * nodes, nodes) != (num_processes(trainer), int(found["num_nodes"])):
        raise ConfigError(
            f"torchrun has started {here} processes on each of {nodes} nodes: expected trainer.devices={here} "
            f"trainer.num_nodes={nodes}, found {' '.join(f'trainer.{name}={value}' for name, value in found.items())}."
        )


def own_device(trainer: Mapping[str, Any]) -> torch.device:
    """The device of this process."""
    rank, devices = int(os.environ.get("LOCAL_RANK", 0)), trainer["devices"]
    if not is_on_gpus(trainer):
        return torch.device("cpu")
    return torch.device("cuda", devices[rank] if isinstance(devices, list) else rank)


def is_on_gpus(trainer: Mapping[str, Any]) -> bool:
    """Whether training uses GPUs: there is one, and the trainer may use it."""
    return torch.cuda.is_available() and trainer["accelerator"] != "cpu"
