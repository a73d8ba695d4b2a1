"""The image of all steps, built and run."""

import json
import re
import subprocess
import tomllib

import pytest

from mtlrank import __version__
from tests.images.conftest import ROOT

pytestmark = pytest.mark.docker

DISTRIBUTIONS = "import importlib.metadata as m, json;print(json.dumps({d.name: d.version for d in m.distributions()}))"


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def about(image):
    told = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=True)
    return json.loads(told.stdout)[0]


@pytest.fixture
def installed(in_container):
    """The versions of what is in the image, by name."""
    found = json.loads(in_container("python3", "-c", DISTRIBUTIONS).stdout)
    return {canonical(name): version for name, version in found.items()}


@pytest.fixture
def has_cuda(installed):
    return not installed["torch"].endswith("+cpu")


def test_steps_run_as_a_user_without_rights(about, in_container):
    assert about["Config"]["User"] == "10001:10001"
    assert in_container("id", "-u").stdout == "10001\n"


def test_the_labels_say_which_version_and_commit_it_is(about, in_container):
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in about["Config"]["Labels"].items()}
    assert labels["title"] == "mtlrank"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    told = in_container("python3", "-c", "from mtlrank.about import commit; print(commit())")
    assert told.stdout == labels["revision"] + "\n"


def test_its_size_is_told(about, installed, capsys):
    with capsys.disabled():
        print(f"\n{about['RepoTags'][0]}: {about['Size'] / 1e6:,.0f} MB")
    assert about["Size"] < (3e9 if installed["torch"].endswith("+cpu") else 8e9)


@pytest.mark.parametrize("user", ["10001:10001", "12345:12345"])
def test_the_command_line_works_on_a_read_only_root(in_container, user):
    """As the image's user, and as one that the image does not know."""
    told = in_container("mtlrank", "--help", user=user)
    assert told.returncode == 0, told.stderr
    assert "prepare" in told.stdout
    name = in_container("python3", "-c", "import getpass; print(getpass.getuser())", user=user)
    assert name.stdout == "mtlrank\n"


def test_training_works_on_a_read_only_root_without_a_network(in_container):
    told = in_container("mtlrank", "train", "tasks=[msm_ner]", "debug=limit", "output_dir=/tmp/run")
    assert told.returncode == 0, told.stderr
    assert "msm_ner" in told.stdout


def test_layers_are_compiled_where_there_is_a_gpu_to_gain_from_it(in_container, has_cuda):
    words = ["tasks=[msm_ner]", "debug=limit", "training.compile=true", "output_dir=/tmp/run"]
    told = in_container("mtlrank", "train", *words, options=["--tmpfs=/tmp:exec"])
    if has_cuda:
        assert told.returncode == 0, told.stderr
        assert "msm_ner" in told.stdout
    else:
        assert told.returncode == 6
        assert told.stderr.splitlines()[-1].startswith(
            "mtlrank: training.compile is true, but torch cannot compile here"
        )


def test_nothing_is_left_of_the_building(in_container, has_cuda):
    """No compilers but for what training compiles, no caches, no pip beside the packages, nothing compiled anew."""
    tools = in_container("sh", "-c", "for tool in gcc cc g++ c++ ld; do command -v $tool; done").stdout
    assert bool(tools) == has_cuda
    assert in_container("sh", "-c", "command -v make").stdout == ""
    left = in_container("find", "/root", "/tmp", "/src", "/package", "-mindepth", "1", "-name", "*cache*", user="0:0")
    assert left.stdout == ""
    assert in_container("python3", "-m", "pip", "--version").returncode == 1
    uncompiled = in_container("python3", "-c", "import mtlrank.train, sys; print(mtlrank.__cached__)")
    assert in_container("test", "-f", uncompiled.stdout.strip()).returncode == 0


def test_its_user_can_change_nothing_of_it(in_container):
    assert in_container("find", "/opt/mtlrank", "-writable", "-not", "-type", "l").stdout == ""


def test_everything_has_the_locks_version(installed):
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    lock = {canonical(name): version for name, version in lock.items()} | {"mtlrank": __version__}
    cuda = {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}  # torch says which
    assert len(installed) > 50
    assert {name: version.partition("+")[0] for name, version in installed.items() if name not in cuda} == {
        name: lock.get(name) for name in installed if name not in cuda
    }
    assert bool(cuda) != installed["torch"].endswith("+cpu")


def test_it_holds_what_steps_need_and_not_what_developers_need(installed):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra: {canonical(re.match(r"[\w-]+", line)[0]) for line in lines} for extra, lines in extras.items()}
    for extra in ("pipeline", "annotate", "balance", "lora", "loggers"):
        assert named[extra] <= set(installed)
    assert not (named["dev"] | named["docker"]) & set(installed)
