import csv

import pytest

from mtlrank.probing.results import write_results
from mtlrank.probing.task import Layers, Probed, suggested_layer


def probed(compression, frequencies=1.1, name="x", layers=(0, 1, 2, 3)):
    found = Layers(list(layers), {"Accuracy": [0.5] * 4}, [100 / c for c in compression], list(compression))
    baseline = {"Accuracy": 0.25}
    return Probed(
        name, ("Accuracy",), "test", "2 classes", 100, 20, found, None, 100.0, frequencies, "majority class", baseline
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
    write_results(tmp_path, results, ["model.heads.a", "model.default_head"], 0.02, "body", {})
    lines = (tmp_path / "suggested.yaml").read_text().splitlines()
    assert lines[0].startswith("# The shallowest layer whose compression is within 2% of the best")
    assert lines[1:] == ["- model.heads.a.pooler.layers=[2]"]
    assert "None for nothing: no layer predicts its labels better" in (tmp_path / "probe.html").read_text()


def test_text_is_escaped_on_the_page_and_quoted_in_the_table(tmp_path):
    write_results(
        tmp_path, [probed([1.2, 1.5, 2.0, 1.9], name='a,"<i>')], ["model.heads.a"], 0.02, "<b>evil", {"k": "<u>"}
    )
    page = (tmp_path / "probe.html").read_text()
    assert not any(text in page for text in ("<b>", "<i>", "<u>"))
    with (tmp_path / "probe.csv").open(encoding="utf-8", newline="") as file:
        assert {row["task"] for row in csv.DictReader(file)} == {'a,"<i>'}
