"""The decorator of all components. Steps cannot import it: kfp refuses to define components inside one."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl.python_component import PythonComponent

from mtlrank import __version__

IMAGE = os.environ.get("MTLRANK_IMAGE") or f"mtlrank:{__version__}"
# kfp copies a function's source without its decorators, so this code follows the source to guard the step; and kfp reads
# the function's arguments without looking behind a decorator, so they are set.
_GUARDED = """
import inspect
from mtlrank.guard import guarded

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
