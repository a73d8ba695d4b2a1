import re
from pathlib import Path

import pytest

from mtlrank.composing.compose import compose_config
from mtlrank.composing.settings import INSTEAD
from mtlrank.composing.tree import nodes
from mtlrank.errors import ConfigError
from tests.saved_models import composed


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.batchsize=3", "Unknown config key 'training.batchsize'. Did you mean 'training.batch_size'?"),
        ("lr=3", "Unknown config key 'lr'. Did you mean 'loop.optimizer.lr'?"),
        ("experiment=finetune", "The config refers to collection.train, which is not set. Choose a dataset"),
        ("loop.optimizer.lrr=1", "Did you mean 'loop.optimizer.lr'?"),
        ("loop.lr=1", "Did you mean 'loop.optimizer.lr'?"),
        ("foo.bar=1", "Unknown config key 'foo'. (`--cfg job` prints all keys"),
        (
            "training.limit_val_batches=2",
            "Unknown config key 'training.limit_val_batches': use training.max_val_queries.",
        ),
        ("tasks=a,b", "tasks=a,b names several values: -m runs the command with each, [brackets] make them a list."),
        ("training.lr=3", "Unknown config key 'training.lr': use loop.optimizer.lr."),
        ("learning_rate=3", "Unknown config key 'learning_rate'. Did you mean 'loop.optimizer.lr'?"),
        ("++training.seed=3", "There is no setting training.seed: use seed."),
        ("training.grad_accum=3", "Unknown config key 'training.grad_accum': use trainer.accumulate_grad_batches."),
        ("datamodule/dataset=vaswanni", "Did you mean 'vaswani'?"),
        ("model/body=bert_base", "model/body has no option 'bert_base'."),
        ("loop/logger=csv", "loop/logger=csv is not needed: CSV and TensorBoard logs are always written"),
        (
            "model/body=mine",
            "It has: bert_base_uncased, pretrained, tiny, trained. Configs of your own are found",
        ),
        ("loop/loss=a,b", "loop/loss=a,b names several values: -m runs the command with each."),
        (
            "task=[trec2019]",
            "'task' chooses nothing in this config. Did you mean 'tasks'? What can be chosen: task@",
        ),
        ("loop/loss@x=uncertainty", "'loop/loss@x' chooses nothing in this config. What can be chosen: loop/loss."),
        (
            "model/heads@model.heads.mine=cls",
            "'model/heads@model.heads.mine' chooses nothing in this config. What can be chosen: model/heads@model.d",
        ),
        ("model/heads@model.heads.mine=cls", "`+model/heads@model.heads.mine=...` adds a head."),
        ("model.heads.nope.pooler=3", "'model.heads.nope.pooler'. Did you mean 'model.heads.msm_ner.pooler'?"),
        ("model.heads.nope.dropout=0", " `+model/heads@model.heads.nope=...` adds a head."),
    ],
)
def test_a_slip_of_the_pen_gets_the_nearest_word(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["datamodule/dataset=vaswani", "datamodule.dataset.missing_texts=skip"], None),
        (["datamodule/dataset=vaswani", "datamodule.dataset.num_candidate=9"], "datamodule.dataset.num_candidates"),
        (["loop.optimizer.momentun=0.1", "+loop.optimizer.momentum=0.9"], "loop.optimizer.momentum"),
        (["loop.optimizer.lrr=1", "training.batchsize=3"], "loop.optimizer.lr"),
    ],
    ids=["an entry of other datasets", "a single dataset", "a key that is added", "two unknown keys"],
)
def test_a_hint_is_a_key_of_the_config_that_is_composed(overrides, hint):
    with pytest.raises(ConfigError) as error:
        compose_config(overrides, trusted=True)
    assert (f"Did you mean '{hint}'?" in str(error.value)) == bool(hint)
    assert ("Did you mean" in str(error.value)) == bool(hint)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("datamodule.dataset.num_negatives=8", ": IRDataset takes num_negatives (default 4). Write `+{}`."),
        ("datamodule.dataset.max_queries='8'", ": IRDataset takes max_queries (default null). Write `+{}`."),
        (
            "datamodule.dataset.num_negative=8",
            ". Did you mean `+datamodule.dataset.num_negatives=...`? IRDataset takes it",
        ),
        ("datamodule.dataset.foo=8", ": IRDataset takes no foo. With a + in front it takes "),
        ("datamodule.train_sampler.max_tokens=8", ": use training.max_tokens."),
        (
            "datamodule.train_sampler.world_size=8",
            ". (`--cfg job` prints all keys; `+datamodule.train_sampler.world_size=...`",
        ),
        ("datamodule.dataset.task.foo=8", ": Relevance takes no foo. (`--cfg job` prints all keys.)"),
        ("loop.optimizer.betas=[0.9,0.98]", ": AdamW takes betas (default [0.9, 0.999]). Write `+{}`."),
        (
            "model.heads.trec2019.body_dim=8",
            ". (`--cfg job` prints all keys; `+model.heads.trec2019.body_dim=...` adds",
        ),
        (
            "trainer.val_check_intervall=8",
            ". (`--cfg job` prints all keys; `+trainer.val_check_intervall=...` adds a n",
        ),
        (
            "datamodule.dataset.train.foo=8",
            ". (`--cfg job` prints all keys; `+datamodule.dataset.train.foo=...` adds a n",
        ),
    ],
)
def test_what_the_class_of_a_node_takes_is_told(tmp_path, monkeypatch, override, complaint):
    """The README's dataset, which does not name all of its settings."""
    (tmp_path / "datamodule" / "dataset").mkdir(parents=True)
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    text = readme.partition("`my_conf/datamodule/dataset/my_dataset.yaml`:\n\n```yaml\n")[2].partition("```")[0]
    (tmp_path / "datamodule" / "dataset" / "my_dataset.yaml").write_text(text)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        compose_config(["datamodule/dataset=my_dataset", override], trusted=True)
    key = override.partition("=")[0]
    assert f"Unknown config key {key!r}{complaint.format(override)}" in str(error.value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.epochs=-1", "training.epochs is -1, expected a whole number, at least 0."),
        ("prepare.shard=''", "prepare.shard is '', expected null or i/n, as in 3/8"),
        ("training.batch_size=abc", "training.batch_size is 'abc'"),
        ("loop.optimizer.lr=fast", "loop.optimizer.lr is 'fast', expected a finite number above 0."),
        ("loop.optimizer.lr=inf", "loop.optimizer.lr is inf"),
        ("training.accept_changes=data", "expected a list of some of data, tokenizer, heads, body"),
        ("training.max_tokens=0", "training.max_tokens is 0"),
        ("datamodule.num_workers=-1", "datamodule.num_workers is -1"),
        ("+trainer.limit_val_batches=2", "no setting trainer.limit_val_batches: use training.max_val_queries."),
        ("+training.limit_val_batches=2", "no setting training.limit_val_batches: use training.max_val_queries."),
        ("training.max_val_queries=0", "training.max_val_queries is 0, expected null or a whole number, at least 1."),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches is 0"),
        ("model.body.activation_checkpointing=maybe", "expected true or false"),
        ("model.body.attention_dropout=2", "expected null or a number from 0 to below 1"),
        ("model.body.frozen_layers=true", "frozen_layers is True, expected a number of layers, a share"),
        ("model.body.frozen_layers=1.5", "frozen_layers is 1.5"),
        ("model.body.lora=8", "lora is 8, expected null or settings, as in {rank: 8,"),
        ("model.body.lora={rank: 0}", "model.body.lora.rank is 0, expected a whole number, at least 1."),
        (
            "model.body.lora={targets: query}",
            "model.body.lora.targets is 'query', expected null or a list of at least one name, each once, as in [a,b].",
        ),
        ("model.start_from=5", "model.start_from is 5, expected a path."),
        ("loop.layer_decay=1.1", "loop.layer_decay is 1.1, expected a number above 0, at most 1."),
        ("seed=-5", "seed is -5"),
        ("tasks=msm_ner", "tasks is 'msm_ner', expected null or a list of at least one name, each once, as in [a,b]."),
        ("tasks=[msm_ner,msm_ner]", "expected null or a list of at least one name, each once, as in [a,b]."),
        ("tasks=[]", "tasks is [], expected null or a list of at least one name, each once, as in [a,b]."),
        ("model.heads=5", "model.heads is 5, expected a group of settings."),
        ("trainer.accelerator=tpu", "trainer.accelerator is 'tpu', expected auto, cpu, gpu, cuda or mps."),
        ("training.patience=-1", "training.patience is -1"),
        (
            "training.monitor=[]",
            "training.monitor is [], expected null, a metric, as in val/trec2019/nDCG@10, or a list",
        ),
        ("output_dir=5", "output_dir is 5, expected a path."),
        ("test=no", "test is 'no', expected true or false."),
        ("training.compile=1", "training.compile is 1, expected true or false."),
        ("training.checkpoint_minutes=inf", "training.checkpoint_minutes is inf"),
        (
            "trainer.gradient_clip_val=-1",
            "gradient_clip_val is -1, expected a finite number above 0, or null for none.",
        ),
        ("trainer.precision=bf16-true", "trainer.precision is 'bf16-true', expected 32-true, bf16-mixed or 16-mixed."),
        ("+trainer.limit_train_batches=-1", "trainer.limit_train_batches is -1"),
        ("+trainer.val_check_interval=2", "use training.val_checks_per_epoch"),
        ("+trainer.min_epochs=3", "use training.patience"),
        ("loop.schedule.warmup=5", "loop.schedule.warmup is 5, expected a share of the steps, from 0 to below 1."),
        ("loop.diagnose_every_n_steps=abc", "loop.diagnose_every_n_steps is 'abc'"),
    ],
)
def test_values_of_the_wrong_kind_are_named(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)


