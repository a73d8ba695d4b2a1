"""The server of Kubeflow Pipelines: how it is found, and what goes wrong with it in one line."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import kfp
import typer
from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError

from mtlrank.errors import ConfigError, UserError, one_line

TIMEOUT = 60  # seconds without an answer after which a server counts as lost

Endpoint = Annotated[
    str | None,
    typer.Option(envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"], help="Address of Kubeflow Pipelines."),
]
Namespace = Annotated[
    str | None, typer.Option(envvar="KFP_NAMESPACE", help="Your namespace, if several users share the server.")
]
Token = Annotated[
    str | None,
    typer.Option(envvar="KFP_EXISTING_TOKEN", help="Bearer token; the variable is safer than the flag."),
]
Experiment = Annotated[str, typer.Option(help="Experiment that lists the runs and schedules; created if missing.")]


class ServerError(UserError):
    """Kubeflow Pipelines refuses."""

    exit_code = 7


class UnavailableError(ServerError):
    """Kubeflow Pipelines cannot be reached, or has an error that may be temporary."""


class Client(kfp.Client):
    """kfp's client, which waits a minute for an answer, refuses web pages, and asks once whether the server is there.

    kfp itself waits for ever, and takes a page that asks for a login for an empty answer. It asks five times, five seconds
    apart, and logs a traceback each time.
    """

    _is_careful = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._be_careful()

    def _be_careful(self) -> None:
        """Check all answers from now on."""
        if self._is_careful:
            return
        self._is_careful = True
        shared = self._healthz_api.api_client.rest_client  # by all parts of the API
        request = shared.request

        def careful(*words: Any, _request_timeout: float | None = None, **more: Any) -> Any:
            answer = request(*words, _request_timeout=_request_timeout or TIMEOUT, **more)
            if "json" not in answer.getheader("content-type", ""):
                raise ServerError(
                    "A web page answered, not Kubeflow Pipelines. If it asks for a login, set KFP_EXISTING_TOKEN; if not, "
                    "set KFP_ENDPOINT or --endpoint to the address of its API."
                )
            if not _is_object(answer.data):
                raise ServerError(
                    "The answer is none of Kubeflow Pipelines' own: set KFP_ENDPOINT or --endpoint to the address of its "
                    "API."
                )
            return answer

        shared.request = careful

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """What the server reports about itself; kfp asks for it first of all, while the client is made."""
        self._be_careful()
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=TIMEOUT)

    def link(self, *parts: str) -> str:
        """The address of a page of the UI."""
        return f"{self._get_url_prefix()}/#/{'/'.join(parts)}"


def connect(endpoint: str | None, namespace: str | None, token: str | None) -> Client:
    """A client of a server that answers."""
    if not endpoint:
        raise ConfigError(
            "No server is given: set KFP_ENDPOINT or --endpoint to the address of Kubeflow Pipelines, such as "
            "http://localhost:8080 after `kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`."
        )
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"--endpoint is {endpoint!r}: expected an address that starts with http:// or https://.")
    token = (token or "").strip()
    if not token.isprintable() or " " in token or not token.isascii():
        raise ConfigError(
            "The token has blanks, line breaks or non-ASCII letters: set KFP_EXISTING_TOKEN to the token alone."
        )
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each try
    with explained_errors(), _explained_settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it only works with Kubeflow Pipelines 2
        client = Client(host=endpoint, namespace=namespace or "kubeflow", existing_token=token or None)
        health = client.get_kfp_healthz()
    if health.multi_user and not client.get_user_namespace():
        raise ConfigError("Several users share this server: set KFP_NAMESPACE or --namespace to yours.")
    return client


@contextmanager
def _explained_settings() -> Iterator[None]:
    """Turn an error of reading kfp's own settings file into one that names it."""
    try:
        yield
    except (AttributeError, OSError, ValueError) as error:
        path = Path(Client._LOCAL_KFP_CONTEXT)
        if isinstance(error, UserError) or not path.exists():
            raise
        raise ConfigError(
            f"kfp cannot be used with its settings in {path}: {one_line(error)} Remove the file."
        ) from error


def _is_object(text: str | bytes) -> bool:
    """Whether an answer is a JSON object, as all of the API's answers are, or empty."""
    try:
        return not text or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def id_of(made: Any, name: str) -> str:
    """The id of what the server says that it has made."""
    found = getattr(made, name, None)
    if not found:
        raise ServerError(f"The server answers without the {name}: look into its UI before trying again.")
    return str(found)


@contextmanager
def explained_errors() -> Iterator[None]:
    """Turn errors of kfp and urllib3 into a ServerError that says what to set."""
    try:
        yield
    except ApiException as error:
        raise _explain(error) from error
    except HTTPError as error:
        reason = str(getattr(error, "reason", None) or error).rpartition(": ")[2]
        raise UnavailableError(
            f"Kubeflow Pipelines cannot be reached ({reason}). Check the network and KFP_ENDPOINT or --endpoint."
        ) from error


def _explain(error: ApiException) -> ServerError:
    status, message = error.status, _message(error)
    if status == 401:
        return ServerError(f"Kubeflow Pipelines requires a login (401, {message}): set KFP_EXISTING_TOKEN.")
    if status == 403:
        return ServerError(
            f"Kubeflow Pipelines does not allow this (403, {message}): set KFP_NAMESPACE or --namespace to yours, or "
            "KFP_EXISTING_TOKEN to the token of an account that may."
        )
    if status == 404:
        return ServerError(
            f"Not found (404, {message}): check the id, and that KFP_ENDPOINT or --endpoint is Kubeflow Pipelines."
        )
    if status == 429 or status >= 500:
        return UnavailableError(f"Kubeflow Pipelines is unavailable ({status}, {message}): try again later.")
    return ServerError(f"Kubeflow Pipelines refuses ({status}): {message}")


def _message(error: ApiException) -> str:
    """What the server says, as one line of text."""
    try:
        body = json.loads(error.body or "")
        text = body.get("message") or body.get("error") or body.get("error_message")
    except (ValueError, AttributeError):
        text = None  # a page of some proxy
    line = " ".join(str(text or error.reason).split())
    return "".join(letter for letter in line if letter.isprintable())[:600]
