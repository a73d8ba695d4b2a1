"""torch.compile, where it is known to work before the first step."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from mtlrank.errors import ResourceError


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled when it is first called, for any number of tokens.

    Raises `ResourceError` if this machine cannot compile: a small function is compiled at once to find out.
    """
    try:
        torch.compile(_trial)(torch.ones(64, 64, device="cuda" if torch.cuda.is_available() else "cpu"))
    except (TorchDynamoException, RuntimeError, OSError) as error:
        raise ResourceError(
            "training.compile needs a C++ compiler and Python's headers, but compiling a small function failed: "
            f"{_reason(error)}. Install them (Debian: g++ and python3-dev), or set training.compile=false."
        ) from error
    torch._dynamo.config.recompile_limit = 64  # past it torch stops compiling; kinds of layers and of reading multiply
    made: Callable[..., Tensor] = torch.compile(function, dynamic=True)
    return made


def _trial(values: Tensor) -> Tensor:
    return torch.nn.functional.gelu(values).softmax(-1)


def _reason(error: Exception) -> str:
    """The first line that says something; what raised it says nothing."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.endswith("raised:")]
    return (telling[0] if telling else type(error).__name__).rstrip(".")[:200]
