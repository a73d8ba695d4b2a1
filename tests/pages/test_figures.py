import base64
import io
import re

import numpy as np
from matplotlib import image

from mtlrank.pages import figures


def pixels(svg):
    """The picture that stands in an SVG, (height, width, 4)."""
    (data,) = re.findall(r'"data:image/png;base64,([^"]*)"', svg)
    return image.imread(io.BytesIO(base64.b64decode(data)))


def test_each_row_of_a_heatmap_has_its_own_scale():
    """Differences of an error and of nDCG: the largest of each row is as green, and only what is decided has a colour."""
    told = [[(-8.0, "better"), (2.0, "not decided")], [(0.02, "better"), (-0.02, "worse")]]
    cells = [[figures.Cell(*cell) for cell in row] for row in told]
    found = pixels(figures.heatmap(["MSE", "nDCG@10"], ["a", "b"], cells))[::-1]  # SVG holds it upside down
    height, width, _ = found.shape
    (first, undecided), (second, loss) = (
        [found[row * height // 4, column * width // 4, :3] for column in (1, 3)] for row in (1, 3)
    )
    assert np.array_equal(first, second)
    assert np.array_equal(undecided, [1, 1, 1])
    assert first[1] > first[0]
    assert loss[0] > loss[1]


def test_a_heatmap_has_words_and_a_legend_beside_its_colours():
    cells = [[figures.Cell(0.0, "not decided"), figures.Cell(-0.5, "worse"), None]]
    svg = figures.heatmap(["MSE"], ["a", "b", "c"], cells, ["What bold means."])
    told = ("+0.0000", "not decided", "\N{MINUS SIGN}0.5000", "worse", "not learnt", "What bold means.")
    assert all(f"<!-- {text} -->" in svg for text in told)


def test_gains_name_both_systems_and_what_is_measured():
    svg = figures.gains([0.2, -0.1], "nDCG@10", "single", "all")
    assert "<!-- ΔnDCG@10 per query -->" in svg
    assert "<!-- all - single -->" in svg


def test_layers_stand_beside_what_needs_none():
    rank = [figures.LayerValue(0, float("nan")), figures.LayerValue(1, 0.5)]
    sim = [figures.LayerValue(0, 0.4), figures.LayerValue(1, 0.3)]
    random = [figures.LayerValue(0, 0.1), figures.LayerValue(1, 0.2)]
    panels = {"rank": {"the body": rank}, "sim": {"the body": sim, "random weights": random}}
    svg = figures.layer_curves(panels, "MSE ↓", {"rank": 0.1, "sim": 0.2}, "none (mean)", {"rank": 1})
    labels = ("the body", "random weights", "none (mean)")
    assert [svg.count(f"<!-- {text} -->") for text in ("MSE ↓", *labels)] == [2, 1, 1, 1]
    assert len(re.findall("stroke-dasharray: [0-9]", svg)) == 3  # in each panel, and in the legend


def test_curves_over_a_setting_go_through_the_means_on_an_axis_that_suits_its_values():
    curves = {"one": {1e-5: [0.25, 0.75], 1e-3: [0.625]}, "both": {1e-5: [0.5]}}
    picture = figures.setting_curves({"nDCG@10": curves, "MSE": {"one": {1e-5: [1.0], 1e-3: [2.0]}}}, "lr")
    first, second = picture.figure.axes
    assert [line.get_xydata().tolist() for line in first.lines] == [[[1e-5, 0.5], [1e-3, 0.625]], [[1e-5, 0.5]]]
    assert first.get_xscale() == second.get_xscale() == "log"
    assert first.lines[0].get_color() == second.lines[0].get_color() != first.lines[1].get_color()
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["one", "both"]
    near = figures.setting_curves({"MSE": {"one": {0.0: [1.0], 3.0: [2.0]}}}, "lr").figure
    assert near.axes[0].get_xscale() == "linear"
    assert all(float(place).is_integer() for place in near.axes[0].get_xticks())
    assert not near.legends
    assert first.get_xticks().tolist() == [1e-5, 1e-3]


def test_a_value_that_does_not_depend_on_the_setting_is_a_dashed_line():
    panels = {"AP": {"one": {5: [0.5], 100: [0.6]}}, "RR": {"one": {5: [0.1], 100: [0.2]}}}
    figure = figures.setting_curves(panels, "candidates", {"AP": 0.25}, "first stage").figure
    first, second = figure.axes
    assert (first.lines[-1].get_ydata(), first.lines[-1].get_linestyle()) == ([0.25, 0.25], "--")
    assert len(second.lines) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "first stage"]


def test_pictures_of_many_queries_and_classes_stay_small():
    few, many = (figures.gains(np.linspace(-1, 1, number), "nDCG@10", "a", "b") for number in (100, 5_000))
    assert few.count("<path") > 100 > many.count("<path")
    assert len(many) < 200_000
    assert {"#2a7f62", "#b3412e"} <= set(re.findall(r"fill: (#\w+)", many))
    few, many = (
        figures.confusion(np.full((number, number), 77), [f"c{i}" for i in range(number)]) for number in (30, 31)
    )
    assert (few.count("<!-- 77 -->"), many.count("<!-- 77 -->")) == (900, 0)


def test_files_of_a_picture_are_the_same_each_time_and_hold_letters(tmp_path):
    """For papers: no letter is drawn as a shape (Type 3), which publishers refuse."""
    for name in ("one", "two"):
        gains = figures.gains([0.2, -0.1], "AP(rel=2)", "single", "all")
        figures.write_pictures(tmp_path / name, [("gains: AP(rel=2)", gains)])
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["gains-AP-rel-2.pdf", "gains-AP-rel-2.svg"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    pdf = (tmp_path / "one" / "gains-AP-rel-2.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Subtype /Type0" in pdf
    assert b"/Subtype /Type3" not in pdf


def test_each_picture_has_files_of_its_own_whose_names_do_not_number_them(tmp_path):
    picture = figures.learning_curves({"a": [(1, 2.0), (2, 1.0)]}, "loss")
    titles = ["a b", "a+b", "A b", "x" * 101 + "y", "x" * 101 + "z"]
    for folder, some in (("all", titles), ("few", [titles[0], titles[2], titles[4]])):
        figures.write_pictures(tmp_path / folder, [(title, picture) for title in some])
    names = {folder: {path.name for path in (tmp_path / folder).iterdir()} for folder in ("all", "few")}
    assert len(names["all"]) == 10
    assert names["few"] < names["all"]
    assert "a-b.pdf" in names["few"]
    assert max(map(len, names["all"])) < 120


def test_names_of_a_forest_stand_over_its_line_and_the_axis_says_what_an_interval_is():
    svg = figures.forest({"MSE (less is better)": [("all - single", 0.1, -0.1, 0.2)]})
    assert "<!-- difference in MSE (less is better), with 95 % interval -->" in svg
    line, box = svg.index('id="line2d_1"'), svg.rindex("fill: #ffffff")
    assert line < box < svg.index("<!-- all - single -->")
