import pytest

from mtlrank.storage import patience, write_manifest

AWKWARD = ["ünï código.txt", "100%25.txt", "a#b?.txt", "a b", "empty"]
NAMES = [*AWKWARD, "deep/er/weights.bin", "tokens.npy", "nested/manifest.json"]


@pytest.fixture
def server(bucket):
    """What a bucket lies on, which can be told to fail."""
    return bucket


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
