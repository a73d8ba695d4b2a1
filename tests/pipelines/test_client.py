"""What can be wrong between here and the server is one line that says what to set."""

import socket

import pytest

from mtlrank.errors import ConfigError, UserError
from pipelines import schedule, submit, upload
from pipelines.client import ServerError, UnavailableError, connect, explained_errors

TOKEN = "s3cret-t0ken"


def complaint(kind: type[UserError], *arguments) -> str:
    with pytest.raises(kind) as caught:
        connect(*arguments)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_server_that_answers_is_connected(server):
    assert connect(server.url + "/", None, None).get_kfp_healthz().multi_user is False


def test_an_endpoint_must_be_named():
    assert "set KFP_ENDPOINT or --endpoint" in complaint(ConfigError, None, None, None)


def test_an_endpoint_has_a_scheme():
    assert "starts with http:// or https://" in complaint(ConfigError, "localhost:8080", None, None)


def test_a_server_that_is_not_there(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    message = complaint(UnavailableError, endpoint, None, None)
    assert message.startswith("Kubeflow Pipelines cannot be reached (")
    assert "refused" in message
    assert "KFP_ENDPOINT" in message


def test_a_login_page_is_told_from_the_server(server):
    server.fail("healthz", "page", times=9)
    message = complaint(ServerError, server.url, None, None)
    assert "web page answered" in message
    assert "KFP_EXISTING_TOKEN" in message


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (schedule.app, ["list"]),
        (schedule.app, ["delete", "nightly"]),
        (schedule.app, ["create", "nightly", "--cron", "0 3 * * *"]),
        (submit.app, []),
        (submit.app, ["--follow", "some-run"]),
        (upload.app, []),
    ],
)
def test_a_login_page_is_no_answer_of_any_command(command, words, server, invoke):
    """Some proxies let the question pass whether the server is there."""
    server.fail("/apis/v2beta1/(?!healthz)", "page", times=9)
    result = invoke(command, *words)
    assert result.exit_code == 7
    assert "A web page answered, not Kubeflow Pipelines" in result.stderr


def test_a_token_is_sent_and_asked_for(server):
    server.token = TOKEN
    connect(server.url, None, f"{TOKEN}\n")
    for wrong in (None, TOKEN[::-1]):
        message = complaint(ServerError, server.url, None, wrong)
        assert "401" in message
        assert "set KFP_EXISTING_TOKEN" in message


@pytest.mark.parametrize("token", [f"{TOKEN} {TOKEN}", f"{TOKEN}\n{TOKEN}", f"{TOKEN}é"])
def test_a_token_that_cannot_be_one_is_not_shown(server, token):
    assert "blanks, line breaks" in complaint(ConfigError, server.url, None, token)


def test_several_users_need_a_namespace(server):
    server.multi_user = True
    assert "set KFP_NAMESPACE or --namespace" in complaint(ConfigError, server.url, None, None)
    assert connect(server.url, "team-a", None).get_user_namespace() == "team-a"


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, ServerError, "refuses (400): told to fail"),
        (403, ServerError, "does not allow this (403, told to fail): set KFP_NAMESPACE"),
        (404, ServerError, "Not found (404, told to fail): check the id, and that KFP_ENDPOINT"),
        (429, UnavailableError, "is unavailable (429"),
        (503, UnavailableError, "is unavailable (503, told to fail): try again later"),
    ],
)
def test_an_answer_says_what_to_do(server, status, kind, words):
    server.fail("healthz", status, times=9)
    assert words in complaint(kind, server.url, None, None)


def test_a_lost_connection_may_come_back(server):
    client = connect(server.url, None, None)
    server.fail("POST .*experiments", "drop")
    with pytest.raises(UnavailableError, match="cannot be reached"), explained_errors():
        client.create_experiment("a")


@pytest.mark.parametrize("answer", ["null", "[]", "[1]", "nonsense"])
def test_an_answer_that_is_none_of_its_own_is_told(server, answer):
    server.fail("healthz", answer)
    assert "The answer is none of Kubeflow Pipelines' own" in complaint(ServerError, server.url, None, None)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"namespace": 3'])
def test_damaged_settings_of_kfp_are_named(server, tmp_path, content):
    (tmp_path / "context.json").write_text(content)
    told = complaint(ConfigError, server.url, None, None)
    assert f"kfp cannot be used with its settings in {tmp_path / 'context.json'}: " in told
    assert told.endswith("Remove the file.")


def test_what_a_server_says_does_not_reach_the_terminal_raw(server):
    server.words = "\x1b[2Jline\nline" + "x" * 5000
    server.fail("healthz", 400)
    message = complaint(ServerError, server.url, None, None)
    assert "[2Jline linexxx" in message
    assert "\x1b" not in message
    assert len(message) < 700
