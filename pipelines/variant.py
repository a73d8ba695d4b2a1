"""What is compiled into a pipeline and is none of its parameters: loops, volumes, variables, the memory of steps."""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Annotated, NamedTuple

import typer
from google.protobuf import json_format
from kfp.dsl.graph_component import GraphComponent
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes

from components.check.parameters import RESERVED
from components.launch.trainjob import LEAST_MEMORY, SECRET, TRAINING_KEYS, num_bytes
from mtlrank.errors import ConfigError
from mtlrank.progress import warn
from pipelines.placement import MEMORY_VOLUME

_SECRET_NAME = re.compile(
    r"(^|_)(SECRET(_|$)|(TOKEN|PASS|PWD|PAT|CREDENTIALS|KEY)$)|(PASSWORD|PASSWD|APIKEY)$", re.IGNORECASE
)
LOOPS = ("try-each", "judge-each")  # whose pods may have GPUs

Parallelism = Annotated[
    int | None,
    typer.Option(min=1, help="Runs of a study that train, or heads that are judged, at once; default: all."),
]
Volumes = Annotated[
    list[str] | None,
    typer.Option(
        "--volume",
        metavar="CLAIM:/PATH",
        help="Mount a PersistentVolumeClaim of the namespace in each step; may be given several times.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="An environment variable of each step, as in IR_DATASETS_HOME=/data; may be given several times.",
    ),
]
Memory = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        metavar="STEP=AMOUNT",
        help="What a step may use, as in prepare=64Gi (of training: the parameter memory); may be given several times.",
    ),
]


class Volume(NamedTuple):
    """A claim, and where it is mounted."""

    claim: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Volume":
        """The volume that `claim:/path` names."""
        # Kubeflow Pipelines gives the pod's volume the name of the claim, so it must be a label.
        found = re.fullmatch(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):(/[^:]+)", text)
        path = PurePosixPath(found[2]) if found else PurePosixPath()
        if not found or len(path.parts) < 2 or ".." in path.parts:
            raise ConfigError(f"--volume {text!r}: expected a claim and an absolute path, as in my-claim:/data.")
        if (top := path.parts[1]) in RESERVED:
            raise ConfigError(f"--volume {text!r} would hide what steps need in /{top}: choose another path, as /data.")
        if found[1] == MEMORY_VOLUME:  # pods name a volume by its claim
            raise ConfigError(
                f"--volume {text!r}: steps have a volume of the name {MEMORY_VOLUME}. Choose another claim."
            )
        return cls(found[1], str(path))


class Variant(NamedTuple):
    """What is compiled into a pipeline: `parallelism` iterations of a loop at once (None: all), and the options' texts."""

    parallelism: int | None = None
    volumes: Sequence[str] = ()
    env: Sequence[str] = ()
    memory: Sequence[str] = ()

    @classmethod
    def given(
        cls, parallelism: int | None, volume: list[str] | None, env: list[str] | None, memory: list[str] | None
    ) -> "Variant":
        """The variant of a command's options."""
        return cls(parallelism, volume or (), env or (), memory or ())

    @property
    def flags(self) -> list[str]:
        """The names of the options that were given."""
        given = {
            "--parallelism": self.parallelism,
            "--volume": self.volumes,
            "--env": self.env,
            "--memory": self.memory,
        }
        return [name for name, value in given.items() if value]

    @property
    def mounted(self) -> list[str]:
        """The paths of the volumes."""
        return [Volume.parse(text).path for text in self.volumes]

    def of(self, pipeline: GraphComponent) -> GraphComponent:
        """A copy of the pipeline that has all this."""
        if "num_nodes" in (pipeline.component_spec.inputs or {}) and (self.volumes or self.env):
            warn("the nodes of a TrainJob get neither --volume nor --env: their runtime says what they have")
        pipeline = deepcopy(pipeline)
        if self.parallelism:
            _limit(pipeline, self.parallelism)
        _mount(pipeline, [Volume.parse(text) for text in self.volumes])
        _set_variables(pipeline, self.env)
        _check_once("--memory", [text.partition("=")[0] for text in self.memory])
        for text in self.memory:
            _set_memory(pipeline, text)
        return pipeline


PLAIN = Variant()


def _limit(pipeline: GraphComponent, parallelism: int) -> None:
    """Limit the loops whose pods may have GPUs."""
    for component in [pipeline.pipeline_spec.root, *pipeline.pipeline_spec.components.values()]:
        for task in component.dag.tasks.values():
            if task.task_info.name in LOOPS:
                task.iterator_policy.parallelism_limit = parallelism


def _mount(pipeline: GraphComponent, volumes: Sequence[Volume]) -> None:
    """Mount volumes in each step, as `kfp.kubernetes.mount_pvc` does in a step of a pipeline that is being defined."""
    _check_once("--volume: the path", [each.path for each in volumes])
    _check_once("--volume: the claim", [each.claim for each in volumes])
    for executor in pipeline.platform_spec.platforms["kubernetes"].deployment_spec.executors.values():
        config = json_format.ParseDict(json_format.MessageToDict(executor), kubernetes.KubernetesExecutorConfig())
        for volume in volumes:
            mount = config.pvc_mount.add(mount_path=volume.path, constant=volume.claim)
            mount.pvc_name_parameter.runtime_value.constant.string_value = volume.claim
        executor.update(json_format.MessageToDict(config))


def _set_variables(pipeline: GraphComponent, env: Sequence[str]) -> None:
    """Set environment variables in each step."""
    variables = [_variable(text) for text in env]
    _check_once("--env", [each["name"] for each in variables])
    for executor in pipeline.pipeline_spec.deployment_spec["executors"].values():
        if variables:
            executor["container"]["env"] = variables


def _set_memory(pipeline: GraphComponent, text: str) -> None:
    """Set what a step requests and may use, as `set_memory_limit` does in a pipeline that is being defined."""
    step, _, amount = text.partition("=")
    is_right = re.fullmatch("[1-9][0-9]*(Mi|Gi|Ti)", amount) and num_bytes(amount) >= LEAST_MEMORY
    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    steps = {
        name.removeprefix("exec-"): executor["container"]["resources"]
        for name, executor in executors.items()
        if "{{" not in executor["container"]["resources"]["resourceMemoryLimit"]
    }
    if step not in steps or not is_right:
        raise ConfigError(
            f"--memory {text!r}: expected one of {', '.join(sorted(steps))}, and an amount of at least 64Mi, as in "
            "prepare=64Gi."
        )
    gigabytes = num_bytes(amount) / 1e9  # which older servers read
    for key in ("Limit", "Request"):
        steps[step].update({f"memory{key}": gigabytes, f"resourceMemory{key}": amount})


def _variable(text: str) -> dict[str, str]:
    """The variable that `NAME=VALUE` gives, as the spec of a container has it."""
    name, is_set, value = text.partition("=")
    if not is_set or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(f"--env {text!r}: expected NAME=VALUE, as in IR_DATASETS_HOME=/data.")
    if name in TRAINING_KEYS:
        raise ConfigError(
            f"--env {name}: a pipeline is kept in the clear. Put it into the Secret {SECRET!r} of the namespace."
        )
    if _SECRET_NAME.search(name) and not value.startswith("/"):
        raise ConfigError(
            f"--env {name}: a pipeline is kept in the clear, and this looks like a secret. Give the steps' service "
            "account the rights instead, or the path of a file on a volume."
        )
    return {"name": name, "value": value}


def _check_once(option: str, names: Sequence[str]) -> None:
    """Refuse a name that an option was given twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{option} {twice[0]} is given twice.")
