"""Folders to and from Google Cloud Storage: never one that loads but is wrong."""

import io
import json
import os
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mtlrank.errors import ConflictError, DataError, StorageError
from mtlrank.storage import (
    MANIFEST,
    fetch_folder,
    list_files,
    patience,
    publish_folder,
    read_manifest,
    write_bytes,
    write_manifest,
)
from mtlrank.storage.digest import digest
from mtlrank.storage.gcs import Stored
from mtlrank.storage.versions import ABSENT

from .conftest import NAMES
from .test_faults import FOLDER, FOR_EVER, assert_equal_folders

UPLOADS, DOWNLOADS = "^(POST|PUT)", "^GET .*alt=media"


def changed(folder, tmp_path):
    """Another version of a folder."""
    other = tmp_path / "other"
    publish_folder(folder, other)
    (other / "a b").write_text("changed")
    write_manifest(other, {"kind": "test"})
    return other


def test_an_object_holds_what_has_its_size_and_all_its_hashes():
    content = digest(io.BytesIO(b"text"))
    found = Stored(content.size, content.crc32c, content.md5, ABSENT, datetime.now(UTC))
    assert found.holds(content)
    assert found._replace(md5=None).holds(content)  # composed of others
    for change in ({"size": 5}, {"crc32c": "AAAAAA=="}, {"md5": "AAAAAAAAAAAAAAAAAAAAAA=="}):
        assert not found._replace(**change).holds(content)


@pytest.mark.parametrize("kind", ["local", "gs"])
class TestPublish:
    """What holds for a target of either kind."""

    @pytest.fixture
    def target(self, kind, request, tmp_path):
        if kind == "gs":
            request.getfixturevalue("server")
        return FOLDER if kind == "gs" else str(tmp_path / "published" / "folder")

    def test_a_folder_comes_back_equal(self, folder, target, tmp_path):
        publish_folder(folder, target)
        assert_equal_folders(folder, fetch_folder(target, tmp_path / "back"))

    def test_twice_is_success(self, folder, target):
        publish_folder(folder, target)
        publish_folder(folder, target)
        assert list_files(target) == sorted([*NAMES, MANIFEST])

    def test_another_folder_is_not_replaced(self, folder, target, tmp_path):
        publish_folder(folder, target)
        with pytest.raises(ConflictError, match="contains another folder already"):
            publish_folder(changed(folder, tmp_path), target)
        assert_equal_folders(folder, fetch_folder(target, tmp_path / "back"))

    def test_only_listed_files_are_published(self, folder, target):
        (folder / "stray").touch()
        publish_folder(folder, target)
        assert "stray" not in list_files(target)

    def test_an_unfinished_folder_is_refused(self, folder, target):
        (folder / MANIFEST).unlink()
        with pytest.raises(DataError, match=f"{MANIFEST} is missing"):
            publish_folder(folder, target)
        assert list_files(target) == []

    @pytest.mark.parametrize("name", NAMES)
    def test_a_damaged_folder_is_refused(self, folder, target, name):
        (folder / name).write_bytes(b"?")
        with pytest.raises(DataError, match="was changed or damaged"):
            publish_folder(folder, target)
        assert MANIFEST not in list_files(target)

    def test_a_missing_file_is_refused(self, folder, target):
        (folder / "a b").unlink()
        with pytest.raises((DataError, StorageError), match="a b|No such file"):
            publish_folder(folder, target)
        assert MANIFEST not in list_files(target)


