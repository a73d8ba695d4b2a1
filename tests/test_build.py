import pytest

from mtlrank import build
from mtlrank.build import check_targets, compose_config, pipeline_config, select_tasks
from mtlrank.errors import ConfigError
from tests.conftest import KEYS


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


def test_the_default_config_has_the_five_tasks_in_order():
    config = composed()
    assert list(config["datamodule"]["dataset"]["datasets"]) == KEYS
    assert list(config["model"]["heads"]) == KEYS


def test_tasks_choose_a_subset_in_config_order():
    config = composed("tasks=[msm_bm25,trec2019]")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["trec2019", "msm_bm25"]
    assert list(config["model"]["heads"]) == ["trec2019", "msm_bm25"]


def test_selecting_twice_changes_nothing():
    config = composed("tasks=[msm_ner]")
    assert select_tasks(config) == config


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["~model.heads.msm_ner"], r"Datasets without a head: msm_ner\. .*Heads: trec2019, msm_bm25"),
        (["~datamodule.dataset.datasets.msm_ner"], r"Heads without a dataset: msm_ner\. .*Datasets: trec2019"),
        (["tasks=[trec2091]"], r"Unknown task 'trec2091' in tasks\. Did you mean 'trec2019'\?"),
    ],
)
def test_heads_and_datasets_that_do_not_match_are_listed(overrides, complaint):
    with pytest.raises(ConfigError, match=complaint):
        composed(*overrides)


def test_a_single_dataset_is_a_mixture_of_one_with_its_own_head():
    config = composed("datamodule/dataset=msm_bm25")
    assert list(config["datamodule"]["dataset"]["datasets"]) == ["msm_bm25"]
    assert config["model"]["heads"]["msm_bm25"]["_target_"].endswith("MLP")


def test_a_single_dataset_without_a_head_gets_the_default_one():
    assert list(composed("datamodule/dataset=vaswani")["model"]["heads"]) == ["vaswani"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.batchsize=3", "Unknown config key 'training.batchsize'. Did you mean 'training.batch_size'?"),
        ("loop.optimizer.lrr=1", "Did you mean 'loop.optimizer.lr'?"),
        ("datamodule/dataset=vaswanni", "Did you mean 'vaswani'?"),
        ("model/body=bert_base", "model/body has no option 'bert_base'."),
    ],
)
def test_a_slip_of_the_pen_gets_the_nearest_word(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "model.body._target_=os.system",
        "+x={_target_: os.system}",
        "hydra.run.dir=/tmp/x",
        "hydra/launcher=basic",
        "data_dir=${oc.env:SECRET}",
        "+loop.optimizer._args_=[1]",
    ],
)
def test_overrides_from_outside_cannot_name_code_or_secrets(override):
    with pytest.raises(ConfigError, match="not allowed from a pipeline"):
        compose_config([override], trusted=False)


def test_a_target_from_outside_is_refused_before_anything_is_imported(monkeypatch):
    config = {"model": [{"deep": {"_target_": "antigravity.open"}}]}
    with pytest.raises(ConfigError, match=r"'antigravity.open' is not allowed"):
        check_targets(config)
    monkeypatch.setenv("MTLRANK_ALLOWED_TARGETS", "antigravity.")
    check_targets(config)


@pytest.mark.parametrize("target", ["mtlrankevil.x", "torchevil.x", "os.system", "mtlrank"])
def test_a_prefix_is_a_whole_package(target):
    with pytest.raises(ConfigError, match="not allowed"):
        check_targets({"_target_": target})


def test_pipeline_parameters_become_overrides_and_win_over_free_ones():
    config = pipeline_config({"seed": 7, "tasks": ["msm_ner"], "data_dir": "/a b/c'd"}, ["seed=3", "trainer.devices=2"])
    assert (config["seed"], config["tasks"], config["data_dir"]) == (7, ["msm_ner"], "/a b/c'd")
    assert config["trainer"]["devices"] == 2


@pytest.mark.parametrize("value", ["tiny,bert", "../tiny", "tiny seed=3", "${x}"])
def test_the_name_of_a_config_must_look_like_one(value):
    with pytest.raises(ConfigError):
        pipeline_config({"model/body": value}, [])


def test_prepared_folders_tell_apart_what_is_made_differently():
    def folder(*overrides):
        return build.prepared_folder(composed(*overrides), "msm_bm25")

    assert folder() == folder("training.epochs=9", "datamodule.dataset.datasets.msm_bm25.name=other")
    assert folder() != folder("datamodule.dataset.datasets.msm_bm25.per_query=9")
    assert folder() != folder("model.body.backbone=other")


def test_a_monitor_that_is_never_computed_is_refused(config, datasets):
    wrong = {**config, "training": {**config["training"], "monitor": "val/trec2019/nDCG@1"}}
    with pytest.raises(ConfigError, match="Did you mean 'val/trec2019/nDCG@10'"):
        build.monitored(wrong, datasets)


def test_by_default_the_first_measure_of_the_first_dataset_is_monitored(config, datasets):
    assert build.monitored(config, datasets) == ("val/trec2019/nDCG@10", "max")
    assert build.monitored(config, {"msm_bm25": datasets["msm_bm25"]}) == ("val/msm_bm25/MSE", "min")


def test_a_layer_deeper_than_the_body_is_named_with_its_head(config):
    heads = {**config["model"]["heads"]}
    heads["msm_ner"] = {**heads["msm_ner"], "pooler": {**heads["msm_ner"]["pooler"], "layers": [7]}}
    with pytest.raises(ConfigError, match="Head 'msm_ner': layer 7 is deeper than the body, which has 3 layers"):
        build.build_body({**config, "model": {**config["model"], "heads": heads}})


def test_a_pooler_without_spans_on_a_span_dataset_is_refused(config, datasets):
    heads = {**config["model"]["heads"], "msm_ner": config["model"]["heads"]["trec2019"]}
    wrong = {**config, "model": {**config["model"], "heads": heads}}
    with pytest.raises(ConfigError, match="Head 'msm_ner' pools no spans, but its dataset labels 1 spans"):
        build.build_model(wrong, build.build_body(config), datasets)


def test_datasets_of_another_tokenizer_are_refused(config, datasets):
    other = {**config, "model": {**config["model"], "body": {**config["model"]["body"], "backbone": "other"}}}
    with pytest.raises(ConfigError, match="The body is 'other', but datasets were prepared for other tokenizers"):
        build.check_tokenizers(other, datasets)
