"""Parameters of a pipeline for tests."""

from typing import Any

from pipelines.mtl_ranking import mtl_ranking


def parameters(**given: Any) -> dict[str, Any]:
    """All parameters of `mtl_ranking`: the given ones, and the defaults of the others."""
    return {name: spec.default for name, spec in mtl_ranking.component_spec.inputs.items()} | given
