"""`mtlrank rollback` and `models` as they are typed."""

import re
from datetime import timedelta

import pytest

from mtlrank.registry import Registry, prune
from mtlrank.storage import remove_folder
from tests.registry.conftest import typed, write_finished

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_models_that_are_not_needed_go_when_asked(place, tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "YOUNG", timedelta(seconds=-5))
    for number, name in enumerate("abcd"):
        typed("promote", write_finished(tmp_path / name, gain=0.1 * number), "--registry", place)
    first, second, *kept = [change.model for change in Registry(place).history()]
    asked = typed("models", "--registry", place, "--prune", "1")
    assert asked.stdout.splitlines()[-1].startswith("would remove 2 of 4 models")
    assert len(Registry(place).published()) == 4
    done = typed("models", "--registry", place, "--prune", "1", "--yes")
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == [first, second]
    assert set(Registry(place).published()) == set(kept)


def test_rollback_is_one_command(tmp_path):
    for name, gain in (("first", 0.0), ("better", 0.1)):
        typed("promote", write_finished(tmp_path / name, gain=gain), "--registry", tmp_path / "registry")
    changes = Registry(tmp_path / "registry").history()
    done = typed("rollback", "--registry", tmp_path / "registry", "--note", "too slow")
    first, held = done.stdout.splitlines()
    assert first == f"{changes[0].model} is in use now, in place of {changes[1].model}"
    assert held.startswith("No model is promoted by a comparison until")
    undone = typed("rollback", "--registry", tmp_path / "registry", "--to", changes[1].model)
    assert undone.stdout == f"{changes[1].model} is in use now, in place of {changes[0].model}\n"
    assert "rolled back  too slow" in typed("models", "--registry", tmp_path / "registry").stdout


def test_a_rollback_does_not_depend_on_reading_the_history_again(place, tmp_path, monkeypatch):
    """Else a command that has rolled back would fail, and be repeated, and go further back."""
    for name, gain in (("first", 0.0), ("better", 0.1)):
        typed("promote", write_finished(tmp_path / name, gain=gain), "--registry", place)
    roll_back = Registry.roll_back

    def then_fail(self, *args):
        change = roll_back(self, *args)
        monkeypatch.setattr(Registry, "pointer", None)
        return change

    monkeypatch.setattr(Registry, "roll_back", then_fail)
    done = typed("rollback", "--registry", place)
    assert done.exit_code == 0
    assert "is in use now" in done.stdout
    assert "No model is promoted by a comparison" in done.stdout


def test_what_was_rolled_back_is_not_promoted_again(place, tmp_path):
    first, better = (write_finished(tmp_path / name, gain=gain) for name, gain in (("first", 0.0), ("better", 0.1)))
    for run in (first, better):
        typed("promote", run, "--registry", place)
    typed("rollback", "--registry", place, "--note", "too slow")
    done = typed("promote", better, "--registry", place)
    assert done.exit_code == 9
    assert re.search(
        r"is not promoted: it was rolled back at \S+Z \(too slow\): `mtlrank promote .* --force", done.stderr
    )
    assert typed("promote", better, "--registry", place, "--force", "fast now").exit_code == 0
    assert typed("promote", better, "--registry", place).exit_code == 0


def test_after_a_rollback_no_comparison_puts_a_model_in_use(place, tmp_path):
    runs = [write_finished(tmp_path / str(gain), gain=gain) for gain in (0.0, 0.1, 0.2, 0.3)]
    for run in runs[:2]:
        typed("promote", run, "--registry", place)
    typed("rollback", "--registry", place, "--note", "odd answers")
    assert (
        typed("models", "--registry", place).stdout.splitlines()[-2].startswith("held: no model is promoted by a com")
    )
    held = typed("promote", runs[2], "--registry", place)
    assert held.exit_code == 9
    assert re.search(r"not promoted: after the rollback at \S+Z \(odd answers\), no model is compared", held.stderr)
    assert typed("promote", runs[2], "--registry", place, "--force", "looked at").exit_code == 0
    assert "held" not in typed("models", "--registry", place).stdout
    assert typed("promote", runs[3], "--registry", place).exit_code == 0


def test_models_of_an_empty_registry(tmp_path):
    assert "has no model in use" in typed("models", "--registry", tmp_path / "r").stdout


def test_a_model_in_use_that_somebody_has_removed_is_listed_as_missing(tmp_path):
    typed("promote", write_finished(tmp_path / "run"), "--registry", tmp_path / "r")
    registry = Registry(str(tmp_path / "r"))
    remove_folder(registry.folder(registry.current()))
    listed = typed("models", "--registry", tmp_path / "r")
    assert listed.stdout.splitlines()[-1].endswith(f"{registry.current()} (missing: somebody has removed it)")
