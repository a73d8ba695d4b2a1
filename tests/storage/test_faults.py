"""Each fault during each operation ends well, or in one line that says what to do."""

import gc
import re
import threading

import pytest

from mtlrank.errors import DataError, StorageError
from mtlrank.storage import (
    ABSENT,
    MANIFEST,
    exists,
    fetch_folder,
    list_files,
    patience,
    publish_folder,
    read_bytes,
    read_manifest,
    read_versioned,
    write_bytes,
)

from .conftest import NAMES

LARGE = bytes(range(256)) * 3000  # three pieces of an upload
OLD, FILE, FOLDER = "gs://bucket/old", "gs://bucket/new", "gs://bucket/folder"
PASSING = [503, 429, "cut", "corrupt", "lose", "stall"]
FOR_EVER = 10**9


def read(old, folder, tmp_path):
    assert read_bytes(OLD) == LARGE


def read_with_version(old, folder, tmp_path):
    assert read_versioned(OLD) == (LARGE, old)


def overwrite(old, folder, tmp_path):
    write_bytes(OLD, b"2")
    assert read_bytes(OLD) == b"2"


def create(old, folder, tmp_path):
    version = write_bytes(FILE, b"1", expected=ABSENT)
    assert read_versioned(FILE) == (b"1", version)


def create_large(old, folder, tmp_path):
    version = write_bytes(FILE, LARGE, expected=ABSENT)
    assert read_versioned(FILE) == (LARGE, version)


def swap(old, folder, tmp_path):
    version = write_bytes(OLD, b"3", expected=old)
    assert read_versioned(OLD) == (b"3", version)


def swap_large(old, folder, tmp_path):
    version = write_bytes(OLD, LARGE[::-1], expected=old)
    assert read_versioned(OLD) == (LARGE[::-1], version)


def look(old, folder, tmp_path):
    assert exists(OLD)
    assert not exists(FILE)


def enumerate_files(old, folder, tmp_path):
    assert list_files("gs://bucket/published") == sorted([*NAMES, MANIFEST])


def publish(old, folder, tmp_path):
    publish_folder(folder, FOLDER)
    assert list_files(FOLDER) == sorted([*NAMES, MANIFEST])
    assert_equal_folders(folder, fetch_folder(FOLDER, tmp_path / "back"))


def fetch(old, folder, tmp_path):
    assert_equal_folders(folder, fetch_folder("gs://bucket/published", tmp_path / "target"))


OPERATIONS = [
    read,
    read_with_version,
    overwrite,
    create,
    create_large,
    swap,
    swap_large,
    look,
    enumerate_files,
    publish,
    fetch,
]


def assert_equal_folders(one, other):
    assert list_files(one) == list_files(other)
    assert read_manifest(one) == read_manifest(other)


@pytest.fixture
def old(server, folder):
    """The version of an old file, beside a folder that is published."""
    for name in [*NAMES, MANIFEST]:
        server.bucket.put({"name": f"published/{name}"}, (folder / name).read_bytes(), {})
    return str(server.bucket.put({"name": "old"}, LARGE, {}).generation)


@pytest.mark.parametrize("kind", PASSING, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_fault_that_passes_is_survived(server, old, folder, tmp_path, monkeypatch, operation, kind):
    if kind == "stall":
        monkeypatch.setattr(patience, "SILENCE", 0.1)
    server.fail("", kind, times=2)
    operation(old, folder, tmp_path)
    assert server.faults[0].times == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, old, status):
    server.fail("", status, times=5)
    assert read_bytes(OLD) == LARGE
    assert len(server.log) == 6


@pytest.mark.parametrize(
    ("operation", "kind"),
    [(publish, "lose"), (fetch, "corrupt"), (fetch, "cut"), (create_large, "lose"), (swap_large, "lose")],
)
def test_a_fault_at_any_request_is_survived(server, old, folder, tmp_path, operation, kind):
    operation(old, folder, tmp_path / "first")
    requests = len(server.log)
    assert requests > 3
    for after in range(requests):
        server.bucket.objects = {k: v for k, v in server.bucket.objects.items() if not re.match("new|folder/", k)}
        before = write_bytes(OLD, LARGE)
        server.faults.clear()
        server.fail("", kind, after=after)
        operation(before, folder, tmp_path / f"after {after}")
        assert server.faults[0].times == 0, after


