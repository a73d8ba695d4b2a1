"""What a registry has had in use, one change after another, and what that says of a model."""

from collections.abc import Sequence
from typing import NamedTuple

PROMOTED = "promoted"
ROLLED_BACK = "rolled back"


class Source(NamedTuple):
    """Where a model came from."""

    run: str  # the run's folder, or where a pipeline keeps it, which names the pipeline and its run
    commit: str  # of the code that trained it; `unknown` if nobody knew
    mtlrank: str  # the version that trained it; `unknown` likewise

    def __str__(self) -> str:
        commit, dash, changed = self.commit.partition("-")  # -dirty
        code = [("mtlrank", self.mtlrank), ("commit", f"{commit[:12]}{dash}{changed}")]
        return ", ".join([self.run, *(f"{what} {known}" for what, known in code if known != "unknown")])


class Change(NamedTuple):
    """The pointer moved."""

    model: str  # that is in use since
    replaced: str | None  # that was in use before; None for the first model
    when: str  # UTC, as in 2026-11-24T16:30:00Z
    how: str  # promoted or rolled back
    note: str  # why
    source: Source | None = None  # unknown of models that were promoted before this was kept, or never were


def origins(changes: Sequence[Change]) -> list[int]:
    """For each change, by its place, the one that its model is in use by: itself, or the earlier one that it goes back to.

    That is the latest one before what it undoes, so that repeated rollbacks never come forward again; failing that, the
    latest one at all, as after a rollback too far.
    """
    found: list[int] = []
    for place, change in enumerate(changes):
        places = [i for i in range(place) if changes[i].model == change.model] if change.how == ROLLED_BACK else []
        before = [i for i in places if i < found[-1]]
        found.append(found[(before or places)[-1]] if places else place)
    return found


def previous(changes: Sequence[Change]) -> str | None:
    """The model that a rollback leads to; None if the one in use is the first."""
    return changes[origins(changes)[-1]].replaced


def taken_back(changes: Sequence[Change]) -> list[Change]:
    """The changes that went back. One that led forward, to a later model or one that never was in use, is none."""
    places = origins(changes)
    return [changes[place] for place in range(1, len(changes)) if places[place] < places[place - 1]]


def source_of(model: str, changes: Sequence[Change]) -> Source | None:
    """Where a model came from when it was put in use last."""
    return next((change.source for change in reversed(changes) if change.model == model), None)
