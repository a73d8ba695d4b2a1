"""Mistakes in a run's parameters, reported before any step starts."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import MissingConfigException
from kfp.dsl.structures import InputSpec

from components.base import IMAGE
from components.check.parameters import check_lists, check_places, check_pods, check_shard, check_tasks, check_training
from components.plan.runs import plan_runs, run_settings, study_settings
from mtlrank.composing.compose import pipeline_config
from mtlrank.errors import ConfigError
from mtlrank.progress import warn
from pipelines.image import is_for_cpus


def check(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> None:
    """Raise `ConfigError` for mistakes that the parameters and the configs on this machine show."""
    values = _with_defaults(parameters, declared)
    if "seeds" in values:
        _check_study(parameters, values)
    else:
        check_training(values, "tasks" in parameters)


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
    """Whether the option that an error names differs from one that there is by a letter or two of many."""
    found = re.search(r"has no option '([^']+)'\. Did you mean '([^']+)'", message)
    return found is not None and difflib.SequenceMatcher(None, found[1], found[2]).ratio() > 0.9


def check_for_cluster(
    parameters: Mapping[str, Any],
    declared: Mapping[str, InputSpec],
    pipeline_root: str | None = None,
    mounted: Sequence[str] = (),
) -> None:
    """`check_for_image` for steps that are pods, whose own disks are lost with them, but not what they have mounted."""
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


def _check_study(parameters: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse early what the steps `plan` and `trial` would refuse."""
    check_lists(values["tasks"], values["shards"])
    check_pods(values)
    same = run_settings(values)
    settings = {**study_settings(values), **same, "seed": 0, "output_dir": "of the step"}
    config = pipeline_config(settings, values["overrides"], name="study")
    if "tasks" not in parameters:
        check_tasks(pipeline_config({**settings, "tasks": None}, values["overrides"], name="study"), values)
    check_shard(config)
    plan_runs(config, same, values["overrides"])
