"""torch.compile, tried on a small function before the first step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import SubprocessError
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from mtlrank.errors import ResourceError, UserError


def compiled(function: Callable[..., Tensor], device: torch.device, setting: str) -> Callable[..., Tensor]:
    """The function, compiled when it is first called, for any number of tokens.

    A small function is compiled at once to find out whether `device` can. Raises `ResourceError` if not, which names the
    `setting` that asks for it.
    """
    torch._dynamo.reset()  # a run in the same process before this one compiled for its own layers
    torch._dynamo.config.recompile_limit = 64  # past it torch stops compiling; each kind of layer and of `rows` counts
    torch._dynamo.config.optimize_ddp = False  # would cut graphs at buckets of gradients; ours are single layers
    values = torch.ones(64, 64, device=device, requires_grad=True)
    try:
        with compile_errors(setting):
            torch.compile(_trial, dynamic=True)(values).backward()
    except (RuntimeError, OSError, SubprocessError) as error:  # such as a Python that torch does not compile for
        raise _unable(error, setting) from error
    made: Callable[..., Tensor] = torch.compile(function, dynamic=True)
    return made


@contextmanager
def compile_errors(setting: str) -> Iterator[None]:
    """Turn errors of torch's compiler into a `ResourceError`; a request to stop is passed on."""
    try:
        yield
    except TorchDynamoException as error:
        inner: Any = getattr(error, "inner_exception", None)
        if isinstance(inner, UserError):  # raised by a signal
            raise inner from None
        raise _unable(error, setting) from error


def _trial(values: Tensor) -> Tensor:
    return torch.nn.functional.gelu(values).softmax(-1).sum()


def _unable(error: Exception, setting: str) -> ResourceError:
    """With the first telling line of the error: the C++ compiler's own if there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.rstrip().endswith("raised:")]
    telling = [line for line in lines if "error: " in line] or lines or [type(error).__name__]
    return ResourceError(
        f"{setting} is true, but torch cannot compile here: {telling[0].rstrip('.')[:300]}. It needs a C++ compiler and "
        f"Python's headers (Debian: g++ and python3-dev). {setting}=false needs neither."
    )
