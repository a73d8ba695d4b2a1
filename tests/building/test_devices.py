import pytest

from mtlrank.building.devices import num_processes
from mtlrank.errors import ConfigError


def test_more_processes_than_a_machine_without_gpus_has_processors_are_refused():
    with pytest.raises(ConfigError, match="trainer.devices is 999, but this machine has no GPU"):
        num_processes({"devices": 999, "num_nodes": 1, "accelerator": "cpu"})


@pytest.mark.parametrize(("devices", "count"), [(1, 1), ([1], 1), ([0, 3], 2), (2, 2), ("auto", 1), (-1, 1)])
def test_processes_are_counted_as_lightning_starts_them(devices, count):
    """On a machine without GPUs, "all" is one."""
    trainer = {"devices": devices, "num_nodes": 1, "accelerator": "cpu"}
    assert num_processes(trainer) == count
    assert num_processes({**trainer, "num_nodes": 2}) == 2 * count
