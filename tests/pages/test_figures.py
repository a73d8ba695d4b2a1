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
    """Differences of an error and of nDCG: the largest of each row is as green."""
    cells = [[figures.Cell(-gain, gain, True) for gain in row] for row in ([8.0, 0.0], [0.02, -0.02])]
    found = pixels(figures.heatmap(["MSE", "nDCG@10"], ["a", "b"], [*cells]))
    height, width, _ = found.shape
    (first, level), (second, loss) = (
        [found[row * height // 4, column * width // 4] for column in (1, 3)] for row in (1, 3)
    )
    assert np.array_equal(first, second)
    assert len({tuple(pixel) for pixel in (first, level, loss)}) == 3


def test_a_row_without_differences_has_a_colour():
    assert "+0.0000" in figures.heatmap(["MSE"], ["a"], [[figures.Cell(0.0, 0.0, False)]])


def test_gains_name_both_systems_and_what_is_measured():
    svg = figures.gains([0.2, -0.1], "nDCG@10", "single", "all")
    assert "<!-- ΔnDCG@10 per query -->" in svg
    assert "<!-- all - single -->" in svg


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
        figures.gains([0.2, -0.1], "AP(rel=2)", "single", "all").write(tmp_path / name, "gains: AP(rel=2)")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["gains-AP-rel-2.pdf", "gains-AP-rel-2.svg"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    pdf = (tmp_path / "one" / "gains-AP-rel-2.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Subtype /Type0" in pdf
    assert b"/Subtype /Type3" not in pdf


def test_names_of_a_forest_stand_over_its_line_and_the_axis_says_what_an_interval_is():
    svg = figures.forest({"MSE (less is better)": [("all - single", 0.1, -0.1, 0.2)]})
    assert "<!-- difference in MSE (less is better), with 95 % interval -->" in svg
    line, box = svg.index('id="line2d_1"'), svg.rindex("fill: #ffffff")
    assert line < box < svg.index("<!-- all - single -->")
