"""Schedules: typed, one at a time, nothing to catch up on, and never none where there was one."""

import json
import re

import pytest

from pipelines.schedule import app


@pytest.fixture
def create(server, invoke, package):
    def make(name, *words, cron="0 3 * * *"):
        return invoke(app, "create", name, "--cron", cron, "--package", package, *words)

    return make


def schedules(server):
    return list(server.store.recurring_runs.values())


def test_a_schedule_has_typed_parameters_and_no_overlap(server, create):
    result = create("nightly", "seed=7", 'tasks=["trec2019"]', "--pipeline-root", "gs://b/r", "--service-account", "me")
    assert result.exit_code == 0, result.output
    made = server.only("recurring_runs")
    assert made["display_name"] == "nightly"
    assert made["runtime_config"] == {"parameters": {"seed": 7, "tasks": ["trec2019"]}, "pipeline_root": "gs://b/r"}
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    assert made["service_account"] == "me"
    version = server.only("versions")
    reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    assert made["pipeline_version_reference"] == reference
    assert f"created nightly: {server.url}/#/recurringrun/details/{made['recurring_run_id']}" in result.stdout


def test_the_image_that_steps_run_on_is_told_if_none_is_named(server, invoke):
    """As by submit: a schedule runs where nobody looks."""
    result = invoke(app, "create", "nightly", "--cron", "0 3 * * *", "--pipeline-root", "gs://bucket/root")
    assert result.exit_code == 0, result.output
    assert "MTLRANK_IMAGE is not set: the steps run on " in result.output


def test_a_schedule_can_answer_nothing_from_the_cache(server, create):
    """Its version lies beside the one that others share."""
    for words in ([], ["--no-cache"], ["--no-cache"]):
        assert create("nightly", *words).exit_code == 0
    usual, uncached = server.store.versions.values()
    assert "enableCache" in json.dumps(usual["pipeline_spec"])
    assert "enableCache" not in json.dumps(uncached["pipeline_spec"])
    assert uncached["display_name"] == usual["display_name"] + "-no-cache"
    (made,) = schedules(server)
    assert made["pipeline_version_reference"]["pipeline_version_id"] == uncached["pipeline_version_id"]


@pytest.mark.parametrize("name", ["", " "])
def test_a_schedule_has_a_name(server, create, name):
    result = create(name)
    assert result.exit_code == 2
    assert "The schedule has no name" in result.stderr
    assert server.log == []


@pytest.mark.parametrize("name", ["new\nline", "a\x1b[31mb", "x" * 129])
def test_a_name_that_no_line_can_show_is_refused(server, create, name):
    result = create(name)
    assert result.exit_code == 2
    assert f"with {len(name)} characters: expected at most 128, all printable" in result.stderr
    assert server.log == []


def test_blanks_around_a_name_are_no_part_of_it(server, create, invoke):
    for name in ("nightly", " nightly "):
        create(name)
    assert server.only("recurring_runs")["display_name"] == "nightly"
    server.only("recurring_runs")["display_name"] = "nightly "  # from another client
    assert "replaced nightly" in create("nightly").stdout
    assert invoke(app, "delete", "nightly ").exit_code == 0
    assert schedules(server) == []


def test_the_same_name_replaces(server, create):
    for name in ("a", "b", "c"):
        create(name, "seed=1")
    result = create("b", "seed=2", cron="0 4 * * 1")
    assert result.exit_code == 0, result.output
    assert "replaced b" in result.stdout
    told = {each["display_name"]: each["runtime_config"]["parameters"]["seed"] for each in schedules(server)}
    assert told == {"a": 1, "b": 2, "c": 1}
    assert len(schedules(server)) == 3


def test_between_two_calls_there_is_one_too_many_and_never_none(server, create):
    """The old schedule stays until the new one is there; whatever is lost, the same command puts it right."""
    create("nightly", "seed=1")
    server.fail("POST .*recurringruns", 503)
    assert create("nightly", "seed=2").exit_code == 7
    assert [each["runtime_config"]["parameters"] for each in schedules(server)] == [{"seed": 1}]
    for status in (503, 403):
        server.fail("DELETE .*recurringruns", status)
        result = create("nightly", "seed=2")
        assert result.exit_code == 7
        assert "The new schedule runs already, and the old one still does: run this again, or delete" in result.stderr
    assert len(schedules(server)) == 3
    assert create("nightly", "seed=2").exit_code == 0
    assert [each["runtime_config"]["parameters"] for each in schedules(server)] == [{"seed": 2}]


