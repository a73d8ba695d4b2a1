"""The command, end to end, as users type it."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mtlrank import probe
from mtlrank.about import WEIGHTS
from mtlrank.building.model import build_body, build_model
from mtlrank.composing.compose import compose_config
from mtlrank.entry import start
from mtlrank.errors import ConfigError, DataError
from mtlrank.model.saved import save_model
from mtlrank.registry import Registry
from mtlrank.storage import file_hash, read_json, write_json, write_manifest
from tests.commands import overrides_of
from tests.saved_models import save_random
from tests.test_readme import COMMANDS

FEW = [
    "probe.max_train=300",
    "probe.portions=[10,30,100]",
    "probe.max_test=100",
    "probe.epochs=8",
    "probe.lr=1e-2",
    "probe.hidden_dim=16",
]
TASKS = ["trec2019", "msm_bm25", "msm_ner"]


@pytest.fixture(scope="module")
def folders(datasets):
    return {key: datasets[key].split("train").folders[0].parent.parent for key in datasets}


def probed(folders, output, *overrides):
    return probe.run(compose_config([*FEW, f"output_dir={output}", *overrides], trusted=True, name="probe"), folders)


@pytest.fixture(scope="module")
def done(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("probed")
    return output, probed(folders, output, "tasks=[trec2019,msm_bm25,msm_ner]", "probe.control=true")


def rows_of(output):
    with (output / "probe.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_task_has_a_row_for_each_layer_and_measure_of_the_body_and_of_its_control(done):
    rows = rows_of(done[0])
    for task, measure in zip(TASKS, ("nDCG@10", "MSE", "Accuracy"), strict=True):
        for body in ("given", "random weights"):
            found = [r for r in rows if (r["task"], r["measure"], r["body"]) == (task, measure, body)]
            assert [row["layer"] for row in found] == ["0", "1", "2", "3"]
            for row in found:
                ratio = float(row["uniform_bits"]) / float(row["online_bits"])
                assert ratio == pytest.approx(float(row["compression"]), abs=1e-3)
        assert [r["body"] for r in rows if r["task"] == task and not r["layer"] and r["measure"] == measure]


def test_measures_are_of_validation_unless_there_is_none(datasets):
    assert probe._split(datasets["msm_bm25"], None) == "val"
    assert probe._split(datasets["msm_bm25"], "test") == "test"


def test_entities_are_read_in_every_layer(done):
    """The embedded collection's names give away what they are, even with random weights."""
    output, suggested = done
    assert "msm_ner" in suggested
    mine = [row for row in rows_of(output) if row["task"] == "msm_ner"]
    (frequencies,) = (float(row["compression"]) for row in mine if row["body"] == "frequencies of the labels")
    (majority,) = (
        float(row["value"]) for row in mine if (row["body"], row["measure"]) == ("majority class", "Accuracy")
    )
    given = [row for row in mine if (row["body"], row["measure"]) == ("given", "Accuracy")]
    assert min(float(row["compression"]) for row in given) > 1.2 * frequencies
    assert min(float(row["value"]) for row in given) > majority + 0.2


def test_dropout_does_not_blur_what_is_probed(folders, tmp_path):
    found = []
    for dropout in (0.0, 0.5):
        output = tmp_path / str(dropout)
        probed(folders, output, "tasks=[msm_ner]", f"model.body.dropout={dropout}", "probe.epochs=2")
        found.append(rows_of(output))
    assert found[0] == found[1]


def test_suggestions_are_overrides_that_train_takes(done):
    output, suggested = done
    words = yaml.safe_load((output / "suggested.yaml").read_text())
    assert len(words) == len(suggested) >= 1
    heads = compose_config(words, trusted=True)["model"]["heads"]
    assert {key: heads[key]["pooler"]["layers"] for key in suggested} == {k: [n] for k, n in suggested.items()}


def test_the_page_is_self_contained_and_the_summary_complete(done):
    output, suggested = done
    page = (output / "probe.html").read_text()
    assert page.count("<svg") == 4  # compression and three first measures
    assert len(list(output.glob("layers-*.svg"))) == len(list(output.glob("layers-*.pdf"))) == 4
    assert all(
        f"<!-- none ({level}) -->" in page for level in ("frequencies of the labels", "first stage", "training mean")
    )
    assert "<th>MSE ↓</th>" in page
    assert "<!-- MSE ↓ -->" in (output / "layers-MSE.svg").read_text()
    assert "<script" not in page
    assert "default-src 'none'" in page
    told = json.loads((output / "probe.json").read_text())
    assert [task["name"] for task in told["tasks"]] == TASKS
    assert told["tasks"][0]["classes"] == "relevant (grade 2 or above) or not"
    assert {t["name"]: t["suggested_layer"] for t in told["tasks"] if t["name"] in suggested} == suggested


