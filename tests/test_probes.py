"""`mtlrank probes` as it is typed, on results of probes that are written by hand."""

import csv
import json
import shutil

import pytest
from typer.testing import CliRunner

from mtlrank import probes as step
from mtlrank.cli import app
from mtlrank.probing.results import write_results
from mtlrank.storage import read_json, write_json
from tests.pages.terminals import WIDTHS, assert_uncut, printed
from tests.probing.test_results import probed

BASE = {1: [1.0, 1.5, 2.0, 1.5], 2: [1.0, 1.6, 2.2, 1.5], 3: [1.0, 1.4, 2.1, 1.5]}
TRAINED = {1: [1.0, 1.5, 2.5, 1.5], 2: [1.0, 1.6, 2.6, 1.5], 3: [1.0, 1.4, 2.7, 1.5]}


MADE_FROM = {"classes": {}, "weights": {"model_dir": "0123"}, "data": {"ner": "4567"}}


def write(folder, name, seeds, names=("ner",), body=None, made_from=MADE_FROM, **more):
    """A folder for each seed's probe of some tasks; `seeds` have the compression by layer."""
    for seed, compression in seeds.items():
        target = folder / name / str(seed)
        target.mkdir(parents=True)
        results = [probed(compression, name=task, **more) for task in names]
        settings = {"seed": seed, "tasks": list(names), "model_dir": body or name}
        write_results(target, results, [None] * len(results), 0.02, name, settings, made_from)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each has pictures, which take half a second."""
    folder = tmp_path_factory.mktemp("probes")
    write(folder, "base", BASE)
    write(folder, "trained", TRAINED)
    write(folder, "copy", {1: BASE[1]}, body="base")
    write(folder, "other", BASE, names=("rank",))
    return folder


@pytest.fixture
def folders(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def typed(*words):
    return CliRunner().invoke(app, ["probes", *words])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_means_over_seeds_have_intervals_and_differences_are_paired(folders):
    """By Student's t with two degrees of freedom, 4.3027: differences .5, .4 and .6 have a mean of .5 +- .2484."""
    done = typed("before=base", "after=trained", "--output", "out")
    assert done.exit_code == 0, done.output
    assert "+0.50 (+0.25 to +0.75)" in done.stdout
    assert "before and after differ in: model_dir (base, trained)." in done.stderr
    rows = rows_of(folders / "out" / "probes.csv")
    (row,) = (r for r in rows if (r["quantity"], r["body"], r["layer"]) == ("compression", "after", "2"))
    assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx([2.6, 2.351586, 2.848414], abs=1e-5)
    measured = [float(row[f"difference{key}"]) for key in ("", " low", " high")]
    assert measured == pytest.approx([0.5, 0.251586, 0.748414], abs=1e-5)
    (level,) = (r for r in rows if (r["quantity"], r["body"]) == ("compression", "frequencies of the labels"))
    assert float(level["mean"]) == 1.1
    assert {path.name for path in (folders / "out").iterdir()} == {
        "probes.csv",
        *(f"probes-{quantity}.{kind}" for quantity in ("compression", "Accuracy") for kind in ("svg", "pdf")),
    }
    svg = (folders / "out" / "probes-compression.svg").read_text()
    assert all(f"<!-- {name} -->" in svg for name in ("before", "after", "none (frequencies of the labels)"))


def test_other_seeds_are_not_paired(folders):
    """By Welch's interval: variances .01 and .01 of three each, four degrees of freedom, t = 2.7764: .5 +- .2267."""
    write(folders, "later", {seed + 3: values for seed, values in TRAINED.items()})
    done = typed("base", "later", "--output", "out")
    assert done.exit_code == 0, done.output
    rows = rows_of(folders / "out" / "probes.csv")
    (row,) = (r for r in rows if (r["quantity"], r["body"], r["layer"]) == ("compression", "model_dir=later", "2"))
    measured = [float(row[f"difference{key}"]) for key in ("", " low", " high")]
    assert measured == pytest.approx([0.5, 0.273301, 0.726699], abs=1e-5)


def test_one_probe_of_each_body_has_a_difference_without_an_interval(folders):
    done = typed("base/1", "trained/1")
    assert done.exit_code == 0, done.output
    assert "+0.50" in done.stdout
    assert "to" not in done.stdout


def test_random_weights_are_a_body_beside_the_others(folders):
    plain = probed([1.0, 1.5, 2.0, 1.5], name="ner")
    (folders / "control").mkdir()
    settings = {"seed": 1, "tasks": ["ner"]}
    write_results(folders / "control", [plain._replace(control=plain.found)], [None], 0.02, "x", settings, MADE_FROM)
    done = typed("a=control", "b=trained/1")
    assert done.exit_code == 0, done.output
    assert "random weights" in done.stdout


