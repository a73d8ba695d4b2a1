"""The server that the other tests trust refuses what the real one refuses."""

import base64

import pytest
from google.api_core.exceptions import BadRequest, NotFound, PreconditionFailed, ServiceUnavailable
from google.cloud.storage.exceptions import DataCorruption

from mtlrank.storage.gcs import blob_of
from mtlrank.storage.paths import Place

SIZES = [3, 700_000]  # in one request, and in pieces


def send(name, data, **options):
    blob = blob_of(Place("bucket", name))
    blob.upload_from_string(data, retry=None, **options)
    return blob


@pytest.mark.parametrize("size", SIZES)
def test_a_second_create_only_write_gets_412(server, size):
    first = send("x", b"a" * size, if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        send("x", b"b" * size, if_generation_match=0)
    assert server.bucket.objects["x"].data == b"a" * size
    assert send("x", b"c" * size, if_generation_match=first.generation).generation > first.generation
    with pytest.raises(PreconditionFailed):
        send("x", b"d" * size, if_generation_match=first.generation)
    with pytest.raises(PreconditionFailed):
        blob_of(Place("bucket", "x")).download_as_bytes(if_generation_match=first.generation, retry=None)


@pytest.mark.parametrize("size", SIZES)
def test_a_wrong_checksum_is_refused(server, size):
    blob = blob_of(Place("bucket", "x"))
    blob.crc32c = base64.b64encode(b"1234").decode()
    with pytest.raises(BadRequest, match="crc32c"):
        blob.upload_from_string(b"a" * size, checksum=None, retry=None)
    assert server.bucket.objects == {}


def test_a_range_is_a_range(server):
    send("x", b"0123456789")
    assert blob_of(Place("bucket", "x")).download_as_bytes(start=7, retry=None) == b"789"


def test_pages_and_absence(server):
    for number in range(8):
        send(f"f/{number}", b"")
    blob = blob_of(Place("bucket", "f/0"))
    assert [found.name for found in blob.bucket.list_blobs(prefix="f/")] == [f"f/{number}" for number in range(8)]
    assert server.count("GET .*pageToken") == 2
    with pytest.raises(NotFound, match="No such object"):
        blob_of(Place("bucket", "g")).download_as_bytes(retry=None)
    with pytest.raises(NotFound, match="bucket does not exist"):
        blob_of(Place("other", "g")).download_as_bytes(retry=None)


@pytest.mark.parametrize(("kind", "error"), [(503, ServiceUnavailable), ("corrupt", DataCorruption), ("lose", OSError)])
def test_faults_are_faults(server, kind, error):
    send("x", b"0123456789")
    server.fail("GET", kind)
    blob = blob_of(Place("bucket", "x"))
    with pytest.raises(error):
        blob.download_as_bytes(retry=None)
    assert blob.download_as_bytes(retry=None) == b"0123456789"