@pytest.mark.parametrize(
    ("words", "head"),
    [([], "heads.msm_ner"), (["~model.heads.msm_ner", "model/heads@model.default_head=span"], "default_head")],
)
def test_a_single_dataset_is_suggested_a_layer_of_the_head_that_it_has(folders, tmp_path, words, head):
    probed(folders, tmp_path, "datamodule/dataset=msm_ner", "probe.layers=[2,1]", *words)
    assert yaml.safe_load((tmp_path / "suggested.yaml").read_text()) == [f"model.{head}.pooler.layers=[1]"]


@pytest.fixture
def save(config, datasets, tmp_path):
    """Write a model of ranking alone, as training leaves it; gives its folder and its body."""
    dataset = datasets["trec2019"]
    model = build_model(config, build_body(config), {"trec2019": dataset})

    def write(*new_tokens):
        tokenizer = dataset.preprocessor.load().tokenizer
        tokenizer.add_tokens(list(new_tokens))
        save_model(tmp_path / "model", model, tokenizer, config, {"trec2019": dataset.manifest["labels"]})
        return tmp_path / "model", model.body

    return write


def test_a_trained_body_is_probed_on_tasks_that_it_was_not_trained_on(folders, save, tmp_path):
    folder, body = save()
    config = compose_config([f"model_dir={folder}", "tasks=[msm_ner]"], trusted=True, name="probe")
    loaded, _ = probe.bodies(config)
    assert all(bool((a == b).all()) for a, b in zip(loaded.parameters(), body.parameters(), strict=True))
    assert "msm_ner" in probed(folders, tmp_path / "out", "tasks=[msm_ner]", f"model_dir={folder}", "probe.layers=[0]")


