import functools
import shutil

import numpy as np
import pytest

from mtlrank.batch import Record
from mtlrank.datamodule.dataset import MTLDataset
from mtlrank.datamodule.dataset.split import PreparedSplit
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.datamodule.sampler import Annealed, LimitedData, RandomProportional, Sequential
from mtlrank.errors import ConfigError
from mtlrank.task import Regression
from tests.datamodule.dataset.test_prepared import prepared
from tests.loop.runs import assert_same


@pytest.fixture
def datamodule(datasets):
    mixture = MTLDataset({key: datasets[key] for key in ("msm_sem_sim", "msm_ner")})
    samplers = (RandomProportional, Sequential, Sequential)
    return MTLDataModule(mixture, *samplers, batch_size=64, eval_batch_size=100, seed=5)


def ids(batch):
    return {name: part.sample_ids.tolist() for name, part in batch.tasks.items()}


def test_batches_hold_the_tasks_in_config_order(datamodule):
    orders = {tuple(batch.tasks) for batch in datamodule.train_dataloader()}
    assert ("msm_sem_sim", "msm_ner") in orders
    assert ("msm_ner", "msm_sem_sim") not in orders


def test_a_batch_says_how_many_samples_of_each_task_it_holds(datamodule):
    for batch in datamodule.train_dataloader():
        assert batch.totals == {name: part.num_samples for name, part in batch.tasks.items()}
        assert batch.weight == 1


def test_every_test_sample_is_delivered_once(datamodule):
    seen = {"msm_sem_sim": [], "msm_ner": []}
    for batch in datamodule.loader("test"):
        for name, samples in ids(batch).items():
            seen[name] += samples
    assert {name: sorted(samples) for name, samples in seen.items()} == {
        "msm_sem_sim": list(range(600)),
        "msm_ner": list(range(500)),
    }


def test_lengths_are_those_of_the_samples(datasets):
    split = MTLDataset(datasets).split("train")
    for name, lengths in zip(split.names, split.lengths(), strict=True):
        data = datasets[name].split("train")
        found = [len(data.collate([sample]).input_ids) for sample in range(0, len(data), 97)]
        assert lengths[::97].tolist() == found


