import pytest

from mtlrank.composing.compose import compose_config, pipeline_config
from mtlrank.composing.untrusted import check_targets
from mtlrank.errors import ConfigError


@pytest.mark.parametrize(
    "override",
    [
        "model.body._target_=os.system",
        "+x={_target_: os.system}",
        "+x=[{a: {_target_: os.system}}]",
        "+loop.optimizer._args_=[1]",
        "+trainer.callbacks=[{_target_: os.system}]",
        "+model/heads@_global_=cls",
        "hydra.run.dir=/tmp/x",
        "+hydra/launcher=basic",
        "+experiment@hydra.x=embedded",
        "data_dir=${oc.env:SECRET}",
        r"data_dir=$\{oc.env:SECRET\}",
        r"+a=\{_tar$\{oc.env:NOPE\,get\}_:torch.hub.load\}",
        "experiment=../../../tmp/evil",
        "experiment=/tmp/evil",
        "model/body=[tiny,evil/x]",
        "seed=1,2",
        "datamodule.dataset.datasets.msm_ner.annotator.pipeline=/tmp/evil",
        "+datamodule.dataset.datasets.x={annotator:{model:/tmp/evil}}",
        "loop.logger.tracking_uri=http://evil",
        "trust_model=true",
        "+loop.logger={tracking_uri:http://evil}",
    ],
)
def test_overrides_from_outside_cannot_name_code_secrets_or_files(override):
    with pytest.raises(ConfigError, match="not allowed from a pipeline"):
        compose_config([override], trusted=False)


def test_a_template_may_come_from_outside():
    assert pipeline_config({}, ['template="Q: {query}\nD: {text}"'])["template"] == "Q: {query}\nD: {text}"


@pytest.mark.parametrize("key", ["data_dir", "trainer.precision", "model.start_from", "tasks"])
def test_parameters_from_outside_cannot_read_secrets(key):
    secret = "${oc.env:SECRET}"
    with pytest.raises(ConfigError, match=r"'\$' is not allowed in a parameter of a pipeline"):
        pipeline_config({key: [secret] if key == "tasks" else secret}, [])


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "/var/run/secrets/token",
        "/proc/self/environ",
        "{tmp}/../../../../../etc/pass*",
        "{tmp}/link/passwd",
        "{tmp}/key",
        "{tmp}/k*",
    ],
)
@pytest.mark.parametrize(
    "key", ["datamodule.dataset.datasets.msm_bm25.train", "datamodule.dataset.datasets.msm_bm25.train.docs"]
)
def test_overrides_from_outside_cannot_read_files_of_the_system(key, place, tmp_path, monkeypatch):
    """A line that is no row of data is quoted in the log."""
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "key").write_text("secret")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key"))
    value = place.format(tmp=tmp_path)
    words = [f"{key.removesuffix('.docs')}={{docs: '{value}'}}" if key.endswith("docs") else f"{key}='{value}'"]
    with pytest.raises(ConfigError, match="a config from outside may not name files of the system or keys"):
        compose_config(words, trusted=False)
    assert compose_config(words, trusted=True)


def test_nul_in_the_name_of_a_file_is_told():
    with pytest.raises(ConfigError, match="NUL is no part of a path"):
        compose_config(["datamodule.dataset.datasets.msm_bm25.train='a/\0b'"], trusted=False)


def test_files_of_data_may_lie_anywhere_else(tmp_path):
    for place in (
        "~nosuchuser/data.tsv",
        "nowhere/data-*.tsv",
        tmp_path / "etc" / "data.tsv",
        "~/data.tsv",
        "data/etc/x.tsv",
        "gs://bucket/etc/x.tsv",
        "hf://datasets/a/b/etc/x.tsv",
    ):
        assert compose_config([f"datamodule.dataset.datasets.msm_bm25.train='{place}'"], trusted=False)


@pytest.mark.parametrize(
    ("override", "way"),
    [("force=true", "each retry would start over"), ("training.checkpoint_dir=x", "parameter checkpoints says where")],
)
def test_what_would_lose_checkpoints_is_refused(override, way):
    with pytest.raises(ConfigError, match=way):
        pipeline_config({}, [override])


@pytest.mark.parametrize(
    "override",
    ["debug=limit", "experiment=embedded", "loop/loss=task_mean", "training.epochs=2", "~model.heads.msm_ner"],
)
def test_overrides_from_outside_can_choose_and_set(override):
    assert compose_config([override], trusted=False)


@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "torch.load", "mtlrank.storage.write_text"])
def test_a_target_from_outside_must_be_one_that_mtlrank_itself_configures(target, monkeypatch):
    config = {"model": [{"deep": {"_target_": target}}]}
    with pytest.raises(ConfigError, match="is not allowed in a config from outside"):
        check_targets(config)
    monkeypatch.setenv("MTLRANK_ALLOWED_TARGETS", f"other.,{target.rpartition('.')[0]}.")
    check_targets(config)


def test_an_interpolation_that_would_come_later_is_refused():
    with pytest.raises(ConfigError, match="interpolations are not allowed"):
        check_targets({"backbone": "${oc.env:SECRET}"})


def test_the_default_config_itself_passes_as_one_from_outside():
    assert compose_config([], trusted=False) == compose_config([], trusted=True)


def test_an_image_may_hold_further_configs_whose_code_is_trusted(tmp_path, monkeypatch):
    folder = tmp_path / "my conf" / "datamodule" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: my_data.Mine\nname: mine\ntask: {_target_: mtlrank.task.Relevance}\n")
    words = ["+datamodule/dataset@datamodule.dataset.datasets.mine=mine"]
    with pytest.raises(ConfigError, match="has no option 'mine'"):
        compose_config(words, trusted=False)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path / "my conf"))
    config = compose_config(words, trusted=False)
    assert config["datamodule"]["dataset"]["datasets"]["mine"]["_target_"] == "my_data.Mine"
    (folder / "My-other.yaml").write_text((folder / "mine.yaml").read_text())
    assert compose_config([words[0].replace("=mine", "=My-other")], trusted=False) == config
    with pytest.raises(ConfigError, match="is not allowed in a config from outside"):
        check_targets({"_target_": "my_data.Other"})
    (folder / "trec2019.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match="trec2019.yaml has the name of an option of mtlrank"):
        compose_config([], trusted=False)
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="MTLRANK_CONFIG_DIR is '.*nowhere', which is not a folder"):
        compose_config([], trusted=True)
