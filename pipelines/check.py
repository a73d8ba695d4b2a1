"""Mistakes in a run's parameters, reported before any step starts."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import MissingConfigException
from kfp.dsl.structures import InputSpec

from components.base import IMAGE
from components.check.parameters import check_places, check_training
from components.plan.runs import check_study
from mtlrank.errors import ConfigError
from mtlrank.progress import warn
from pipelines.image import is_for_cpus


def check(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> None:
    """Raise `ConfigError` for mistakes that the parameters and the configs on this machine show."""
    values = _with_defaults(parameters, declared)
    (check_study if "seeds" in values else check_training)(values, "tasks" in parameters)


def check_for_image(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> None:
    """`check` for steps on an image, which may have configs and variables that this machine lacks: then only warn."""
    try:
        check(parameters, declared)
    except ConfigError as error:
        cause = error.__cause__
        is_missing_here = isinstance(cause, MissingConfigException) or "Environment variable" in str(cause)
        if not is_missing_here:
            raise
        if _is_misspelt(str(error)):
            raise ConfigError(f"{error} (If the image has it, set MTLRANK_CONFIG_DIR to its configs here.)") from cause
        warn(f"cannot be checked before the run: {error} The image may have it.")


def _is_misspelt(message: str) -> bool:
    """Whether an error is about a name that differs from an existing one by a letter or two of many."""
    found = re.search(r"has no option '([^']+)'\. Did you mean '([^']+)'", message)
    return found is not None and difflib.SequenceMatcher(None, found[1], found[2]).ratio() > 0.9


def check_for_cluster(
    parameters: Mapping[str, Any],
    declared: Mapping[str, InputSpec],
    pipeline_root: str | None = None,
    mounted: Sequence[str] = (),
) -> None:
    """`check_for_image` for steps that are pods: what they write is lost with them, except in buckets and in `mounted`."""
    values = _with_defaults(parameters, declared)
    check_places(values, pipeline_root, mounted)
    check_for_image(parameters, declared)
    asked = [f"{name}={values[name]}" for name in ("gpus", "judging_gpus") if int(values.get(name, 0))]
    if asked and is_for_cpus(IMAGE):
        warn(
            f"{' '.join(asked)}, but the image {IMAGE} is for CPUs by its name: no step on it can use a GPU. "
            "`make image TORCH=cuda` builds the other.",
        )


def _with_defaults(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> dict[str, Any]:
    return {name: spec.default for name, spec in declared.items()} | dict(parameters)
