"""Settings that nothing reads are refused, unless another config refers to them."""

import pytest

from mtlrank.composing.compose import compose_config
from mtlrank.errors import ConfigError
from tests.saved_models import composed


def test_a_setting_that_nothing_reads_is_refused():
    with pytest.raises(ConfigError, match=r"no setting training.max_step. Did you mean 'training.max_steps'\?"):
        composed("+training.max_step=5")
    assert composed("+loop.schedule.power=2")["loop"]["schedule"]["power"] == 2


@pytest.mark.parametrize(
    ("step", "overrides", "complaint"),
    [
        (
            "train",
            ["+patience=1"],
            "There is no setting patience, and no ${patience} refers to it. Did you mean 'training.pat",
        ),
        ("train", ["+nonsense.x=3"], "There is no setting nonsense, and no ${nonsense} refers to it."),
        ("train", ["+study.seeds=[1]"], "There is no setting study,"),
        ("study", ["++max_lenght=64"], "Did you mean 'max_length'?"),
        ("probe", ["+head=trec2019"], "There is no setting head,"),
        ("evaluate", ["model_dir=x", "+shard=1/2"], "There is no setting shard,"),
        ("rank", ["model_dir=x", "output=y", "+tasks=[a]"], "There is no setting tasks,"),
        ("predict", ["model_dir=x", "input=z", "output=y", "+spans=[]"], "There is no setting spans,"),
        ("export", ["model_dir=x", "output_dir=y", "+batch_size=2"], "There is no setting batch_size,"),
    ],
)
def test_a_key_at_the_root_that_nothing_reads_is_refused(step, overrides, complaint):
    with pytest.raises(ConfigError) as error:
        compose_config(overrides, trusted=True, name=step)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reference", ["${mine}", "${mine.name}", "${oc.select:mine.name,none}", "${..mine.name}"])
def test_a_key_of_ones_own_at_the_root_may_be_referred_to(reference):
    words = ["+mine={name: there}", f"training.checkpoint_dir='x/{reference}'"]
    assert "there" in composed(*words)["training"]["checkpoint_dir"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("missing_text=skip", "setting collection.missing_text, and no config refers to ${collection.missing_text}."),
        ("missing_text=skip", " Did you mean 'collection.missing_texts'?"),
        ("numcandidates=5", "Did you mean 'collection.num_candidates'?"),
        ("pairs.perquery=5", "setting collection.pairs.perquery, and no"),
        ("bm25={k1: 5}", "There is no setting collection.bm25, and no config refers"),  # that of msmarco does
        ("pairs.perquery=5", "Did you mean 'collection.pairs.per_query'?"),
    ],
)
def test_a_key_of_the_collection_that_nothing_reads_is_refused(override, complaint):
    with pytest.raises(ConfigError) as error:
        composed(f"+collection.{override}")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    "reference",
    ["collection.titles", " collection.titles ", "..collection.titles"],
)
def test_a_key_of_the_collection_may_be_referred_to(reference):
    words = ["+collection.titles=there", f"training.checkpoint_dir='x/${{{reference}}}'"]
    assert "there" in composed(*words)["training"]["checkpoint_dir"]
    composed("collection.test={docs: a.tsv, queries: b.tsv, qrels: c.txt}", "+collection.val.run=x.run")  # all of it is


@pytest.mark.parametrize("collection", ["embedded", "msmarco", "trec_dl"])
@pytest.mark.parametrize("dataset", ["vaswani", "trec2019_distilled"])
def test_a_dataset_need_not_read_all_of_a_collection(collection, dataset, monkeypatch):
    monkeypatch.setenv("MTLRANK_REAL_DATA", "/data")
    composed(f"collection={collection}", f"datamodule/dataset={dataset}")


def test_an_experiment_may_say_how_it_is_studied_and_probed(tmp_path, monkeypatch):
    def compose_words(*words, name):
        return compose_config(words, trusted=True, name=name)

    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\ndefaults: [embedded]\nstudy: {seeds: [7]}\nprobe: {layers: [0, 1]}\n")
    configs = {name: compose_words("experiment=mine", name=name) for name in ("study", "probe", "train")}
    assert (configs["study"]["study"]["seeds"], configs["study"]["study"]["margin"]) == ([7], 0.01)
    assert (configs["probe"]["probe"]["layers"], configs["probe"]["probe"]["patience"]) == ([0, 1], 3)
    assert configs["train"] == compose_words("experiment=embedded", name="train")
    assert compose_words("experiment=mine", "study.seeds=[8]", name="study")["study"]["seeds"] == [8]
    with pytest.raises(ConfigError, match="There is no setting study"):
        compose_words("experiment=mine", "study.seeds=[8]", name="train")
    file.write_text("# @package _global_\ndefaults: [embedded]\nstudy: {seed: [7]}\n")
    with pytest.raises(ConfigError, match=r"There is no setting study\.seed\. Did you mean 'study\.seeds'"):
        compose_words("experiment=mine", name="study")


def test_a_collection_of_ones_own_may_have_keys_that_another_config_reads(tmp_path, monkeypatch):
    """Also if this run has no part of that config."""
    for group, text in (
        ("collection", "train: null\nfolder: /data\nval: null\ntest: ${.folder}/test\ntitles: there\n"),
        ("datamodule/dataset", "train: ${collection.titles}\n"),
    ):
        (tmp_path / group).mkdir(parents=True)
        (tmp_path / group / "mine.yaml").write_text(text)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    words = ["collection=mine", "datamodule/dataset=vaswani"]
    assert composed(*words)["collection"]["titles"] == "there"


def test_a_collection_of_ones_own_may_have_more_keys_but_not_a_command_line(tmp_path, monkeypatch):
    (tmp_path / "collection").mkdir()
    text = "licence: none\nfiles: &files {docs: d.tsv, queries: q.tsv}\ntrain: null\ntest: {<<: *files, qrels: x}\n"
    (tmp_path / "collection" / "mine.yaml").write_text(text)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path))
    words = ["collection=mine", "datamodule/dataset=vaswani"]
    assert composed(*words)["collection"]["test"] == {"docs": "d.tsv", "queries": "q.tsv", "qrels": "x"}
    with pytest.raises(ConfigError, match="There is no setting collection.titles, and no config refers to"):
        composed(*words, "+collection.titles=there")
