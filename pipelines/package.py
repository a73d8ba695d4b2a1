"""A compiled pipeline, ready to be handed to a server: from this repository by name, or from a file."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
import yaml
from kfp import components
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.structures import InputSpec

import pipelines
from mtlrank.checks import nearest
from mtlrank.errors import ConfigError
from pipelines.compile import write
from pipelines.variant import PLAIN, Variant

Pipeline = Annotated[str, typer.Option(help="A pipeline of this repository: the name of its file in pipelines/.")]
File = Annotated[
    Path | None, typer.Option("--package", help="A compiled pipeline instead, as `make pipeline` writes it.")
]
Cache = Annotated[
    bool | None,
    typer.Option(help="Use the cache for every step, also training, or for none; default: as in the pipeline."),
]


class Package(NamedTuple):
    """A file that a server takes, and what a pipeline declares."""

    path: Path
    name: str
    inputs: Mapping[str, InputSpec]

    def documents(self) -> list[dict[str, Any]]:
        """The pipeline spec, and the platform spec if there is one."""
        return list(yaml.safe_load_all(self.path.read_text()))

    def image_tag(self) -> str | None:
        """The tag of the image that all steps run on; None if they have several, or no tag."""
        executors = self.documents()[0]["deploymentSpec"]["executors"].values()
        images = {executor["container"]["image"] for executor in executors if "container" in executor}
        tags = [image.rpartition("/")[2].partition(":")[2] for image in images]  # a registry may have a port
        return tags[0] or None if len(tags) == 1 else None


@contextmanager
def opened(pipeline: str, file: Path | None, cache: bool | None = None, variant: Variant = PLAIN) -> Iterator[Package]:
    """The compiled pipeline of that name, or the file if one is given, while the context lasts.

    `cache` sets the caching of every step; None leaves it as it is. `variant` is for what is compiled here.
    """
    if file is not None and variant.flags:
        given = " and ".join(variant.flags)
        raise ConfigError(f"--package is compiled already: give {given} to `python -m pipelines.compile` instead.")
    with TemporaryDirectory() as folder:
        package = _compiled(pipeline, Path(folder), variant) if file is None else _read(file)
        yield package if cache is None else _with_caching(package, cache, Path(folder))


def _compiled(pipeline: str, folder: Path, variant: Variant) -> Package:
    component, path = load(pipeline), folder / f"{pipeline}.yaml"
    write(path, component, variant)
    return Package(path, component.name, component.component_spec.inputs or {})


def load(name: str) -> GraphComponent:
    """The pipeline `<name>` in `pipelines/<name>.py`."""
    modules = [module.name for module in pkgutil.iter_modules(pipelines.__path__)]
    found = _pipeline(name) if name in modules else None
    if found is None:
        known = [module for module in modules if _pipeline(module)]
        raise ConfigError(f"There is no pipeline {name!r}.{nearest(name, known)} Expected one of: {', '.join(known)}.")
    return found


def _pipeline(module: str) -> GraphComponent | None:
    found = getattr(importlib.import_module(f"pipelines.{module}"), module, None)
    return found if isinstance(found, GraphComponent) else None


def _read(file: Path) -> Package:
    try:
        component = components.load_component_from_file(str(file))
        return Package(file, component.name, component.component_spec.inputs or {})
    except Exception as error:  # kfp lets through whatever its parsers raise
        raise ConfigError(
            f"--package {file} is not a compiled pipeline ({error}): make one with `make pipeline`."
        ) from error


def _with_caching(package: Package, enabled: bool, folder: Path) -> Package:
    """The same pipeline, written to `folder`, with caching on or off for every step.

    kfp's own `enable_caching` stops at the outermost tasks, and ours are in pipelines within the pipeline.
    """
    spec, *platform = package.documents()
    for component in (spec["root"], *spec["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {"enableCache": True} if enabled else {}
    path = folder / "with_caching.yaml"
    path.write_text(yaml.safe_dump_all([spec, *platform]))
    return package._replace(path=path)
