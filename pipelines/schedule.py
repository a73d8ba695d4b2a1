"""Run the pipeline on a schedule.

python -m pipelines.schedule create nightly --cron '0 3 * * *' experiment=msmarco
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from kfp_server_api import ApiException
from rich.markup import escape

from mtlrank.checks import nearest
from mtlrank.errors import ConfigError
from mtlrank.guard import errors_in_one_line
from mtlrank.pages.tables import show as show_table
from pipelines.client import (
    Client,
    Endpoint,
    Experiment,
    Namespace,
    ServerError,
    Token,
    connect,
    explained_errors,
    id_of,
)
from pipelines.cron import with_seconds
from pipelines.package import Cache, File, Pipeline
from pipelines.submit import Account, Root, check_options, checked
from pipelines.upload import Version, named, upload, version_name
from pipelines.variant import Memory, Parallelism, Variables, Variant, Volumes

Name = Annotated[str, typer.Argument(help="Name of the schedule, unique in its experiment.")]

_LONGEST_NAME = 128  # characters
_SUFFIXES = {None: "", True: "-cache", False: "-no-cache"}  # of a version whose steps differ in their caching

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Run the pipeline on a schedule.")


@app.command()
@errors_in_one_line()
def create(
    name: Name,
    cron: Annotated[str, typer.Option(help="When: '0 3 * * *' is every night at three by the server's clock.")],
    parameters: Annotated[list[str] | None, typer.Argument(help="key=value; lists and dicts are JSON.")] = None,
    experiment: Experiment = "mtlrank",
    pipeline: Pipeline = "mtl_ranking",
    package: File = None,
    version: Version = None,
    pipeline_root: Root = None,
    service_account: Account = None,
    cache: Cache = None,
    parallelism: Parallelism = None,
    volume: Volumes = None,
    env: Variables = None,
    memory: Memory = None,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Create a schedule, or replace the one of this name: one run at a time; missed runs are not made up for."""
    when = with_seconds(cron)
    name = _checked(name)
    variant = Variant.given(parallelism, volume, env, memory)
    check_options(experiment, pipeline_root, service_account)
    with checked(pipeline, package, cache, variant, parameters, pipeline_root) as (compiled, values):
        version = version or version_name(compiled, None) + _SUFFIXES[cache]
        client = connect(endpoint, namespace, token)
        pipeline_id, version_id = upload(client, compiled, compiled.name, version)
    with explained_errors():
        experiment_id = id_of(client.create_experiment(experiment), "experiment_id")
        old = [found for found in schedules(client, experiment_id) if _has_name(found, name)]
        # The new one first: if a call fails between, there are two of them until this is run again, and not none.
        made = client.create_recurring_run(
            experiment_id,
            name,
            cron_expression=when,
            max_concurrency=1,
            no_catchup=True,
            params=values,
            pipeline_id=pipeline_id,
            version_id=version_id,
            pipeline_root=pipeline_root,
            service_account=service_account,
        )
    run_id = id_of(made, "recurring_run_id")
    try:
        with explained_errors():
            for schedule in old:
                _delete(client, schedule.recurring_run_id)
    except ServerError as error:
        raise type(error)(
            f"{error} The new schedule runs already, and the old one still does: run this again, or delete the old one in "
            f"the UI ({client.link('recurringruns')})."
        ) from error
    was_paused = ", which was paused and now runs" if any(_is_paused(schedule) for schedule in old) else ""
    done = f"replaced {name}{was_paused}" if old else f"created {name}"
    print(f"{done}: {client.link('recurringrun/details', run_id)}")


