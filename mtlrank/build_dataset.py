"""Where a config becomes a dataset: apart from what trains, because preparing should not wait for Lightning."""

from abc import ABC
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from inspect import Parameter, getsourcefile, signature
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from mtlrank import about, embedded
from mtlrank.checks import nearest
from mtlrank.compose import Config
from mtlrank.datamodule.collection.source import RETRIEVED
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.merge import SCHEMA
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation import measures
from mtlrank.returned import instance_of
from mtlrank.storage import file_hash, fingerprint, join
from mtlrank.untrusted import leaves

_ANY = Parameter.VAR_KEYWORD  # as in **kwargs
# Settings that are words, also where a folder is called so.
_NO_PATHS = {"_target_", "id", "name", "split", "measures", "licence", "format", "columns", "score_column", "clusters"}
_NO_PATHS |= {"grouping", "learn_from", "leaked_queries", "missing_texts"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".h5")


def build_dataset(config: Mapping[str, Any]) -> PreparedDataset:
    """A dataset, not prepared yet. `licence` is for people: it goes into the manifest, not into the object."""
    built = build_object({key: value for key, value in config.items() if key != "licence"})
    dataset: PreparedDataset = instance_of(f"The dataset {config.get('name')!r}", built, PreparedDataset)
    measures.check(dataset.task.kind, dataset.task.measures)
    return dataset


def prepared_folder(config: Config, key: str) -> str:
    """Where a dataset's prepared form is kept: a name that changes with whatever it is made from."""
    return join(config["data_dir"], f"{key}-{dataset_fingerprint(config, key)}")


def dataset_fingerprint(config: Config, key: str) -> str:
    """What a prepared dataset is made from, the same on every machine: its settings, and the content of local files."""
    dataset = {k: v for k, v in config["datamodule"]["dataset"]["datasets"][key].items() if k != "name"}
    names_files, task = {**dataset}, build_object(dataset["task"])
    if type(task).__module__.startswith("mtlrank.task."):  # of ours it is known what data depends on, and no file is
        names_files["task"], dataset["task"] = {}, task.identity()
    words = sorted(
        {
            (value, part == "preprocessor")
            for part, settings in names_files.items()
            for key, value in leaves(settings, part)
            if isinstance(value, str) and value and key not in _NO_PATHS and (key, value) != ("run", RETRIEVED)
        }
    )
    files = [_content(Path(word), only_tokenizer=is_tokenizer) for word, is_tokenizer in words]
    how = {k: config["prepare"][k] for k in ("num_shards", "on_bad_row")}
    own = own_code(dataset)  # of ours the data changes with `SCHEMA`
    return fingerprint([dataset, [found for found in files if found], how, embedded.VERSION, SCHEMA, *own])


def code(config: Config) -> str:
    """The code of a run, in words: mtlrank's, and a fingerprint of somebody's own classes that the config names."""
    own = own_code(config)
    return ", own classes ".join([about.code(), *([fingerprint(own)] if own else [])])


def own_code(config: Mapping[str, Any]) -> list[str]:
    """The hashes of the files that hold classes of somebody's own."""
    return sorted({_code(str(value)) for key, value in leaves(config) if key == "_target_"} - {""})


def _code(target: str) -> str:
    """The hash of the file that holds a class; nothing for mtlrank's and torch's."""
    if target.startswith(("mtlrank.", "torch.")):
        return ""
    try:
        return file_hash(Path(getsourcefile(_locate(target)) or ""))
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return ""  # building it says what is wrong


def _content(path: Path, *, only_tokenizer: bool) -> list[list[str | int]]:
    """Names and hashes of the files that a setting names, by itself or in its folder.

    Of weights that lie beside a tokenizer only the size is told: they may be gigabytes, and do not change the data.
    """
    try:
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        return [
            [
                file.name,
                file.stat().st_size if only_tokenizer and file.suffix in _WEIGHTS else _hash(file, *_state(file)),
            ]
            for file in files
        ]
    except OSError as error:
        raise DataError(f"Cannot read {str(path)[:200]!r}, which the dataset names: {error.strerror}.") from error


def _state(file: Path) -> tuple[int, int, int]:
    """What changes with a file: also when it is written, whatever time of it is told later."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@cache
def _hash(file: Path, *state: int) -> str:
    return file_hash(file)


def has_split(config: Mapping[str, Any], split: str) -> bool:
    """Whether a dataset's config gives it a split; a class that takes no such setting is believed to have it."""
    if split in config:
        return config[split] is not None
    parameter = _parameters(str(config["_target_"])).get(split)
    return parameter is None or parameter.default is not None


def build_object(node: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build an object. Ready-made parts are passed as they are: Hydra would otherwise copy them into a config."""
    _check_settings(node)
    try:
        built = instantiate({**node, "_convert_": "all"}, _partial_=True) if kwargs else None
        if built is not None:
            _check_arguments(node, built, kwargs)
        return built(**kwargs) if built is not None else instantiate({**node, "_convert_": "all"})
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(
            f"Cannot build {node.get('_target_')}: {str(error).strip().splitlines()[0]} {cause}"
        ) from error


def _check_settings(node: Any) -> None:
    """Refuse a setting that a class has not, and text where it takes true or false.

    To YAML 1.2 `no` and `off` are words, and words are true.
    """
    if isinstance(node, Mapping):
        target = str(node.get("_target_", ""))
        if target:
            _locate(target)
        taken = _parameters(target) if target else {}
        for name, value in node.items():
            if name not in taken and taken and not _takes_any(taken) and not name.startswith("_"):
                known = [each for each in taken if each != "self"]
                raise ConfigError(
                    f"{target} has no setting {name!r}.{nearest(name, known)} It takes: {', '.join(known)}."
                )
            if name in taken and taken[name].annotation in (bool, bool | None) and not isinstance(value, bool | None):
                raise ConfigError(f"{name} of {target} is {value!r}, expected true or false.")
            _check_settings(value)


def _locate(target: str) -> Any:
    """What a `_target_` names. Raises `ConfigError` that says what of it there is not; Hydra would only log that."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            found: Any = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of what the module imports
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
        f"_target_ {target}: there is no module {parts[0]!r}. Type the command in the folder that holds {parts[0]}.py, or "
        "put that folder into PYTHONPATH."
    )


@cache
def _parameters(target: str) -> dict[str, Parameter]:
    """What a class takes, and what those take that it passes other arguments on to; nothing if there is no such class."""
    found: dict[str, Parameter] = {}
    try:
        made = _locate(target)
        for taker in (each for each in getattr(made, "__mro__", (made,)) if each not in (object, ABC)):
            takes = dict(signature(taker).parameters)
            found = takes | found
            if not _takes_any(takes):
                return {name: parameter for name, parameter in found.items() if parameter.kind is not _ANY}
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}  # building it says what is wrong
    return found


def _takes_any(parameters: Mapping[str, Parameter]) -> bool:
    return any(parameter.kind is _ANY for parameter in parameters.values())


def _check_arguments(node: Mapping[str, Any], built: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that a class does not take, and what it misses."""
    try:
        signature(built).bind(**kwargs)
    except (TypeError, ValueError) as error:
        target = str(node.get("_target_"))
        raise ConfigError(f"Cannot build {target}: {str(error).splitlines()[0]}.") from error
