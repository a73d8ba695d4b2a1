"""Run the pipeline on a cluster.

python -m pipelines.submit seed=7 'tasks=["trec2019","msm_bm25"]' --watch
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from components.base import IMAGE
from mtlrank.errors import ConfigError
from mtlrank.guard import errors_in_one_line
from mtlrank.progress import warn
from pipelines.check import check_for_cluster
from pipelines.client import (
    Client,
    Endpoint,
    Experiment,
    Namespace,
    Token,
    UnavailableError,
    connect,
    explained_errors,
    id_of,
)
from pipelines.follow import command, follow
from pipelines.package import Cache, File, Package, Pipeline, opened
from pipelines.parameters import parse
from pipelines.variant import Memory, Parallelism, Variables, Variant, Volumes

Root = Annotated[str | None, typer.Option(help="Where artifacts go, as in gs://bucket/runs; default: the server's.")]
Account = Annotated[str | None, typer.Option(help="Kubernetes service account of the steps; default: the server's.")]

app = typer.Typer(add_completion=False)


@app.command()
@errors_in_one_line()
def main(
    parameters: Annotated[list[str] | None, typer.Argument(help="key=value; lists and dicts are JSON.")] = None,
    run_name: Annotated[
        str | None, typer.Option(help="Name of the run; default: the pipeline's name and the time.")
    ] = None,
    experiment: Experiment = "mtlrank",
    pipeline: Pipeline = "mtl_ranking",
    package: File = None,
    pipeline_root: Root = None,
    service_account: Account = None,
    cache: Cache = None,
    parallelism: Parallelism = None,
    volume: Volumes = None,
    env: Variables = None,
    memory: Memory = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    follow_run: Annotated[
        str | None, typer.Option("--follow", metavar="RUN_ID", help="Follow a run that was submitted before.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between two queries of a followed run.")] = 10,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Run the pipeline on a cluster: `python -m pipelines.submit seed=7 --watch`.

    Parameters are checked before anything is sent. `--follow RUN_ID` follows a run that was submitted before, also from
    another machine.
    """
    if follow_run is not None:
        if not follow_run.strip():
            raise ConfigError("--follow is empty: expected the id of a run. Without --follow, a new run would start.")
        if parameters:
            raise ConfigError(f"--follow submits nothing: expected no parameters, found {' '.join(parameters)}.")
        follow(connect(endpoint, namespace, token), follow_run, interval)
        return
    variant = Variant.given(parallelism, volume, env, memory)
    check_options(experiment=experiment, pipeline_root=pipeline_root, service_account=service_account)
    with checked(pipeline, package, cache, variant, parameters, pipeline_root) as (compiled, values):
        client = connect(endpoint, namespace, token)
        name = run_name or f"{compiled.name} {datetime.now():%Y-%m-%d %H:%M:%S}"
        run_id = submit(client, compiled, values, name, experiment, pipeline_root, service_account)
    if watch:
        follow(client, run_id, interval)
    else:
        print(f"watch it: {command(run_id)}")


def check_options(experiment: str, pipeline_root: str | None, service_account: str | None) -> None:
    """Refuse what the server takes, and pods fail with."""
    if not experiment.strip():
        raise ConfigError("--experiment is empty: expected a name, such as mtlrank.")
    if pipeline_root is not None and not re.fullmatch(r"[a-z][a-z0-9]*://[^/\s]\S*", pipeline_root):
        raise ConfigError(f"--pipeline-root is {pipeline_root!r}: expected an address, as in gs://bucket/runs.")
    if service_account is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", service_account):
        raise ConfigError(
            f"--service-account is {service_account!r}: expected a Kubernetes service account, in small letters."
        )


@contextmanager
def checked(
    pipeline: str,
    package: Path | None,
    cache: bool | None,
    variant: Variant,
    parameters: Sequence[str] | None,
    pipeline_root: str | None,
) -> Iterator[tuple[Package, dict[str, Any]]]:
    """A compiled pipeline with the values of its parameters, which are checked before anything is sent."""
    with opened(pipeline, package, cache, variant) as compiled:
        values = parse(parameters or [], compiled.inputs)
        if package is None:  # a file may be of another version
            check_for_cluster(values, compiled.inputs, pipeline_root, variant.mounted)
            if "MTLRANK_IMAGE" not in os.environ:
                warn(f"MTLRANK_IMAGE is not set: the steps run on {IMAGE}, which the cluster must find")
        yield compiled, values


def submit(
    client: Client,
    package: Package,
    parameters: dict[str, Any],
    name: str,
    experiment: str,
    pipeline_root: str | None = None,
    service_account: str | None = None,
) -> str:
    """Start a run and print its link; returns its id."""
    with explained_errors():
        experiment_id = id_of(client.create_experiment(experiment), "experiment_id")
    try:
        with explained_errors():
            run = client.run_pipeline(
                experiment_id,
                name,
                str(package.path),
                parameters,
                pipeline_root=pipeline_root,
                service_account=service_account,
            )
    except UnavailableError as error:
        listed = client.link("experiments/details", experiment_id)
        raise UnavailableError(f"{error} The run may have started: check {listed} before trying again.") from error
    return id_of(run, "run_id")


if __name__ == "__main__":
    app(prog_name="python -m pipelines.submit")