@app.command("list")
@errors_in_one_line()
def show(
    experiment: Experiment = "mtlrank",
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Show the schedules of an experiment."""
    found = _of_experiment(connect(endpoint, namespace, token), experiment)
    if not found:
        print(f"no schedules in experiment {experiment}")
        return
    header = "name", "cron (seconds first)", "state", "parameters", "id"
    show_table(header, [list(map(escape, _cells(schedule))) for schedule in found], names=5, width=160)


@app.command()
@errors_in_one_line()
def pause(
    name: Name,
    experiment: Experiment = "mtlrank",
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Let a schedule start no more runs until it is resumed; runs that it has started continue."""
    client = connect(endpoint, namespace, token)
    _for_each(client, experiment, name, client.disable_recurring_run)
    print(f"paused {name}")


@app.command()
@errors_in_one_line()
def resume(
    name: Name,
    experiment: Experiment = "mtlrank",
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Let a paused schedule start runs again; those that it has missed are not made up for."""
    client = connect(endpoint, namespace, token)
    _for_each(client, experiment, name, client.enable_recurring_run)
    print(f"resumed {name}")


@app.command()
@errors_in_one_line()
def delete(
    name: Name,
    experiment: Experiment = "mtlrank",
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Delete a schedule; runs that it has started continue."""
    client = connect(endpoint, namespace, token)
    _for_each(client, experiment, name, partial(_delete, client))
    print(f"deleted {name}")


def schedules(client: Client, experiment_id: str) -> list[Any]:
    """All schedules of an experiment, from all pages."""
    found: list[Any] = []
    page = ""
    while True:
        answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment_id)
        found += answer.recurring_runs or []
        page = answer.next_page_token
        if not page:
            return found


def _checked(name: str) -> str:
    """The name of a new schedule, without blanks around it."""
    name = name.strip()
    if not name:
        raise ConfigError("The schedule has no name: expected one, such as nightly.")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"The schedule's name is {name[:_LONGEST_NAME]!r}, with {len(name)} characters: expected at most "
            f"{_LONGEST_NAME}, all printable, such as nightly."
        )
    return name


def _for_each(client: Client, experiment: str, name: str, call: Callable[[str], Any]) -> None:
    """Call the server for the schedule of a name, and for its other copies, if a lost connection left any."""
    found = _of_experiment(client, experiment)
    wanted = [schedule for schedule in found if _has_name(schedule, name)]
    if not wanted:
        raise ConfigError(_none_of(name, experiment, sorted({schedule.display_name or "?" for schedule in found})))
    with explained_errors():
        for schedule in wanted:
            call(schedule.recurring_run_id)


def _delete(client: Client, run_id: str) -> None:
    """Delete a schedule. It may be gone: if the answer is lost, the request is sent again."""
    try:
        client.delete_recurring_run(run_id)
    except ApiException as error:
        if error.status != 404:
            raise


def _has_name(schedule: Any, name: str) -> bool:
    return str(schedule.display_name).strip() == name.strip()


def _is_paused(schedule: Any) -> bool:
    return str(schedule.status) == "DISABLED"


def _of_experiment(client: Client, name: str) -> list[Any]:
    with explained_errors():
        found = client.list_experiments(filter=named(name), namespace=client.get_user_namespace()).experiments or []
        return [schedule for experiment in found for schedule in schedules(client, experiment.experiment_id)]


def _cells(schedule: Any) -> tuple[str, ...]:
    cron, period = (getattr(schedule.trigger, f"{kind}_schedule", None) for kind in ("cron", "periodic"))
    values = (schedule.runtime_config and schedule.runtime_config.parameters) or {}
    given = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    when = cron.cron if cron else f"every {period.interval_second} s" if period else "?"
    state = "paused" if _is_paused(schedule) else str(schedule.status or "?").lower()
    return schedule.display_name or "?", when, state, given, schedule.recurring_run_id


def _none_of(name: str, experiment: str, names: list[str]) -> str:
    there = ", ".join(names) or "none"
    return f"No schedule {name!r} in experiment {experiment}.{nearest(name, names)} There are: {there}."


if __name__ == "__main__":
    app(prog_name="python -m pipelines.schedule")
