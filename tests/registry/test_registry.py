"""The pointer to the model in use, on a disk and on Google Cloud Storage."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from mtlrank.errors import ConfigError, ConflictError, DataError
from mtlrank.registry import Change, Source, model_folder
from mtlrank.registry.entry import write_entry
from mtlrank.storage import (
    MANIFEST,
    join,
    list_files,
    read_bytes,
    read_json,
    sizes_and_times,
    write_bytes,
    write_json,
    write_manifest,
)
from tests.registry.conftest import publish, remove_file, write_finished


@pytest.fixture
def three(registry, tmp_path):
    """Three models, put in use one after another."""
    models = [publish(registry, tmp_path, name) for name in "abc"]
    for model in models:
        registry.promote(model, f"because of {model}", registry.history())
    return models


def test_nothing_is_in_use_at_first(registry):
    assert registry.history() == []
    assert registry.current() is None
    with pytest.raises(ConfigError, match="has no model in use: nothing can be rolled back"):
        registry.roll_back()


def test_a_model_in_use_replaces_the_one_before(registry, three):
    changes = registry.history()
    assert [(change.model, change.replaced) for change in changes] == list(zip(three, [None, *three], strict=False))
    assert registry.current() == three[-1]
    assert (registry.fetch(three[0]) / "weights").read_text() == "a"


def test_the_same_folder_is_one_model(registry, tmp_path):
    assert publish(registry, tmp_path / "x", "a") == publish(registry, tmp_path / "y", "a")


def test_a_decision_on_an_old_history_is_refused(registry, three, tmp_path):
    read = registry.history()
    registry.promote(publish(registry, tmp_path, "d"), "first", read)
    with pytest.raises(
        ConflictError, match="Another model was promoted .* Run the same command again to compare it with that one"
    ):
        registry.promote(publish(registry, tmp_path, "e"), "second", read)
    assert len(registry.history()) == 4


def test_of_two_that_promote_at_once_exactly_one_wins(registry, tmp_path):
    models, together = [publish(registry, tmp_path, name) for name in "ab"], Barrier(2)

    def promote(model):
        read = registry.history()
        together.wait()
        try:
            return registry.promote(model, "", read).model
        except ConflictError:
            return None

    with ThreadPoolExecutor(2) as pool:
        won = [model for model in pool.map(promote, models) if model]
    assert len(won) == 1
    assert registry.current() == won[0]
    assert len(registry.history()) == 1


def test_rolling_back_goes_further_back_each_time(registry, three):
    first, second, third = three
    assert registry.roll_back(note="slow").model == second
    assert registry.history()[-1]._replace(when="") == (second, third, "", "rolled back", "slow", None)
    assert registry.roll_back().model == first
    with pytest.raises(ConfigError, match=f"{first} is the first model"):
        registry.roll_back()
    assert registry.roll_back(to=third).model == third
    assert registry.roll_back().model == second


@pytest.mark.parametrize("names", ["aba", "abab", "abcba"])
def test_rolling_back_goes_further_back_where_a_model_was_promoted_twice(registry, tmp_path, names):
    models = {name: publish(registry, tmp_path, name) for name in set(names)}
    for name in names:
        registry.promote(models[name], "", registry.history())
    assert [registry.roll_back().model for _ in names[1:]] == [models[name] for name in reversed(names[:-1])]
    with pytest.raises(ConfigError, match="is the first model"):
        registry.roll_back()


def test_what_was_rolled_back_does_not_come_again(registry, tmp_path):
    first, second, third = (publish(registry, tmp_path, name) for name in "abc")
    for model in (first, second):
        registry.promote(model, "", registry.history())
    registry.roll_back()
    registry.promote(third, "", registry.history())
    assert registry.roll_back().model == first
    with pytest.raises(ConfigError, match="is the first model"):
        registry.roll_back()


def test_a_model_that_was_rolled_back_is_known_by_its_weights_until_it_comes_again(registry, tmp_path):
    def entry(name):
        run = tmp_path / name / "same"
        write_finished(run)
        write_json(run / "model" / "labels.json", {"of": name})
        write_manifest(run / "model", {"kind": "model"})
        write_entry(tmp_path / name / "entry", run / "model", [run / "evaluation" / "rank"])
        return registry.publish(tmp_path / name / "entry")

    good, bad, again = publish(registry, tmp_path, "a"), entry("bad"), entry("again")
    assert bad != again
    for model in (good, bad):
        registry.promote(model, "", registry.history())
    assert registry.rejection(bad, registry.history()) is None
    left = registry.roll_back(note="slow")
    assert [registry.rejection(model, registry.history()) for model in (bad, again, good)] == [left, left, None]
    registry.roll_back(to=bad)
    assert registry.rejection(good, registry.history()) is None  # that was forward
    registry.promote(good, "", registry.history())
    assert registry.rejection(again, registry.history()) is None


def test_leaving_a_model_for_one_that_never_was_in_use_does_not_speak_against_it(registry, tmp_path):
    good, other = publish(registry, tmp_path, "a"), publish(registry, tmp_path, "b")
    registry.promote(good, "", registry.history())
    registry.roll_back(to=other)
    assert registry.rejection(good, registry.history()) is None


def test_a_damaged_model_of_before_keeps_no_other_from_being_promoted(registry, tmp_path):
    first, second, third = (publish(registry, tmp_path, name) for name in "abc")
    for model in (first, second):
        registry.promote(model, "", registry.history())
    registry.roll_back()
    write_bytes(join(registry.folder(second), MANIFEST), b"{")
    assert registry.rejection(third, registry.history()) is None
    assert registry.rejection(second, registry.history())


@pytest.mark.parametrize(
    ("to", "complaint"), [("nowhere", "has no model 'nowhere'. Models that were in use: "), ("../a", "--to")]
)
def test_an_unknown_model_is_told(registry, three, to, complaint):
    with pytest.raises(ValueError, match=complaint):
        registry.roll_back(to=to)


def test_a_model_that_was_never_promoted_gives_way_to_what_it_replaced(registry, tmp_path):
    models = [publish(registry, tmp_path, name) for name in ("one", "two")]
    registry.promote(models[0], "", registry.history())
    registry.roll_back(models[1])
    assert registry.roll_back().model == models[0]


@pytest.mark.parametrize("is_fetched", [False, True])
def test_a_damaged_model_is_not_put_in_use(registry, place, three, is_fetched):
    if is_fetched:
        registry.fetch(three[0])
    file = join(registry.folder(three[0]), "weights")
    for damage in (lambda: write_bytes(file, b"other"), lambda: remove_file(file)):
        damage()
        with pytest.raises(DataError, match=r"weights (was changed|is missing|is damaged)"):
            registry.roll_back(three[0])
        assert registry.current() == three[-1]


def contents(folder):
    return {name: read_bytes(join(folder, name)) for name in list_files(folder)}


@pytest.mark.parametrize("name", ["weights", MANIFEST])
@pytest.mark.parametrize("damage", ["changed", "emptied", "missing"])
def test_publishing_a_damaged_model_again_repairs_it(registry, three, tmp_path, name, damage):
    folder = registry.folder(three[0])
    before = contents(folder)
    if damage == "missing":
        remove_file(join(folder, name))
    else:
        other = json.dumps({"files": {"weights": "0" * 64}}).encode()
        write_bytes(join(folder, name), other if damage == "changed" else b"")
    assert publish(registry, tmp_path, "a") == three[0]
    assert contents(folder) == before
    registry.roll_back(three[0])
    assert (registry.fetch(three[0]) / "weights").read_text() == "a"


def test_publishing_a_whole_model_again_touches_nothing(registry, three, tmp_path):
    before = sizes_and_times(registry.folder(three[0]))
    publish(registry, tmp_path, "a")
    assert sizes_and_times(registry.folder(three[0])) == before


def test_what_is_damaged_itself_repairs_nothing(registry, three, tmp_path):
    entry, folder = tmp_path / "entries" / "a", registry.folder(three[0])
    (entry / "weights").write_text("other")
    write_bytes(join(folder, "weights"), b"damaged")
    before = contents(folder)
    with pytest.raises(DataError, match="weights was changed or damaged"):
        registry.publish(entry)
    assert contents(folder) == before


def test_what_is_in_use_already_is_told(registry, three):
    with pytest.raises(ConfigError, match="is in use already"):
        registry.roll_back(to=three[-1])


def test_a_change_says_where_its_model_came_from_also_when_it_is_rolled_back_to(registry, tmp_path):
    sources = [Source(f"gs://bucket/pipelines/{name}/model", "0123456789abcdef", "0.1.0") for name in "ab"]
    models = [publish(registry, tmp_path, name) for name in "ab"]
    for model, source in zip(models, sources, strict=True):
        registry.promote(model, "", registry.history(), source)
    assert registry.roll_back().source == sources[0]
    assert [change.source for change in registry.history()] == [*sources, sources[0]]
    assert str(sources[0]) == "gs://bucket/pipelines/a/model, mtlrank 0.1.0, commit 0123456789ab"


def test_a_registry_of_before_sources_is_read_and_goes_on(registry, place, tmp_path):
    old, new = (publish(registry, tmp_path, name) for name in "ab")
    row = {"model": old, "replaced": None, "when": "2026-01-01T00:00:00Z", "how": "promoted", "note": "first"}
    write_bytes(join(place, "current.json"), json.dumps({"current": old, "changes": [row]}).encode())
    assert registry.history() == [Change(**row)]
    registry.promote(new, "", registry.history(), Source("runs/b", "unknown", "unknown"))
    rows = json.loads(read_bytes(join(place, "current.json")))["changes"]
    assert rows[0] == row
    assert rows[1]["source"] == {"run": "runs/b", "commit": "unknown", "mtlrank": "unknown"}
    assert registry.roll_back().source is None


@pytest.mark.parametrize("where", ["the file", "a change", "a source"])
def test_what_a_later_version_wrote_is_read_and_not_lost(registry, place, tmp_path, where):
    models = [publish(registry, tmp_path, name) for name in "ab"]
    for model in models:
        registry.promote(model, "", registry.history(), Source("runs/a", "unknown", "unknown"))
    pointer = json.loads(read_bytes(join(place, "current.json")))
    change = pointer["changes"][0]
    {"the file": pointer, "a change": change, "a source": change["source"]}[where]["later"] = 1
    written = json.dumps(pointer).encode()
    write_bytes(join(place, "current.json"), written)
    assert registry.current() == models[1]
    for write in (
        lambda: registry.roll_back(),
        lambda: registry.promote(models[0], "", registry.history()),
        lambda: registry.remove(models[:1], registry.pointer(), print),
    ):
        with pytest.raises(ConfigError, match=r"current\.json has keys that .* would lose: later\."):
            write()
    assert read_bytes(join(place, "current.json")) == written
    assert set(registry.published()) == set(models)


CHANGE = {"model": "a", "replaced": None, "when": "", "how": "promoted", "note": ""}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", '{"changes": [{"model": "a"}]}', '{"changes": 3}', '{"changes": {}}', "[1]"),
        *(json.dumps({"changes": [CHANGE], "current": current}) for current in ("b", None, 3)),
        pytest.param("[" * 100_000, id="deep"),
        *(json.dumps({"changes": [{**CHANGE, key: value}]}) for key in CHANGE for value in (3, [])),
        *(json.dumps({"changes": [{**CHANGE, key: None}]}) for key in CHANGE if key != "replaced"),
        *(
            json.dumps({"changes": [{**CHANGE, "source": source}]})
            for source in (3, [], {}, "runs/a", {"run": "a", "commit": None, "mtlrank": ""})
        ),
        *(json.dumps({"changes": [], **more}) for more in ({"removed": 3}, {"removed": {"a": 3}}, {"removing": [3]})),
    ],
)
def test_a_damaged_pointer_is_told(registry, place, text):
    write_bytes(join(place, "current.json"), text.encode())
    with pytest.raises(DataError, match="is damaged"):
        registry.history()


def test_a_pointer_cannot_lead_out_of_the_registry(registry, place, three):
    pointer = json.loads(read_bytes(join(place, "current.json")))
    pointer["changes"][-1]["model"] = "../../elsewhere"
    write_bytes(join(place, "current.json"), json.dumps(pointer).encode())
    with pytest.raises(ValueError, match="elsewhere"):
        registry.current()


def test_a_registry_stands_for_its_model_in_use(registry, place, tmp_path):
    run = write_finished(tmp_path / "run")
    write_entry(tmp_path / "entry", run / "model", [run / "evaluation" / "rank"])
    model = registry.publish(tmp_path / "entry")
    registry.promote(model, "", registry.history())
    found = model_folder(place)
    assert (found / "model.safetensors").read_bytes() == b"run"
    assert model_folder(join(registry.folder(model), "model")) != run
    assert model_folder(run / "model") == run / "model"


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_bytes(b"other")])
def test_a_model_that_changes_while_it_is_copied_is_no_entry(change, tmp_path, monkeypatch):
    run, copytree = write_finished(tmp_path / "run"), shutil.copytree

    def late(source, target):
        if source == run / "model":
            change(source / "model.safetensors")
        return copytree(source, target)

    monkeypatch.setattr("mtlrank.registry.entry.shutil.copytree", late)
    with pytest.raises(DataError, match=f"{run}/model changed while it was copied"):
        write_entry(tmp_path / "entry", run / "model", [run / "evaluation" / "rank"])
    assert not (tmp_path / "entry").exists()


def test_a_judgement_that_is_replaced_while_it_is_copied_is_no_entry(tmp_path, monkeypatch):
    """As by a training that starts over in the folder of the run: its model was copied, its judgement is another's."""
    run, copytree = write_finished(tmp_path / "run"), shutil.copytree

    def late(source, target):
        if source == run / "evaluation" / "rank":
            judged = read_json(source / "metrics.json")
            write_json(source / "metrics.json", judged | {"weights": "of another model"})
        return copytree(source, target)

    monkeypatch.setattr("mtlrank.registry.entry.shutil.copytree", late)
    with pytest.raises(DataError, match=f"{run}/model changed while it was copied"):
        write_entry(tmp_path / "entry", run / "model", [run / "evaluation" / "rank"])
    assert not (tmp_path / "entry").exists()


