import threading

import pytest

from mtlrank.storage import gcs, patience, upload, write_manifest

from .gcs_server import FakeServer

AWKWARD = ["ünï código.txt", "100%25.txt", "a#b?.txt", "a b", "empty"]
NAMES = [*AWKWARD, "deep/er/weights.bin", "tokens.npy", "nested/manifest.json"]


@pytest.fixture
def server(monkeypatch):
    """A fresh Google Cloud Storage on this machine, and little patience with it."""
    monkeypatch.setattr(patience, "DEADLINE", 20)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(patience, "SILENCE", 5)
    monkeypatch.setattr(upload, "PIECE", 256 << 10)  # the least that the client takes
    monkeypatch.setattr("google.cloud.storage.blob._MAX_MULTIPART_SIZE", 300 << 10)  # 8 MiB, smaller
    server = FakeServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    yield server
    server.released.set()
    gcs._client().close()
    gcs._new_client.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.fixture
def impatient(monkeypatch):
    """Give up soon: for faults that never end."""
    monkeypatch.setenv(patience.DEADLINE_VARIABLE, "0.1")


@pytest.fixture
def folder(tmp_path):
    """A finished folder with files of awkward names and sizes."""
    folder = tmp_path / "folder"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else f"{name}:{number}\r\n".encode() * (10 + 997 * number))
    write_manifest(folder, {"kind": "test"})
    return folder
