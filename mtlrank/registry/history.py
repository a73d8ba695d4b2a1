"""The history of a registry: which models were in use, change by change."""

from collections.abc import Sequence
from typing import NamedTuple

PROMOTED = "promoted"
ROLLED_BACK = "rolled back"


class Source(NamedTuple):
    """Where a model came from."""

    run: str  # the run's folder, or where a pipeline keeps it, which names the pipeline and its run
    commit: str  # of the code that trained it; `unknown` if that was not recorded
    mtlrank: str  # the version that trained it; `unknown` likewise

    def __str__(self) -> str:
        commit, dash, changed = self.commit.partition("-")  # -dirty
        code = [("mtlrank", self.mtlrank), ("commit", f"{commit[:12]}{dash}{changed}")]
        return ", ".join([self.run, *(f"{what} {known}" for what, known in code if known != "unknown")])


class Change(NamedTuple):
    """One move of the pointer."""

    model: str  # in use from then on
    replaced: str | None  # in use before; None for the first model
    when: str  # UTC, as in 2026-11-24T16:30:00Z
    how: str  # promoted or rolled back
    note: str  # why
    source: Source | None = None  # None if the model was promoted before sources were recorded, or never


def origins(changes: Sequence[Change]) -> list[int]:
    """For each change, the index of the promotion that put its model in use: its own, or for a rollback an earlier one.

    For a rollback this is its model's last promotion before the one that is undone, so that repeated rollbacks go ever
    further back; if there is none, as when a rollback returns to a later model, its model's last promotion.
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


def rollbacks_to_earlier(changes: Sequence[Change]) -> list[Change]:
    """The rollbacks to earlier models, without those to a later model or to one that was never in use."""
    places = origins(changes)
    return [changes[place] for place in range(1, len(changes)) if places[place] < places[place - 1]]


def held_by(changes: Sequence[Change]) -> Change | None:
    """The rollback to an earlier model that was the last change: until another, no model is promoted by a comparison."""
    return next((change for change in rollbacks_to_earlier(changes) if change is changes[-1]), None)


def source_of(model: str, changes: Sequence[Change]) -> Source | None:
    """Where a model came from when it was put in use last."""
    return next((change.source for change in reversed(changes) if change.model == model), None)
