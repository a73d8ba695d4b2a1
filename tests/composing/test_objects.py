"""Objects of a config, and what is wrong with it where there is none."""

import re
from pathlib import Path

import pytest
import yaml

import mtlrank.conf
from mtlrank.composing.objects import build_object, parameters_of, supplied
from mtlrank.datamodule.sampler.mixture import Annealed
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


class Mine(Annealed):
    def __init__(self, *args, power=1.0, **kwargs):
        super().__init__(*args, **kwargs)


def test_what_the_program_supplies_is_no_setting():
    with pytest.raises(ConfigError, match="It takes: epoch_samples, epochs, start, end, course, table, power[.]$"):
        build_object({"_target_": f"{__name__}.Mine", "_partial_": True, "nope": 1})


SUPPLIED = "add `_partial_: true` to its config"


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("mtlrank.model.head.Linear", "body_dim and num_layers and output_dim"),
        ("mtlrank.model.head.pooler.Average", "body_dim and num_layers"),
        (f"{__name__}.Mine", "sizes and batch_size"),
        ("mtlrank.loop.loss.ExampleMean", "tasks"),
        ("torch.optim.SGD", "params"),
        ("mtlrank.loop.schedule.linear_warmup", "optimizer and total_steps"),
    ],
)
def test_a_class_that_the_program_builds_later_is_partial(target, missing):
    said = f"{target} is built by the program, which knows its {missing}: {SUPPLIED}"
    for node in ({"_target_": target}, {"_target_": f"{__name__}.Whole", "size": 1, "part": {"_target_": target}}):
        with pytest.raises(ConfigError, match=re.escape(said)):
            build_object(node)
    with pytest.raises(ConfigError, match=re.escape(said)):
        build_object({"_target_": f"{__name__}.Whole", "part": {"_target_": target}}, size=1)


def test_the_parameters_that_our_configs_leave_to_the_program_are_known():
    found = 0
    for file in (Path(mtlrank.conf.__file__).parent).rglob("*.yaml"):
        node = yaml.safe_load(file.read_text()) or {}
        if isinstance(node, dict) and node.get("_partial_"):
            taken = parameters_of(node["_target_"])
            needed = {name for name, each in taken.items() if each.default is each.empty and name not in node}
            assert needed - {"pooler"} <= set(supplied(taken)), file
            assert not set(supplied(taken)) & set(node), file
            found += 1
    assert found > 30


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
