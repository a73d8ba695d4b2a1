"""Combining gradients in real training, and looking at them."""

import csv
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtlrank import train
from mtlrank.errors import ConfigError
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.finite_steps import FiniteSteps
from mtlrank.loop.gradients import TaskGradients
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import PlainProgress
from tests.loop import runs

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own

SHORT = ["training.epochs=1", "training.val_checks_per_epoch=1", "model.heads.trec2019.dropout=0.0"]


def weights(output):
    return runs.content(output)["state_dict"]


def trained(data_dir, output, *more):
    train.run(runs.settings(data_dir, output, *SHORT, *more))
    return weights(output)


def test_the_mean_of_gradients_is_the_gradient_of_the_mean(data_dir, tmp_path):
    """Passes for each task by itself learn what the common pass does."""
    common = trained(data_dir, tmp_path / "common", "loop/loss=task_mean")
    apart = trained(data_dir, tmp_path / "apart", "loop/loss=aggregated", "loop.loss.aggregator=Mean")
    for name, weight in common.items():
        torch.testing.assert_close(apart[name], weight, atol=2e-3, rtol=1e-2, msg=name)


def test_gradients_add_up_over_accumulated_batches(data_dir, tmp_path):
    more = ["trainer.accumulate_grad_batches=2"]
    common = trained(data_dir, tmp_path / "common", "loop/loss=task_mean", *more)
    apart = trained(data_dir, tmp_path / "apart", "loop/loss=aggregated", "loop.loss.aggregator=Mean", *more)
    for name, weight in common.items():
        torch.testing.assert_close(apart[name], weight, atol=2e-3, rtol=1e-2, msg=name)


def test_a_head_that_tasks_share_learns_from_both(data_dir, tmp_path):
    more = ["tasks=[msm_bm25,msm_sem_sim]", "model/heads@model.heads.msm_sem_sim=shared"]
    more += ["model.heads.msm_sem_sim.of=msm_bm25", "model.heads.msm_bm25.dropout=0.0"]
    more += ["datamodule.train_sampler.limits={msm_bm25: 60, msm_sem_sim: 60}"]
    common = trained(data_dir, tmp_path / "common", "loop/loss=task_mean", *more)
    apart = trained(data_dir, tmp_path / "apart", "loop/loss=aggregated", "loop.loss.aggregator=Mean", *more)
    for name, weight in common.items():
        torch.testing.assert_close(apart[name], weight, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.parametrize("loss", ["task_mean", "upgrad"])
def test_a_shorter_last_step_is_the_mean_of_its_batches(data_dir, tmp_path, loss):
    """An epoch of 15 batches in one step, whether 15 or 60 batches would make a step."""
    more = [f"loop/loss={loss}", "loop/optimizer=sgd", "loop.optimizer.lr=0.1", "trainer.gradient_clip_val=null"]
    exact, short = (
        trained(data_dir, tmp_path / str(batches), *more, f"trainer.accumulate_grad_batches={batches}")
        for batches in (15, 60)
    )
    for name, weight in exact.items():
        torch.testing.assert_close(short[name], weight, atol=1e-6, rtol=1e-4, msg=name)


FEW, MORE = ("example_mean", "static_weights", "upgrad"), ("task_mean", "uncertainty", "random_weights", "gradnorm")
LOSSES = [*FEW, *(pytest.param(loss, marks=pytest.mark.slow) for loss in MORE)]


@pytest.mark.parametrize("loss", LOSSES)
def test_accumulated_batches_are_learnt_as_one_batch_of_all_their_samples(data_dir, tmp_path, loss):
    """However unevenly tasks are spread over the batches, and though the last one of an epoch is shorter."""
    more = [f"loop/loss={loss}", "loop/optimizer=sgd", "loop.optimizer.lr=0.1", "trainer.gradient_clip_val=null"]
    more += ["datamodule.train_sampler.limits={trec2019: 50, msm_ner: 7}", "model.body.dropout=0.0"]
    more += ["model.heads.msm_ner.dropout=0.0"]
    if loss == "static_weights":
        more += ["loop.loss.weights={msm_ner: 3}"]
    more += ["trainer.log_every_n_steps=1"]
    whole, parts = (
        trained(data_dir, tmp_path / size, *more, f"training.batch_size={size}", f"trainer.accumulate_grad_batches={k}")
        for size, k in (("30", 1), ("3", 10))
    )
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-6, rtol=1e-4, msg=name)
    curves, of_parts = (read_curves(tmp_path / size) for size in ("30", "3"))
    for key in ("train/loss", "train/msm_ner/loss"):
        assert len(curves[key]) > 1
        assert of_parts[key] == [(step, pytest.approx(value, rel=1e-4)) for step, value in curves[key]]


