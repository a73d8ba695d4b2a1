"""Preparing by shards, by processes, and after being killed: always the same bytes."""

import json
import multiprocessing
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import GPT2Config

from mtlrank import prepare, train
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.storage import MANIFEST, list_files, read_manifest


def composed(folder, *overrides):
    return select_tasks(compose_config([f"data_dir={folder}", *overrides], trusted=True))


def manifest_of(folder, key):
    (found,) = (path for path in folder.glob(f"{key}-*") if path.is_dir())
    return read_manifest(found)


@pytest.fixture
def fresh_home(monkeypatch, tmp_path, home):
    """Nothing that was made from the collection's documents before."""
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))


@pytest.mark.slow
def test_several_processes_write_what_one_writes(tmp_path):
    words = ["tasks=[msm_ner]", "prepare.num_shards=3"]
    for name, workers in (("one", 1), ("two", 2)):
        prepare.run(composed(tmp_path / name, *words, f"prepare.num_workers={workers}"))
    assert manifest_of(tmp_path / "one", "msm_ner") == manifest_of(tmp_path / "two", "msm_ner")


def test_machines_prepare_a_shard_each_and_any_of_them_merges(tmp_path, capsys):
    words = ["tasks=[msm_ner]"]
    assert prepare.run(composed(tmp_path / "all", *words, "prepare.num_shards=2"))
    for shard in ("2/2", "1/2"):
        assert prepare.run(composed(tmp_path / "each", *words, f"prepare.shard={shard}")) == {}
    before = sorted((tmp_path / "each").rglob("tokens.npy"))
    times = [path.stat().st_mtime_ns for path in before]
    assert len(before) == 2
    prepare.run(composed(tmp_path / "each", *words, "prepare.num_shards=2"))
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "each").rglob("tokens.npy"))] == times
    assert manifest_of(tmp_path / "each", "msm_ner") == manifest_of(tmp_path / "all", "msm_ner")
    assert "prepared shard 2/2 of msm_ner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("msm_sem_sim.train=gone.tsv", "file of split 'train' 'gone.tsv' does not exist in the current folder"),
        (
            "msm_sem_sim.train=s3://b/x.tsv",
            "'s3://b/x.tsv' does not exist: expected the path of a local file, or hf://",
        ),
        ("msm_coref.train=gone", "'gone'"),
        ("msm_bm25.train={docs: gone.tsv, queries: gone.tsv}", "collection's docs file 'gone.tsv' does not exist"),
        ("msm_sem_sim.train=$FOLDER/gone.tsv", "does not exist. Set the environment variable FOLDER."),
    ],
)
def test_a_source_that_is_not_there_is_told_before_any_dataset_is_prepared(tmp_path, override, complaint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = override.partition(".")[0]
    config = composed(tmp_path / "data", f"tasks=[msm_ner,{key}]", f"datamodule.dataset.datasets.{override}")
    with pytest.raises(DataError, match=re.escape(complaint)):
        prepare.run(config)
    assert not (tmp_path / "data").exists()


def test_texts_longer_than_the_body_has_positions_for_are_told_before_any_dataset_is_prepared(tmp_path):
    words = ["tasks=[msm_sem_sim,msm_ner]", "datamodule.dataset.datasets.msm_ner.preprocessor.max_length=512"]
    with pytest.raises(ConfigError, match="is 512, but .*tiny-bert has positions for 256 tokens: set max_length=256"):
        prepare.run(composed(tmp_path / "data", *words))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("run", [prepare.run, train.run])
def test_a_body_that_is_no_encoder_is_told_before_any_dataset_is_prepared(tmp_path, run):
    GPT2Config().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="is no encoder .gpt2: a family that writes text"):
        words = [f"model.body.backbone={tmp_path / 'gpt2'}", f"output_dir={tmp_path / 'run'}"]
        run(composed(tmp_path / "data", "tasks=[msm_ner]", *words))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("experiment", ["trec2019", "vaswani"])
def test_data_that_no_task_asks_for_need_not_be_there(experiment, monkeypatch):
    """Their folder is a variable that is not set here."""
    monkeypatch.delenv("MTLRANK_REAL_DATA", raising=False)
    config = composed("data", f"experiment={experiment}", "tasks=[stsb]", "model.body.backbone=/a/bert")
    with pytest.raises(
        DataError, match="stsb/sts-train.csv' does not exist. Set the environment variable MTLRANK_REAL_DATA."
    ):
        prepare.run(config)


