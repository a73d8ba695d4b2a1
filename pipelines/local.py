"""Run a pipeline on this machine, without a cluster.

python -m pipelines.local key=value ...
python -m pipelines.local --pipeline mtl_study key=value ...
python -m pipelines.local --runner docker --image mtlrank:0.1.0-g1a2b3c4 key=value ...
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from copy import deepcopy
from pathlib import Path
from secrets import token_hex
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import psutil  # type: ignore[import-untyped]
import typer
from kfp import local
from kfp.dsl.graph_component import GraphComponent
from kfp.local import subprocess_task_handler

from components.base import IMAGE
from mtlrank.errors import ConfigError, InterruptedRunError, SigTerm, TerminatedError
from mtlrank.guard import errors_in_one_line
from pipelines.check import check, check_for_image
from pipelines.console import readable
from pipelines.containers import check_outputs, docker_runner
from pipelines.follow import RunFailedError
from pipelines.image import set_image
from pipelines.mtl_ranking import mtl_ranking
from pipelines.package import Pipeline, load
from pipelines.parameters import parse

Runner = Literal["subprocess", "docker"]


def run(
    root: Path,
    runner: Runner = "subprocess",
    image: str = IMAGE,
    pipeline: GraphComponent = mtl_ranking,
    verbose: bool = False,
    **parameters: Any,
) -> Path:
    """Run a pipeline with one of kfp's runners; returns the folder of its artifacts.

    Raises:
        ConfigError: There is no Docker engine, or no such image on it.
        DataError: A step left no outputs.

    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    pipeline = deepcopy(pipeline)  # what others compile stays as it is
    set_image(pipeline, image)
    _fail_at_once(pipeline)
    name = f"{pipeline.name}-{token_hex(2)}"  # with which the name of its folder begins: others may run beside it
    pipeline.pipeline_spec.pipeline_info.name = name
    chosen = docker_runner(image, root) if runner == "docker" else local.SubprocessRunner(use_venv=False)
    local.init(runner=chosen, pipeline_root=str(root), raise_on_error=True)
    with nullcontext() if verbose else readable():
        pipeline(**parameters)
    folders = list(root.glob(f"{name}-*"))
    check_outputs(pipeline, folders)
    return folders.pop()


def _refuse_python3(root: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse `python3` in parameters: kfp's local runner replaces it by the path of Python, also inside a path."""
    for name, value in {"MTLRANK_PIPELINE_ROOT": str(root.absolute()), **parameters}.items():
        if "python3" in json.dumps(value):
            raise ConfigError(
                f"{name} is {value!r}, but kfp's local runner replaces 'python3' in it. Name a link to the folder that has "
                "another name (ln -s), or use --runner docker or `mtlrank train`."
            )


def _fail_at_once(pipeline: GraphComponent) -> None:
    """Switch off retries, which are for nodes that go away: here somebody waits to read what is wrong."""
    for component in [pipeline.pipeline_spec.root, *pipeline.pipeline_spec.components.values()]:
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")


def _end_steps(number: int, frame: FrameType | None) -> NoReturn:
    """End the steps too, as they are processes of their own, and let kfp's threads start no others."""
    subprocess_task_handler.run_local_subprocess = lambda **_: 1  # the exit code of a step that failed
    steps = psutil.Process().children(recursive=True)
    for process in steps:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    raise SigTerm(number, steps)  # also for Ctrl-C: at a KeyboardInterrupt, subprocess.Popen waits for no step


@errors_in_one_line()
def main(
    parameters: Annotated[list[str] | None, typer.Argument(help="key=value; lists and dicts are JSON.")] = None,
    runner: Annotated[Runner, typer.Option(help="Run steps as processes or in containers.")] = "subprocess",
    image: Annotated[str, typer.Option(help="Image of the containers.")] = IMAGE,
    pipeline: Pipeline = "mtl_ranking",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print all that kfp prints.")] = False,
) -> None:
    """Run the pipeline on this machine: `python -m pipelines.local seed=7`."""
    named = os.environ.get("MTLRANK_PIPELINE_ROOT") or "runs/pipeline"
    if "://" in named:
        raise ConfigError(
            f"MTLRANK_PIPELINE_ROOT is {named!r}: expected a folder of this machine. python -m pipelines.submit runs on a "
            "cluster, with artifacts on gs://."
        )
    root, chosen = Path(named), load(pipeline)
    declared = chosen.component_spec.inputs or {}
    if "num_nodes" in declared:
        raise ConfigError(f"{pipeline} trains on several nodes of a cluster: python -m pipelines.submit runs it.")
    values = parse(parameters or [], declared)
    (check if runner == "subprocess" else check_for_image)(values, declared)
    if runner == "subprocess":
        _refuse_python3(root, values)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_steps)
    try:
        result = run(root, runner, image, chosen, verbose, **values)
    except SigTerm as stop:
        number, steps = stop.args
        psutil.wait_procs(steps)  # training saves its state first
        if number == signal.SIGINT:
            raise InterruptedRunError("stopped by Ctrl-C, and the steps too.") from None
        raise TerminatedError("stopped by SIGTERM, and the steps too.") from None
    except RuntimeError as error:
        message = re.sub(r"\033\[\d*m", "", str(error))  # kfp colours it
        if "finished with status FAILURE" not in message:
            raise
        raise RunFailedError(f"{' '.join(message.split())} Its output is above.") from error
    (page,) = (page for step in ("report", "transfer") for page in result.glob(f"{step}/page"))
    report = shutil.copyfile(page, result / "report.html")  # by the ending, a browser knows what it is
    print(f"results: {result}   report: {report}")


if __name__ == "__main__":
    typer.run(main)
