import pytest

from tests.exports import exported, save_bert, text_pairs


@pytest.fixture(scope="package")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="package")
def of_bert(bert, tmp_path_factory):
    """Its ranking head, exported."""
    return exported(bert, tmp_path_factory.mktemp("exported") / "trec2019")


@pytest.fixture(scope="package")
def pairs():
    return text_pairs()