def test_a_model_that_is_another_by_now_is_another_probe(folders, save, tmp_path):
    folder, _ = save()
    words = ["tasks=[msm_ner]", f"model_dir={folder}", "probe.layers=[0]"]
    probed(folders, tmp_path / "out", *words)
    first = read_json(tmp_path / "out" / "probe.json")
    assert first["weights"] == {"model_dir": file_hash(folder / WEIGHTS)}
    assert list(first["data"]) == ["msm_ner"]
    save_file({name: weight + 1 for name, weight in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    write_manifest(folder, read_json(folder / "manifest.json"))
    with pytest.raises(ConfigError, match="holds the results of another command"):
        probed(folders, tmp_path / "out", *words)
    probed(folders, tmp_path / "out", *words, "force=true")
    found = read_json(tmp_path / "out" / "probe.json")
    write_json(tmp_path / "out" / "probe.json", found | {"data": {"msm_ner": "of a file that was edited"}})
    with pytest.raises(ConfigError, match="holds the results of another command"):
        probed(folders, tmp_path / "out", *words)
    assert read_json(tmp_path / "out" / "probe.json")["weights"] != first["weights"]


def test_a_promotion_while_a_probe_runs_changes_nothing_for_it(folders, config, datasets, tmp_path, monkeypatch):
    registry, entries = Registry(tmp_path / "registry"), []
    for seed in (1, 2):
        entry = tmp_path / f"entry-{seed}"
        save_random(entry / "model", config, datasets, seed=seed)
        write_manifest(entry, {"kind": "registered model", "heads": []})
        entries.append(registry.publish(entry))
    registry.promote(entries[0], "", registry.history())
    build = probe.bodies

    def then_promote(*args):
        registry.promote(entries[1], "", registry.history())
        return build(*args)

    monkeypatch.setattr(probe, "bodies", then_promote)
    output = tmp_path / "out"
    probed(folders, output, "tasks=[msm_ner]", f"model_dir={tmp_path / 'registry'}", "probe.layers=[0]")
    (weights,) = read_json(output / "probe.json")["weights"].values()
    assert weights == file_hash(tmp_path / "entry-1" / "model" / WEIGHTS)
    assert registry.current() == entries[1]


def test_a_model_that_is_replaced_while_it_is_probed_is_told(folders, config, datasets, tmp_path, monkeypatch):
    for name, seed in (("model", 1), ("other", 2)):
        save_random(tmp_path / name, config, datasets, seed=seed)
    build = probe.bodies

    def then_replace(*args):
        built = build(*args)
        shutil.rmtree(tmp_path / "model")
        (tmp_path / "other").rename(tmp_path / "model")
        return built

    monkeypatch.setattr(probe, "bodies", then_replace)
    with pytest.raises(DataError, match="weights that model_dir names changed while they were read"):
        probed(folders, tmp_path / "out", "tasks=[msm_ner]", f"model_dir={tmp_path / 'model'}", "probe.layers=[0]")


def test_of_two_probes_into_one_folder_the_later_one_replaces_nothing(folders, tmp_path, monkeypatch):
    judge, words = probe.probe_task, ["tasks=[msm_ner]", "probe.layers=[0]"]

    def beside(*args):
        monkeypatch.setattr(probe, "probe_task", judge)
        probed(folders, tmp_path, *words)
        return judge(*args)

    monkeypatch.setattr(probe, "probe_task", beside)
    with pytest.raises(ConfigError, match="holds the results of another command"):
        probed(folders, tmp_path, *words, "seed=2")
    assert read_json(tmp_path / "probe.json")["settings"]["seed"] == 42


def test_a_trained_body_with_another_tokenizer_is_refused(folders, save, tmp_path):
    folder, _ = save("quux")
    with pytest.raises(ConfigError, match="trained with another tokenizer than that of 'mtlrank-embedded/tiny-bert'"):
        probed(folders, tmp_path / "out", "tasks=[msm_ner]", f"model_dir={folder}")


@pytest.mark.parametrize(
    ("override", "error", "complaint"),
    [
        ("probe.layers=[1,7]", ConfigError, "names layer 7, but the body has 3 layers"),
        ("probe.layers=[]", ConfigError, "probe.layers is [], expected null or a list"),
        ("probe.pooler=span", ConfigError, "probe.pooler is 'span', expected null, average, cls_token or last"),
        ("probe.margin=1", ConfigError, "probe.margin is 1"),
        ("probe.split=[test]", ConfigError, "probe.split is ['test'], expected null or the name of a split"),
        ("probe.portions=[10,50]", ConfigError, "expected ascending shares in per cent up to 100"),
        ("probe.split=dev", DataError, "has no split 'dev'. It has: test, train, val"),
        ("probe.max_train=20", DataError, "labelled items are too few to probe"),
        ("probe.max_memory_gb=1e-6", ConfigError, "more than probe.max_memory_gb=1e-06"),
        ("probe.max_trains=20", ConfigError, "Did you mean 'probe.max_train'?"),
        ("model_dir=nowhere", DataError, "nowhere"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(folders, tmp_path, override, error, complaint):
    with pytest.raises(error) as told:
        probed(folders, tmp_path, "tasks=[msm_ner]", override)
    assert complaint in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_ranking_learns_from_is_not_judged(folders, tmp_path):
    with pytest.raises(ConfigError, match="trec2019 is a ranking: its training documents are a sample"):
        probed(folders, tmp_path, "tasks=[trec2019]", "probe.split=train")


def test_results_of_another_command_are_not_replaced(folders, tmp_path):
    words = ["tasks=[msm_ner]", "probe.layers=[0]", "probe.epochs=1", "probe.portions=[50,100]"]
    probed(folders, tmp_path, *words)
    probed(folders, tmp_path, *words)
    before = (tmp_path / "probe.csv").read_text()
    with pytest.raises(ConfigError, match="holds the results of another command"):
        probed(folders, tmp_path, *words, "probe.lr=1")
    assert (tmp_path / "probe.csv").read_text() == before
    probed(folders, tmp_path, *words, "probe.lr=1", "force=true")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds the results of another command"):
        probed(folders, tmp_path, *words, "force=true")


@pytest.mark.slow
def test_probes_of_a_sweep_have_folders_of_their_own(folders, tmp_path):
    words = [*FEW, "tasks=[msm_ner]", f"data_dir={folders['msm_ner'].parent}", "seed=1,2", "output_dir=all"]
    command = [sys.executable, "-m", "mtlrank.probe", "-m", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "all").glob("*/probe.html"))) == 2


def test_on_the_command_line_a_mistake_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mtlrank probe", "probe.epoch=3"])
    with pytest.raises(SystemExit) as stopped:
        start("probe")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("mtlrank: Unknown config key 'probe.epoch'. Did you mean 'probe.epochs'?")


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search(r"mtlrank[ .]probe ", c)])
def test_commands_of_the_documents_compose(command, monkeypatch):
    monkeypatch.setenv("MTLRANK_REAL_DATA", "/data")
    assert compose_config(overrides_of(command), trusted=True, name="probe")["probe"]
