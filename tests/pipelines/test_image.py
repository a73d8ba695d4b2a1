"""Names of images: which may be compiled, and which `make` gives."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mtlrank import __version__
from mtlrank.errors import ConfigError
from pipelines.compile import main
from pipelines.image import check_image, is_for_cpus, set_image
from pipelines.mtl_ranking import mtl_ranking

ROOT = Path(__file__).parent.parent.parent
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "image",
    [
        f"mtlrank:{__version__}",
        "mtlrank:0.1.0-g1a2b3c4d5e",
        "ghcr.io/team/mtlrank:0.1.0-g1a2b3c4d5e-cuda",
        "localhost:5000/mtlrank:1a2b3c4",
        "europe-west4-docker.pkg.dev/my-project/a_b/c__d/mtlrank.x:0.1.0",
        f"ghcr.io/team/mtlrank@{DIGEST}",
        f"ghcr.io/team/mtlrank:latest@{DIGEST}",
    ],
)
def test_names_that_always_mean_the_same(image):
    assert check_image(image) == image


@pytest.mark.parametrize(
    "image",
    [
        "mtlrank",
        "localhost:5000/mtlrank",
        "mtlrank:latest",
        "mtlrank:main",
        "mtlrank:v1",
        "mtlrank:0.1",
        "mtlrank:0.1.0-dev",
        "mtlrank:0.1.0-g1a2b3c4d5e-dirty",
        "mtlrank:cuda",
    ],
)
def test_names_that_can_change_their_meaning_are_refused(image):
    with pytest.raises(ConfigError, match=re.escape(f"The image {image!r} can change")):
        check_image(image)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "mtlrank:",
        ":1.2.3",
        "mtlrank@sha256:0123",
        "reg/Team X/mtlrank:0.1.0",
        "reg/MTL:1.2.3",
        "http://reg/mtl:1.2.3",
        "reg/mtl:1.2.3\n",
        "reg/mtl:1.2.3" + "0" * 200,
        "reg//mtl:1.2.3",
        "reg/mtl:1.2.3{{$.inputs.parameters['a']}}",
    ],
)
def test_what_is_no_name_of_an_image_is_refused(image):
    with pytest.raises(ConfigError, match=re.escape(f"MTLRANK_IMAGE is {image!r}, which is no name of an image")):
        check_image(image)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (f"mtlrank:{__version__}", True),
        ("ghcr.io:5000/team/mtlrank:0.1.0-g1a2b3c4d5e", True),
        ("mtlrank:0.1.0-g1a2b3c4d5e-pipeline.lora", True),
        ("mtlrank:0.1.0-g1a2b3c4d5e-cuda", False),
        ("mtlrank:0.1.0-g1a2b3c4d5e-pipeline.lora-cuda", False),
        ("my-mtlrank:0.1.0-1", False),
        ("mtlrank:0.1.0-1", False),
        (f"mtlrank@{DIGEST}", False),
    ],
)
def test_the_name_tells_whether_an_image_is_for_cpus(image, told):
    assert is_for_cpus(image) == told


def test_compiling_refuses_such_a_name_in_one_line_and_writes_nothing(tmp_path):
    target = tmp_path / "build" / "mtl_ranking.yaml"
    told = subprocess.run(
        [sys.executable, "-m", "pipelines.compile", str(target)],
        cwd=ROOT,
        env={"MTLRANK_IMAGE": "mtlrank:latest", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert told.stderr.startswith("mtlrank: The image 'mtlrank:latest' can change")
    assert told.stderr.count("\n") == 1
    assert not target.parent.exists()


@pytest.mark.parametrize("name", ["mtl_ranking_nodes-v2.yaml", "pipeline.yaml", "mtl_ranking.json"])
def test_a_file_that_is_called_as_no_pipeline_is_refused(name, tmp_path):
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [str(tmp_path / name)])
    assert done.exit_code == 2
    assert "Expected a path that ends in mtl_ranking.yaml or mtl_ranking_nodes.yaml or mtl_study.yaml" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_all_steps_run_on_the_image():
    before = images()
    set_image(mtl_ranking, "mtlrank:1.2.3")
    assert images() == {"mtlrank:1.2.3"}
    set_image(mtl_ranking, *before)


def images():
    executors = mtl_ranking.pipeline_spec.deployment_spec["executors"]
    return {executor["container"]["image"] for executor in executors.values()}


def make(*words):
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "image"),
    [
        (["COMMIT=", "DIRTY="], f"mtlrank:{__version__}"),
        (["COMMIT=", "DIRTY=", "TORCH=cuda", "REGISTRY=ghcr.io/team/"], f"ghcr.io/team/mtlrank:{__version__}-cuda"),
        (["COMMIT=", "DIRTY=-dirty"], f"mtlrank:{__version__}-dirty"),
        (["COMMIT=", "DIRTY=", "EXTRAS=pipeline,lora"], f"mtlrank:{__version__}-pipeline.lora"),
        (["COMMIT=", "DIRTY=", "EXTRAS=pipeline", "TORCH=cuda"], f"mtlrank:{__version__}-pipeline-cuda"),
        (["MTLRANK_IMAGE=a:1.2.3"], "a:1.2.3"),
    ],
)
def test_make_names_the_image(words, image):
    assert f"-t {image} -f" in make("--dry-run", "image", *words).stdout


def test_other_extras_are_built_and_never_without_being_in_the_name(monkeypatch):
    monkeypatch.setenv("EXTRAS", "pipeline")  # of another program
    assert "--build-arg EXTRAS" not in make("--dry-run", "image").stdout
    assert "--build-arg EXTRAS=pipeline,lora --build-arg" in make("--dry-run", "image", "EXTRAS=pipeline,lora").stdout
    told = make("image", "DOCKER=false", "DOCKER_BUILD_FLAGS=--build-arg EXTRAS=pipeline")
    assert told.returncode
    assert "give EXTRAS=... to make" in told.stderr
    assert check_image("mtlrank:0.1.0-g1a2b3c4d5e-pipeline.lora")


def test_the_name_holds_the_commit_of_the_checkout():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not a checkout")
    assert f"mtlrank:{__version__}-g{head.stdout[:10]}" in make("--dry-run", "image").stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["COMMIT=1a2b3c4", "DIRTY=-dirty", "REGISTRY=ghcr.io/team"], "commit first"),
        (["COMMIT=", "DIRTY=", "REGISTRY=ghcr.io/team"], "commit first"),
        (["COMMIT=1a2b3c4", "DIRTY=", "REGISTRY="], "say where to"),
    ],
)
def test_make_pushes_only_what_is_committed_and_somewhere(words, complaint):
    told = make("push", "DOCKER=false", *words)
    assert told.returncode
    assert complaint in told.stderr
