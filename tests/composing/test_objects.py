"""Objects of a config, and what is wrong with it where there is none."""

import re

import pytest

from mtlrank.composing.objects import build_object
from mtlrank.errors import ConfigError


class Whole:
    """Holds a part."""

    def __init__(self, size, part=None):
        self.size = size
        self.part = part


def test_ready_made_parts_are_passed_as_they_are():
    part, node = ["a part"], {"_target_": f"{__name__}.Whole", "size": 1}
    assert build_object(node, part=part).part is part
    assert build_object(node).size == 1


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"measures": ["MSE"], "measure": 3}, "Regression has no setting 'measure'. Did you mean 'measures'? It takes"),
        ({}, "missing 1 required positional argument: 'measures'"),
    ],
)
def test_what_a_class_does_not_take_is_told(node, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        build_object({"_target_": "mtlrank.task.regression.Regression", **node})


def test_what_a_class_does_not_take_beside_a_part_is_told():
    with pytest.raises(
        ConfigError, match="Cannot build mtlrank.task.regression.Regression: missing a required argument"
    ):
        build_object({"_target_": "mtlrank.task.regression.Regression"}, loss="mse")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine_of_test.Xz", "_target_ mine_of_test.Xz: mine_of_test has no 'Xz'. Did you mean 'X'?"),
        ("mtlrank.model.head.MPL", "mtlrank.model.head has no 'MPL'. Did you mean 'MLP'?"),
        ("no_such_module.X", "there is no module 'no_such_module'. Type the command in the folder that holds"),
        ("broken_of_test.X", "broken_of_test.py, line 1: expected ':'."),
    ],
)
def test_what_a_target_lacks_is_said_in_one_line(tmp_path, monkeypatch, caplog, target, said):
    (tmp_path / "mine_of_test.py").write_text("class X:\n    pass\n")
    (tmp_path / "broken_of_test.py").write_text("class X\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(said)) as told:
        build_object({"_target_": target})
    assert "\n" not in str(told.value)
    assert not caplog.records
