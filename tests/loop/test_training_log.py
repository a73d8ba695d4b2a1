import math
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch

from mtlrank import train
from mtlrank.batch import MTLBatch, Step
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.loss import ExampleMean
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.model.body import MTLBody
from mtlrank.model.head import Linear
from mtlrank.model.head.pooler import Average
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.task import Regression
from tests.batches import batch
from tests.loop.runs import run_until, settings

SHORT = ["tasks=[msm_ner]", "datamodule.train_sampler.limits={msm_ner: 60}", "training.epochs=1", "test=false"]


def test_the_loss_beside_the_progress_is_a_mean_that_forgets():
    """After losses of 1 and 3: (3 + .98) / (1 + .98); one that is not finite does not count."""
    losses = iter([math.nan, 1.0, 3.0, math.inf])

    class Given(ExampleMean):
        def forward(self, losses_of_tasks, drawn):
            return super().forward(losses_of_tasks, drawn) * 0 + next(losses)

    body = MTLBody("mtlrank-embedded/tiny-bert", pretrained=False)
    model = MultiTaskModel(body, {"x": Linear(body.out_dim, body.num_layers, 1, Average)})
    dataset = SimpleNamespace(name="x", task=Regression(["MSE"]))
    loop = MultiTaskLoop(
        model, {"x": dataset}, Given, torch.optim.AdamW, torch.optim.lr_scheduler.StepLR, total_steps=4
    )
    shown = []
    for _ in range(4):
        loop.training_step(MTLBatch({"x": batch([3])}, {"x": 1}, 1.0, 0, Step({"x": 1})), 0)
        shown.append(loop.training_log.recent_loss)
    assert shown[1:] == pytest.approx([1.0, 3.98 / 1.98, 3.98 / 1.98])
    assert math.isnan(shown[0])


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_logged_losses_and_norms_are_means_over_all_steps_since_the_last_line(data_dir, tmp_path):
    each = logged(data_dir, tmp_path / "each", 1)
    mean = logged(data_dir, tmp_path / "mean", 4)
    for key in ("train/loss", "train/grad_norm"):
        assert [step for step, _ in each[key]] == list(range(1, 9))
        assert [step for step, _ in mean[key]] == [4, 8]
        for step, value in mean[key]:
            assert value == pytest.approx(fmean(dict(each[key])[i] for i in range(step - 3, step + 1)), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", ["uncertainty", pytest.param("gradnorm", marks=pytest.mark.slow)])
def test_a_run_that_goes_on_logs_what_an_undisturbed_one_logs(data_dir, tmp_path, loss):
    """Also what was not due to be logged when it was stopped, and what dropout changes: gradients that are watched."""
    more = [f"loop/loss={loss}", "training.epochs=1", "loop.diagnose_every_n_steps=2"]
    whole, stopped = (settings(data_dir, tmp_path / name, *more) for name in ("whole", "stopped"))
    train.run(whole)
    run_until(stopped, 7)
    train.run(stopped)
    curves = read_curves(tmp_path / "whole")
    assert read_curves(tmp_path / "stopped") == curves
    assert {"train/loss", "train/msm_ner/weight", "diagnostics/msm_ner/gradient_norm"} <= set(curves)
    assert [step for step, _ in curves["train/loss"]][:2] == [4, 8]  # at each checkpoint


def logged(data_dir, output, every):
    train.run(settings(data_dir, output, *SHORT, f"trainer.log_every_n_steps={every}"))
    return read_curves(output)
