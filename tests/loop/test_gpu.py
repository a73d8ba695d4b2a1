"""Training in half precision: on a GPU where there is one, and what can be on a CPU."""

import pytest
import torch

from mtlrank import train
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import PlainProgress
from tests.loop.runs import content, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
HALF = ["trainer.precision=bf16-mixed", "training.epochs=2"]
TO_LEARN = ["training.batch_size=16", "datamodule.train_sampler.limits={trec2019: 120, msm_ner: 120}"]
DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("gpu", marks=pytest.mark.gpu)]
WAYS = {
    "plain": [],
    "activation checkpointing": ["model.body.activation_checkpointing=true", "model.body.attention_dropout=0.1"],
    "low rank": ["model.body.lora={rank: 4, dropout: 0.1}", "model.body.frozen_layers=1"],
    "separate layers": ["model.body.separate_layers=2"],
    "nondeterministic": ["trainer.deterministic=false"],
    "gradients": ["loop/loss=upgrad", "loop.diagnose_every_n_steps=3"],
    "another loss": ["loop/loss=dwa", "task@datamodule.dataset.datasets.trec2019.task=relevance_lambda"],
    "compiled": ["training.compile=true"],
    "full precision": ["trainer.precision=32-true"],
    "small floats": ["trainer.precision=16-mixed", "loop.optimizer.fused=false"],
}


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_learns_as_full_precision_does(data_dir, tmp_path, device):
    found = []
    for name, words in (("half", []), ("full", ["trainer.precision=32-true"])):
        more = [*HALF, *TO_LEARN, *words, f"trainer.accelerator={device}"]
        found.append(train.run(settings(data_dir, tmp_path / name, *more)))
    assert found[0] == pytest.approx(found[1], abs=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train_runs_on_a_gpu(data_dir, tmp_path, way):
    metrics = train.run(settings(data_dir, tmp_path, *HALF, *TO_LEARN, "trainer.accelerator=gpu", *WAYS[way]))
    assert metrics["val/msm_ner/Accuracy"] > 0.3
    weights = {name: weight for name, weight in content(tmp_path)["state_dict"].items() if name != "loss.before"}
    assert [name for name, weight in weights.items() if not weight.isfinite().all()] == []


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_goes_on_where_it_was_stopped(data_dir, tmp_path, device):
    """A GPU may add in another order; a CPU does not."""
    words = [*HALF, f"trainer.accelerator={device}"]
    train.run(settings(data_dir, tmp_path / "whole", *words))
    run_until(settings(data_dir, tmp_path / "stopped", *words), 20)
    train.run(settings(data_dir, tmp_path / "stopped", *words))
    whole, stopped = (content(tmp_path / name)["state_dict"] for name in ("whole", "stopped"))
    tolerance = {"atol": 2e-3, "rtol": 1e-2} if device == "gpu" else {"atol": 0, "rtol": 0}
    for name, weight in whole.items():
        torch.testing.assert_close(stopped[name], weight, **tolerance, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("loss", ["example_mean", "dwa", "uncertainty", "random_weights"])
def test_no_step_waits_for_the_gpu(data_dir, tmp_path, monkeypatch, loss):
    """Torch itself looks: from the start of a step to its end, nothing may wait for the device."""
    for where, hook, mode in (
        (MultiTaskLoop, "on_train_batch_start", "error"),
        (PlainProgress, "on_train_batch_end", "default"),  # a checkpoint, a validation may wait
    ):
        monkeypatch.setattr(where, hook, lambda *_, mode=mode: torch.cuda.set_sync_debug_mode(mode))
    words = [*HALF, f"loop/loss={loss}", "trainer.accelerator=gpu", "trainer.log_every_n_steps=1000"]
    try:
        assert train.run(settings(data_dir, tmp_path, *words))  # torch raises at the first wait
    finally:
        torch.cuda.set_sync_debug_mode("default")