def test_bodies_of_different_depth_are_compared_in_the_layers_that_both_have(folders):
    for folder in (folders / "base").iterdir():
        found = read_json(folder / "probe.json")
        for values in (found["tasks"][0]["found"], found["tasks"][0]["found"]["values"]):
            values |= {name: each[:2] for name, each in values.items() if isinstance(each, list)}
        write_json(folder / "probe.json", found)
    for first, second, where in (("base", "trained", "ab"), ("trained", "base", "ba")):
        done = typed(f"a={first}", f"b={second}", "--output", where)
        assert done.exit_code == 0, done.output
        rows = [row for row in rows_of(folders / where / "probes.csv") if row["body"] == "b" and row["layer"]]
        of_both = [row["layer"] for row in rows if row["quantity"] == "compression" and row["difference"]]
        assert of_both == ["0", "1"]
        assert done.stdout.count("2.10") + done.stdout.count("2.60") >= 1  # layer 2 of the deeper one


def test_what_was_not_probed_everywhere_is_left_out(folders):
    write(folders, "more", TRAINED, names=("ner", "rank"))
    done = typed("base", "more")
    assert done.exit_code == 0, done.output
    assert "rank is left out: it was not probed everywhere." in done.stderr
    assert "rank, compression" not in done.stdout


def test_a_measure_that_not_all_have_is_left_out(folders):
    write(folders, "more", TRAINED, measure="F1")
    for words in (("base", "more"), ("more", "base")):
        done = typed(*words)
        assert done.exit_code == 0, done.output
        assert "ner: Accuracy, F1 is left out" in done.stderr or "ner: F1, Accuracy is left out" in done.stderr
        assert "ner, compression" in done.stdout


@pytest.mark.parametrize(("kind", "name"), [("weights", "model_dir"), ("data", "ner")])
def test_probes_of_something_else_under_the_same_settings_are_not_one_body(folders, kind, name):
    """As of a model that was trained again, or of the model in use of a registry."""
    write(folders, "again", {4: TRAINED[1]}, body="base", made_from={**MADE_FROM, kind: {name: "89ab"}})
    told = f"have equal settings but were made from different {kind} of {name}: files changed in between"
    refused = typed("base", "again")
    assert refused.exit_code == 2
    assert f"base/1 and again/4 {told}" in refused.stderr
    assert "Name both bodies, as in before=base/1 after=again/4." in refused.stderr
    for words in (("x=base", "x=again"), ("before=base", "after=again")):
        done = typed(*words)
        assert done.exit_code == 0, done.output
        assert told in done.stderr


def test_what_has_no_value_for_a_seed_has_no_mean(folders):
    values = {"values": (None, 0.5, 0.6, 0.7), "kind": "ranking", "measure": "nDCG@10"}
    write(folders, "few", {1: BASE[1]}, **values)
    write(folders, "others", {1: TRAINED[1]}, **values)
    done = typed("few", "others", "--output", "out")
    assert done.exit_code == 0, done.output
    rows = [row for row in rows_of(folders / "out" / "probes.csv") if row["quantity"] == "nDCG@10" and row["layer"]]
    assert [row["mean"] for row in rows] == ["", "0.500000", "0.600000", "0.700000"] * 2


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_whole_on_any_terminal(folders, width):
    assert_uncut(printed(width, lambda: step.run(["before=base", "after=trained"])), ["2.10", "2.60", "+0.50"])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere"], 3, "nowhere"),
        (["empty"], 3, "empty holds no results of `mtlrank probe`: expected probe.json there or below it."),
        (["base/1", "base/1"], 2, "is named twice"),
        (["a=base/1", "a=copy/1"], 2, "have the same settings and seed 1, so they count once. Leave one out."),
        (["base", "old"], 3, "old was written by an earlier version of mtlrank. Probe again, with force=true."),
        (["base", "other"], 3, "No task was probed in all of"),
        (["base", "cut"], 3, "cut/probe.json is damaged ("),
        (["base", "text"], 3, "text/probe.json is damaged (ValueError(\"ner has the value 'x'\")). Probe again, with"),
    ],
)
def test_a_mistake_is_told_in_a_line(folders, words, code, told):
    for name in ("empty", "old"):
        (folders / name).mkdir()
    (folders / "old" / "probe.json").write_text('{"tasks": []}')
    for name, damage in (("cut", list.pop), ("text", lambda values: values.__setitem__(0, "x"))):
        results = read_json(folders / "base" / "1" / "probe.json")
        damage(results["tasks"][0]["found"]["compression"])
        (folders / name).mkdir()
        (folders / name / "probe.json").write_text(json.dumps(results))
    done = typed(*words)
    assert done.exit_code == code
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
