import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONFINED = [
    "--rm",
    "--read-only",
    "--tmpfs=/tmp",
    "--network=none",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
]


@pytest.fixture(scope="session")
def image():
    """The image in MTLRANK_TEST_IMAGE, else one of this checkout; DOCKER_BUILD_FLAGS says what the engine needs."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers")
    if "MTLRANK_TEST_IMAGE" in os.environ:
        return os.environ["MTLRANK_TEST_IMAGE"]
    name = "mtlrank:test"
    subprocess.run(["make", "image", f"MTLRANK_IMAGE={name}"], cwd=ROOT, check=True)
    return name


@pytest.fixture
def in_container(image):
    """Run a command in the image as a cluster would: no root, no rights, nothing writable but /tmp, and no network."""

    def run(*command, user=None, options=()):
        options = [*CONFINED, *options, *([f"--user={user}"] if user else [])]
        return subprocess.run(["docker", "run", *options, image, *command], capture_output=True, text=True)

    return run
