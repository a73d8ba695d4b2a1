"""The benchmarks run: what they measure is not looked at here."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from transformers import BertConfig, BertModel

from benchmarks.pairs import compare
from mtlrank.backbone import load_tokenizer
from tests.marks import needs_compiler
from tests.saved_models import save_random

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    folder = tmp_path_factory.mktemp("body")
    tokenizer = load_tokenizer("mtlrank-embedded/tiny-bert")
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark as its command does, but here: a process of its own takes longer to start than to measure."""
    threads = torch.get_num_threads()

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        import_module(f"benchmarks.{name}").main()
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


TINY = """
import argparse, pathlib, sys
from benchmarks.pairs import Measured, send, take_turn
parser = argparse.ArgumentParser()
parser.add_argument("--system")
parser.add_argument("--in-turn", action="store_true")
options = parser.parse_args()
take_turn(options)
if options.system == "broken":
    sys.exit("it broke")
pathlib.Path(__file__).with_name(options.system).touch()
send(Measured(len(options.system), 7))
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    return tmp_path


@pytest.mark.parametrize("on_gpu", [False, True])
def test_systems_are_measured_in_turns(tiny, on_gpu):
    assert compare("tiny", ["a", "bc"], 2, [], on_gpu) == {"a": (1, 7), "bc": (2, 7)}


def test_a_system_that_fails_ends_all(tiny):
    with pytest.raises(SystemExit, match="broken failed:\nit broke"):
        compare("tiny", ["a", "broken", "late"], 1, [], True)
    assert (tiny / "a").exists()
    assert not (tiny / "late").exists()


def test_nobody_measures_when_it_is_nobodys_turn(tiny):
    command = [sys.executable, "-m", "tiny", "--system", "a", "--in-turn"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "ready\n")
    assert not (tiny / "a").exists()


@pytest.mark.parametrize(
    "system",
    [
        "ceiling",
        "bare loop",
        "mtlrank",
        "mixture: bare loop",
        "mixture",
        pytest.param("mixture, compiled", marks=needs_compiler),
    ],
)
def test_training(run, body, system):
    found = run("train", "--body", body, "--batch-size", "5", "--steps", "2", "--system", system)
    speed, memory = json.loads(found.removeprefix("measured "))
    assert speed > 0
    assert memory > 0


def test_profiling(body):
    """As it is typed."""
    words = ["--body", body, "--batch-size", "5", "--steps", "2", "--profile"]
    command = [sys.executable, "-m", "benchmarks.train", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"aten::addmm|aten::mm", done.stdout)


@pytest.mark.parametrize(
    "system",
    ["ceiling", "mtlrank", "mtlrank, prepared", pytest.param("mtlrank, compiled", marks=needs_compiler)],
)
def test_scoring(run, body, system):
    found = run("predict", "--body", body, "--batch-size", "8", "--pairs", "20", "--system", system)
    speed, memory = json.loads(found.removeprefix("measured "))
    assert speed > 0
    assert memory > 0


def test_combining_gradients(run):
    found = run("balance", "--steps", "2", "--rounds", "1", "--only", "upgrad")
    assert re.search(r"^upgrad +\d", found, re.MULTILINE | re.IGNORECASE)


def test_batches(run):
    assert "ratio" in run("batches")


def test_preparing(run):
    assert run("prepare", "--part", "0.01").count("ratio") == 4


def test_significance(run):
    found = run("significance", "--part", "0.01")
    assert found.count("the interval contains the truth in") == 49
    assert found.count("randomisation test") == 6


def test_long_documents(run, config, datasets, tmp_path):
    model = save_random(tmp_path / "model", config, datasets)
    few = ["--head", "trec2019", "--collection", "mtlrank-embedded/test", "--queries", "3", "--candidates", "4"]
    found = run("long_documents", str(model), *few, "--passages", "1", "3")
    assert "12 documents of 3 queries; the passage alone: nDCG@10" in found
    assert re.search(r"in 1 passage: .* \(\+0.0000\), .* 1.00 x the time", found)
    assert "in 3 passages: nDCG@10" in found
