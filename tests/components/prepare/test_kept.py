"""A dataset that is kept is prepared once, whatever the run and the image."""

from pathlib import Path

import pytest

from components.prepare import kept
from components.prepare.kept import INSTEAD, merge_or_fetch, prepare_or_find
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConflictError, DataError
from mtlrank.shard import Shard
from mtlrank.storage import MANIFEST, gcs, list_files, remove_folder, write_bytes
from mtlrank.storage.paths import parse

SHARDS = [Shard(1, 2), Shard(2, 2)]


def prepared(folder, kept_in, *words, shards=SHARDS):
    """The parts and the dataset of a run whose artifacts lie in `folder`."""
    config = select_tasks(compose_config(["tasks=[msm_ner]", *words], trusted=True))
    parts = [folder / f"part{shard.number}" for shard in shards]
    for part, shard in zip(parts, shards, strict=True):
        prepare_or_find(config, "msm_ner", shard, part, kept_in)
    merge_or_fetch(config, "msm_ner", parts, folder / "dataset", kept_in)
    files = [path for path in (folder / "dataset").rglob("*") if path.is_file()]
    return parts, {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def first(tmp_path, place):
    """What a first run made, which is kept from then on."""
    return prepared(tmp_path / "first", place)


def test_the_same_data_are_prepared_once(first, tmp_path, place, monkeypatch):
    monkeypatch.setattr(kept, "prepare_shard", None)
    monkeypatch.setattr(kept, "merge", None)
    parts, dataset = prepared(tmp_path / "second", place)
    assert dataset == first[1]
    assert [[file.name for file in part.iterdir()] for part in parts] == [[INSTEAD], [INSTEAD]]


def test_nothing_is_kept_without_a_folder(tmp_path, home):
    parts, dataset = prepared(tmp_path / "run", "")
    assert all((part / MANIFEST).exists() for part in parts)
    assert f"dataset/{MANIFEST}" in dataset


@pytest.mark.parametrize("changed", [["max_length=100"], ["prepare.on_bad_row=quarantine"]])
def test_other_settings_are_other_data(first, tmp_path, place, changed):
    parts, _ = prepared(tmp_path / "second", place, *changed)
    assert not any((part / INSTEAD).exists() for part in parts)


def test_data_that_change_before_they_are_merged_are_kept_as_what_they_were(tmp_path, place):
    file, rows = tmp_path / "x.conll", "Mira\tB-PER\nslept\tO\n\nQuellin\tB-LOC\nslept\tO\n\n"
    file.write_text(rows * 10)
    words = [f"datamodule.dataset.datasets.msm_ner.{split}={file}" for split in ("train", "val", "test")]
    config = select_tasks(compose_config(["tasks=[msm_ner]", *words], trusted=True))
    prepare_or_find(config, "msm_ner", Shard(), tmp_path / "part", place)
    file.write_text(rows * 9)
    merge_or_fetch(config, "msm_ner", [tmp_path / "part"], tmp_path / "dataset", place)
    for name, times, is_known in (("now", 9, False), ("before", 10, True)):
        file.write_text(rows * times)
        parts, _ = prepared(tmp_path / name, place, *words, shards=[Shard()])
        assert (parts[0] / INSTEAD).exists() == is_known


def test_what_another_run_has_kept_meanwhile_stays(tmp_path, place, monkeypatch, capsys):
    def publish(folder, path):
        raise ConflictError(f"{path} contains another folder already.")

    monkeypatch.setattr(kept, "publish_folder", publish)
    _, dataset = prepared(tmp_path / "run", place)
    assert f"dataset/{MANIFEST}" in dataset
    assert "another run kept msm_ner first" in capsys.readouterr().err


def lose(path):
    """Delete one file, as a lifecycle rule does."""
    place = parse(path)
    place.unlink() if isinstance(place, Path) else gcs.delete(place)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [lose, lambda path: write_bytes(path, b"other")], ids=["lost", "damaged"])
def test_what_lost_a_file_says_which_folder_to_remove(first, tmp_path, place, harm):
    (card,) = [name for name in list_files(place) if name.endswith("card.html")]
    folder = f"{place}/{card.removesuffix('/card.html')}"
    harm(f"{place}/{card}")
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "second", place)
    said = str(caught.value)
    assert said.startswith(f"{folder}/card.html ")
    assert said.endswith(
        f". Remove {folder}, and start a new run without cached results (--no-cache), which makes it again."
    )
    assert said.count(". ") == 1
    remove_folder(folder)
    assert prepared(tmp_path / "third", place)[1] == first[1]


def test_a_run_goes_on_if_it_cannot_keep_what_it_made(tmp_path, bucket, monkeypatch, capsys):
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))
    bucket.fail("POST", 403, times=10**9)  # the right to read is there
    _, dataset = prepared(tmp_path / "run", "gs://bucket/prepared")
    assert f"dataset/{MANIFEST}" in dataset
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mtlrank: ")]
    assert warning.startswith("mtlrank: msm_ner is not kept in gs://bucket/prepared/msm_ner-")
    assert "so later runs prepare it again; this run goes on: Cannot write gs://bucket/prepared/" in warning


def test_a_folder_that_is_a_file_costs_no_run_either(tmp_path, home, capsys):
    (tmp_path / "prepared").write_text("")
    _, dataset = prepared(tmp_path / "run", str(tmp_path / "prepared"))
    assert f"dataset/{MANIFEST}" in dataset
    assert "this run goes on: Cannot publish" in capsys.readouterr().err


def test_what_was_removed_while_a_run_began_is_told(first, tmp_path, place):
    config = select_tasks(compose_config(["tasks=[msm_ner]"], trusted=True))
    part = tmp_path / "part"
    prepare_or_find(config, "msm_ner", SHARDS[0], part, place)
    folder = (part / INSTEAD).read_text()
    remove_folder(folder)
    with pytest.raises(DataError, match=r"was there when this run began and is gone\. Start a new run"):
        merge_or_fetch(config, "msm_ner", [part, part], tmp_path / "dataset", place)
    assert not (tmp_path / "dataset").exists()