@pytest.mark.parametrize("total", [1, 3])
def test_samples_about_the_same_pairs_are_found_in_all_datasets(tmp_path, total):
    def made(name, records):
        dataset = prepared(tmp_path / name, Regression(["MSE"]), records, total=total)
        dataset.name = name
        return dataset

    groups = [Record(f"q{i // 4}", f"d{i}", "who", f"text {i}", i, group=i // 2) for i in range(40)]
    single = [Record(f"q{i % 40 // 4 + i % 3}", f"d{i % 40}", "who", f"text {i % 40}", i) for i in range(60)]
    alone = [Record("-", f"d{i}", None, f"text {i}", i) for i in range(0, 60, 3)]
    mixture = MTLDataset({n: made(n, records) for n, records in (("a", groups), ("b", single), ("c", alone))})
    data, samples = mixture.split("train"), np.array([1, 4, 11, 19])
    of_a, of_b, of_c = (split.pairs() for split in data.splits)
    known = {pair for sample in samples for pair in of_a[sample]}
    known |= {("-", doc_id) for _, doc_id in known}
    expected = [[i for i, found in enumerate(of) if known & {*found}] for of in (of_a, of_b, of_c)]
    assert [found.tolist() for found in data.about("a", samples)] == expected
    assert expected[0] == samples.tolist()
    assert all(expected)


def test_limited_data_is_told_what_samples_are_about(datasets):
    mixture = MTLDataset({key: datasets[key] for key in ("trec2019", "msm_bm25")})
    few = functools.partial(LimitedData, main="trec2019", num_samples=200)
    sampler = MTLDataModule(mixture, few, Sequential, Sequential, 8, 8).loader("train").mtl_sampler
    ranked, annotated = (split.pairs() for split in mixture.split("train").splits)
    known = {pair for sample in sampler.chosen[0] for pair in ranked[sample]}
    assert sampler.counts()[0] == 200
    assert sampler.counts()[1] > 0
    assert all(known & {*annotated[sample]} for sample in sampler.chosen[1])


def test_what_samples_are_about_is_read_and_remarked_once(datasets, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(PreparedSplit, "samples_about", lambda self, pairs: asked.append(self) or np.arange(3))
    mixture = MTLDataset({key: datasets[key] for key in ("trec2019", "msm_bm25")})
    few = functools.partial(LimitedData, main="trec2019", num_samples=20)
    datamodule = MTLDataModule(mixture, few, Sequential, Sequential, 8, 8)
    assert [datamodule.num_batches("train", world_size=size) for size in (1, 2)] == [3, 2]
    assert capsys.readouterr().err == ""
    datamodule.train_dataloader()
    told = capsys.readouterr().err
    assert told == "mtlrank: about the 20 samples of trec2019, 20 were wanted, and there are: msm_bm25 3\n"
    assert len(asked) == len(mixture.datasets)


def test_only_the_first_process_tells_remarks(datasets, monkeypatch, capsys):
    monkeypatch.setattr("mtlrank.datamodule.multitask.rank", lambda: 1)
    monkeypatch.setattr("mtlrank.datamodule.multitask.world_size", lambda: 2)
    monkeypatch.setattr(LimitedData, "remarks", lambda self: ["few"])
    mixture = MTLDataset({key: datasets[key] for key in ("trec2019", "msm_bm25")})
    few = functools.partial(LimitedData, main="trec2019", num_samples=200)
    MTLDataModule(mixture, few, Sequential, Sequential, 8, 8).train_dataloader()
    assert capsys.readouterr().err == ""


def test_a_course_is_over_when_the_training_is(datasets):
    mixture = MTLDataset({key: datasets[key] for key in ("msm_sem_sim", "msm_ner")})
    datamodule = MTLDataModule(mixture, Annealed, Sequential, Sequential, batch_size=64, eval_batch_size=100)
    datamodule.epochs = 2.5
    assert datamodule.loader("train").mtl_sampler.epochs == 2.5


def test_training_starts_where_it_is_told_to(datamodule):
    streams = []
    for epoch in (0, 1):
        datamodule.start_at(epoch)
        streams.append([ids(batch) for batch in datamodule.train_dataloader()])
    assert streams[0] != streams[1]
    datamodule.start_at(1, 3)
    loader = datamodule.train_dataloader()
    assert [ids(batch) for batch in loader] == streams[1][3:]
    assert [ids(batch) for batch in loader] == streams[1]
    datamodule.start_at(0, 2)
    assert [ids(batch) for batch in loader] == streams[0][2:]


def test_a_token_budget_holds_for_training_only(datasets):
    mixture = MTLDataset({"msm_ner": datasets["msm_ner"]})
    settings = {"batch_size": 1, "eval_batch_size": 7, "max_tokens": 400, "length_window": 2}
    datamodule = MTLDataModule(mixture, RandomProportional, Sequential, Sequential, **settings)
    tokens = [len(batch.tasks["msm_ner"].input_ids) for batch in datamodule.train_dataloader()]
    assert 200 < min(tokens) <= max(tokens) <= 400
    assert next(iter(datamodule.loader("test"))).tasks["msm_ner"].num_samples == 7


def test_little_shared_memory_means_no_worker_processes(datasets, monkeypatch, capsys):
    """A container's /dev/shm has 64 MiB; tests/loop/test_faults.py makes a real one."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 64 << 20))
    mixture = MTLDataset({"msm_ner": datasets["msm_ner"]})
    datamodule = MTLDataModule(mixture, RandomProportional, Sequential, Sequential, 8, 8, num_workers=2)
    assert datamodule.num_workers == 0
    assert "/dev/shm has less than 256 MiB free" in capsys.readouterr().err


def test_num_batches_is_what_a_rank_gets(datamodule):
    assert datamodule.num_batches("train") == len(datamodule.train_dataloader())
    assert datamodule.num_batches("train", world_size=2) == -(-datamodule.num_batches("train") // 2)


def test_two_datasets_cannot_share_a_name(datasets):
    with pytest.raises(ConfigError, match="share the name msm_ner"):
        MTLDataset({"a": datasets["msm_ner"], "b": datasets["msm_ner"]})


# What a system starts processes with differs.
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_deliver_the_same_batches(datasets, method):
    mixture = MTLDataset({key: datasets[key] for key in ("trec2019", "msm_ner")})
    make = functools.partial(MTLDataModule, mixture, RandomProportional, Sequential, Sequential, 128, 1000)
    alone, workers = make(num_workers=0).loader("val"), make()
    workers.num_workers = 1  # however little this machine's processes may share
    elsewhere = workers.loader("val")
    elsewhere.multiprocessing_context = method
    for here, there in zip(alone, elsewhere, strict=True):
        assert_same(here._asdict(), there._asdict())