def test_layers_that_a_batch_does_not_reach_rest_as_in_the_common_pass(data_dir, tmp_path):
    """Batches of two samples often lack the deep head; Adam's momentum and decay must not move what it alone reads."""
    more = ["training.batch_size=2", "model.heads.msm_ner.pooler.layers=[1]", "loop.optimizer.weight_decay=0.5"]
    more += ["datamodule.train_sampler.limits={trec2019: 10, msm_ner: 30}"]
    common = trained(data_dir, tmp_path / "common", "loop/loss=task_mean", *more)
    apart = trained(data_dir, tmp_path / "apart", "loop/loss=aggregated", "loop.loss.aggregator=Mean", *more)
    for name, weight in common.items():
        torch.testing.assert_close(apart[name], weight, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.parametrize("words", [["loop/loss=task_mean"], ["loop/loss=aggregated", "loop.loss.aggregator=Mean"]])
def test_a_step_moves_nothing_that_it_does_not_reach(data_dir, tmp_path, monkeypatch, words):
    """To the bit, whatever momentum and decay there is."""
    rested = []

    def before(self, batch, batch_idx):
        self.resting = [(weight, weight.detach().clone()) for weight in self.model.idle(batch.tasks)]

    def after(self, outputs, batch, batch_idx):
        rested.extend(torch.equal(weight, old) for weight, old in self.resting)

    monkeypatch.setattr(MultiTaskLoop, "on_train_batch_start", before)
    monkeypatch.setattr(MultiTaskLoop, "on_train_batch_end", after)
    more = ["training.batch_size=2", "model.heads.msm_ner.pooler.layers=[1]", "loop.optimizer.weight_decay=0.5"]
    more += ["datamodule.train_sampler.limits={trec2019: 10, msm_ner: 30}"]
    trained(data_dir, tmp_path, *words, *more)
    assert len(rested) > 20
    assert all(rested)


SLOW = (pytest.param(loss, marks=pytest.mark.slow) for loss in ("gradnorm", "dwa", "uncertainty", "random_weights"))


@pytest.mark.parametrize("loss", ["upgrad", *SLOW])
def test_a_run_that_was_stopped_goes_on_to_the_bit(data_dir, tmp_path, loss):
    eight_steps = "datamodule.train_sampler.limits={trec2019: 32, msm_ner: 32}"  # an epoch
    words = [f"loop/loss={loss}", "training.epochs=3", eight_steps]
    train.run(runs.settings(data_dir, tmp_path / "whole", *SHORT, *words))
    runs.run_until(runs.settings(data_dir, tmp_path / "stopped", *SHORT, *words), 15)
    train.run(runs.settings(data_dir, tmp_path / "stopped", *SHORT, *words))
    runs.assert_same(runs.content(tmp_path / "whole"), runs.content(tmp_path / "stopped"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["upgrad", "pcgrad", "mgda", "cagrad", "gradnorm"])
def test_gradients_are_combined_in_full_precision_whatever_the_body_computes_in(data_dir, tmp_path, loss):
    words = [
        f"loop/loss={loss}",
        "trainer.precision=bf16-mixed",
        "+trainer.limit_train_batches=4",
        "loop.diagnose_every_n_steps=2",
    ]
    found = trained(data_dir, tmp_path, *words)
    assert all(weight.isfinite().all() for weight in found.values() if weight.is_floating_point())


class Questions(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: numbers out of tensors, and shapes that depend on values."""

    asked = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        is_masked = function is torch.ops.aten.index.Tensor and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        aten = torch.ops.aten
        self.asked += is_masked or function in (aten._local_scalar_dense.default, aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_questions_are_counted():
    for ask in (float, bool, torch.Tensor.item, torch.nonzero, lambda one: one[one > 0]):
        with Questions() as questions:
            ask(torch.ones(1))
        assert questions.asked == 1, ask


@pytest.mark.parametrize("loss", ["example_mean", "dwa", "uncertainty", "random_weights"])
def test_a_step_asks_a_device_for_nothing(data_dir, tmp_path, monkeypatch, loss):
    """On a GPU each question would wait for all work that is queued."""
    asked = []
    questions = Questions()
    monkeypatch.setattr(MultiTaskLoop, "on_train_batch_start", lambda *_: questions.__enter__() and None)
    monkeypatch.setattr(PlainProgress, "on_train_batch_end", lambda *_: questions.__exit__(None, None, None))
    monkeypatch.setattr(FiniteSteps, "check", lambda _, norm, *rest: asked.append(norm))  # asks a GPU one step later
    trained(data_dir, tmp_path, f"loop/loss={loss}", "+trainer.limit_train_batches=6", "trainer.log_every_n_steps=100")
    assert (questions.asked, len(asked)) == (0, 6)


def test_looking_at_gradients_changes_nothing(data_dir, tmp_path):
    more = ["training.batch_size=16", "datamodule.train_sampler.limits={trec2019: 120, msm_ner: 120}"]  # both in each
    plain = trained(data_dir, tmp_path / "plain", *more)
    watched = trained(data_dir, tmp_path / "watched", *more, "loop.diagnose_every_n_steps=5")
    runs.assert_same(plain, watched)
    (log,) = (tmp_path / "watched" / "logs").glob("attempt_*/metrics.csv")
    with log.open() as file:
        rows = [row for row in csv.DictReader(file) if row["diagnostics/trec2019/gradient_norm"]]
    assert [int(row["step"]) for row in rows] == [0, 5, 10]
    assert all(-1 <= float(row["diagnostics/trec2019~msm_ner/gradient_cosine"]) <= 1 for row in rows)
    assert float(rows[-1]["diagnostics/trec2019/examples"]) + float(rows[-1]["diagnostics/msm_ner/examples"]) == 160


def test_weights_of_tasks_are_learnt_at_their_rate_by_any_optimizer(data_dir, tmp_path):
    """Adafactor's steps are relative to a weight's size, and these weights begin at 0."""
    for optimizer in ("adamw", "adafactor"):
        learnt = trained(data_dir, tmp_path / optimizer, "loop/loss=uncertainty", f"loop/optimizer={optimizer}")
        moved = [float(weight.abs()) for name, weight in learnt.items() if "log_variances" in name]
        assert len(moved) == 2
        assert max(moved) > 0.02, optimizer


def test_updates_that_begin_at_zero_are_refused_with_adafactor(data_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"would hardly learn\. Use loop/optimizer=adamw"):
        trained(data_dir, tmp_path / "out", "model.body.lora={rank: 4}", "loop/optimizer=adafactor")


def test_momentum_in_one_kernel_is_refused_as_a_step_may_lack_a_task(data_dir, tmp_path):
    words = ["loop.optimizer._target_=torch.optim.SGD", "+loop.optimizer.momentum=0.9"]
    with pytest.raises(ConfigError, match=r"Set loop.optimizer.fused=false"):
        train.run(runs.settings(data_dir, tmp_path, *words))


def test_norms_and_cosines_by_hand():
    """The second task does not reach the second weight: it takes no part in their cosine."""
    body = {"a": [torch.tensor([3.0, 0.0]), torch.tensor([4.0])], "b": [torch.tensor([1.0, 1.0]), None]}
    found = TaskGradients({}, body, {})
    assert {name: norm.item() for name, norm in found.norms().items()} == pytest.approx({"a": 5, "b": 2**0.5})
    assert found.cosines()["a", "b"].item() == pytest.approx(0.5**0.5)


def test_a_gradient_of_zero_has_no_direction():
    body = {"a": [torch.tensor([3.0, 0.0])], "b": [torch.zeros(2)], "c": [torch.tensor([1e-15, 0.0])]}
    found = {pair: cosine.item() for pair, cosine in TaskGradients({}, body, {}).cosines().items()}
    assert found["a", "c"] == pytest.approx(1)
    assert math.isnan(found["a", "b"])
    assert math.isnan(found["b", "c"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.devices=2", "several processes average gradients"),
        ("training.one_task_per_batch=true", "a step has one task"),
    ],
)
def test_what_gradients_cannot_be_combined_with_is_refused(data_dir, tmp_path, setting, message):
    words = ["loop/loss=upgrad", "loop.optimizer.fused=false", setting]
    with pytest.raises(ConfigError, match=message):
        train.run(runs.settings(data_dir, tmp_path, *words))
