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
