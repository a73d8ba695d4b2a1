"""A run that is followed: to its end, through lost connections, and left alone by Ctrl-C."""

import time
from types import SimpleNamespace

import pytest

from pipelines import follow
from pipelines.submit import app

AROUND = {"mtl-ranking-x7k2p": "RUNNING", "root-driver": "SUCCEEDED", "root": "RUNNING", "for-loop-1": "RUNNING"}
COURSE = [
    ("PENDING", {}),
    ("RUNNING", {**AROUND, "prepare": "RUNNING", "prepare#2": "PENDING"}),
    ("RUNNING", {**AROUND, "prepare": "SUCCEEDED", "prepare#2": "RUNNING"}),
    ("RUNNING", {**AROUND, "prepare": "SUCCEEDED", "prepare#2": "RUNNING"}),
    ("SUCCEEDED", {**AROUND, "prepare": "SUCCEEDED", "prepare#2": "SUCCEEDED", "report": "SUCCEEDED"}),
]


@pytest.fixture
def watched(server, invoke, package):
    """Submit a run and follow it; gives what was printed."""

    def watch(*words):
        return invoke(app, "--package", package, "--watch", "--interval", 0, "--run-name", "try", *words)

    return watch


def lines(result):
    """What was said of steps, without the time."""
    return [line.partition("  ")[2] for line in result.stderr.splitlines() if line[2:3] == ":"]


def test_a_line_for_each_change_of_a_step_and_the_verdict(server, watched):
    server.course = COURSE
    result = watched("--pipeline-root", "gs://bucket/runs/")
    assert result.exit_code == 0, result.output
    assert lines(result) == [
        "prepare running",
        "prepare #2 pending",
        "prepare succeeded",
        "prepare #2 running",
        "prepare #2 succeeded",
        "report succeeded",
    ]
    run_id = server.only("runs")["run_id"]
    *_, verdict, report, files = result.stdout.splitlines()
    assert verdict == "try succeeded after 1:02:05"
    assert report == f"report: step `report` at {server.url}/#/runs/details/{run_id}"
    assert files.strip() == f"gs://bucket/runs/mtl-ranking/{run_id}/report/*/page"


def test_where_the_server_chose_the_root_the_page_is_told(server, watched):
    assert "report: step `report` at http" in watched().stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("state", "tasks", "words"),
    [
        ("FAILED", {"prepare": "SUCCEEDED", "train": "FAILED: out of memory"}, "failed: train failed (out of memory)."),
        ("FAILED", {}, "failed."),
        ("CANCELED", {"train": "CANCELED"}, "was canceled."),
        ("SKIPPED", {}, "skipped."),
    ],
)
def test_a_run_that_does_not_succeed_is_an_exit_code(server, watched, state, tasks, words):
    server.course = [("RUNNING", {}), (state, tasks)]
    result = watched()
    assert result.exit_code == 8
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"mtlrank: Run 'try' {words} See {server.url}/#/runs/details/")


@pytest.mark.parametrize("fault", ["drop", 503, 429])
def test_an_outage_is_waited_out(server, watched, fault):
    server.course = COURSE
    server.fail("GET .*runs/", fault, times=9)
    result = watched()
    assert result.exit_code == 0, result.output
    assert sum("Trying again" in line for line in lines(result)) == 1  # not one for each try
    assert lines(result)[-1] == "report succeeded"


def test_an_outage_without_end_is_an_error_that_says_how_to_go_on(server, watched, monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE", 0.0)
    server.fail("GET .*runs/", 503, times=99)
    result = watched()
    assert result.exit_code == 7
    run_id = server.only("runs")["run_id"]
    assert result.stderr.endswith(f"Watch the run again: python -m pipelines.submit --follow {run_id}\n")


def test_patience_begins_again_with_each_answer(server, watched, monkeypatch):
    """By a clock that half of the patience passes on between two looks; the server is away for the fifth."""
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) == 4:
            server.fail("GET .*runs/", 503)

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: len(sleeps) * follow.PATIENCE / 2)
    monkeypatch.setattr(follow, "time", clock)
    server.course = COURSE
    result = watched()
    assert result.exit_code == 0, result.output
    assert sum("Trying again" in line for line in lines(result)) == 1


def test_a_token_that_ended_is_not_waited_out(server, watched):
    server.course = COURSE
    server.fail("GET .*runs/", 401)
    result = watched()
    assert result.exit_code == 7
    assert "set KFP_EXISTING_TOKEN. Watch the run again: python -m" in result.stderr


def test_ctrl_c_leaves_the_run_going(server, watched, monkeypatch, invoke):
    def press(seconds):
        raise KeyboardInterrupt

    server.course = COURSE
    with monkeypatch.context() as patch:
        patch.setattr(follow, "time", SimpleNamespace(sleep=press, monotonic=time.monotonic))  # other threads sleep on
        result = watched()
    assert result.exit_code == 130
    run_id = server.only("runs")["run_id"]
    assert f"The run continues. Watch it again: python -m pipelines.submit --follow {run_id}" in result.stderr
    again = invoke(app, "--follow", run_id, "--interval", 0)
    assert again.exit_code == 0
    assert "try succeeded" in again.stdout
    assert server.count("POST .*runs") == 1


def test_a_run_that_is_not_there(server, invoke):
    result = invoke(app, "--follow", "nobody")
    assert result.exit_code == 7
    assert "Not found (404" in result.stderr
