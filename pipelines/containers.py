"""Running a pipeline's steps in containers on this machine, as a cluster would."""

import os
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from kfp import local
from kfp.dsl.base_component import BaseComponent

from mtlrank.errors import ConfigError, DataError

USER = 10001  # the image's own
ORDER_OF_SUMS = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # so that steps give what processes give
PASSED_ON = ("HF_HUB_OFFLINE", "MTLRANK_ALLOWED_TARGETS", *ORDER_OF_SUMS)
OUTPUT = "executor_output.json"  # what kfp's executor writes last


def docker_runner(image: str, root: Path) -> local.DockerRunner:
    """Containers that are not root, have no rights and can write below /tmp and the pipeline root alone.

    They run as whoever started the pipeline, so that its files are theirs; as the image's user, if that is root.

    Raises:
        ConfigError: There is no engine, or no such image on it.

    """
    _check_engine(image)
    user, group = os.getuid() or USER, os.getgid() or USER
    root.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        os.chown(root, user, group)
    return local.DockerRunner(
        user=f"{user}:{group}",
        read_only=True,
        tmpfs={"/tmp": "exec"},  # noqa: S108 - as an emptyDir: training.compile runs what it writes there
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="host",
        environment={name: os.environ[name] for name in PASSED_ON if name in os.environ},
    )


def check_outputs(pipeline: BaseComponent, folders: Collection[Path]) -> None:
    """Check that each step of the run in `folders`, none or one, has written its outputs.

    Kfp reports success for a container that was removed before its exit code could be read.

    Raises:
        DataError: A step left nothing, or not all.

    """
    failed = []
    for executor in pipeline.pipeline_spec.deployment_spec["executors"]:
        name = executor.removeprefix("exec-")
        steps = [path for folder in folders for path in _step_folders(folder, name)]
        failed += [str(path) for path in steps if not (path / OUTPUT).exists()] if steps else [name]
    if failed:
        raise DataError(
            f"These steps failed, although kfp reported success: {', '.join(failed)}. Their logs are above."
        )


def _step_folders(folder: Path, name: str) -> list[Path]:
    """Where the step ran: in the pipeline's folder or in those of loops, not in what steps wrote."""
    found = [path for path in folder.rglob(name) if path.is_dir()]
    return [path for path in found if all(part.startswith("for-loop-") for part in path.relative_to(folder).parts[:-1])]


def _check_engine(image: str) -> None:
    """Kfp would pull a missing image without being asked, and show the client's traceback for a missing engine."""
    try:
        import docker  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError("Running in containers needs mtlrank[docker]: pip install docker.") from error
    try:
        with closing(docker.from_env()) as client:
            client.images.get(image)
    except docker.errors.ImageNotFound as error:
        raise ConfigError(f"The Docker engine has no image {image!r}. `make image` builds one; or pull it.") from error
    except docker.errors.DockerException as error:
        raise ConfigError(f"No Docker engine answers: {error}. Start one, or point DOCKER_HOST at it.") from error