def test_a_local_target_with_other_things_is_left_alone(folder, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(StorageError, match="contains other files"):
        publish_folder(folder, tmp_path / "home")
    assert list_files(tmp_path / "home") == ["thesis.tex"]


def test_a_damaged_local_target_is_named(folder, tmp_path):
    publish_folder(folder, tmp_path / "target")
    (tmp_path / "target" / "a b").write_text("?")
    with pytest.raises(DataError, match="a b was changed or damaged"):
        publish_folder(folder, tmp_path / "target")


def test_a_local_folder_is_fetched_without_a_copy(folder, tmp_path):
    assert fetch_folder(folder, tmp_path / "target") == folder
    assert not (tmp_path / "target").exists()


def test_the_manifest_is_published_last(server, folder):
    publish_folder(folder, FOLDER)
    uploads = [request for request in server.log if request.startswith("POST")]
    generations = {name: found.generation for name, found in server.bucket.objects.items()}
    assert len(uploads) == len(NAMES) + 1
    assert max(generations, key=generations.get) == f"folder/{MANIFEST}"


def test_a_killed_publish_continues(server, folder, tmp_path):
    """Killed before the manifest is there: nobody can load what is, and the second publish sends only the rest."""
    publish_folder(folder, FOLDER)
    manifest, total = (
        max(i for i, request in enumerate(server.log) if request.startswith("POST")),
        server.count(UPLOADS),
    )
    for after in range(manifest + 1):
        server.bucket.objects.clear()
        server.faults.clear()
        server.fail("", 403, times=FOR_EVER, after=after)
        with pytest.raises(StorageError):
            publish_folder(folder, FOLDER)
        server.faults.clear()
        with pytest.raises(StorageError, match=f"has no {MANIFEST}"):
            fetch_folder(FOLDER, tmp_path / "target")
        there = len(server.bucket.objects)
        server.log.clear()
        publish_folder(folder, FOLDER)
        assert server.count(UPLOADS) == total - there
    assert_equal_folders(folder, fetch_folder(FOLDER, tmp_path / "target"))


def test_leftovers_of_another_publish_are_replaced(server, folder, tmp_path):
    server.fail("POST", 403, times=FOR_EVER, after=3)
    with pytest.raises(StorageError):
        publish_folder(changed(folder, tmp_path), FOLDER)
    server.faults.clear()
    publish_folder(folder, FOLDER)
    assert_equal_folders(folder, fetch_folder(FOLDER, tmp_path / "target"))


def test_two_publishers_of_different_folders_never_mix(server, folder, tmp_path):
    folders = [folder, changed(folder, tmp_path)]
    for turn in range(10):
        results, ready = [None, None], threading.Barrier(2)

        def run(number, target, results=results, ready=ready):
            ready.wait()
            try:
                publish_folder(folders[number], target)
                results[number] = "won"
            except ConflictError:
                results[number] = "told"

        threads = [threading.Thread(target=run, args=(number, f"{FOLDER}{turn}")) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert None not in results
        assert results.count("won") < 2
        if "won" in results:
            back = fetch_folder(f"{FOLDER}{turn}", tmp_path / f"back{turn}")
            assert_equal_folders(folders[results.index("won")], back)


@pytest.mark.parametrize("uploads", [len(NAMES), len(NAMES) + 1], ids=["before the manifest", "after it"])
def test_a_file_overwritten_during_a_publish_gets_no_manifest(server, folder, uploads):
    def overwrite(request):
        if request.startswith("GET") and "prefix" in request and server.count("^POST") == uploads:
            server.bucket.put({"name": "folder/a b"}, b"theirs", {})

    server.before = overwrite
    with pytest.raises(ConflictError, match="folder/a b was changed by another"):
        publish_folder(folder, FOLDER)
    assert f"folder/{MANIFEST}" not in server.bucket.objects


def test_of_two_manifests_the_first_stays(server, folder, tmp_path):
    def be_faster(request):
        if request.startswith("POST") and server.count("^POST") == len(NAMES) + 1:
            server.bucket.put({"name": f"folder/{MANIFEST}"}, b"theirs", {})

    server.before = be_faster
    with pytest.raises(ConflictError, match="contains another folder already"):
        publish_folder(folder, FOLDER)
    assert server.bucket.objects[f"folder/{MANIFEST}"].data == b"theirs"


@pytest.fixture
def published(server, folder):
    """A published folder and an empty log."""
    publish_folder(folder, FOLDER)
    server.log.clear()
    return server


def test_a_killed_fetch_continues(published, folder, tmp_path):
    """Killed after any of its requests: what is there does not load, and the second fetch gets only the rest."""
    fetch_folder(FOLDER, tmp_path / "first")
    for after in range(len(published.log)):
        target = tmp_path / f"after {after}"
        published.fail("", 403, times=FOR_EVER, after=after)
        with pytest.raises(StorageError):
            fetch_folder(FOLDER, target)
        published.faults.clear()
        with pytest.raises(DataError, match=f"{MANIFEST} is missing"):
            read_manifest(target)
        there = sum((target / name).is_file() for name in NAMES)
        published.log.clear()
        assert_equal_folders(folder, fetch_folder(FOLDER, target))
        assert published.count(DOWNLOADS) <= 1 + len(NAMES) - there


def test_what_is_there_is_not_downloaded(published, tmp_path):
    fetch_folder(FOLDER, tmp_path / "target")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "target").rglob("*")}
    published.log.clear()
    fetch_folder(FOLDER, tmp_path / "target")
    assert published.log == [request for request in published.log if MANIFEST in request]
    assert len(published.log) == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "target").rglob("*")} == before


