import functools

import pytest

from mtlrank.datamodule.dataset import MTLDataset
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.datamodule.sampler import RandomProportional, Sequential
from mtlrank.errors import ConfigError


@pytest.fixture
def datamodule(datasets):
    mixture = MTLDataset({key: datasets[key] for key in ("msm_sem_sim", "msm_ner")})
    samplers = (RandomProportional, Sequential, Sequential)
    return MTLDataModule(mixture, *samplers, batch_size=64, eval_batch_size=100, seed=5)


def ids(batch):
    return {name: part.sample_ids.tolist() for name, part in batch.items()}


def test_batches_hold_the_tasks_in_config_order(datamodule):
    orders = {tuple(batch) for batch in datamodule.train_dataloader()}
    assert ("msm_sem_sim", "msm_ner") in orders
    assert ("msm_ner", "msm_sem_sim") not in orders


def test_every_test_sample_is_delivered_once(datamodule):
    seen = {"msm_sem_sim": [], "msm_ner": []}
    for batch in datamodule.test_dataloader():
        for name, samples in ids(batch).items():
            seen[name] += samples
    assert {name: sorted(samples) for name, samples in seen.items()} == {
        "msm_sem_sim": list(range(600)),
        "msm_ner": list(range(500)),
    }


def test_a_loader_continues_where_another_stood(datamodule):
    first, second = datamodule.train_dataloader(), datamodule.train_dataloader()
    stream = [ids(batch) for _ in range(2) for batch in first]
    iterator, seen = iter(second), []
    for _ in range(len(second) + 3):
        try:
            seen.append(ids(next(iterator)))
        except StopIteration:
            iterator = iter(second)
            seen.append(ids(next(iterator)))
    resumed = datamodule.train_dataloader()
    resumed.load_state_dict(second.state_dict())
    assert seen + [ids(batch) for batch in resumed] == stream


def test_a_consumer_that_stops_at_the_last_batch_gets_the_next_epoch_next(datamodule):
    loader = datamodule.train_dataloader()
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    assert loader.state_dict() == {"seed": 5, "epoch": 1, "position": 0}
    assert sum(1 for _ in loader) == len(loader)


def test_a_consumer_that_stops_early_gets_the_same_epoch_again(datamodule):
    loader = datamodule.train_dataloader()
    first = [ids(batch) for batch, _ in zip(loader, range(3), strict=False)]
    assert [ids(batch) for batch, _ in zip(loader, range(3), strict=False)] == first


def test_another_seed_is_refused(datamodule):
    with pytest.raises(ConfigError, match="sampled with seed 9, now it is 5"):
        datamodule.train_dataloader().load_state_dict({"seed": 9, "epoch": 0, "position": 0})


def test_num_batches_is_what_a_rank_gets(datamodule):
    assert datamodule.num_batches("train") == len(datamodule.train_dataloader())
    assert datamodule.num_batches("train", world_size=2) == -(-datamodule.num_batches("train") // 2)


def test_two_datasets_cannot_share_a_name(datasets):
    with pytest.raises(ConfigError, match="share the name msm_ner"):
        MTLDataset({"a": datasets["msm_ner"], "b": datasets["msm_ner"]})


def test_worker_processes_deliver_the_same_batches(datasets):
    mixture = MTLDataset({"msm_ner": datasets["msm_ner"]})
    make = functools.partial(MTLDataModule, mixture, RandomProportional, Sequential, Sequential, 128, 128)
    alone, workers = make(num_workers=0), make(num_workers=2)
    assert [ids(b) for b in alone.train_dataloader()] == [ids(b) for b in workers.train_dataloader()]