@pytest.mark.parametrize("kind", [503, "lose", "stall"], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_fault_that_stays_is_one_line(server, old, folder, tmp_path, impatient, operation, kind):
    server.fail("", kind, times=FOR_EVER)
    with pytest.raises(StorageError, match=r"gs://bucket/.*gave up after \d+ tries without progress in 0.1 s") as error:
        operation(old, folder, tmp_path)
    assert "\n" not in str(error.value)
    assert patience.DEADLINE_VARIABLE in str(error.value)


WAYS_OUT = {
    401: "gcloud auth application-default login",
    403: "roles/storage.objectUser",
    400: "the server refused",
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # google-auth leaves the answer 401 open
@pytest.mark.parametrize("kind", WAYS_OUT)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_refusal_is_told_at_once(server, old, folder, tmp_path, operation, kind):
    server.fail("", kind, times=FOR_EVER)
    with pytest.raises(StorageError, match=WAYS_OUT[kind]) as error:
        operation(old, folder, tmp_path)
    assert "\n" not in str(error.value)
    assert len(server.log) == 1
    del error
    gc.collect(1)


@pytest.mark.parametrize(
    "use",
    [
        lambda folder, target: read_bytes("gs://absent/x"),
        lambda folder, target: read_versioned("gs://absent/x"),
        lambda folder, target: write_bytes("gs://absent/x", b""),
        lambda folder, target: write_bytes("gs://absent/x", LARGE),
        lambda folder, target: exists("gs://absent/x"),
        lambda folder, target: list_files("gs://absent/x"),
        lambda folder, target: publish_folder(folder, "gs://absent/x"),
        lambda folder, target: fetch_folder("gs://absent/x", target),
    ],
)
def test_a_missing_bucket_is_told_at_once(server, folder, tmp_path, use):
    with pytest.raises(StorageError, match="gcloud storage buckets create gs://absent"):
        use(folder, tmp_path / "target")
    assert len(server.log) == 1


def test_without_credentials_the_way_to_get_them_is_told(monkeypatch, server, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StorageError, match="gcloud auth application-default login"):
        read_bytes(OLD)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)


def test_an_emulator_without_a_scheme_is_told(monkeypatch, server):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    with pytest.raises(StorageError, match="expected http://host:port"):
        read_bytes(OLD)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf"])
def test_a_deadline_is_a_number(monkeypatch, server, text):
    monkeypatch.setenv(patience.DEADLINE_VARIABLE, text)
    with pytest.raises(StorageError, match="expected a number of seconds"):
        read_bytes(OLD)


def test_nobody_there_is_one_line(monkeypatch, server, impatient):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="gave up after .* ConnectionError"):
        read_bytes(OLD)


def test_a_lost_answer_is_followed_by_412(server):
    """The fault that compare-and-swap is about really happens here: the second try is refused, and we know why."""
    server.fail("POST", "lose")
    write_bytes(FILE, b"1", expected=ABSENT)
    assert server.count("^POST") == 2
    assert server.count("^GET") == 1
    assert server.bucket.objects["new"].generation == 1001


def test_a_lost_answer_does_not_steal_another_writers_success(server, old):
    """Our write went through, then another's did: we are told, and theirs stays."""
    server.fail("POST", "lose")
    posts = iter([lambda: None, lambda: server.bucket.put({"name": "old"}, b"theirs", {})])
    server.before = lambda request: next(posts, lambda: None)() if request.startswith("POST") else None
    with pytest.raises(StorageError, match="changed by another"):
        write_bytes(OLD, b"ours", expected=old)
    assert server.bucket.objects["old"].data == b"theirs"


@pytest.mark.parametrize("kind", ["forget", "keep part", "lose", 503, "corrupt"], ids=str)
@pytest.mark.parametrize("after", range(3))
def test_an_upload_in_pieces_survives(server, kind, after):
    server.fail("PUT", kind, after=after)
    version = write_bytes(FILE, LARGE, expected=ABSENT)
    assert read_versioned(FILE) == (LARGE, version)
    assert server.faults[0].times == 0


def test_a_lost_piece_is_sent_again_alone(server):
    server.fail("PUT", 503, after=1)
    write_bytes(FILE, LARGE)
    assert server.count("PUT") == 4
    assert server.count("POST") == 1


class FastClock(threading.local):
    """For each thread, a clock by which three seconds pass whenever it is read."""

    now = 0.0

    def monotonic(self):
        self.now += 3
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_download_goes_on_where_it_was_cut(server, folder, tmp_path, monkeypatch):
    """As long as bytes arrive it goes on, even if each try is cut: with 20 s of patience, minutes of cuts."""
    monkeypatch.setattr(patience, "time", FastClock())
    publish_folder(folder, FOLDER)
    server.fail("GET .*nested", "cut", times=12)
    assert_equal_folders(folder, fetch_folder(FOLDER, tmp_path / "target"))
    starts = [int(found) for found in re.findall(r"GET .*nested.*bytes=(\d+)-", "\n".join(server.log))]
    assert len(starts) == len(set(starts)) == 12
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_stays_damaged_is_named(server, folder, tmp_path, name):
    publish_folder(folder, FOLDER)
    stored = server.bucket.objects[f"folder/{name}"]
    server.bucket.put({"name": stored.name}, stored.data + b"x", {})
    with pytest.raises(DataError, match=re.escape(f"{FOLDER}/{name} is damaged")):
        fetch_folder(FOLDER, tmp_path / "target")
    assert not (tmp_path / "target" / MANIFEST).exists()
    assert not (tmp_path / "target" / name).exists()
