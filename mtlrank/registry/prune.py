"""Removal of published models that are no longer needed."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from mtlrank.errors import ConfigError
from mtlrank.registry.history import ROLLED_BACK, Change, previous, rollbacks_to_earlier
from mtlrank.registry.pointer import Pointer, written
from mtlrank.registry.registry import Published, Registry
from mtlrank.words import counted

YOUNG = timedelta(days=1)  # a promotion publishes before it decides, and a server may still be fetching a model


def prune(registry: Registry, keep: int, *, really: bool, say: Callable[[str], None] = print) -> None:
    """Remove the models that are not `spared`, oldest first; unless `really`, only list them."""
    if keep < 1:
        raise ConfigError(f"--prune is {keep}, expected at least 1: without the model before, there is no rollback.")
    now = datetime.now(UTC)
    pointer = registry.pointer()  # before the models are listed: whatever happens since then changes it
    if not pointer.changes:
        return say(f"{registry.path} has no model in use: nothing is removed")
    published = registry.published()
    if going := [model for model in pointer.removing if registry.is_removing(model, pointer)]:
        since = max(pointer.removed[model] for model in going)
        number = counted(len(going), "model")
        say(f"being removed since {since}: {number}; if that was stopped, run this again an hour after that time")
    doomed = superfluous(registry, pointer, published, keep, now)
    if not doomed:
        kept = len(published.keys() - set(going))
        return say(f"nothing to remove: {counted(kept, 'model')} in {registry.path}, all to be kept")
    if really:
        registry.remove(doomed, pointer, lambda model: say(f"removed {_described(model, published, pointer.changes)}"))
    else:
        for model in doomed:
            say(f"would remove {_described(model, published, pointer.changes)}")
    size = sum(published[model].size for model in doomed)
    verb = "removed" if really else "would remove"
    hint = "" if really else "; --yes removes them"
    return say(f"{verb} {len(doomed):,} of {counted(len(published), 'model')}, {size / 1e6:,.1f} MB{hint}")


def superfluous(
    registry: Registry, pointer: Pointer, published: dict[str, Published], keep: int, now: datetime
) -> list[str]:
    """The models to remove, oldest first."""
    stay = spared(pointer.changes, keep, now)
    doomed = [
        model
        for model, found in published.items()
        if model not in stay and found.when < now - YOUNG and not registry.is_removing(model, pointer)
    ]
    return sorted(doomed, key=lambda model: published[model].when)


def spared(changes: Sequence[Change], keep: int, now: datetime) -> set[str]:
    """The models to keep: the one in use, the `keep` before it, those that `keep` rollbacks in a row would lead to, those
    in use since yesterday, and those that a rollback rejected, as their weights must be recognised later.
    """
    used = dict.fromkeys(change.model for change in reversed(changes))  # the last ones first
    yesterday = written(now - YOUNG)
    lately = [name for change in changes if change.when >= yesterday for name in (change.model, change.replaced)]
    left = [change.replaced for change in rollbacks_to_earlier(changes)]
    back = _rollbacks(changes, keep)
    return {name for name in (*list(used)[: keep + 1], *back, *lately, *left) if name is not None}


def _rollbacks(changes: Sequence[Change], number: int) -> list[str]:
    """The models that so many rollbacks in a row lead to."""
    found = list[str]()
    while len(found) < number and (to := previous(changes)) is not None:
        changes = [*changes, Change(to, changes[-1].model, "", ROLLED_BACK, "")]
        found.append(to)
    return found


def _described(model: str, published: dict[str, Published], changes: Sequence[Change]) -> str:
    """A model in a line, with its size and its use."""
    found = published[model]
    until = next((change.when for change in reversed(changes) if change.replaced == model), None)
    use = f"in use until {until}" if until else "never in use"
    return f"{model}  {found.size / 1e6:,.1f} MB  published {written(found.when)}, {use}"
