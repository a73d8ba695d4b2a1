"""Which of a user's own classes an error was raised in."""

import math
import os
import re
import sys
from types import ModuleType

import pytest
import torch

from mtlrank.evaluation import measures
from mtlrank.loop.finite_steps import FiniteSteps, Learnt
from mtlrank.model.head.pooler import Average
from mtlrank.own_errors import of_own_code
from tests.batches import batch
from tests.started import started


def test_an_error_of_ones_own_class_is_told_with_its_line(tmp_path):
    (tmp_path / "my_parts.py").write_text("class Mine:\n    def records(self):\n        yield {}['a']\n")
    lines = ["import my_parts", "from mtlrank.own_parts import records_of"]
    lines += ["list(records_of(my_parts.Mine()))"]
    environment = {**os.environ, "MTLRANK_TRACEBACK": ""}
    done = started(*lines, cwd=tmp_path, env=environment)
    line = "mtlrank: my_parts.Mine.records, my_parts.py:3: KeyError: 'a' (MTLRANK_TRACEBACK=1 shows the calls.)\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert "Traceback" in started(*lines, cwd=tmp_path, env={**environment, "MTLRANK_TRACEBACK": "1"}).stderr


COMPILED = """
def call(*args):
    raise RuntimeError("of the compiled code")
"""


def test_what_a_library_raises_is_not_of_ones_own_class(tmp_path):
    """Neither if it is installed, nor if it was compiled into a file somewhere else."""
    compiled, own = ModuleType("torch._inductor.runtime.compile_tasks.abc"), ModuleType("mine")
    for module in (compiled, own):
        exec(compile(COMPILED, str(tmp_path / "abc.py"), "exec"), vars(module))
    for call in (lambda: measures.with_level("nope(", 1), lambda: called_by_us(compiled.call)):
        with pytest.raises(Exception, match=r"never closed|of the compiled code") as raised:
            call()
        assert of_own_code(raised.value) is None
    with pytest.raises(RuntimeError) as raised:
        called_by_us(own.call)
    assert "mine.call" in str(of_own_code(raised.value))


def called_by_us(function):
    FiniteSteps(1, function)._report(Learnt(1, [("x", torch.tensor([math.nan]), torch.tensor([0]))]))


OWN = """
from mtlrank.model.head import Linear


class Optimizer:
    def step(self, closure):
        closure()


class Swapped(Linear):
    def project(self, in_dim, out_dim):
        return super().project(out_dim, in_dim)


class Whole(Linear):
    def forward(self, states, batch):
        return super().forward(states[0], batch)


class Wrong(Linear):
    def forward(self, states, batch):
        raise KeyError("a")
"""


def test_what_an_optimizers_closure_calls_is_not_of_the_optimizer(tmp_path, monkeypatch):
    own, lightning = ModuleType("mine"), ModuleType("pytorch_lightning.loops.closure")
    exec(compile(OWN, str(tmp_path / "mine.py"), "exec"), vars(own))
    exec(
        compile("def call(function, *args):\n    function(*args)", "/site-packages/closure.py", "exec"), vars(lightning)
    )
    own.__file__ = str(tmp_path / "mine.py")
    monkeypatch.setitem(sys.modules, "mine", own)

    def told(head):
        """What is said of a head's error in a step of an optimizer of one's own."""
        made = getattr(own, head)(4, 1, 2, Average)
        with pytest.raises((KeyError, RuntimeError, TypeError)) as raised:
            called_by_us(
                lambda *_: own.Optimizer().step(lambda: lightning.call(made, [torch.zeros(7, 4)], batch([3, 4])))
            )
        return str(of_own_code(raised.value))

    assert re.match(r"mine.Swapped, \S*head.py:\d+: RuntimeError: mat1 and mat2 shapes", told("Swapped"))
    assert re.match(r"mine.Whole.forward, \S*mine.py:17: ", told("Whole"))
    assert re.match(r"mine.Wrong.forward, \S*mine.py:22: KeyError", told("Wrong"))


def test_what_lightning_refuses_in_a_call_of_ones_own_is_of_that(tmp_path):
    own, lightning = ModuleType("mine"), ModuleType("pytorch_lightning.trainer")
    exec(compile(COMPILED, "/site-packages/trainer.py", "exec"), vars(lightning))
    exec(compile("def hook(*args):\n    call()", str(tmp_path / "mine.py"), "exec"), vars(own))
    own.call = lightning.call
    with pytest.raises(RuntimeError) as raised:
        called_by_us(own.hook)
    assert "mine.hook" in str(of_own_code(raised.value))


def test_without_a_call_of_ours_no_class_is_ones_own():
    with pytest.raises(KeyError) as raised:
        {}["a"]
    assert of_own_code(raised.value) is None
