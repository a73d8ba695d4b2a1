"""Commands as users type them, in the process of the tests: what they import is there already."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from mtlrank.entry import start
from pipelines.package import load


def pipeline_of(words):
    """The pipeline that a command's words choose."""
    return load(words[words.index("--pipeline") + 1] if "--pipeline" in words else "mtl_ranking")


def parameters_of(words):
    """A pipeline's parameters among a command's words: key=value, but not after --env."""
    after = zip(["", *words], words, strict=False)
    return [word for previous, word in after if "=" in word and not word.startswith("-") and previous != "--env"]


def overrides_of(command):
    """The overrides among a command's words; of a sweep, those of its first job."""
    words = [word for word in shlex.split(command) if "=" in word]
    if re.search(r"mtlrank[. ]\w+ -m ", command):
        words = [word if "{" in word else word.partition(",")[0] for word in words]
    return words


def typed(folder, step, *words):
    """`python -m mtlrank.<step>` with these words, typed in a folder; gives the exit code."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"mtlrank.{step}", *words])
        patch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as stopped:
            start(step)
    for name in set(sys.modules) - before:  # the next folder may have a module of the same name
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]
    return stopped.value.code or 0
