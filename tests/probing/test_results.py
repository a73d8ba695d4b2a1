import csv

import pytest
import yaml

from mtlrank.probing.results import notes, print_table, write_results
from mtlrank.probing.task import Layers, Probed, suggested_layer
from tests.pages.terminals import WIDTHS, assert_uncut, printed


def probed(compression, name="x", kind="classification", measure="Accuracy", values=(0.5,) * 4, baseline=0.25):
    found = Layers([0, 1, 2, 3], {measure: list(values)}, [100 / c for c in compression], list(compression))
    return Probed(
        name=name,
        kind=kind,
        measures=(measure,),
        split="test",
        classes="2 classes",
        num_train=720,
        num_test=100,
        found=found,
        control=None,
        uniform_bits=100.0,
        frequencies=1.1,
        baseline_name="baseline",
        baseline={measure: baseline},
    )


@pytest.mark.parametrize(
    ("compression", "layer"),
    [
        ([1.2, 1.97, 2.0, 1.9], 1),  # 1.96 is 2 % below the best
        ([1.2, 1.95, 2.0, 1.9], 2),
        ([2.0, 2.0, 2.0, 2.0], 0),
        ([1.115, 1.12, 1.13, 1.0], 2),  # the first two are within 2 % of the best, and of the frequencies too
        ([1.0, 1.11, 1.12, 1.0], None),  # 1.122 would be 2 % above the labels' frequencies
    ],
)
def test_the_shallowest_layer_that_is_almost_the_best_is_suggested_if_any_tells_something(compression, layer):
    assert suggested_layer(probed(compression), margin=0.02) == layer


def test_a_task_without_a_suggestion_is_said_to_have_none(tmp_path):
    results = [probed([1.2, 1.5, 2.0, 1.9]), probed([1.0] * 4, name="nothing")]
    write_results(tmp_path, results, ["model.heads.a", "model.default_head"], 0.02, "body", {}, {})
    lines = (tmp_path / "suggested.yaml").read_text().splitlines()
    assert lines[0].startswith("# The shallowest layer whose compression is within 2% of the best")
    assert lines[1].startswith("# nothing: by compression, with 720 items")
    assert lines[2:] == ["- model.heads.a.pooler.layers=[2]"]
    note = (
        "nothing: by compression, with 720 items, no layer predicts its labels better than their frequencies; no layer"
    )
    assert note in (tmp_path / "probe.html").read_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_whole_on_any_terminal(width):
    results = [probed([1.23, 1.97, 2.01, 1.9], name=name, values=(0.1234,) * 4) for name in ("trec2019", "ner") * 3]
    words = ["1.23", "1.97", "2.01", "1.90", *["0.1234"] * 4, "1.10", "0.2500"] * 6
    assert_uncut(printed(width, lambda: print_table(results, 0.02)), words)


def test_a_head_whose_layer_is_fixed_gets_no_override(tmp_path):
    results = [probed([1.2, 1.5, 2.0, 1.9]), probed([1.2, 2.0, 1.5, 1.9], name="published")]
    write_results(tmp_path, results, ["model.heads.a", None], 0.02, "body", {}, {})
    assert yaml.safe_load((tmp_path / "suggested.yaml").read_text()) == ["model.heads.a.pooler.layers=[2]"]


@pytest.mark.parametrize(
    ("measure", "values", "baseline", "layer"),
    [
        ("Spearman", [0.2, 0.64, 0.65, 0.3], 0.0, 1),  # 0.637 is 2 % below the best
        ("Spearman", [None, 0.2, 0.64, 0.3], 0.0, 2),  # undefined in the first layer
        ("Spearman", [0.1, 0.19, 0.15, -0.5], 0.0, None),  # 0.2 would be more than chance in 100 items
        ("MSE", [2.0, 1.5, 1.0, 1.005], 2.0, 2),
        ("MSE", [2.0, 1.97, 1.99, 3.0], 2.0, None),
    ],
)
def test_where_compression_tells_nothing_of_numbers_their_measure_decides(measure, values, baseline, layer):
    numbers = probed([1.0] * 4, kind="regression", measure=measure, values=values, baseline=baseline)
    assert suggested_layer(numbers, 0.02) == layer
    by = "no layer is suggested" if layer is None else f"layer {layer} is suggested by {measure}"
    assert f"; {by}. Raise probe.max_train if the dataset has more items." in notes([numbers], 0.02)[0]
    assert notes([numbers._replace(found=numbers.found._replace(compression=[1.2, 1.5, 2.0, 1.9]))], 0.02) == []


def test_a_ranking_that_is_none_is_neither_shown_nor_suggested(tmp_path, capsys):
    some = probed([1.2, 1.99, 2.0, 1.9], "some", "ranking", "nDCG@10", [None, None, 0.4, None])
    none = some._replace(name="none", found=some.found._replace(values={"nDCG@10": [None] * 4}))
    assert (suggested_layer(some, 0.02), suggested_layer(none, 0.02)) == (2, None)
    assert notes([some, none], 0.02) == [
        "none: 720 items are too few for a probe of any layer to order candidates, so nDCG@10 is undefined; no layer is "
        "suggested. Raise probe.max_train if the dataset has more items."
    ]
    write_results(tmp_path, [some, none], ["model.heads.a", "model.heads.b"], 0.02, "body", {}, {})
    page = (tmp_path / "probe.html").read_text()
    assert page.count("<td>-</td>") == 3 + 4
    with (tmp_path / "probe.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["body"] == "given"]
    assert [row["value"] for row in rows] == ["", "", "0.400000", ""] + [""] * 4
    print_table([some, none], 0.02)
    shown = capsys.readouterr().out
    assert "2.00    0.4000 *" in shown
    assert "1.20         -" in shown


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("/lib/site-packages/minilm/model", "minilm"),
        ("runs/x/model", "x"),
        ("model", "model"),
        ("google-bert/bert-base-uncased@86b5", "bert-base-uncased@86b5"),
        ("bert", "bert"),
    ],
)
def test_the_page_is_headed_by_the_bodys_name(tmp_path, body, name):
    write_results(tmp_path, [probed([1.2, 1.5, 2.0, 1.9])], ["model.heads.a"], 0.02, body, {}, {})
    page = (tmp_path / "probe.html").read_text()
    assert f"<h1>Which layers of {name} suit" in page
    assert (f"The body: {body}" in page) == (name != body)


def test_a_dashed_line_has_a_legend(tmp_path):
    plain = probed([1.2, 1.5, 2.0, 1.9])
    for control, count in ((None, 0), (plain.found, 2)):
        write_results(tmp_path, [plain._replace(control=control)], ["model.heads.a"], 0.02, "body", {}, {})
        assert (tmp_path / "probe.html").read_text().count("<!-- random weights -->") == count


def test_text_is_escaped_on_the_page_and_quoted_in_the_table(tmp_path):
    write_results(
        tmp_path, [probed([1.2, 1.5, 2.0, 1.9], name='a,"<i>')], ["model.heads.a"], 0.02, "<b>evil", {"k": "<u>"}, {}
    )
    page = (tmp_path / "probe.html").read_text()
    assert not any(text in page for text in ("<b>", "<i>", "<u>"))
    with (tmp_path / "probe.csv").open(encoding="utf-8", newline="") as file:
        assert {row["task"] for row in csv.DictReader(file)} == {'a,"<i>'}
