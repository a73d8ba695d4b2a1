"""Errors of Google Cloud Storage: which are worth a retry, and how to explain those that a user must fix."""

import http.client

import requests
import urllib3
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from mtlrank.errors import ConflictError, StorageError
from mtlrank.storage.paths import Place

# Errors of a cut, slow or missing connection, of each layer that can notice it. Their common parent OSError would
# include a full disk, which no retry mends.
_CONNECTION = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    TransportError,
    DataCorruption,
)
_BUSY = (408, 410, 429)  # 410: the server forgot an upload in parts; it starts again


def is_worth_retry(error: Exception) -> bool:
    """Whether a retry may help."""
    code = status(error)
    if code:
        is_damaged_in_transfer = code == 400 and "crc32c" in answer(error).lower()
        return code in _BUSY or code >= 500 or is_damaged_in_transfer
    return isinstance(error, _CONNECTION) or (isinstance(error, RefreshError) and error.retryable)


def status(error: Exception) -> int:
    """The HTTP status that an error stands for; 0 if there was no answer."""
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return int(error.code or 0) if isinstance(error, GoogleAPICallError) else 0


def bucket_is_missing(error: Exception) -> bool:
    """Whether a 404 is about the bucket: the code alone does not say."""
    return "bucket does not exist" in answer(error)


def answer(error: Exception) -> str:
    """The server's message on one line, without the request's URL, which can hold the key of an upload."""
    response = getattr(error, "response", None)
    try:
        text = str(response.json()["error"]["message"])  # type: ignore[union-attr]
    except (AttributeError, LookupError, TypeError, ValueError):
        text = str(getattr(response, "text", "") or type(error).__name__)
    return " ".join(text.split())[:300]


def reason(error: Exception) -> str:
    """A short reason for the end of a sentence."""
    return f"HTTP {status(error)}, {answer(error)}" if status(error) else type(error).__name__


def explain(error: Exception, verb: str, place: Place) -> StorageError | None:
    """The error with the way out, if it is one that a user can fix."""
    task, code = f"Cannot {verb} {place}", status(error)
    if isinstance(error, GoogleAuthError) or code == 401:
        return StorageError(
            f"{task}: no valid credentials ({reason(error)}). Run `gcloud auth application-default login`; on a "
            "cluster, bind the pod's service account with Workload Identity."
        )
    if code == 403:
        return StorageError(
            f"{task}: not allowed ({answer(error)}). Grant this account roles/storage.objectUser on the bucket "
            f"gs://{place.bucket}, or roles/storage.objectViewer if it only reads."
        )
    if code == 404:
        return StorageError(f"{task}: {_missing(error, place)}")
    if code == 412:
        return ConflictError(f"{task}: it was changed by another process meanwhile. Run again.")
    return StorageError(f"{task}: the server refused ({reason(error)}). Correct the path.") if code else None


def _missing(error: Exception, place: Place) -> str:
    if bucket_is_missing(error):
        create = f"gcloud storage buckets create gs://{place.bucket}"
        return f"the bucket does not exist. Correct the path, or run `{create}`."
    return "there is no such object. Correct the path, or run the step that writes it."
