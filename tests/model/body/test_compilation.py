"""Compiled layers compute what they computed before."""

import copy
import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel

from mtlrank.errors import ConfigError
from mtlrank.model.body import Part
from tests.batches import batch
from tests.model.body.test_body import CONFIGS, LENGTHS, body, encode

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
FAMILIES = ["bert", "distilbert", "modernbert"]  # those that have layers of their own kind


def save(kind, folder):
    torch.manual_seed(1)
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(folder)


def learnt(folder, is_compiled, **settings):
    """States and gradients of sequences that leave at different depths, in batches of different sizes."""
    model, found = body(folder, **settings), []
    if is_compiled:
        model.compile_layers()
    model.train()
    model.encoder.eval()  # no dropout
    for times in (1, 2, 3):
        lengths = [*LENGTHS[:2] * times, *LENGTHS[2:]]
        data = batch(lengths)
        deep = sum(LENGTHS[:2]) * times
        parts = [Part([2, 3], 2 * times, deep, True), Part([1], len(LENGTHS) - 2, sum(LENGTHS[2:]))]
        states = [state for part in encode(model, data, parts) for state in part]
        sum(state.square().sum() for state in states).backward()
        found += states
    return model, found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own
@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 4}}], ids=str)
@pytest.mark.parametrize("kind", FAMILIES)
def test_states_gradients_and_names_are_the_same(tmp_path, kind, settings):
    save(kind, tmp_path)
    torch.manual_seed(2)
    plain, states, gradients = learnt(tmp_path, False, **settings)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(2)
    model, compiled_states, compiled_gradients = learnt(tmp_path, True, **settings)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert model.state_dict().keys() == plain.state_dict().keys()
    for state, expected in zip(compiled_states, states, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)
    assert compiled_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], expected, atol=1e-3, rtol=1e-4, msg=name)


def test_layers_that_are_not_known_are_not_compiled(tmp_path):
    save("mpnet", tmp_path)
    model = body(tmp_path)
    with pytest.raises(ConfigError, match=r"training.compile .* \(mpnet\) are not known. Expected false."):
        model.compile_layers()


def test_layers_that_run_again_in_the_backward_pass_are_not_compiled(tmp_path):
    save("bert", tmp_path)
    with pytest.raises(
        ConfigError, match="training.compile and model.body.activation_checkpointing exclude each other"
    ):
        body(tmp_path, activation_checkpointing=True).compile_layers()


@pytest.mark.slow
def test_a_machine_that_cannot_compile_says_so_before_anything_is_prepared(tmp_path):
    command = [sys.executable, "-m", "mtlrank.train", "training.compile=true"]
    words = [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'run'}"]
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert line.startswith("mtlrank: training.compile needs a C++ compiler")
    assert "no-such-compiler" in line
    assert "training.compile=false" in line
    assert not (tmp_path / "data").exists()
