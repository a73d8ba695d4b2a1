import random

import pytest

from mtlrank import embedded
from tests.exports import exported, save_bert


@pytest.fixture(scope="package")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="package")
def of_bert(bert, tmp_path_factory):
    """Its ranking head, exported."""
    return exported(bert, tmp_path_factory.mktemp("exported") / "trec2019")


@pytest.fixture(scope="package")
def pairs():
    """Queries of up to the length that is kept, passages from a word to more than fit, and repeated special tokens."""
    docs = [line.split("\t")[1] for line in (embedded.folder() / "docs.tsv").read_text().splitlines()]
    draw = random.Random(0)
    queries = [" ".join(" ".join(draw.sample(docs, 2)).split()[: draw.randint(1, 10)]) for _ in range(90)]
    lengths = [1, 5, 30, 80, 85, 90, 95, 100, 300]
    texts = [" ".join(" ".join(draw.sample(docs, 20)).split()[: lengths[i % len(lengths)]]) for i in range(90)]
    return list(zip(queries, texts, strict=True))
