import pytest
from omegaconf import OmegaConf

from mtlrank.composing.selection import check_typed_tasks, select_tasks
from mtlrank.errors import ConfigError
from tests.conftest import KEYS
from tests.saved_models import composed


def test_the_default_config_has_the_five_tasks_in_order():
    config = composed()
    assert list(config["datamodule"]["dataset"]["datasets"]) == KEYS
    assert list(config["model"]["heads"]) == KEYS


def test_tasks_choose_a_subset_and_its_order():
    """The first one chooses the checkpoint, and leads every table."""
    config = composed("tasks=[msm_bm25,trec2019]")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["msm_bm25", "trec2019"]
    assert list(config["model"]["heads"]) == ["msm_bm25", "trec2019"]


def test_one_setting_is_the_length_of_all_tasks():
    datasets = composed("max_length=128", "datamodule.dataset.datasets.msm_ner.preprocessor.max_length=64")
    lengths = {
        key: node["preprocessor"]["max_length"] for key, node in datasets["datamodule"]["dataset"]["datasets"].items()
    }
    assert lengths == {**dict.fromkeys(KEYS, 128), "msm_ner": 64}


def test_selecting_twice_changes_nothing():
    config = composed("tasks=[msm_ner]")
    assert select_tasks(config) == config


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ["~model.heads.msm_ner"],
            r"^Datasets without a head: msm_ner\. .*Heads: trec2019, msm_bm25.*\+model/heads@model\.heads\.msm_ner=cls",
        ),
        (["~datamodule.dataset.datasets.msm_ner"], r"Heads without a dataset: msm_ner\. .*Datasets: trec2019"),
        (["tasks=[trec2091]"], r"Unknown task 'trec2091' in tasks\. Did you mean 'trec2019'\?"),
    ],
)
def test_heads_and_datasets_that_do_not_match_are_listed(overrides, complaint):
    with pytest.raises(ConfigError, match=complaint) as told:
        composed(*overrides)
    assert "none" not in str(told.value), "a side that lacks nothing is not told"


def test_a_setting_of_a_mixture_that_is_one_of_a_datasets_is_refused():
    with pytest.raises(
        ConfigError, match=r"no setting 'max_queries': set it .* as in datamodule\.dataset\.datasets\.trec2019\.max_"
    ):
        composed("+datamodule.dataset.max_queries=5")
    assert composed("datamodule/dataset=trec2019", "+datamodule.dataset.max_queries=5")


def test_tables_by_name_keep_the_names_of_chosen_tasks():
    """Two datasets may have one name, of which one is chosen."""
    added = ["+datamodule/dataset@datamodule.dataset.datasets.alt=trec2019", "+model/heads@model.heads.alt=cls"]
    limits = "+datamodule.train_sampler.limits={trec2019: 10, msm_ner: 20}"
    for words, expected in (
        (["tasks=[alt]"], {"trec2019": 10}),
        (["tasks=[trec2019,msm_ner]"], {"trec2019": 10, "msm_ner": 20}),
        (["tasks=[msm_bm25]"], {}),
    ):
        assert composed(*added, limits, *words)["datamodule"]["train_sampler"]["limits"] == expected


def test_a_single_dataset_is_a_mixture_of_one_with_its_own_head():
    config = composed("datamodule/dataset=msm_bm25")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["msm_bm25"]
    assert config["model"]["heads"]["msm_bm25"]["_target_"].endswith("MLP")


def test_a_single_dataset_without_a_head_gets_the_default_one():
    assert list(composed("datamodule/dataset=vaswani")["model"]["heads"]) == ["vaswani"]


def test_an_unknown_task_of_a_single_dataset_is_told():
    assert list(composed("datamodule/dataset=trec2019", "tasks=[trec2019]")["model"]["heads"]) == ["trec2019"]
    with pytest.raises(
        ConfigError, match=r"Unknown task 'trec2091' in tasks\. Did you mean 'trec2019'\? Datasets: trec2019\."
    ):
        composed("datamodule/dataset=trec2019", "tasks=[trec2091]")


@pytest.mark.parametrize("tasks", [["msm_bm25"], ["mine", "msm_bm25"]])
def test_tasks_that_are_typed_for_a_single_dataset_are_refused(tasks):
    single = OmegaConf.create({"tasks": tasks, "datamodule": {"dataset": {"name": "mine"}}})
    check_typed_tasks(single, ["seed=1"])  # those of an experiment are for its mixture
    with pytest.raises(ConfigError, match="chooses from a mixture, but datamodule/dataset is a single one, mine"):
        check_typed_tasks(single, ["seed=1", f"tasks=[{','.join(tasks)}]"])
    mixture = OmegaConf.create({"tasks": tasks, "datamodule": {"dataset": {"datasets": {}}}})
    for other in (mixture, OmegaConf.merge(single, {"tasks": ["mine"]}), OmegaConf.create({"tasks": tasks})):
        check_typed_tasks(other, ["tasks=..."])


@pytest.mark.parametrize("experiment", ["embedded", "msmarco", "trec2019", "vaswani"])
def test_a_single_dataset_is_learnt_by_itself_in_an_experiment(experiment, monkeypatch):
    """Though the experiment names tasks of its mixture."""
    monkeypatch.setenv("MTLRANK_REAL_DATA", "/data")
    words = [f"experiment={experiment}", "model.body.backbone=/a/bert", "collection=trec_dl"]
    assert list(composed(*words, "datamodule/dataset=trecqa")["model"]["heads"]) == ["trecqa"]
