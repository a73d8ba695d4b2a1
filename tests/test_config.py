from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.config import datasets_of, head_names, measures_of


def test_datasets_are_keyed_and_heads_named():
    words = ["tasks=[msm_bm25,trec2019]", "datamodule.dataset.datasets.msm_bm25.name=scores"]
    config = select_tasks(compose_config(words, trusted=True))
    assert list(datasets_of(config)) == ["msm_bm25", "trec2019"]
    assert head_names(config) == ["scores", "trec2019"]


def test_measures_are_named_by_a_config_or_only_by_a_class():
    assert measures_of({"task": {"measures": ["MSE", "Spearman"]}}) == ["MSE", "Spearman"]
    assert measures_of({"task": {"_target_": "my_parts.Mine"}}) is None
