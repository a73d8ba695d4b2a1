"""Which models are removed, on a disk and on Google Cloud Storage, and what happens when others use them meanwhile."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtlrank.errors import ConfigError, ConflictError, StorageError
from mtlrank.registry import Registry
from mtlrank.registry import registry as module
from mtlrank.registry.history import Change
from mtlrank.registry.pointer import written
from mtlrank.registry.prune import prune, spared
from mtlrank.storage import join, list_files, read_bytes, remove_folder, write_bytes
from tests.registry.conftest import publish, remove_file

NOW = datetime.now(UTC)


@pytest.fixture
def age(request, place):
    """Let time pass: all models, and what is noted of them, become days older."""

    def pass_by(days=2):
        past = datetime.now(UTC) - timedelta(days=days)
        if place.startswith("gs://"):
            objects = request.getfixturevalue("bucket").bucket.objects
            objects.update({name: kept._replace(written=past) for name, kept in objects.items()})
        else:
            for file in Path(place).rglob("*"):
                os.utime(file, (past.timestamp(), past.timestamp()))
        pointer = json.loads(read_bytes(join(place, "current.json")))
        for change in pointer["changes"]:
            change["when"] = f"{past:%Y-%m-%dT%H:%M:%SZ}"
        write_bytes(join(place, "current.json"), json.dumps(pointer).encode())

    return pass_by


@pytest.fixture
def five(registry, tmp_path, age):
    """Five models of long ago, put in use one after another, and one that never was."""
    models = [publish(registry, tmp_path, name) for name in "abcde"]
    for model in models:
        registry.promote(model, "", registry.history())
    refused = publish(registry, tmp_path, "refused")
    age()
    return [*models, refused]


def pruned(registry, keep, really=True):
    said = []
    prune(registry, keep, really=really, say=said.append)
    return said


def test_it_says_what_it_would_remove_and_removes_nothing(registry, five):
    first, second, *_, refused = five
    *lines, summary = pruned(registry, 2, really=False)
    assert {line.split()[2] for line in lines} == {first, second, refused}
    assert all(line.startswith("would remove ") for line in lines)
    assert next(line for line in lines if refused in line).endswith("never in use")
    assert "in use until" in next(line for line in lines if first in line)
    assert summary == "would remove 3 of 6 models, 0.0 MB; --yes removes them"
    assert set(registry.published()) == set(five)


def test_what_is_in_use_and_the_last_ones_before_it_stay(registry, five):
    first, second, third, fourth, fifth, refused = five
    *lines, summary = pruned(registry, 2)
    assert {line.split()[1] for line in lines} == {first, second, refused}
    assert summary == "removed 3 of 6 models, 0.0 MB"
    assert set(registry.published()) == {third, fourth, fifth}
    assert list_files(registry.folder(first)) == []
    assert [registry.roll_back().model for _ in range(2)] == [fourth, third]
    assert pruned(registry, 5) == [f"nothing to remove: 3 models in {registry.path}, all to be kept"]


def test_what_is_younger_than_a_day_stays(registry, five, tmp_path):
    deciding = publish(registry, tmp_path, "new")
    pruned(registry, 1)
    assert set(registry.published()) == {*five[3:5], deciding}


def test_what_was_in_use_until_today_stays(registry, five, tmp_path):
    for name in "xyz":
        registry.promote(publish(registry, tmp_path, name), "", registry.history())
    pruned(registry, 1)
    assert five[4] in registry.published()  # somebody may be fetching it
    assert five[3] not in registry.published()


def change(model, replaced, how="promoted"):
    return Change(model, replaced, "2026-01-01T00:00:00Z", how, "")


def test_a_rollback_never_leads_to_what_was_removed(registry):
    """After a rollback, the last ones that were in use are not those that the next one leads to."""
    changes = [change("a", None), change("b", "a"), change("c", "b"), change("d", "c"), change("c", "d", "rolled back")]
    assert spared(changes, 1, NOW) == {"c", "d", "b"}
    assert spared(changes[:-1], 1, NOW) == {"d", "c"}


def test_what_a_rollback_took_back_stays_so_that_it_is_known_when_it_comes_again(registry):
    changes = [change("a", None), change("b", "a"), change("a", "b", "rolled back")]
    changes += [change(new, old) for new, old in zip("cde", "acd", strict=True)]
    assert spared(changes, 1, NOW) == {"e", "d", "b"}


def test_a_removal_that_takes_too_long_stops_before_others_use_what_it_would_remove(registry, five, monkeypatch):
    """As on a laptop that sleeps: an hour later, a rollback may lead to a model that is still to be removed."""
    pointer = registry.pointer()

    def sleep(model):
        monkeypatch.setattr(module, "_time", lambda: datetime.now(UTC) + timedelta(hours=2))
        registry.roll_back(five[1])

    with pytest.raises(ConflictError, match=f"Removing took too long: {five[1]} and those after it stay"):
        registry.remove(five[:3], pointer, sleep)
    assert registry.current() == five[1]
    assert set(five[1:]) <= registry.published().keys()
    assert five[0] not in registry.published()


def test_folders_of_others_stay(registry, place, five, age):
    write_bytes(join(place, "models", "notes", "x.txt"), b"mine")
    age()
    pruned(registry, 1)
    assert read_bytes(join(place, "models", "notes", "x.txt")) == b"mine"


def test_half_a_model_goes_too(registry, place, five, age):
    write_bytes(join(place, "models", "0123456789ab", "model", "weights"), b"cut")
    assert not any("0123456789ab" in line for line in pruned(registry, 1))  # it may be on its way
    age()
    assert any("0123456789ab" in line for line in pruned(registry, 1))
    assert "0123456789ab" not in registry.published()


@pytest.mark.parametrize("keep", [0, -1])
def test_without_a_model_to_roll_back_to_it_is_refused(registry, five, keep):
    with pytest.raises(ConfigError, match=f"--prune is {keep}, expected at least 1"):
        pruned(registry, keep)


def test_a_registry_without_a_model_in_use_is_left_alone(registry, tmp_path):
    publish(registry, tmp_path, "a")
    assert pruned(registry, 1) == [f"{registry.path} has no model in use: nothing is removed"]


def test_a_model_that_was_removed_is_told(registry, five, tmp_path):
    pruned(registry, 1)
    with pytest.raises(ConfigError, match=f"has no model '{five[0]}' any more: it was removed at .*--to: ") as error:
        registry.roll_back(to=five[0])
    known = str(error.value).rpartition("--to: ")[2]
    assert known == f"{five[3]}, {five[4]}."
    registry.roll_back()
    with pytest.raises(ConfigError, match=f"has no model '{five[2]}' any more"):
        registry.roll_back()
    assert registry.current() == five[3]


def test_a_model_that_was_removed_may_come_again(registry, five, tmp_path):
    pruned(registry, 1)
    assert publish(registry, tmp_path, "a") == five[0]
    registry.promote(five[0], "", registry.history())
    assert five[0] not in registry.pointer().removed
    registry.roll_back()
    assert registry.roll_back(to=five[0]).model == five[0]


def killed(folder=""):
    raise KeyboardInterrupt


# -- at the same time --------------------------------------------------------------------------------------------------


def meanwhile(monkeypatch, registry, work):
    """Do something before the pointer moves the next time."""
    write = registry._write

    def late(pointer):
        monkeypatch.setattr(registry, "_write", write)
        work()
        write(pointer)

    monkeypatch.setattr(registry, "_write", late)


def test_a_rollback_to_what_is_removed_meanwhile_is_refused(registry, place, five, monkeypatch):
    meanwhile(monkeypatch, registry, lambda: pruned(Registry(place), 1))
    with pytest.raises(ConflictError, match=f"{five[0]} was removed meanwhile, so it is not in use"):
        registry.roll_back(to=five[0])
    assert registry.current() == five[4]


def test_a_rollback_that_reads_what_is_being_removed_says_so(place, five, monkeypatch):
    registry, check = Registry(place), module.check_folder
    weights = join(registry.folder(five[0]), "weights")

    def begun(folder):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            other = Registry(place)
            patch.setattr(other, "_settle", lambda gone, whole: None)
            patch.setattr(module, "remove_folder", lambda folder: remove_file(weights) or killed())
            pruned(other, 1)
        check(folder)

    monkeypatch.setattr(module, "check_folder", begun)
    with pytest.raises(ConflictError, match="is being removed"):
        registry.roll_back(to=five[0])
    assert registry.current() == five[4]


def test_a_promotion_of_what_is_removed_meanwhile_is_refused(registry, place, five, tmp_path):
    """Published long ago and again: the folder is there, and old."""
    read = registry.history()
    assert publish(registry, tmp_path, "a") == five[0]
    pruned(Registry(place), 1)
    with pytest.raises(ConflictError, match=f"{five[0]} was removed meanwhile.* Run the same command again"):
        registry.promote(five[0], "", read)
    publish(registry, tmp_path, "a")
    assert registry.promote(five[0], "", registry.history()).model == five[0]


def test_a_promotion_does_not_fail_because_others_are_removed(registry, place, five, tmp_path, monkeypatch):
    new = publish(registry, tmp_path, "new")
    meanwhile(monkeypatch, registry, lambda: pruned(Registry(place), 1))
    registry.promote(new, "", registry.history())
    assert registry.current() == new
    assert five[0] in registry.pointer().removed


def test_what_is_put_in_use_meanwhile_is_not_removed(registry, place, five, monkeypatch):
    meanwhile(monkeypatch, registry, lambda: Registry(place).roll_back(to=five[0]))
    with pytest.raises(ConflictError, match="was changed meanwhile: nothing was removed. Run again"):
        pruned(registry, 1)
    assert set(registry.published()) == set(five)


def test_what_is_being_removed_can_neither_be_published_nor_put_in_use(registry, place, five, tmp_path, monkeypatch):
    refused, new = [], publish(registry, tmp_path, "new")

    def remove(folder):
        if not refused:
            for work in (lambda: publish(registry, tmp_path, "a"), lambda: registry.roll_back(to=five[0])):
                with pytest.raises(ConflictError, match=f"{five[0]} is being removed, since ") as error:
                    work()
                refused.append(error)
            with pytest.raises(ConflictError):
                registry.promote(five[0], "", registry.history())
            assert pruned(Registry(place), 1)[-1].startswith("nothing to remove")  # another process does it
            registry.promote(new, "", registry.history())
        remove_folder(folder)

    monkeypatch.setattr(module, "remove_folder", remove)
    pruned(Registry(place), 1)
    assert len(refused) == 2
    assert registry.pointer().removing == []
    assert set(registry.published()) == {*five[3:5], new}


def test_what_somebody_publishes_while_it_is_removed_goes_too(registry, five, monkeypatch):
    written = []

    def remove(folder):
        remove_folder(folder)
        if not written:
            written.append(folder)
            write_bytes(join(folder, "weights"), b"late")

    monkeypatch.setattr(module, "remove_folder", remove)
    pruned(registry, 1)
    assert set(registry.published()) == set(five[3:5])


def test_a_removal_that_fails_leaves_what_it_has_not_begun(registry, five, monkeypatch):
    gone = []

    def remove(folder):
        if gone:
            raise StorageError("not allowed")
        remove_folder(folder)
        gone.append(folder.rpartition("/")[2])

    monkeypatch.setattr(module, "remove_folder", remove)
    with pytest.raises(StorageError, match="not allowed"):
        pruned(registry, 1)
    pointer = registry.pointer()
    assert (list(pointer.removed), pointer.removing) == (gone, [])
    left = next(model for model in five[:3] if model not in gone)
    assert registry.roll_back(to=left).model == left


def test_a_removal_that_is_stopped_within_a_model_is_continued_at_once(registry, five):
    """What has not begun stays whole; what has is in nobody's way."""
    begun = []

    def stopped(folder):
        begun.append(folder.rpartition("/")[2])
        remove_file(join(folder, "manifest.json"))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "remove_folder", stopped)
        pruned(registry, 1)
    assert (list(registry.pointer().removed), registry.pointer().removing) == (begun, [])
    assert set(registry.published()) == set(five)
    assert pruned(registry, 1)[-1].startswith("removed 4 of 6 models")


