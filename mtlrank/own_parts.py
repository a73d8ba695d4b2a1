"""Checks of what a user's own classes are and return, so that errors name the class.

Only types and shapes are checked, no values, so that no step waits for the device.
"""

from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, getmembers, isfunction, signature
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from mtlrank.batch import Record
from mtlrank.errors import ConfigError

T = TypeVar("T")
_TEXTS = ("query_id", "doc_id", "query", "text")  # fields of a record


def name_of(value: object) -> str:
    """The name of an object's class, with its module."""
    return _name(type(value))


def instance_of(what: str, value: Any, base: type[T], sets: str = "") -> T:
    """`value`, if it is an instance of `base` whose methods can be called as those of `base`.

    `sets` is an attribute that `base.__init__` sets, if `base` is no module.
    """
    if not isinstance(value, base):
        raise ConfigError(f"{what} is {_kind(value)}, expected a {_name(base)} or a subclass of it.")
    made = "_parameters" if isinstance(value, nn.Module) else sets
    if made and not hasattr(value, made):
        raise ConfigError(f"{what}: {name_of(value)}.__init__ does not call super().__init__.")
    check_class(what, type(value), base)
    return value


def check_registered(what: str, module: nn.Module) -> None:
    """Refuse weights in a list or a dict, where torch does not find them: they would be neither learnt nor saved."""
    found = {id(weight) for weight in module.parameters()}
    for part in module.modules():
        for name, value in vars(part).items():
            if any(id(weight) not in found for weight in _weights_in(value)):
                raise ConfigError(
                    f"{what}: {name_of(part)} keeps modules or weights in a {type(value).__name__}, {name!r}, where torch "
                    "does not find them, so they would not learn: expected torch.nn.ModuleList, ModuleDict, ParameterList "
                    "or the like."
                )


def _weights_in(value: object) -> Iterator[nn.Parameter]:
    """The weights of modules, and others, that could learn, in lists and dicts of any depth."""
    if isinstance(value, nn.Parameter):
        yield from [value] if value.requires_grad else []
    elif isinstance(value, nn.Module):
        yield from (weight for weight in value.parameters() if weight.requires_grad)
    elif isinstance(value, dict | list | tuple | set):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _weights_in(each)


def check_class(what: str, kind: type, base: type) -> None:
    """Refuse a class that is no subclass of `base`, or whose methods cannot be called as those of `base`."""
    if not issubclass(kind, base):
        raise ConfigError(f"{what} is a {_name(kind)}, expected a {_name(base)} or a subclass of it.")
    for name, override in getmembers(kind, isfunction):
        for parent in kind.__mro__ if not name.startswith("__") else ():
            method = vars(parent).get(name)
            if isfunction(method) and (method.__module__.startswith("mtlrank.") or method is Optimizer.step):
                _check_override(override, method)


def _check_override(override: Callable[..., Any], method: Callable[..., Any]) -> None:
    """Refuse a method that cannot be called as the one that it overrides."""
    wanted = signature(method)
    kinds = {name: each.kind for name, each in wanted.parameters.items()}
    by_place = [name for name, kind in kinds.items() if kind is Parameter.POSITIONAL_OR_KEYWORD]
    by_name = {name: name for name, kind in kinds.items() if kind is Parameter.KEYWORD_ONLY}
    try:
        signature(override).bind(*by_place, **by_name)
    except TypeError as error:
        raise ConfigError(
            f"{override.__module__}.{override.__qualname__} takes {', '.join(signature(override).parameters)}; expected "
            f"{', '.join(wanted.parameters)}: {error}."
        ) from error


def shaped(what: str, value: Any, expected: tuple[int, ...], meaning: str) -> Tensor:
    """`value`, if it is a tensor of the expected shape; `meaning` says what that is."""
    if not isinstance(value, Tensor) or value.shape != expected:
        raise ConfigError(f"{what} gives {_kind(value)}, expected a tensor, {meaning}: {tuple(expected)}.")
    return value


def records_of(source: Any, *args: Any) -> Iterator[Record]:
    """The records of a source, each checked. `args` are those of its method `records`."""
    what, takes = f"{name_of(source)}.records", signature(source.records)
    try:
        takes.bind(*args)
    except TypeError as error:
        raise ConfigError(f"{what} takes {takes}, and is called with {len(args)}: {error}.") from error
    records = source.records(*args)
    if not isinstance(records, Iterable):
        raise ConfigError(f"{what} gives {_kind(records)}, expected records: does it `yield` them?")
    for record in records:
        if not isinstance(record, Record):
            raise ConfigError(f"{what} yields {_kind(record)}, expected a mtlrank.batch.Record. It is {record!r:.100}.")
        texts = record.query or "", record.text or ""  # others report that these are missing
        for field, value in zip(_TEXTS, (record.query_id, record.doc_id, *texts), strict=True):
            if not isinstance(value, str):
                raise ConfigError(f"{what}: {field} is {value!r:.60}, expected a str.")
        yield record


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return "None" if value is None else f"a {name_of(value)}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
