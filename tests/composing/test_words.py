"""A pipeline's parameters, and words on a command line, as Hydra reads them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.composing.compose import compose_config, literal, pipeline_config
from mtlrank.errors import ConfigError


def test_pipeline_parameters_become_overrides_beside_free_ones():
    config = pipeline_config({"seed": 7, "tasks": ["msm_ner"], "data_dir": "/a b/c'd"}, ["trainer.devices=2"])
    assert (config["seed"], config["tasks"], config["data_dir"]) == (7, ["msm_ner"], "/a b/c'd")
    assert config["trainer"]["devices"] == 2


@pytest.mark.parametrize(
    ("key", "value", "override", "parameter"),
    [
        ("seed", 7, "seed=3", "seed"),
        ("seed", 7, "++seed = 3", "seed"),
        ("model/body", "tiny", "model/body=bert_base_uncased", "body"),
        ("datamodule/sampler@datamodule.train_sampler", "uniform", "{}=temperature", "sampler"),
        ("loop.optimizer.lr", 0.1, "loop.optimizer.lr=1", "learning_rate"),
        ("trainer.accelerator", "gpu", "trainer.accelerator=cpu", "gpus"),
    ],
)
def test_what_a_pipeline_parameter_says_no_override_says_too(key, value, override, parameter):
    override = override.format(key)
    with pytest.raises(ConfigError) as error:
        pipeline_config({key: value}, [override])
    assert str(error.value).startswith(
        f"overrides has {override!r}, but the pipeline's parameter {parameter} sets {key}"
    )
    pipeline_config({key: None}, ["training.epochs=1"])


TEXTS = st.text(st.sampled_from("\\'\"a ,[]{}=:~\n") | st.characters(exclude_characters="$"), max_size=12)


@given(st.lists(TEXTS) | TEXTS)
def test_hydra_reads_a_text_as_it_was(value):
    override = OverridesParser.create().parse_override(f"data_dir={literal('data_dir', value)}")
    assert override.value() == value


@pytest.mark.parametrize("value", ["a\\b", "a\\'b", "\\\\host\\share\\"])
def test_a_backslash_of_a_parameter_stays_one(value):
    assert pipeline_config({"output_dir": value}, [])["output_dir"] == value


@pytest.mark.parametrize("value", ["tiny,bert", "../tiny", "tiny seed=3", "${x}"])
def test_the_name_of_a_config_must_look_like_one(value):
    with pytest.raises(ConfigError):
        pipeline_config({"model/body": value}, [])


@pytest.mark.parametrize("override", ["data_dir=über", "data_dir=~/data", "data_dir=a=b", "data_dir=it's"])
def test_what_hydra_cannot_read_is_put_in_quotes(override):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=True)
    assert "Quote its value so that the shell keeps the quotes" in str(error.value)
    assert compose_config(["data_dir='über'"], trusted=True)["data_dir"] == "über"


def test_names_that_hydra_cannot_read_belong_into_a_file():
    with pytest.raises(ConfigError, match="names before a colon cannot have any: write these in a YAML file"):
        compose_config(["+collection.weights={größe 1: 2}"], trusted=True)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.epochs", "Cannot read 'training.epochs': expected key=value."),
        ("", "Cannot read '': expected key=value."),
        ("a b=", "Cannot read 'a b='. Quote its value"),
        (
            "tasks=[own,",
            "Cannot read 'tasks=[own,': a bracket is not closed. Leave out blanks, or put the whole word into quotes, "
            "as in 'tasks=[a, b]'.",
        ),
    ],
)
def test_what_hydra_cannot_read_is_told_wherever_it_comes_from(override, complaint, trusted):
    with pytest.raises(ConfigError) as error:
        compose_config([override], trusted=trusted)
    assert str(error.value).startswith(complaint)