def test_files_that_cannot_be_removed_are_told(registry, five, monkeypatch):
    monkeypatch.setattr(module, "remove_folder", lambda folder: None)
    with pytest.raises(StorageError, match="cannot be removed: files remain"):
        pruned(registry, 1)
    assert registry.pointer().removing == []


def test_a_removal_that_was_killed_is_finished_later(registry, five):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry, "_settle", lambda gone, whole: None)
        patch.setattr(module, "remove_folder", killed)
        pruned(registry, 1)
    assert set(registry.pointer().removing) == {*five[:3], five[5]}
    with pytest.raises(ConflictError, match="is being removed"):
        registry.roll_back(to=five[0])
    pointer = registry.pointer()
    (since,) = set(pointer.removed.values())
    assert pruned(registry, 1) == [
        f"being removed since {since}: 4 models; if that was stopped, run this again an hour after that time",
        f"nothing to remove: 2 models in {registry.path}, all to be kept",
    ]
    registry._write(pointer._replace(removed=dict.fromkeys(pointer.removed, written(NOW - timedelta(hours=2)))))
    assert pruned(registry, 1)[-1].startswith("removed 4 of 6 models")
    assert registry.pointer().removing == []


@pytest.mark.parametrize("hours", [-2, 72])
def test_nothing_is_removed_by_a_clock_that_is_wrong(registry, five, monkeypatch, hours):
    """Others would take a removal for dead at once, or for days to come not."""
    monkeypatch.setattr(module, "_time", lambda: datetime.now(UTC) + timedelta(hours=hours))
    before = registry.published().keys()
    with pytest.raises(StorageError, match="The clock of this machine differs by .* nothing was removed"):
        registry.remove(five[:3], registry.pointer(), print)
    assert registry.published().keys() == before
    assert registry.pointer().removing == []
    registry.roll_back(to=five[0])