def test_what_another_process_prepares_beside_the_shards_stays(tmp_path):
    words = ["tasks=[msm_ner]"]
    prepare.run(composed(tmp_path, *words, "prepare.shard=1/2"))
    (shards,) = tmp_path.glob("*.shards")
    theirs = shards / "a shard that is being written"
    theirs.mkdir()
    prepare.run(composed(tmp_path, *words, "prepare.num_shards=2"))
    assert list(shards.iterdir()) == [theirs]


def test_measures_that_the_grades_make_useless_are_told(tmp_path, capsys):
    for measure, told in (("AP(rel=2)", False), ("AP(rel=9)", True)):
        task = f"datamodule.dataset.datasets.trec2019.task.measures=['nDCG@10','{measure}']"
        prepare.run(composed(tmp_path, "tasks=[trec2019]", task))
        assert ("always 0, as no judged document has such a grade: AP(rel=9):" in capsys.readouterr().err) is told


def test_a_validation_on_few_queries_is_told(tmp_path, capsys):
    for share, told in (("0.02", True), ("0.2", False)):
        prepare.run(composed(tmp_path, "tasks=[trec2019]", f"datamodule.dataset.datasets.trec2019.val={share}"))
        said = capsys.readouterr().err
        assert bool(re.search(r"; warning: val has only \d+ queries, so its measures vary much", said)) is told


def _prepare_in(folder, began):
    began.wait()
    prepare.run(composed(folder, "tasks=[msm_ner]"))


