from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.config import datasets_of, head_names


def test_datasets_are_keyed_and_heads_named():
    words = ["tasks=[msm_bm25,trec2019]", "datamodule.dataset.datasets.msm_bm25.name=scores"]
    config = select_tasks(compose_config(words, trusted=True))
    assert list(datasets_of(config)) == ["msm_bm25", "trec2019"]
    assert head_names(config) == ["scores", "trec2019"]
