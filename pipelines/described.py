"""What the parameters of several pipelines mean is written once, in the docstring of one of them."""

import inspect
from collections.abc import Callable
from textwrap import indent
from typing import Any

from kfp.dsl.graph_component import GraphComponent


def other_parameters_as_in(pipeline: GraphComponent) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds the parameters which a docstring leaves out, described as in `pipeline`, to its `Args:`.

    It stands below `@dsl.pipeline`, as kfp takes the texts of the UI's form from the docstring. `Args:` must come last.
    """

    def describe(function: Callable[..., Any]) -> Callable[..., Any]:
        text = inspect.cleandoc(function.__doc__ or "")
        for name in inspect.signature(function).parameters:
            if f"\n    {name}: " not in text:
                description = pipeline.component_spec.inputs[name].description.replace("\n", "\n    ")
                text += "\n" + indent(f"{name}: {description}", "    ")
        function.__doc__ = text
        return function

    return describe