def test_processes_that_need_the_same_dataset_at_once_make_it_once(tmp_path, capfd):
    """As those of torchrun do in a new data_dir."""
    context = multiprocessing.get_context("fork")
    began = context.Barrier(2)
    processes = [context.Process(target=_prepare_in, args=(tmp_path / "same", began)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    prepare.run(composed(tmp_path / "alone", "tasks=[msm_ner]"))
    assert manifest_of(tmp_path / "same", "msm_ner") == manifest_of(tmp_path / "alone", "msm_ner")
    assert capfd.readouterr().err.count("another process is preparing msm_ner: waiting for it") == 1


def test_an_error_in_another_process_is_told_as_it_is(tmp_path):
    words = ["tasks=[msm_ner]", "prepare.num_shards=2", "prepare.num_workers=2"]
    file = tmp_path / "bad.conll"
    file.write_text("Mira\n")
    with pytest.raises(DataError, match="bad.conll:1: expected 'token<TAB>tag'"):
        prepare.run(composed(tmp_path, *words, f"datamodule.dataset.datasets.msm_ner.train={file}"))


WAITING = """
import time
from pathlib import Path
from pathlib import Path

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import DataError, StorageError

FOLDER = Path(__file__).parent


class Waiting(PreparedDataset):
    def records(self, split):
        (FOLDER / f"begun-{self.shard.number}").touch()
        until = time.monotonic() + 20
        while (self.shard.number == 2 or not (FOLDER / "begun-2").exists()) and time.monotonic() < until:
            time.sleep(0.1)
        raise DataError("stop")
"""


def test_an_error_in_one_process_ends_the_others_and_begins_no_other_shard(tmp_path, monkeypatch):
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.syspath_prepend(tmp_path)
    config = composed(tmp_path, "tasks=[msm_bm25]", "prepare.num_shards=4", "prepare.num_workers=2")
    node = config["datamodule"]["dataset"]["datasets"]["msm_bm25"]
    node = {"_target_": "waiting.Waiting", "name": "waiting", **{key: node[key] for key in ("task", "preprocessor")}}
    config["datamodule"]["dataset"]["datasets"] = {"waiting": node}
    with pytest.raises(DataError, match="stop"):
        prepare.prepare_dataset(config, "waiting", tmp_path / "data" / "waiting")
    assert sorted(path.name for path in tmp_path.glob("begun-*")) == ["begun-1", "begun-2"]
    assert list((tmp_path / "data").iterdir()) == []
    assert not multiprocessing.active_children()


def test_bad_rows_are_set_aside_on_request_and_told(tmp_path, capsys):
    rows = [f"Mira{i}\tB-PER\nslept\tO\nQuellin{i}\tB-LOC\n" for i in range(5)]
    file = tmp_path / "rows.conll"
    file.write_text("\n".join([*rows, "broken\n", *rows]))
    words = ["tasks=[msm_ner]", f"datamodule.dataset.datasets.msm_ner.train={file}", "prepare.on_bad_row=quarantine"]
    words += [f"datamodule.dataset.datasets.msm_ner.{split}=null" for split in ("val", "test")]
    (dataset,) = prepare.run(composed(tmp_path, *words)).values()
    assert len(dataset.split("train")) == 10
    (folder,) = tmp_path.glob("msm_ner-*")
    assert "rows.conll:21" in (folder / "bad_rows.jsonl").read_text()
    assert "rows.conll:21: expected" in (folder / "card.html").read_text()
    assert "1 bad row set aside" in capsys.readouterr().err


@pytest.mark.parametrize("named", [".", "data", "./data/", "{here}"])
def test_a_folder_that_a_dataset_names_may_hold_what_is_prepared(tmp_path, monkeypatch, named, capsys):
    monkeypatch.chdir(tmp_path)
    beir, qrels = (
        (tmp_path / "data", tmp_path / "data" / "qrels") if "data" in named else (tmp_path, tmp_path / "qrels")
    )
    qrels.mkdir(parents=True)
    rows = [json.dumps({"_id": str(i), "text": f"the harbour number {i}"}) for i in range(20)]
    for name in ("corpus.jsonl", "queries.jsonl"):
        (beir / name).write_text("\n".join(rows) + "\n")
    (qrels / "train.tsv").write_text("".join(f"{i}\t{i}\t2\n" for i in range(20)))
    words = [f"datamodule.dataset.train={{beir: '{named.format(here=tmp_path)}', split: train}}"]
    words += [f"datamodule.dataset.{split}=null" for split in ("val", "test")]
    for _ in range(2):
        prepare.run(composed("data", "datamodule/dataset=trec2019", *words))
    assert "prepared trec2019 before" in capsys.readouterr().err
    assert len(list((tmp_path / "data").glob("trec2019-*"))) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_changes_while_it_is_read_makes_no_dataset(tmp_path, workers, monkeypatch):
    """Its folder would be taken for that of the file of before."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_changed.py").write_text(CHANGED)
    file = tmp_path / "rows.tsv"
    words = ["datamodule/dataset=msm_sem_sim", "datamodule.dataset._target_=my_changed.Changed"]
    words += [f"datamodule.dataset.train={file}", *(f"datamodule.dataset.{split}=null" for split in ("val", "test"))]
    words += ["prepare.num_shards=2", f"prepare.num_workers={workers}"]
    for rows in (60, 50):  # what was made of one is no answer for the other
        file.write_text("".join(f"{i % 5}\tthe harbour number {i}\ta garden of {i}\n" for i in range(rows)))
        with pytest.raises(DataError, match="What msm_sem_sim is made of has changed while it was read: a file"):
            prepare.run(composed(tmp_path / "data", *words))
        assert not list((tmp_path / "data").glob("msm_sem_sim-*"))
        (dataset,) = prepare.run(composed(tmp_path / "data", *words)).values()
        assert len(dataset.split("train")) == rows + 1
        shutil.rmtree(dataset.folder)


CHANGED = """
from pathlib import Path

from mtlrank.datamodule.dataset import SentencePairs


class Changed(SentencePairs):
    def records(self, split):
        yield from super().records(split)
        for name in self.paths(split):
            rows = name.read_text()
            if not rows.endswith("more\\n"):
                name.write_text(rows + "3\\tsome\\tmore\\n")
"""


def test_what_was_prepared_is_told_with_what_was_left_out(tmp_path, capsys):
    (tmp_path / "train.conll").write_text("Mira\tB-PER\nslept\tO\n\nQuellin\tB-LOC\nslept\tO\n\nIt\tO\nrained\tO\n\n")
    keys = [f"datamodule.dataset.datasets.msm_ner.{split}" for split in ("train", "val", "test")]
    prepare.run(
        composed(
            tmp_path, "tasks=[msm_ner]", f"{keys[0]}={tmp_path / 'train.conll'}", f"{keys[1]}=null", f"{keys[2]}=null"
        )
    )
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("prepared msm_ner: train 2 samples; sentences without an entity: 1 ("), told


def test_text_on_a_card_is_escaped(tmp_path):
    file = tmp_path / "rows.tsv"
    file.write_text("1\t<script>alert(1)</script>\tfine\n2\tmore\ttext\n")
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={file}"]
    words += [f"datamodule.dataset.{split}=null" for split in ("val", "test")]
    prepare.run(composed(tmp_path, *words, "++datamodule.dataset.licence='<b>mine</b>'"))
    (folder,) = tmp_path.glob("msm_sem_sim-*")
    page = (folder / "card.html").read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;mine" in page


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_home")
def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    """Six kills over the time that the work takes; what they leave behind is gone in the end."""
    words = ["tasks=[trec2019]", "prepare.num_shards=3"]
    start = time.monotonic()
    prepare.run(composed(tmp_path / "undisturbed", *words))
    seconds = time.monotonic() - start
    shutil.rmtree(tmp_path / "home")
    config = composed(tmp_path / "killed", *words)
    draw, killed = random.Random(0), 0
    while killed < 6:
        process = multiprocessing.get_context("fork").Process(target=prepare.run, args=(config,))
        process.start()
        process.join(draw.uniform(0, 0.6) * seconds)
        is_late = not process.is_alive()
        killed += not is_late
        process.kill()
        process.join()
        if is_late or draw.random() < 0.5:  # else the next one goes on with the shards that are there
            shutil.rmtree(tmp_path / "killed", ignore_errors=True)
            shutil.rmtree(tmp_path / "home", ignore_errors=True)
    prepare.run(config)
    assert manifest_of(tmp_path / "killed", "trec2019") == manifest_of(tmp_path / "undisturbed", "trec2019")
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [
        path.name for path in (tmp_path / "undisturbed").iterdir()
    ]
    assert not list((tmp_path / "home").rglob(".docs.sqlite.*"))


def test_shards_that_a_killed_process_has_left_are_removed(tmp_path):
    """It was killed after it had merged them."""
    config = composed(tmp_path, "tasks=[msm_ner]", "prepare.num_shards=2")
    prepare.run(config)
    left = Path(f"{prepare.prepared_folder(config, 'msm_ner')}.shards", "shard-2-of-2")
    left.mkdir(parents=True)
    (left / "tokens.npy").touch()
    prepare.run(config)
    assert not left.parent.exists()


def test_what_is_there_is_used_where_nothing_can_be_written(tmp_path, monkeypatch):
    prepare.run(composed(tmp_path, "tasks=[msm_ner]"))
    (folder,) = tmp_path.glob("msm_ner-*")
    monkeypatch.chdir(folder)
    (dataset,) = prepare.run(composed(tmp_path, "tasks=[msm_ner]"), {"msm_ner": "/proc/self/cwd"}).values()
    assert len(dataset.split("train")) == 600
    with pytest.raises(StorageError, match="Cannot write to the folder '/proc/self'"):
        prepare.run(composed(tmp_path, "tasks=[msm_ner]"), {"msm_ner": "/proc/self/new"})


def test_a_half_written_folder_is_no_dataset(tmp_path):
    prepare.run(composed(tmp_path, "tasks=[msm_ner]"))
    (folder,) = tmp_path.glob("msm_ner-*")
    (folder / MANIFEST).unlink()
    (datasets,) = prepare.run(composed(tmp_path, "tasks=[msm_ner]")).values()
    assert len(datasets.split("train")) == 600


def machine(monkeypatch, tmp_path, name, home):
    """From now on, another machine: it has the embedded collection and nothing else."""
    folder = tmp_path / name
    shutil.copytree(home, folder / home.name)
    monkeypatch.setenv("MTLRANK_HOME", str(folder))
    return folder


def test_datasets_on_google_cloud_storage_are_made_once_and_fetched_by_others(bucket, tmp_path, monkeypatch, home):
    prepare.run(composed(tmp_path / "local", "tasks=[msm_ner]"))
    config = composed("gs://bucket/data", "tasks=[msm_ner]")
    machine(monkeypatch, tmp_path, "first", home)
    bucket.fail("POST .*upload", 503, times=2)
    prepare.run(config)
    published = list_files("gs://bucket/data")
    assert not any(".shards/" in name for name in published)
    second = machine(monkeypatch, tmp_path, "second", home)
    monkeypatch.setattr(prepare, "prepare_shard", None)  # nothing is prepared again
    (dataset,) = prepare.run(config).values()
    assert dataset.manifest == manifest_of(tmp_path / "local", "msm_ner")
    assert len(list((second / "mirror" / "bucket" / "data").rglob("tokens.npy"))) == 1


def test_shards_of_several_machines_meet_on_google_cloud_storage(bucket, tmp_path, monkeypatch, home):
    words = ["tasks=[msm_ner]"]
    prepare.run(composed(tmp_path / "local", *words, "prepare.num_shards=2"))
    for shard in ("1/2", "2/2"):
        machine(monkeypatch, tmp_path, f"machine {shard[0]}", home)
        prepare.run(composed("gs://bucket/data", *words, f"prepare.shard={shard}"))
    machine(monkeypatch, tmp_path, "machine 3", home)
    monkeypatch.setattr(prepare, "prepare_shard", None)
    (dataset,) = prepare.run(composed("gs://bucket/data", *words, "prepare.num_shards=2")).values()
    assert not [name for name in list_files("gs://bucket/data") if ".shards/" in name]  # they have been copied
    assert dataset.manifest == manifest_of(tmp_path / "local", "msm_ner")


def test_a_shard_on_the_command_line_is_read_as_it_was_typed(tmp_path):
    words = [sys.executable, "-m", "mtlrank", "prepare", "--shard", "1/2'"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == """mtlrank: The shard is "1/2'", expected i/n with i from 1 to n, as in 3/8.\n"""