def test_a_deletion_whose_answer_is_lost_is_done(server, create, invoke):
    """urllib3 sends it again, and the schedule is gone by then."""
    create("nightly", "seed=1")
    server.fail("DELETE .*recurringruns", "lose")
    result = create("nightly", "seed=2")
    assert (result.exit_code, len(schedules(server))) == (0, 1)
    assert "replaced nightly" in result.stdout
    server.fail("DELETE .*recurringruns", "lose")
    assert invoke(app, "delete", "nightly").exit_code == 0
    assert not schedules(server)


@pytest.mark.parametrize("answer", ["{}", '{"a": 1}', "[]", "null"])
def test_a_schedule_without_an_id_is_not_reported_as_made(server, create, answer):
    server.fail("POST .*recurringruns", answer)
    result = create("nightly", "seed=1")
    assert (result.exit_code, result.stdout.count("created")) == (7, 0)
    assert len(result.stderr.strip().splitlines()) <= 2  # with the note about the image


def test_a_name_belongs_to_its_experiment(server, create, invoke):
    create("nightly", "--experiment", "ours")
    create("nightly", "--experiment", "theirs")
    assert len(schedules(server)) == 2
    assert invoke(app, "delete", "nightly", "--experiment", "ours").exit_code == 0
    assert server.only("recurring_runs")["experiment_id"] == list(server.store.experiments)[1]


@pytest.mark.parametrize(
    ("words", "cron", "said"),
    [
        ([], "0 3 * *", "--cron is '0 3 * *', with 4 fields"),
        ([], "0 30 * * *", "'30' is not a valid hour"),
        (["sed=1"], "0 3 * * *", "Did you mean 'seed'?"),
        (["seed=a"], "0 3 * * *", "seed is an integer"),
    ],
)
def test_a_mistake_is_told_before_any_call(server, create, words, cron, said):
    result = create("nightly", *words, cron=cron)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.log == []


def test_schedules_are_listed_from_all_pages(server, create, invoke):
    for name in ("a", "b", "c", "[d]"):
        create(name, "seed=7", 'tasks=["x"]')
    result = invoke(app, "list")
    assert result.exit_code == 0
    rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        [name, "0 0 3 * * *", "enabled", 'seed=7 tasks=["x"]'] for name in ("a", "b", "c", "[d]")
    ]
    assert {row[4] for row in rows} >= {each["recurring_run_id"] for each in schedules(server)}


def test_none_is_said_too(server, invoke):
    assert invoke(app, "list").stdout == "no schedules in experiment mtlrank\n"
    assert server.store.experiments == {}


def test_a_schedule_is_deleted(server, create, invoke):
    create("nightly")
    result = invoke(app, "delete", "nightly")
    assert (result.exit_code, result.stdout) == (0, "deleted nightly\n")
    assert schedules(server) == []


def test_a_schedule_is_paused_and_resumed(server, create, invoke):
    create("nightly", "seed=7")
    create("weekly")
    for command, said, state in (("pause", "paused", "paused"), ("resume", "resumed", "enabled")):
        result = invoke(app, command, "nightly")
        assert (result.exit_code, result.stdout) == (0, f"{said} nightly\n")
        rows = [re.split(r"  +", line.strip()) for line in invoke(app, "list").stdout.splitlines()[2:]]
        assert {row[0]: row[2] for row in rows} == {"nightly": state, "weekly": "enabled"}
    assert len(schedules(server)) == 2


def test_replacing_a_paused_schedule_says_that_it_runs(server, create, invoke):
    create("nightly")
    invoke(app, "pause", "nightly")
    assert "replaced nightly, which was paused and now runs: " in create("nightly").stdout
    assert [each["status"] for each in schedules(server)] == ["ENABLED"]
    assert "replaced nightly: " in create("nightly").stdout


@pytest.mark.parametrize("command", ["pause", "resume", "delete"])
def test_a_name_that_is_not_there_lists_what_is(server, create, invoke, command):
    assert "There are: none." in invoke(app, command, "nightly").stderr
    create("nightly")
    before = [dict(each) for each in schedules(server)]
    result = invoke(app, command, "nightli")
    assert result.exit_code == 2
    assert "Did you mean 'nightly'? There are: nightly." in result.stderr
    assert schedules(server) == before
