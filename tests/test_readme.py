"""What the README tells people to type exists."""

import inspect
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule import dataset
from mtlrank.datamodule.dataset import IRDataset
from pipelines.parameters import parse
from tests.commands import overrides_of, parameters_of, pipeline_of

ROOT = Path(__file__).parent.parent
TEXT = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
COMMANDS = [
    line.split("  #")[0].strip()
    for text in TEXT.values()
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()  # a backslash continues a line
    if line.strip() and not line.startswith("#")
]


def test_there_are_commands():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(command):
    tried = subprocess.run(["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if re.match(r"(python -m )?mtlrank[. ](train|prepare)", c) and "--" not in c]
)
def test_overrides_compose(command, monkeypatch):
    monkeypatch.setenv("MTLRANK_REAL_DATA", "/data")
    words = overrides_of(command)
    if "datamodule/dataset=my_dataset" not in words:
        config = select_tasks(compose_config(words, trusted=True))
        assert config["datamodule"]["dataset"]["datasets"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_understands_the_command(command):
    read = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if "mtlrank.evaluate" in c])
def test_evaluations_compose(command):
    words = [word for word in shlex.split(command) if "=" in word]
    assert compose_config(words, trusted=True, name="evaluate")["measures"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.match(r"mtlrank (rank|predict|export)", c)])
def test_uses_of_a_model_compose(command):
    step, *words = shlex.split(command)[1:]
    assert compose_config([word for word in words if "=" in word], trusted=True, name=step)["model_dir"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search(r"pipelines.(local|submit|schedule)|kfp run", c)])
def test_pipeline_parameters_are_understood(command):
    words = shlex.split(command)
    parameters = parameters_of(words)
    assert len(parse(parameters, pipeline_of(words).component_spec.inputs)) == len(parameters)


@pytest.mark.parametrize(("path", "text"), TEXT.items(), ids=lambda value: getattr(value, "name", ""))
def test_paths_that_are_linked_exist(path, text):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target


def test_tests_that_are_named_exist():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TEXT[ROOT / "docs" / "reliability.md"])
    assert len(named) > 10
    for file, test in named:
        path = ROOT / file if "/" in file else ROOT / "tests" / "loop" / file
        assert f"def {test}(" in path.read_text(), test


def test_an_interactive_bash_takes_every_line():
    """Outside of single quotes, it puts a line of its history in the place of `!word`."""
    lines = [
        line
        for text in TEXT.values()
        for block in re.findall("(?s)```bash\n(.*?)```", text)
        for line in block.splitlines()
    ]
    assert len(lines) > 50
    assert not [line for line in lines if re.search(r"![^\s=(]", re.sub("'[^']*'", "", line))]


def test_extras_that_are_named_exist():
    """In pages, configs and messages alike."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [path for folder in ("mtlrank", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = [path.read_text() for path in files if path.suffix in (".py", ".yaml", ".md")]
    named = {extra for text in [*texts, TEXT[ROOT / "README.md"]] for extra in re.findall(r"mtlrank\[(\w+)\]", text)}
    assert len(named) > 3
    assert named <= set(extras)


def test_the_image_holds_the_extras_that_its_page_names():
    page = TEXT[ROOT / "docs" / "image.md"]
    (named,) = re.findall(r"for \(the extras ([^)]*)\)", page)
    (built,) = re.findall("^ARG EXTRAS=(.*)$", (ROOT / "images" / "mtlrank" / "Dockerfile").read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", named) == built.split(",")
    assert "loggers" in built.split(",")


def test_the_settings_of_a_ranking_are_listed_with_their_defaults():
    page = TEXT[ROOT / "docs" / "data.md"].partition("### All settings of a ranking")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) *\|", page, re.MULTILINE)
    listed = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == _defaults(IRDataset, without=("name", "task", "preprocessor"))


def test_the_settings_of_the_other_datasets_are_listed_with_their_defaults():
    page = TEXT[ROOT / "docs" / "data.md"].partition("### All settings of the other datasets")[2].partition("\n## ")[0]
    listed = dict[str, dict[str, str]]()
    for names, setting, default in re.findall(r"^\| (`.*?`|) *\| (`\w+`|) *\| (.*?) *\| .*\|$", page, re.MULTILINE):
        owners = re.findall(r"`(\w+)`", names) or [next(reversed(listed))]
        for owner in owners:
            listed.setdefault(owner, {}).update({setting.strip("`"): default} if setting else {})
    common = ("name", "task", "preprocessor", "train", "val", "test")
    others = set(dataset.__all__) - {"IRDataset", "MTLDataset", "PreparedDataset", "Shard"}
    assert listed == {name: _defaults(getattr(dataset, name), without=common) for name in others}


def _defaults(kind, without):
    """The settings of a class with their defaults, as pages show them."""
    known = {name: each.default for name, each in inspect.signature(kind).parameters.items() if name not in without}
    return {name: "" if value is inspect.Parameter.empty else _shown(value) for name, value in known.items()}


def _shown(value):
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
