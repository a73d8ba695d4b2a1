import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # trainings of all kinds share a process, and some are deterministic
os.environ.pop("MTLRANK_IMAGE", None)  # pipelines compile to the golden one
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # each worker has a core to itself
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import gc
import threading
import time
from functools import lru_cache

import pytest
import torch

from mtlrank import embedded
from mtlrank.composing import compose
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.prepare import prepare_dataset
from mtlrank.storage import gcs, patience, upload
from tests import faster  # noqa: F401 - for its effects
from tests.storage.gcs_server import FakeServer
from tests.tiny_collection import FILES, write

KEYS = ["trec2019", "msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"]


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.xdist_group("docker"))  # one worker builds the image


@pytest.hookimpl(tryfirst=True)  # before fixtures
def pytest_runtest_setup():
    if time.time() > float(os.environ.get("MTLRANK_TESTS_END", "inf")):
        pytest.skip("NOT RUN, as this machine is too slow: MTLRANK_TESTS_END is over")


def pytest_collection_finish():
    gc.freeze()  # what was imported stays: each full collection would look at all of it again


@pytest.fixture(autouse=True)
def fix_randomness():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def compose_once():
    """Hydra, which takes longer than most tests, composes the same words once, unless they name files that may change."""
    by_hydra = compose._composed
    known = lru_cache(64)(lambda name, *words: by_hydra(name, words))

    def composed(name, words):
        changing = compose.own_config_dir() or any("searchpath" in word for word in words)
        return by_hydra(name, words) if changing else known(name, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_composed", composed)
        yield


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory):
    """The embedded collection is made once for all tests, and never in the user's own cache."""
    os.environ["MTLRANK_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))
    embedded.folder.cache_clear()
    return embedded.folder()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """For prepared datasets, and one for all workers of pytest-xdist: a dataset that two need is made once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "data").mkdir(exist_ok=True)
    return folder / "data"


@pytest.fixture(scope="session")
def config(data_dir):
    """The default config, with its tasks selected."""
    return select_tasks(compose_config([f"data_dir={data_dir}"], trusted=True))


@pytest.fixture(scope="session")
def datasets(config, data_dir, home):
    """The five embedded datasets, prepared and opened."""
    return {key: prepare_dataset(config, key, data_dir / key) for key in KEYS}


@pytest.fixture
def source(tmp_path):
    """The collection's files by part, as a config names them."""
    for part, lines in FILES.items():
        write(tmp_path / part, lines)
    return {part: str(tmp_path / part) for part in FILES}


@pytest.fixture
def bucket(monkeypatch):
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


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path, monkeypatch):
    """Where a registry lies: on this disk, or on Google Cloud Storage."""
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))
    if request.param == "local":
        return str(tmp_path / "registry")
    request.getfixturevalue("bucket")
    return "gs://bucket/registry"
