"""Compiled layers compute what they computed before."""

import copy
import signal
import sys

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F
from transformers import AutoModel

from mtlrank.errors import ConfigError, ResourceError, TerminatedError
from mtlrank.inference.scoring import to_device
from mtlrank.model.body import Part, attention
from mtlrank.model.body.compilation import compile_errors, compiled
from tests.batches import batch
from tests.loop.runs import finish
from tests.marks import needs_compiler
from tests.model.body.test_body import CONFIGS, LENGTHS, body, encode, total

CPU = torch.device("cpu")
WITH_KERNEL = ["bert", "distilbert", "modernbert", "qwen3"]  # families that have layers of their own kind
FAMILIES = [*WITH_KERNEL, "deberta-v2"]  # whose attention is no part of what is compiled


def save(kind, folder):
    torch.manual_seed(1)
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(folder)


def learnt(folder, compile_layers=None, device=CPU, **settings):
    """A body and the states of sequences that leave at different depths, of batches of different sizes.

    Also how many graphs were compiled up to each batch. The gradients of all are added up. On a GPU all is in bf16.
    """
    torch.manual_seed(2)
    model, found, graphs = body(folder, **settings).to(device), [], []
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    if compile_layers:
        compile_layers(model)
    model.train()
    model.encoder.eval()  # no dropout
    counters.clear()
    for times in (1, 2, 3):
        data = to_device(batch([*LENGTHS[:2] * times, *LENGTHS[2:]]), device)
        parts = [Part([2, 3], 2 * times, 10 * times, "first"), Part([1], 2, 17)]
        with torch.autocast(device.type, torch.bfloat16, enabled=device != CPU):
            states = [state.float().cpu() for part in encode(model, data, parts) for state in part]
        total(states).backward()
        found += states
        graphs.append(counters["stats"]["unique_graphs"])
    return model, found, graphs


def on_cpu(model):
    model.compile_layers(CPU)


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own
@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 4}}], ids=str)
@pytest.mark.parametrize("kind", FAMILIES)
def test_states_gradients_and_names_are_the_same(tmp_path, kind, settings):
    save(kind, tmp_path)
    plain, states, _ = learnt(tmp_path, **settings)
    model, compiled_states, graphs = learnt(tmp_path, on_cpu, **settings)
    assert graphs[0] > 2
    assert graphs[1] == graphs[2]  # one size more compiles nothing
    assert model.state_dict().keys() == plain.state_dict().keys()
    for state, expected in zip(compiled_states, states, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)
    found = {name: weight.grad for name, weight in model.named_parameters()}
    for name, weight in plain.named_parameters():
        assert (found[name] is None) == (weight.grad is None)
        if weight.grad is not None:
            torch.testing.assert_close(found[name], weight.grad, atol=1e-4, rtol=1e-4, msg=name)
    learning = [weight.grad for layer in plain.layers for weight in layer.parameters() if weight.grad is not None]
    assert sum(float(gradient.abs().max()) > 0.01 for gradient in learning) > len(learning) / 2


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_layers_share_what_is_compiled(tmp_path):
    """Another layer of the same kind compiles nothing."""
    graphs = []
    for layers in (2, 3):
        config = copy.deepcopy(CONFIGS["bert"])
        config.num_hidden_layers = layers
        AutoModel.from_config(config).save_pretrained(tmp_path)
        model = body(tmp_path)
        model.compile_layers(CPU)
        model.train()
        counters.clear()
        total(encode(model, batch(LENGTHS), [Part([layers], 4, sum(LENGTHS))])[0]).backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0


