"""Builds the object that a part of a config names in `_target_`; errors name the wrong setting."""

from abc import ABC
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from mtlrank.checks import nearest
from mtlrank.errors import ConfigError, one_line

_ANY = Parameter.VAR_KEYWORD  # **kwargs
_VARIABLE = (Parameter.VAR_POSITIONAL, _ANY)
_SUPPLIED = (  # by the program to classes that take the first of the names, when it calls what `_partial_: true` gives
    ("body_dim", "num_layers", "output_dim"),  # heads and poolers
    ("sizes", "batch_size", "seed", "rank", "world_size", "lengths", "about", "training_epochs")  # samplers
    + ("max_tokens", "length_window", "one_task"),
    ("tasks",),  # combiners of losses
    ("params",),  # optimizers
    ("optimizer", "total_steps"),  # schedules
)


def build_object(node: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build an object. `kwargs` are passed as they are: Hydra would copy them into a config."""
    _check_settings(node)
    try:
        if not kwargs:
            return instantiate({**node, "_convert_": "all"})
        built = instantiate({**node, "_convert_": "all"}, _partial_=True)
        _check_arguments(node, built, kwargs)
        return built(**kwargs)
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        _check_partial(node, kwargs)
        raise ConfigError(f"Cannot build {node.get('_target_')}: {one_line(error)} {cause}") from error


def _check_settings(node: Any) -> None:
    """Refuse a setting that the class does not take, and text where it takes a bool.

    In YAML 1.2, `no` and `off` are text, which Python would take for true.
    """
    if isinstance(node, Mapping):
        target = str(node.get("_target_", ""))
        if target:
            locate(target)
        taken = parameters_of(target) if target else {}
        for name, value in node.items():
            if name not in taken and taken and not takes_any(taken) and not name.startswith("_"):
                hidden = supplied(taken) if node.get("_partial_") else ()
                known = [each for each in taken if each != "self" and each not in hidden]
                takes = f"It takes: {', '.join(known)}." if known else "It takes none."
                raise ConfigError(f"{target} has no setting {name!r}.{nearest(name, known)} {takes}")
            if name in taken and taken[name].annotation in (bool, bool | None) and not isinstance(value, bool | None):
                raise ConfigError(f"{name} of {target} is {value!r}, expected true or false.")
            _check_settings(value)


def _check_partial(node: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Refuse a config without `_partial_: true` whose class lacks what only the program knows."""
    target = node.get("_target_")
    if target and not node.get("_partial_"):
        taken = parameters_of(str(target))
        needed = (name for name in supplied(taken) if name in taken and taken[name].default is Parameter.empty)
        if missing := [name for name in needed if name not in node and name not in given]:
            raise ConfigError(
                f"{target} is built by the program, which knows its {' and '.join(missing)}: add `_partial_: true` to its "
                "config."
            )
    for value in node.values():
        if isinstance(value, Mapping):
            _check_partial(value)


def supplied(taken: Mapping[str, Parameter]) -> list[str]:
    """The parameters that the program supplies to a class with these."""
    return [name for names in _SUPPLIED if names[0] in taken for name in names]


def locate(target: str) -> Any:
    """Import what a `_target_` names. The `ConfigError` says which part of it does not exist; Hydra would only log that."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            found: Any = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the missing module is one that this module imports
            continue
        except SyntaxError as error:
            raise ConfigError(f"_target_ {target}: {error.filename}, line {error.lineno}: {error.msg}.") from error
        for part in parts[end:]:
            if not hasattr(found, part):
                hint = nearest(part, [known for known in dir(found) if not known.startswith("_")])
                raise ConfigError(f"_target_ {target}: {name} has no {part!r}.{hint}")
            found = getattr(found, part)
        return found
    raise ConfigError(
        f"_target_ {target}: there is no module {parts[0]!r}. Type the command in the folder that holds {parts[0]}.py or "
        f"the package {parts[0]}, or put that folder into PYTHONPATH."
    )


@cache
def parameters_of(target: str) -> dict[str, Parameter]:
    """The parameters of a class, with those of its base classes if it has **kwargs; empty if it cannot be imported."""
    found: dict[str, Parameter] = {}
    try:
        made = locate(target)
        for taker in (each for each in getattr(made, "__mro__", (made,)) if each not in (object, ABC)):
            takes = dict(signature(taker).parameters)
            found = takes | found
            if not takes_any(takes):
                return {name: parameter for name, parameter in found.items() if parameter.kind not in _VARIABLE}
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}  # the error is raised when it is built
    return found


def takes_any(parameters: Mapping[str, Parameter]) -> bool:
    """Whether there is a parameter like **kwargs."""
    return any(parameter.kind is _ANY for parameter in parameters.values())


def _check_arguments(node: Mapping[str, Any], built: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that a class does not take, and missing ones that it needs."""
    try:
        signature(built).bind(**kwargs)
    except (TypeError, ValueError) as error:
        target = str(node.get("_target_"))
        raise ConfigError(f"Cannot build {target}: {one_line(error)}.") from error
