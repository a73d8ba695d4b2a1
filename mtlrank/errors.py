"""Errors that a user can fix, by exit code: the entry points print them as one line, without a traceback."""

_MOST = 300  # characters of the reason that a message of ours quotes


def one_line(error: BaseException) -> str:
    """The first line of an error's message, cut; the error's type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip()[:_MOST]


def with_type(error: BaseException) -> str:
    """`one_line` after the error's type, where the message alone may say too little."""
    kind, line = type(error).__name__, one_line(error)
    return kind if line == kind else f"{kind}: {line}"


def all_lines(error: BaseException) -> str:
    """An error's message with its lines joined, where the reason may be in a later one; its type if it has no message."""
    return " ".join(str(error).split())[:_MOST] or type(error).__name__


class UserError(ValueError):
    """A mistake. The message says what was expected, what was found and the way out, in one sentence or two."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that cannot be built: an unknown name, a head without a dataset, a forbidden override."""


class DataError(UserError):
    """Data that cannot be used: a bad row, a missing file, a prepared dataset that was changed."""

    exit_code = 3


class StorageError(UserError):
    """A path that cannot be read or written."""

    exit_code = 4


class ConflictError(StorageError):
    """Another process changed a file since it was read, or created it first: read again and decide again."""


class DivergedError(UserError):
    """Training whose losses are not finite any more."""

    exit_code = 5


class ResourceError(UserError):
    """A resource that the machine lacks: memory, also of the GPU, or a compiler."""

    exit_code = 6


class TerminatedError(UserError):
    """A run that was asked to stop and can continue later."""

    exit_code = 143


class OwnCodeError(UserError):
    """An exception raised in a user's own class."""

    exit_code = 1


class SigTerm(BaseException):
    """SIGTERM as an exception. A BaseException, so that no `except Exception` of a library swallows it."""


class InterruptedRunError(TerminatedError):
    """A run that was stopped from the keyboard and can continue later."""

    exit_code = 130
