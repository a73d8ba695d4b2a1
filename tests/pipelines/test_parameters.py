"""Words of a command line become typed parameters, or one line that says what is wrong."""

# ruff: noqa: B006, UP006, UP035, UP045 (kfp reads typing.List; a pipeline's defaults are values of a form)

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from kfp import dsl

from mtlrank.errors import ConfigError
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study
from pipelines.parameters import parse


@dsl.component(base_image="python")
def use(number: int):
    """Take what a pipeline must have."""


@dsl.pipeline(name="every-type")
def every_type(
    required: int,
    share: float = 0.5,
    name: str = "a",
    fast: bool = False,
    limit: Optional[int] = None,
    names: List[str] = ["a"],
    counts: List[int] = [1],
    labels: Dict[str, str] = {},
    weights: Dict[str, float] = {"a": 1.0},
    tolerations: List[Dict[str, str]] = [],
    anything: dict = {},
    shares: List[float] = [],
):
    """Declare a parameter of every type that kfp has."""
    use(number=required)


def value(key: str, text: str) -> Any:
    given = [] if key == "required" else ["required=1"]
    return parse([*given, f"{key}={text}"], every_type.component_spec.inputs)[key]


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(arguments, every_type.component_spec.inputs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("required", "-7", -7),
        ("share", "1e-3", 0.001),
        ("share", "2", 2.0),
        ("name", "007", "007"),
        ("name", "", ""),
        ("name", "a=b", "a=b"),
        ("name", "null", "null"),
        ("fast", "true", True),
        ("fast", "False", False),
        ("limit", "3", 3),
        ("tolerations", "[]", []),
        ("names", '["a", "ä"]', ["a", "ä"]),
        ("counts", "[1, 2]", [1, 2]),
        ("labels", '{"a": "b"}', {"a": "b"}),
        ("weights", '{"a": 1, "b": 0.5}', {"a": 1, "b": 0.5}),
        ("tolerations", '[{"key": "spot", "operator": "Exists"}]', [{"key": "spot", "operator": "Exists"}]),
        ("anything", '{"a": [1, null]}', {"a": [1, None]}),
    ],
)
def test_a_value_has_the_declared_type(key, text, expected):
    read = value(key, text)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("required", "1.5", "required is an integer, found '1.5'. Write it as in required=1."),
        ("required", "", "an integer"),
        ("required", "1_0", "an integer"),
        ("share", "1_0.5", "a number"),
        ("required", "true", "an integer"),
        ("share", "nan", "share is a number, found 'nan'. Write it as in share=0.5."),
        ("share", "inf", "a number"),
        ("fast", "1", "fast is a boolean, found '1'. Write it as in fast=true."),
        ("names", "a,b", """names is a list of texts, found 'a,b'. Write it as in 'names=["a"]'."""),
        ("names", '"a"', "a list of texts"),
        ("names", "[1]", "a list of texts"),
        ("names", '{"a": "b"}', "a list of texts"),
        ("counts", '["1"]', "counts is a list of integers"),
        ("counts", "[true]", "a list of integers"),
        (
            "labels",
            '{"a": 1}',
            """labels is a dict of texts, found '{"a": 1}'. Write it as in 'labels={"key": "text"}'.""",
        ),
        ("weights", '{"a": "1"}', "a dict of numbers"),
        ("tolerations", '["spot"]', "tolerations is a list of dicts of texts"),
        ("tolerations", '[{"seconds": 3}]', """Write it as in 'tolerations=[{"key": "text"}]'"""),
        ("anything", "[]", "anything is a dict"),
        ("shares", "[NaN]", "a list of numbers"),
        ("shares", "null", "a list of numbers"),
        ("shares", f"[1{400 * '0'}]", "a list of numbers"),
        ("required", f"1{400 * '0'}", "an integer"),
        ("shares", 100_000 * "[", "a list of numbers"),
    ],
)
def test_another_type_is_refused_with_an_example(key, text, words):
    given = [] if key == "required" else ["required=1"]
    assert words in refusal(*given, f"{key}={text}")


def test_the_example_can_be_used():
    """What the message offers is accepted."""
    for key in every_type.component_spec.inputs:
        if key != "name":
            message = refusal(f"{key}=x")
            example = message.rpartition("as in ")[2].removesuffix(".").strip("'")
            assert value(key, example.partition("=")[2]) is not None


def test_an_unknown_name_gets_the_closest_one_and_the_list():
    message = refusal("required=1", "weight=1")
    assert message.startswith("Unknown parameter 'weight=1'. Did you mean 'weights'?")
    assert all(name in message for name in every_type.component_spec.inputs)
    assert "Did you mean" not in refusal("zzz=1")


def test_a_name_without_a_value_is_refused():
    assert "required has no value: expected required=1." in refusal("required")


def test_a_parameter_is_given_once():
    assert "share is given twice" in refusal("required=1", "share=1", "share=2")


def test_what_has_no_default_must_be_given():
    assert refusal("share=1") == "required: no default and not given. Give required=1."


def test_parameters_of_our_pipeline_are_typed():
    given = ["seed=7", "learning_rate=1e-3", 'tasks=["a"]', "body=tiny"]
    expected = {"seed": 7, "learning_rate": 1e-3, "tasks": ["a"], "body": "tiny"}
    assert parse(given, mtl_ranking.component_spec.inputs) == expected


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("sed=7", "Unknown parameter 'sed=7'. Did you mean 'seed'?"),
        ("seed=x", "seed is an integer, found 'x'. Write it as in seed=42."),
        ("tasks=[]", "tasks is empty: expected at least one, as in 'tasks="),
        ("shards=[]", """shards is empty: expected at least one, as in 'shards=..1/1"]'"""),
    ],
)
def test_wrong_parameters_of_our_pipeline_are_named(argument, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse([argument], mtl_ranking.component_spec.inputs)


@pytest.mark.parametrize("pipeline", [mtl_ranking, mtl_ranking_nodes, mtl_study], ids=lambda pipeline: pipeline.name)
def test_the_docs_explain_every_parameter(pipeline):
    docs = Path(__file__).parent.parent.parent / "docs"
    text = (docs / "pipelines.md").read_text() + (docs / "kubernetes.md").read_text()
    assert [name for name in pipeline.component_spec.inputs if f"`{name}`" not in text] == []
