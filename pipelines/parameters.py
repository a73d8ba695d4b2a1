"""`key=value` on a command line becomes parameters of a pipeline, of the types that it declares."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfp.dsl.structures import InputSpec

from mtlrank.checks import is_number, nearest, parse_number
from mtlrank.errors import ConfigError


def parse(arguments: Sequence[str], declared: Mapping[str, InputSpec]) -> dict[str, Any]:
    """The parameters that were given, checked against `declared`, a pipeline's `component_spec.inputs`.

    Lists and dicts are JSON. A ConfigError names an unknown key, a value of another type, a parameter given twice, one
    that has no default and was not given, and a list that is empty though its default is not: steps are made from it.
    """
    parameters: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key not in declared:
            raise ConfigError(_unknown(argument, key, declared))
        if key in parameters:
            raise ConfigError(f"{key} is given twice: expected it once.")
        parameters[key] = _value(key, text, declared[key])
    missing = [key for key, spec in declared.items() if not spec.optional and key not in parameters]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: no default and not given. Give {_example(missing[0], declared)}.")
    return parameters


def _unknown(argument: str, key: str, declared: Mapping[str, InputSpec]) -> str:
    if key in declared:
        return f"{key} has no value: expected {_example(key, declared)}."
    names = ", ".join(declared) or "no parameters"
    return f"Unknown parameter {argument!r}.{nearest(key, declared)} Expected key=value; the pipeline has: {names}."


def _value(key: str, text: str, spec: InputSpec) -> Any:
    try:
        value = _read(text, spec.type)
    except (ValueError, RecursionError):  # the latter for brackets in brackets in brackets
        value = None
    if value is None or not _fits(value, spec.type):
        example = _example(key, {key: spec})
        raise ConfigError(f"{key} is {_described(spec.type)}, found {text[:200]!r}. Write it as in {example}.")
    if value == [] and spec.default:
        raise ConfigError(f"{key} is empty: expected at least one, as in {_example(key, {key: spec})}.")
    return value


def _read(text: str, kind: str) -> Any:
    """The value that `text` says; a ValueError if it is no such value."""
    base, _ = _parts(kind)
    if base in (float, int):
        parse_number(text)  # refuses 1_0
    if base in (str, float, int):
        return base(text)
    return json.loads(text.lower() if base is bool else text, parse_constant=_refuse)


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of a type such as `Integer`, `List` or `typing.List[typing.Dict[str, str]]`."""
    base, inner = _parts(kind)
    if base in (float, int):
        return is_number(value) and isinstance(value, base | int)
    if base is None:
        return True
    if not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
        return False
    if base is list and inner:
        return all(_fits(element, inner[0]) for element in value)
    if base is dict and inner:
        return all(_fits(element, inner[1]) for element in value.values())
    return True


def _parts(kind: str) -> tuple[Any, list[str]]:
    """The Python type, None for any, and the types of its elements: `typing.Dict[str, int]` is dict, [str, int]."""
    name, _, inner = kind.removeprefix("typing.").partition("[")
    elements = inner.removesuffix("]").split(", ", 1 if name.lower() == "dict" else 0)
    return _TYPES.get(name.lower()), [element for element in elements if element]


def _described(kind: str) -> str:
    """A type in words: a list of texts."""
    base, inner = _parts(kind)
    return _WORDS[base] + (f" of {_plural(inner[-1])}" if inner else "")


def _plural(kind: str) -> str:
    base, inner = _parts(kind)
    return _WORDS[base].partition(" ")[2] + "s" + (f" of {_plural(inner[-1])}" if inner else "")


def _example(key: str, declared: Mapping[str, InputSpec]) -> str:
    """`key=value` as a shell takes it, with the default if that says something."""
    spec = declared[key]
    base, inner = _parts(spec.type)
    value = spec.default or _sample(base, inner)
    if base is str:
        return f"{key}={value}"
    text = f"{key}={json.dumps(value)}"
    return f"'{text}'" if base in (list, dict) else text


def _sample(base: Any, inner: list[str]) -> Any:
    element = _sample(*_parts(inner[-1])) if inner else "a"
    return {str: "text", int: 1, float: 0.1, bool: True, list: [element], dict: {"key": element}, None: 1}[base]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


# As kfp spells a parameter's type, and as it spells its elements'.
_TYPES: dict[str, Any] = {"string": str, "integer": int, "boolean": bool} | {
    base.__name__: base for base in (str, int, float, bool, list, dict)
}
_WORDS: dict[Any, str] = {
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "a dict",
    None: "a value",
}
