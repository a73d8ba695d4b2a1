import threading

import pytest
from huggingface_hub import close_session, constants

from mtlrank.datamodule import hub
from tests.datamodule.hub_server import HubServer


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub on this machine, and an empty cache."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub.fetch.cache_clear()
    yield server
    hub.fetch.cache_clear()
    close_session()
    server.shutdown()
    server.server_close()
