"""The words of the command itself; those of Hydra are tested with what they configure."""

import pytest
from typer.testing import CliRunner

from mtlrank.cli import app


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("compare a b --margin 0.1 --margin 0.2", "--margin"),
        ("compare a b --first-stage --no-first-stage", "--first-stage/--no-first-stage"),
        ("promote a --registry b --registry=c", "--registry"),
        ("prepare --shard 1/2 tasks=[a] --shard 2/2", "--shard"),
    ],
)
def test_an_option_of_one_value_may_be_given_once(words, option):
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert f"{option} is given more than once. Give it once." in done.stderr


@pytest.mark.parametrize("words", [[], ["compare"], ["promote"], ["version"]])
def test_help_has_a_short_name(words):
    short, long = (CliRunner().invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert "Usage:" in short.stdout
    assert short.stdout == long.stdout


def test_an_option_of_several_values_may_be_repeated():
    done = CliRunner().invoke(app, ["compare", "nowhere", "b", *["--measure", "AP", "--baseline", "b"] * 2])
    assert done.stderr.startswith("mtlrank: The run 'nowhere' does not exist.")