@pytest.mark.parametrize("name", [name for name in NAMES if name != "empty"])
def test_a_flipped_byte_is_named_and_fetched_again(published, folder, tmp_path, name):
    target = fetch_folder(FOLDER, tmp_path / "target")
    data = bytearray((target / name).read_bytes())
    data[len(data) // 2] ^= 1
    (target / name).write_bytes(data)
    with pytest.raises(DataError, match="was changed or damaged") as error:
        read_manifest(target)
    assert name in str(error.value)
    published.log.clear()
    assert_equal_folders(folder, fetch_folder(FOLDER, target))
    assert published.count(DOWNLOADS) == 2  # the manifest and this file


def test_a_newer_folder_takes_the_place_of_an_older_one(published, folder, tmp_path):
    target = fetch_folder(FOLDER, tmp_path / "target")
    other = changed(folder, tmp_path)
    publish_folder(other, FOLDER + "2")
    published.log.clear()
    assert_equal_folders(other, fetch_folder(FOLDER + "2", target))
    assert published.count(DOWNLOADS) == 2


def test_a_killed_update_leaves_no_manifest(published, folder, tmp_path):
    target = fetch_folder(FOLDER, tmp_path / "target")
    publish_folder(changed(folder, tmp_path), FOLDER + "2")
    published.fail("alt=media", 403, after=1)
    with pytest.raises(StorageError, match="not allowed"):
        fetch_folder(FOLDER + "2", target)
    assert not (target / MANIFEST).exists()


def test_an_object_replaced_between_listing_and_download_is_no_part_of_the_folder(published, tmp_path):
    def overwrite(request):
        if "alt=media" in request and "tokens.npy" in request:
            published.bucket.put({"name": "folder/tokens.npy"}, b"theirs", {})

    published.before = overwrite
    with pytest.raises(ConflictError, match="changed by another process"):
        fetch_folder(FOLDER, tmp_path / "target")
    assert not (tmp_path / "target" / MANIFEST).exists()


def test_a_missing_object_is_named(published, tmp_path):
    del published.bucket.objects["folder/a b"]
    with pytest.raises(DataError, match="folder/a b is missing although"):
        fetch_folder(FOLDER, tmp_path / "target")
    assert not (tmp_path / "target" / MANIFEST).exists()


def test_a_folder_without_a_manifest_is_not_there(server, tmp_path):
    write_bytes(f"{FOLDER}/x", b"")
    with pytest.raises(StorageError, match=f"has no {MANIFEST}"):
        fetch_folder(FOLDER, tmp_path / "target")


HASH = "0" * 64


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "a\\x", "", "..", "C:x", "a/"])
def test_names_that_leave_the_folder_are_refused_before_anything_is_written(server, tmp_path, name):
    write_bytes(f"{FOLDER}/{MANIFEST}", json.dumps({"files": {"good": HASH, name: HASH}}).encode())
    with pytest.raises(StorageError, match="stays in the folder"):
        fetch_folder(FOLDER, tmp_path / "deep" / "target")
    assert list_files(tmp_path) == []


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"files": {"a": 1}}',
        b'{"files": {"a": "x"}}',
        b"\xff",
        b"[" * 100_000,
    ]
    + [json.dumps({"files": {MANIFEST: HASH}}).encode()],
    ids=lambda manifest: repr(manifest[:16]),
)
def test_what_is_no_manifest_is_refused(server, tmp_path, manifest):
    write_bytes(f"{FOLDER}/{MANIFEST}", manifest)
    with pytest.raises(DataError, match=MANIFEST):
        fetch_folder(FOLDER, tmp_path / "target")


def test_a_link_in_the_target_does_not_lead_out(published, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is outside .*, through a link"):
        fetch_folder(FOLDER, tmp_path / "target")
    assert list_files(tmp_path / "elsewhere") == []


def test_fetches_of_the_same_folder_share_the_work(published, folder, tmp_path):
    threads = [threading.Thread(target=fetch_folder, args=(FOLDER, tmp_path / "target")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal_folders(folder, tmp_path / "target")
    assert published.count(DOWNLOADS) == len(NAMES) - 1 + 4  # all but the empty file, and each its manifest


def test_a_target_that_cannot_be_written_is_one_line(published, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot fetch"):
        fetch_folder(FOLDER, tmp_path / "file" / "target")
    (tmp_path / "target" / "a b" / "x").mkdir(parents=True)
    with pytest.raises(StorageError, match="Cannot fetch"):
        fetch_folder(FOLDER, tmp_path / "target")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_target_is_one_line(published, tmp_path):
    (tmp_path / "target").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="Cannot fetch"):
        fetch_folder(FOLDER, tmp_path / "target")


def test_a_full_disk_is_not_waited_for(published, tmp_path, monkeypatch):
    """A disk does not empty itself: the download stops at once, and the clock has nothing to do with it."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pytest.fail("waited"))
    monkeypatch.setattr(patience, "time", clock)  # other threads sleep on

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("google.cloud.storage.blob.Blob.download_to_file", full)
    with pytest.raises(StorageError, match="No space left"):
        fetch_folder(FOLDER, tmp_path / "target")
