"""Follow a run: a line whenever a step's state changes, and how it ended."""

import re
import sys
import time
from datetime import datetime
from typing import Any

from mtlrank.errors import InterruptedRunError, UserError
from pipelines.client import Client, ServerError, UnavailableError, explained_errors

PATIENCE = 600.0  # seconds without an answer: longer than a rolling restart of the server
_ENDS = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
# What Kubeflow Pipelines runs around a step: the workflow, drivers, and the loops and conditions that it is in.
_AROUND = re.compile(
    r"root|executor|mtl-\S+-[a-z0-9]{5}|.*-driver|.*-iterator|(iteration|for-loop|condition|exit-handler)\b.*"
)


class RunFailedError(UserError):
    """A run that ended without success."""

    exit_code = 8


def follow(client: Client, run_id: str, interval: float = 10.0) -> None:
    """Print the run's steps as they change, then its result; a RunFailedError if it did not succeed.

    A connection that is lost, or a server in trouble, is tried again every `interval` seconds for ten minutes.
    """
    try:
        run = _wait(client, run_id, interval)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"The run continues. Watch it again: {command(run_id)}") from None
    except ServerError as error:
        raise ServerError(f"{error} Watch the run again: {command(run_id)}") from error
    link = client.link("runs/details", run_id)
    if run.state != "SUCCEEDED":
        raise RunFailedError(f"Run {run.display_name!r} {_words(run.state)}{_blame(run)}. See {link}")
    print(f"{run.display_name} succeeded{_duration(run)}")
    print(f"report: step `{_report_step(run)}` at {link}")
    if files := report_files(run):
        print(f"        {files}")


def command(run_id: str) -> str:
    """What to type to watch a run."""
    return f"python -m pipelines.submit --follow {run_id}"


def report_files(run: Any) -> str | None:
    """Where the report's page is, with a star for the part that only the server knows; None if it chose the root."""
    root = getattr(run.runtime_config, "pipeline_root", None)
    name = _pipeline_of(run)
    return f"{root.rstrip('/')}/{name}/{run.run_id}/{_report_step(run)}/*/page" if root and name else None


def _report_step(run: Any) -> str:
    return "transfer" if _pipeline_of(run) == "mtl-study" else "report"


def _pipeline_of(run: Any) -> str | None:
    spec = run.pipeline_spec or {}
    name: str | None = spec.get("pipeline_spec", spec).get("pipelineInfo", {}).get("name")
    return name


def _wait(client: Client, run_id: str, interval: float) -> Any:
    """Wait for the end of a run, and return it."""
    states: dict[str, str] = {}
    heard, lost = time.monotonic(), False
    while True:
        try:
            with explained_errors():
                run = client.runs.run_service_get_run(run_id)
            heard, lost = time.monotonic(), False
            _print_changes(run, states)
            if run.state in _ENDS:
                return run
        except UnavailableError as error:
            if time.monotonic() - heard > PATIENCE:
                raise
            if not lost:
                _say(f"{error} Trying again.")
            lost = True
        time.sleep(interval)


def _print_changes(run: Any, states: dict[str, str]) -> None:
    """Print the states of steps that are not as in `states`, and note them there."""
    names: dict[str, int] = {}
    for task in _steps(run):
        names[task.display_name] = names.get(task.display_name, 0) + 1
        number = names[task.display_name]  # a loop's steps have one name
        label = task.display_name if number == 1 else f"{task.display_name} #{number}"
        if task.state and states.get(task.task_id) != task.state:
            states[task.task_id] = task.state
            _say(f"{label} {_words(task.state)}{_reason(task)}")


def _steps(run: Any) -> list[Any]:
    tasks = (run.run_details and run.run_details.task_details) or []
    mine = [task for task in tasks if task.display_name and not _AROUND.fullmatch(task.display_name)]
    return sorted(mine, key=lambda task: (str(task.create_time), task.task_id))


def _blame(run: Any) -> str:
    failed = [task for task in _steps(run) if task.state == "FAILED"]
    if failed:
        return ": " + ", ".join(f"{task.display_name} failed{_reason(task)}" for task in failed)
    return _reason(run)


def _reason(thing: Any) -> str:
    message = thing.error and thing.error.message
    return f" ({' '.join(message.split())})" if message else ""


def _duration(run: Any) -> str:
    if not (run.created_at and run.finished_at):
        return ""
    return f" after {str(run.finished_at - run.created_at).partition('.')[0]}"


def _words(state: str | None) -> str:
    return "was canceled" if state == "CANCELED" else (state or "is unknown").lower()


def _say(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {line}", file=sys.stderr, flush=True)