def test_no_setting_of_another_step_is_suggested():
    with pytest.raises(ConfigError) as error:
        compose_config(["devices=2"], trusted=True, name="rank")
    assert str(error.value).startswith("Unknown config key 'devices'. (")


def test_what_is_to_be_typed_instead_is_there():
    keys = [key for key, _ in nodes(composed())]
    wrong = [other for other in INSTEAD.values() if other.split(",")[0] not in keys]
    assert not wrong


@pytest.mark.parametrize("key", ["training.max_step", "prepare.num_shard", "more_tests"])
def test_nobody_is_told_to_add_what_nothing_reads(key):
    with pytest.raises(ConfigError) as refused:
        composed(f"{key}=5")
    assert "adds a new one" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("loop.loss=uncertainty", "To choose another config, use a slash: loop/loss=..."),
        (
            "model.body=bert_base",
            "model.body is 'bert_base', expected settings. To choose another config, use a slash: ",
        ),
        ("datamodule.train_sampler=temperature", "datamodule/sampler@datamodule.train_sampler=..."),
        ("model.heads.trec2019=average", "model/heads@model.heads.trec2019=..."),
        ("model.heads.trec2019.pooler=average", "model/heads/pooler@model.heads.trec2019.pooler=..."),
        ("datamodule.dataset.datasets.trec2019.task=relevance", "task@datamodule.dataset.datasets.trec2019.task=..."),
        ("model.default_head=average", "model/heads@model.default_head=..."),
        (
            "datamodule.dataset=msm_bm25",
            "datamodule.dataset is 'msm_bm25', expected settings. To choose another config,",
        ),
        ("datamodule.dataset=msm_bm25", "use a slash: datamodule/dataset=..."),
        ("loop.optimizer=null", "loop.optimizer is None, expected settings."),
        ("datamodule.dataset=null", "datamodule.dataset is None, expected settings."),
    ],
)
def test_a_part_chosen_with_a_dot_is_told_how(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("datamodule.dataset.task=relevance_lambda", "use a slash: task@datamodule.dataset.task=..."),
        ("datamodule.dataset.preprocessor=pair", "slash: datamodule/preprocessor@datamodule.dataset.preprocessor=..."),
    ],
)
def test_so_is_a_part_of_a_single_dataset(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config(["datamodule/dataset=vaswani", override], trusted=True)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "datamodule/sampler@datamodule.train_sampler=probabilities",
            "datamodule.train_sampler.probabilities has no value. Give it one: datamodule.train_sampler.probabilities=...",
        ),
        ("seed=${oc.env:NO_SUCH_VARIABLE}", "The environment variable NO_SUCH_VARIABLE is not set"),
        ("model/body=pretrained", "model.body.backbone has no value. Give it one: model.body.backbone=..."),
    ],
)
def test_what_is_missing_is_named(override, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"name: my: data\n", "line 1 is not YAML: mapping values are not allowed here"),
        (b"a:\n\tb: 1\n", "line 2 is not YAML: found character"),
        (b"a: [1\n", "is not YAML: expected ',' or ']'"),
        ("# ä\na: 1\n".encode("latin-1"), "A config is not UTF-8"),
    ],
)
def test_a_file_that_is_no_yaml_is_named(tmp_path, monkeypatch, content, complaint):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        compose_config(["experiment=mine"], trusted=True)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "text", "override", "said"),
    [
        (
            "datamodule/dataset/mine.yaml",
            "defaults:\n  - task@task: classes\n",
            "datamodule/dataset=mine",
            "Write a slash before 'task' in the defaults list, as in `/task@...`",
        ),
        (
            "experiment/mine.yaml",
            "defaults:\n  - override /datamodule/dataset: msm_bm25\n",
            "experiment=mine",
            "does the experiment's file begin with the line `# @package _global_`?",
        ),
        (
            "model/heads/mine.yaml",
            "defaults:\n  pooler: average\n",
            "model/heads@model.heads.trec2019=mine",
            "defaults must be a list (got mapping): each line of it begins with `- `.",
        ),
        (
            "model/heads/mine.yml",
            "x: 1\n",
            "model/heads@model.heads.trec2019=mine",
            "would not be read: names of configs end in .yaml.",
        ),
    ],
)
def test_slips_in_a_file_of_ones_own_are_explained(tmp_path, monkeypatch, file, text, override, said):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(said)):
        compose_config([override], trusted=True)


def test_datasets_that_are_not_chosen_need_no_values():
    """As those that read files which the collection lacks."""
    for words in (["tasks=[msm_bm25,trec2019]"], ["experiment=finetune", "tasks=[msm_bm25]"]):
        datasets = compose_config(["collection=msmarco", *words], trusted=True)["datamodule"]["dataset"]["datasets"]
        assert {"msm_bm25", "trec2019"} & set(datasets)
        assert "msm_sem_sim" not in datasets
    with pytest.raises(ConfigError, match=r"The config refers to collection\.sem_sim, which is not set"):
        compose_config(["collection=msmarco", "tasks=[msm_bm25,msm_sem_sim]"], trusted=True)
