"""The steps of the compiled pipeline run as a cluster runs them: each in a pod that begins with nothing.

What Kubeflow's launcher does is done here: it downloads the inputs from the pipeline's root on Google Cloud Storage, runs
the command of the compiled spec, and uploads the outputs. A step is tried again in a new pod.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank.storage import list_files, publish_folder, read_bytes, write_bytes

_MOUNT = """
import os
import kfp.dsl.types.artifact_types as artifact_types
artifact_types._GCS_LOCAL_MOUNT_PREFIX = os.environ["MOUNT"] + "/"  # "/gcs/" in a pod
"""
_BIN = Path(sys.executable).parent  # of the environment: here is the pod's python3


class Artifact(NamedTuple):
    uri: str
    metadata: dict[str, Any]
    schema: str

    def described(self) -> dict[str, Any]:
        name = self.uri.rpartition("/")[2]
        return {"name": name, "uri": self.uri, "metadata": self.metadata, "type": {"schemaTitle": self.schema}}


class Pod:
    """One try of a step."""

    def __init__(self, spec: dict[str, Any], root: str, folder: Path, step: str, **inputs: Any) -> None:
        component = spec["components"][f"comp-{step}"]
        self.mount, self.root = folder / "gcs", root
        self.outputs = {
            name: Artifact(f"{root}/{name}", {}, artifact["artifactType"]["schemaTitle"])
            for name, artifact in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        artifacts = {
            name: value
            for name, value in inputs.items()
            if isinstance(value, list | Artifact) and value and _is_one(value)
        }
        artifacts = {name: value if isinstance(value, list) else [value] for name, value in artifacts.items()}
        for artifact in (artifact for several in artifacts.values() for artifact in several):
            self._download(artifact.uri)
        self.said, self.told = folder / "log", folder / "executor_output.json"
        parameters = component.get("outputDefinitions", {}).get("parameters", {})
        executor_input = {
            "inputs": {
                "parameterValues": {name: value for name, value in inputs.items() if name not in artifacts},
                "artifacts": {k: {"artifacts": [a.described() for a in several]} for k, several in artifacts.items()},
            },
            "outputs": {
                "artifacts": {name: {"artifacts": [artifact.described()]} for name, artifact in self.outputs.items()},
                "parameters": {name: {"outputFile": str(folder / name)} for name in parameters},
                "outputFile": str(self.told),
            },
        }
        container = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        words = [*container["command"], *container["args"]]
        with self.said.open("w") as log:
            self.process = subprocess.Popen(
                [word.replace("{{$}}", json.dumps(executor_input)) for word in words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(folder),
                start_new_session=True,
            )

    def ends(self) -> int:
        """Wait for the end; what a step that went well has made is uploaded."""
        code = self.process.wait(timeout=600)
        if code == 0:
            said = json.loads(self.told.read_text()).get("artifacts", {})
            for name, artifact in self.outputs.items():
                self.outputs[name] = artifact._replace(metadata=said[name]["artifacts"][0].get("metadata", {}))
                self._upload(artifact.uri)
        return code

    def log(self) -> str:
        return self.said.read_text()

    def _environment(self, folder: Path) -> dict[str, str]:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_MOUNT)
        here = str(Path(__file__).parents[2])
        return {
            **os.environ,
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder / 'site'}:{here}",
            "MOUNT": str(self.mount),
            "OMP_NUM_THREADS": "1",
        }

    def _path(self, uri: str) -> Path:
        return self.mount / uri.removeprefix("gs://")

    def _download(self, uri: str) -> None:
        for place in [f"{uri}/{name}" for name in list_files(uri)] or [uri]:  # a folder, or one file
            path = self._path(place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_bytes(place))

    def _upload(self, uri: str) -> None:
        path = self._path(uri)
        if path.is_file():
            write_bytes(uri, path.read_bytes())
        for file in path.rglob("*"):
            if file.is_file():
                write_bytes(f"{uri}/{file.relative_to(path).as_posix()}", file.read_bytes())


def whole(pod: Pod) -> dict[str, Artifact]:
    """The outputs of a step that ended well."""
    assert pod.ends() == 0, pod.log()
    return pod.outputs


def published(prepared: Path) -> Artifact:
    """A prepared dataset as the steps `prepare` and `merge` leave it, without running them."""
    uri = f"gs://bucket/root/{prepared.name}"
    publish_folder(prepared, uri)
    return Artifact(uri, {}, "system.Dataset")


def kill_after_a_checkpoint(pod: Pod, checkpoints: str) -> None:
    """End a training pod as Kubernetes does, once it has a checkpoint to go on from."""
    end = time.monotonic() + 300
    while not any(re.search(r"step-\d+/manifest.json", name) for name in list_files(checkpoints)):
        assert pod.process.poll() is None, pod.log()
        assert time.monotonic() < end, pod.log()
        time.sleep(0.05)
    os.killpg(pod.process.pid, signal.SIGTERM)
    assert pod.ends() != 0


def _is_one(value: Any) -> bool:
    return isinstance(value, Artifact) or all(isinstance(item, Artifact) for item in value)
