"""Single files: the same properties for a local folder and for Google Cloud Storage."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import pytest

from mtlrank.errors import ConflictError, StorageError
from mtlrank.storage import (
    ABSENT,
    exists,
    join,
    list_files,
    read_bytes,
    read_versioned,
    sizes_and_times,
    write_bytes,
)

LARGE = bytes(range(256)) * 3000  # three pieces of an upload


@pytest.fixture(params=["local", "gs"])
def root(request, tmp_path):
    """A folder of either kind."""
    if request.param == "local":
        return str(tmp_path / "root")
    request.getfixturevalue("server")
    return "gs://bucket/root"


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
def test_what_is_written_is_read(root, data):
    path = join(root, "a", "ünï 100%25.bin")
    assert not exists(path)
    version = write_bytes(path, data)
    assert exists(path)
    assert read_bytes(path) == data
    assert read_versioned(path) == (data, version)


def test_a_missing_file(root):
    path = join(root, "none")
    assert read_versioned(path) == (None, ABSENT)
    with pytest.raises(StorageError, match="none is missing"):
        read_bytes(path)


def test_files_are_listed_by_relative_names(root):
    assert list_files(root) == []
    for name in ["b", "a/x", "a/b/c", "a b", "a%2Fz"]:
        write_bytes(join(root, name), b"1")
    write_bytes(root + "er", b"2")
    assert list_files(root) == ["a b", "a%2Fz", "a/b/c", "a/x", "b"]
    assert list_files(join(root, "a")) == ["b/c", "x"]


def test_create_only(root):
    path = join(root, "x")
    version = write_bytes(path, b"1", expected=ABSENT)
    assert write_bytes(path, b"1", expected=ABSENT) == version
    with pytest.raises(ConflictError, match="changed by another"):
        write_bytes(path, b"2", expected=ABSENT)
    assert read_bytes(path) == b"1"


@pytest.mark.parametrize("data", [b"2", LARGE], ids=["small", "large"])
def test_compare_and_swap(root, data):
    path = join(root, "x")
    first = write_bytes(path, b"1")
    second = write_bytes(path, data, expected=first)
    with pytest.raises(ConflictError, match="changed by another"):
        write_bytes(path, b"3", expected=first)
    assert read_versioned(path) == (data, second)
    write_bytes(path, b"4")
    assert read_bytes(path) == b"4"


def test_compare_and_swap_of_a_missing_file(root):
    version = write_bytes(join(root, "x"), b"1")
    with pytest.raises(ConflictError, match="changed by another"):
        write_bytes(join(root, "y"), b"1", expected=version)
    assert not exists(join(root, "y"))


def compete(writers):
    """Start all at once; who wins."""
    ready, won, errors = threading.Barrier(len(writers)), [], []

    def run(number, write):
        ready.wait()
        try:
            write()
            won.append(number)
        except ConflictError:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number, write)) for number, write in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return won


def test_of_competing_writers_exactly_one_wins(root):
    path = join(root, "x")
    version = write_bytes(path, b"start")
    for _ in range(5):
        contents = [f"{number} after {version}".encode() for number in range(4)]
        won = compete([lambda v=version, data=data: write_bytes(path, data, expected=v) for data in contents])
        assert len(won) == 1
        data, version = read_versioned(path)
        assert data == contents[won[0]]


def test_of_competing_creators_exactly_one_wins(root):
    for turn in range(5):
        path = join(root, f"lock{turn}")
        won = compete([lambda n=n, path=path: write_bytes(path, f"{n}".encode(), expected=ABSENT) for n in range(4)])
        assert [read_bytes(path)] == [f"{number}".encode() for number in won]


def test_equal_bytes_do_not_make_two_winners(server):
    """Two workers who both count from 1 to 2 have counted once; one must be told."""
    version = write_bytes("gs://bucket/count", b"1")
    server.fail("POST", "lose", times=2)
    won = compete([lambda: write_bytes("gs://bucket/count", b"2", expected=version) for _ in range(2)])
    assert len(won) == 1


def add_one(path, times):
    for _ in range(times):
        while True:
            data, version = read_versioned(path)
            try:
                write_bytes(path, str(int(data) + 1).encode(), expected=version)
                break
            except ConflictError:
                continue


def test_two_processes_lose_no_count_on_a_local_disk(tmp_path):
    path = str(tmp_path / "count")
    write_bytes(path, b"0")  # two creators of the same bytes would both succeed
    processes = [get_context("spawn").Process(target=add_one, args=(path, 20)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert read_bytes(path) == b"40"
    assert list_files(tmp_path) == ["count"]


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//x", "a\\x", "", ".", "a/", "C:x", "a\nb"])
def test_names_that_leave_the_folder_are_refused(root, name):
    with pytest.raises(StorageError, match="stays in the folder"):
        join(root, name)


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//x", "a\\x"])
def test_foreign_objects_with_such_names_are_refused(server, name):
    server.bucket.put({"name": f"f/{name}"}, b"", {})
    with pytest.raises(StorageError, match="stays in the folder"):
        list_files("gs://bucket/f")


def test_markers_of_empty_folders_are_no_files(server):
    for name in ["f/", "f/a/", "f/b"]:
        server.bucket.put({"name": name}, b"", {})
    assert list_files("gs://bucket/f") == ["b"]


@pytest.mark.parametrize(
    "path",
    [
        "gs://",
        "gs:///x",
        "gs://ab/x",
        "gs://Bucket/x",
        "gs://-bucket/x",
        f"gs://{'b' * 64}/x",
        "gs://b..b/x",
        "gs://bu?ket/x",
    ]
    + [f"gs://bucket/{key}" for key in ["a//b", "/a", "../a", "a/./b", "a/..", "a?b", "a#b", "a\\b", "a\nb", "a//"]]
    + ["s3://bucket/x", "http://host/x", "file:///x", "GS://bucket/x", "gs:/bucket/x"],
)
def test_urls_are_strict(path):
    for use in (exists, list_files, read_bytes, lambda path: write_bytes(path, b"")):
        with pytest.raises(StorageError, match="expected") as error:
            use(path)
        assert "\n" not in str(error.value)


def test_a_bucket_is_no_file(server):
    with pytest.raises(StorageError, match="is a bucket"):
        read_bytes("gs://bucket")
    write_bytes("gs://bucket/x", b"1")
    assert list_files("gs://bucket") == list_files("gs://bucket/") == ["x"]
    assert join("gs://bucket", "a", "b") == "gs://bucket/a/b"


def test_what_the_local_disk_refuses_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot read"):
        read_bytes(tmp_path)
    with pytest.raises(StorageError, match="Cannot write"):
        write_bytes(tmp_path / "file" / "x", b"")


def test_the_client_is_imported_only_for_its_paths():
    program = (
        "import sys, mtlrank.storage as s; s.exists('x'); s.list_files('x'); sys.exit('google.cloud' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_files_are_described(root):
    assert sizes_and_times(root) == {}
    write_bytes(join(root, "a", "x"), b"123")
    (found,) = sizes_and_times(root).items()
    assert found[0] == "a/x"
    assert found[1].size == 3
    assert abs(datetime.now(UTC) - found[1].written) < timedelta(minutes=10)
