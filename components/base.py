"""What all components are made with. Steps cannot import it: kfp defines components nowhere but outside of them."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl.python_component import PythonComponent

from mtlrank import __version__

IMAGE = os.environ.get("MTLRANK_IMAGE") or f"mtlrank:{__version__}"
# kfp copies a function's source without its decorators, so what goes around a running step stands behind it; and it asks
# for the arguments in a way that does not look behind a decorator.
_GUARDED = """
import inspect
from mtlrank.entry import guarded

signature = inspect.signature({name})
{name} = guarded()({name})
{name}.__signature__ = signature
"""


def step(function: Callable[..., Any]) -> PythonComponent:
    """A component that runs on our image and reports a user's mistake in one line, with its exit code."""
    component: PythonComponent = dsl.component(function, base_image=IMAGE, install_kfp_package=False)
    container = component.component_spec.implementation.container
    *command, source = container.command
    container.command = [*command, source + _GUARDED.format(name=function.__name__)]
    return component