def test_a_model_of_hugging_face_is_told_from_one_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "minilm" / "config.json", {"model_type": "bert"})
    hub = "cross-encoder/ms-marco-MiniLM-L6-v2"
    for name, told in ((hub, f"^There is no folder {hub} here"), ("minilm", "^minilm is not a model of mtlrank")):
        with pytest.raises(ConfigError, match=f"{told}.* model.body.backbone={name} model/heads"):
            model_folder(name)


def test_a_folder_without_a_model_names_the_runs_in_it(tmp_path):
    with pytest.raises(DataError, match=rf"^There is no folder {tmp_path}/gone: expected the folder of a finished run"):
        model_folder(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"^There is no model in {tmp_path}: expected .* or a registry\.$"):
        model_folder(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "manifest.json").touch()
    with pytest.raises(DataError, match=r"or a registry\. Runs in it: a, b\.$"):
        model_folder(tmp_path)


def test_a_run_that_lacks_something_is_not_taken_for_a_model_of_hugging_face(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("config.json", "labels.json"):
        write_json(tmp_path / "runs" / "no-manifest" / name, {})
    for name in ("runs/my-run", "my-run", "deep/runs/my-run", "runs/no-manifest"):
        with pytest.raises(
            DataError, match=r"^There is no (folder|model in) .*: expected the folder of a finished run"
        ):
            model_folder(name)
