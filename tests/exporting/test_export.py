"""The step that exports: what it refuses, what it replaces, and a model that goes elsewhere whole."""

import os
import subprocess
import sys

import pytest

from mtlrank import cli, evaluate, export
from mtlrank.errors import ConfigError
from mtlrank.storage import MANIFEST, read_json, read_manifest, write_json
from tests.exports import LINEAR_ON_AVERAGE, exported, head_of, save
from tests.saved_models import save_random, settings


def test_only_an_earlier_export_is_replaced(bert, tmp_path):
    model, folder = bert, exported(bert, tmp_path / "exported")
    with pytest.raises(ConfigError, match="holds an export.*force=true"):
        exported(model, folder, "msm_sem_sim")
    exported(model, folder, "msm_sem_sim", force=True)
    assert read_manifest(folder)["head"] == "msm_sem_sim"
    with pytest.raises(ConfigError, match="exists already, and is no export"):
        exported(model, model.parent, force=True)
    with pytest.raises(ConfigError, match="the folder of the model or the current one"):
        exported(model, model, force=True)
    assert read_manifest(model)["kind"] == "model"


@pytest.mark.parametrize("layout", ["transformers", "multitask"])
def test_what_is_exported_already_is_not_again(bert, tmp_path, monkeypatch, capsys, layout):
    """As after a command that was stopped when all was done."""
    folder = exported(bert, tmp_path / "exported", layout=layout)
    monkeypatch.setattr("mtlrank.export.new_folder", None)
    assert exported(bert, folder, layout=layout) == folder
    assert f"exported before: {folder}" in capsys.readouterr().err
    other = save(tmp_path, "bert", *head_of("cls"))
    with pytest.raises(ConfigError, match="holds an export.*force=true"):
        exported(other, folder, layout=layout)


@pytest.mark.parametrize("layout", ["transformers", "multitask"])
def test_what_comes_into_the_folder_in_the_meantime_stays(bert, tmp_path, monkeypatch, layout):
    folder = tmp_path / "exported"

    def card(*_):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        return "a card"

    for name in ("head_card", "model_card"):
        monkeypatch.setattr(f"mtlrank.export.{name}", card)
    with pytest.raises(ConfigError, match="exported exists already, and is no export"):
        exported(bert, folder, layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_damaged_export_is_replaced_on_request(bert, tmp_path):
    folder = exported(bert, tmp_path / "exported")
    os.truncate(folder / "model.safetensors", 100)
    exported(bert, folder, force=True)
    assert read_manifest(folder)["exported"]


def test_an_export_goes_where_a_link_leads(bert, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    exported(bert, tmp_path / "link")
    assert read_manifest(tmp_path / "disk")["exported"]
    assert (tmp_path / "link").is_symlink()


def test_a_manifest_lists_the_files_and_what_they_are(of_bert):
    manifest = read_manifest(of_bert)
    assert (manifest["kind"], manifest["head"], manifest["exported"]) == ("export", "trec2019", "transformers")
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(manifest["files"])


@pytest.mark.parametrize(
    ("family", "words", "layout"),
    [
        ("bert", head_of("cls"), "transformers"),
        ("bert", LINEAR_ON_AVERAGE, "sentence-transformers"),
        ("modernbert", LINEAR_ON_AVERAGE, "transformers"),
    ],
    ids=["first token", "average", "average on ModernBERT"],
)
def test_without_a_format_it_is_the_first_that_fits_the_head(tmp_path, family, words, layout):
    folder = exported(save(tmp_path, family, *words), tmp_path / "exported", layout=None)
    assert read_manifest(folder)["exported"] == layout
    assert layout in (folder / "README.md").read_text()


def test_the_whole_model_goes_elsewhere_and_is_judged_there(tmp_path, config, datasets, data_dir):
    model = save_random(tmp_path / "run" / "model", config, datasets)
    folder = exported(model, tmp_path / "elsewhere" / "model", None, "multitask")
    prepared = {"trec2019": data_dir / "trec2019"}
    values = [
        evaluate.run(settings("evaluate", model_dir=where, tasks="[trec2019]"), prepared) for where in (model, folder)
    ]
    assert values[0] == values[1]
    assert "mtlrank evaluate" in (folder / "README.md").read_text()
    assert read_json(folder / MANIFEST)["exported"] == "multitask"


def test_a_folder_from_outside_may_not_name_code(tmp_path):
    from mtlrank.storage import write_manifest

    model = save(tmp_path, "bert", *head_of("cls"))
    saved = read_json(model / "config.json")
    saved["model"]["heads"]["trec2019"]["_target_"] = "os.system"
    write_json(model / "config.json", saved, sort_keys=False)
    write_manifest(model, {"kind": "model"})
    for layout in ("transformers", "multitask"):
        wanted = settings("export", model_dir=model, head="trec2019", output_dir=tmp_path / "x", format=layout)
        with pytest.raises(ConfigError, match="_target_ 'os.system' is not allowed"):
            export.run(wanted)


@pytest.mark.slow
def test_the_module_works_as_typed(bert, tmp_path):
    words = [f"model_dir={bert}", "head=trec2019", f"output_dir={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-m", "mtlrank.export", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, f"exported as transformers: {tmp_path / 'out'}\n")


@pytest.mark.parametrize("step", ["export", "rank"])
def test_the_command_line_tool_has_the_step_and_tells_a_mistake_in_one_line(bert, of_bert, monkeypatch, capsys, step):
    words = {"export": f"output_dir={bert}", "rank": f"output={of_bert}"}
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as stopped:
        cli.app([step, f"model_dir={bert}", "head=trec2019", words[step]], standalone_mode=False)
    told = capsys.readouterr().err.splitlines()
    assert (stopped.value.code, len(told)) == (2, 1)
    assert told[0].startswith("mtlrank: ")