def masked_attention(q, k, v, ends, _, longest, __, scale=None, window_size=(-1, -1)):
    """What the kernel on GPUs computes: (tokens, heads, head size)."""
    numbers = torch.arange(len(q))
    sequences = torch.bucketize(numbers, ends[1:], right=True)
    mask = sequences[:, None] == sequences
    before = numbers[:, None] - numbers
    for distance, most in zip((before, -before), window_size, strict=True):
        mask = mask & (distance <= most) if most >= 0 else mask
    q, k, v = (states.transpose(0, 1) for states in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own
@pytest.mark.parametrize("kind", WITH_KERNEL)
def test_attention_by_a_kernel_is_part_of_a_compiled_layer(tmp_path, kind, monkeypatch):
    """Torch raises where a layer is more than one graph."""
    save(kind, tmp_path)
    plain, states, _ = learnt(tmp_path)
    monkeypatch.setattr(attention, "_has_kernel", lambda *_: True)
    monkeypatch.setattr(attention, "varlen_attn", masked_attention)

    def compile_layers(model):
        model._compiled[True] = torch.compile(model.family.run, dynamic=True, fullgraph=True, backend="aot_eager")

    torch._dynamo.reset()
    model, compiled_states, graphs = learnt(tmp_path, compile_layers)
    assert graphs[0] > 0
    assert graphs[1] == graphs[2]
    torch.testing.assert_close(compiled_states, states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(model), gradient(plain), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", WITH_KERNEL)
def test_a_gpu_in_half_precision_computes_the_same_compiled(tmp_path, kind):
    save(kind, tmp_path)
    gpu = torch.device("cuda", 0)
    plain, states, _ = learnt(tmp_path, device=gpu)
    model, compiled_states, graphs = learnt(tmp_path, lambda model: model.compile_layers(gpu), gpu)
    assert graphs[0] > 0
    assert graphs[1] == graphs[2]
    assert not counters["graph_break"]  # attention is part of the layer
    torch.testing.assert_close(compiled_states, states, atol=0.05, rtol=0.05)
    assert (gradient(model) - gradient(plain)).norm() < 0.02 * gradient(plain).norm()


def gradient(model):
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_layers_are_compiled_for_training_or_for_scoring(tmp_path):
    save("bert", tmp_path)
    model, data = body(tmp_path), batch(LENGTHS)
    graphs = {}
    for scoring in (False, True):
        model._compiled.clear()
        model.compile_layers(CPU, scoring=scoring)
        for training in (False, True):
            counters.clear()
            encode(model.train(training), data, [Part([1], 4, sum(LENGTHS))])
            graphs[scoring, training] = counters["stats"]["unique_graphs"]
    assert graphs[False, True] > 0
    assert graphs[True, False] > 0
    assert graphs[False, False] == graphs[True, True] == 0


def test_layers_that_are_not_known_are_not_compiled(tmp_path):
    save("mpnet", tmp_path)
    model = body(tmp_path)
    with pytest.raises(ConfigError, match=r"training.compile .* \(mpnet\) are not known: expected false."):
        model.compile_layers(CPU)
    with pytest.raises(ConfigError, match=r"^compile .* \(mpnet\) are not known: expected false."):
        model.compile_layers(CPU, scoring=True)


def test_layers_that_run_again_in_the_backward_pass_are_not_compiled(tmp_path):
    save("bert", tmp_path)
    with pytest.raises(
        ConfigError, match="training.compile and model.body.activation_checkpointing exclude each other"
    ):
        body(tmp_path, activation_checkpointing=True).compile_layers(CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        (None, "No working C++ compiler found"),
        (
            "#!/bin/sh\n[ $1 = --version ] && exec g++ $*\necho x.h:1:2: fatal error: no Python.h; exit 1\n",
            "fatal error",
        ),
    ],
    ids=["none", "broken"],
)
def test_a_machine_that_cannot_compile_says_so_before_anything_is_prepared(tmp_path, compiler, said):
    path = tmp_path / "compiler"
    if compiler is not None:
        path.write_text(compiler)
        path.chmod(0o755)
    settings = ["training.compile=true", "trainer.accelerator=cpu", f"data_dir={tmp_path / 'data'}"]
    environment = {"CXX": str(path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    code, stderr = finish(*settings, f"output_dir={tmp_path / 'run'}", env=environment)
    assert code == 6
    (line,) = stderr.splitlines()
    assert line.startswith("mtlrank: training.compile is true, but torch cannot compile here: ")
    assert said in line
    assert "training.compile=false" in line
    assert not (tmp_path / "data").exists()


@needs_compiler
@pytest.mark.filterwarnings("default")
def test_a_request_to_stop_while_something_is_compiled_stays_one(monkeypatch):
    def stop(*args):
        raise TerminatedError("stopped by SIGTERM")

    def compile_fx(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        torch._dynamo.reset()
        with pytest.raises(TerminatedError), compile_errors("training.compile"):
            torch.compile(lambda x: x + 1, backend=compile_fx)(torch.ones(2))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_python_that_torch_does_not_compile_for_is_named(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError(f"torch.compile is not supported on Python {sys.version_info.major}.99+")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ResourceError, match=r"cannot compile here: torch.compile is not supported on Python 3.99\+\."):
        compiled(torch.sin, CPU, "training.compile")
