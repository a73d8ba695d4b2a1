"""Steps that are not finite: which are skipped, and what is said of them."""

import pytest
import torch

from mtlrank.errors import DivergedError
from mtlrank.loop import finite_steps
from mtlrank.loop.finite_steps import FiniteSteps, Learnt, gradient_norm

GOOD = Learnt(1, [("a", torch.tensor([1.0, 2.0]), torch.tensor([5, 7]))])
BAD = Learnt(2, [*GOOD.losses, ("b", torch.tensor([0.5, float("nan")]), torch.tensor([1, 3]))])


def a_weight(gradient):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor(gradient)
    return weight


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_step_changes_nothing_and_the_next_one_learns(capsys, fused, value):
    weight = a_weight([1.0, value])
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    guard = FiniteSteps(1, "{} {}".format)
    guard.check(gradient_norm([weight], 1.0), optimizer, BAD)
    optimizer.step()
    assert weight.tolist() == [0, 0]
    assert "step 2 is not finite: 1 of 2 losses of 'b' (b 3); the step is skipped (1 of 1)" in capsys.readouterr().err
    weight.grad = torch.ones(2)
    guard.check(gradient_norm([weight], None), optimizer, GOOD)
    optimizer.step()
    assert bool((weight < 0).all())
    weight.grad = torch.full((2,), value)
    with pytest.raises(DivergedError, match="bad step 2, but training.max_bad_steps is 1"):
        guard.check(gradient_norm([weight], None), optimizer, BAD)


NEVER = "The losses of 'b' were never finite: look for NaN in its head, its loss and its labels"


def test_what_another_process_has_found_is_told_once(monkeypatch, capsys):
    """Its losses are the reason, not the gradients that both have averaged."""
    for process in (0, 1):
        monkeypatch.setattr(finite_steps, "rank", lambda process=process: process)
        monkeypatch.setattr(finite_steps, "of_all_processes", lambda found: [found, ["1 of 2 losses of 'c' (c 7)"]])
        weight = a_weight([float("nan"), 0.0])
        weight.grad = torch.full((2,), float("nan"))
        guard = FiniteSteps(1, lambda name, sample: f"{name} {sample}")
        guard.check(gradient_norm([weight], None), torch.optim.SGD([weight], lr=1.0), GOOD)
    told = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert told == ["mtlrank: step 1 is not finite: 1 of 2 losses of 'c' (c 7); the step is skipped (1 of 1)"]


def test_a_task_whose_losses_were_never_finite_is_told():
    weight = a_weight([float("nan"), 0.0])
    optimizer = torch.optim.SGD([weight], lr=1)
    worse = Learnt(2, [*GOOD.losses, ("b", torch.full((2,), float("nan")), torch.tensor([1, 3]))])

    def bad_steps(guard, learnt):
        assert not guard.never_finite("b")
        for _ in range(2):
            weight.grad = torch.full((2,), float("nan"))
            guard.check(gradient_norm([weight], 1.0), optimizer, learnt)

    for learnt, known, said in ((worse, {"a"}, NEVER), (worse, {"b"}, "Lower loop"), (BAD, set(), "Lower loop")):
        guard = FiniteSteps(1, "{} {}".format)
        guard.known = known
        with pytest.raises(DivergedError, match=rf"Checkpoints are from before it\. {said}"):
            bad_steps(guard, learnt)
        assert bool(guard.never_finite("b")) is (said == NEVER)
        assert not guard.never_finite("a")


def test_that_all_steps_were_skipped_is_an_error():
    weight = a_weight([float("nan"), 0.0])
    guard = FiniteSteps(5, "{} {}".format)
    guard.require_some(0)
    for step in (1, 2):
        weight.grad = torch.full((2,), float("nan"))
        guard.check(gradient_norm([weight], 1.0), torch.optim.SGD([weight], lr=1), GOOD._replace(step=step))
    with pytest.raises(DivergedError, match="Nothing was learnt: all 2 steps so far were skipped"):
        guard.require_some(2)
    guard.require_some(3)


def test_gradients_that_overflow_from_finite_losses_are_told_by_task(capsys):
    weight = a_weight([float("inf"), 0.0])
    guard = FiniteSteps(5, "{} {}".format)
    guard.check(gradient_norm([weight], 1.0), torch.optim.SGD([weight], lr=1), GOOD)
    assert "is not finite: the gradients of a, not the losses" in capsys.readouterr().err


def test_an_optimizer_that_is_told_so_skips_by_itself():
    """What a GPU's fused optimizer is handed; the kernels for a CPU understand it too."""
    weight = a_weight([float("nan"), 1.0])
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert weight.tolist() == [0, 0]
    weight.grad, optimizer.found_inf = torch.ones(2), torch.zeros(())
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.full((2,), -0.1))


def test_norms_by_hand():
    weight = a_weight([3.0, 4.0])
    assert gradient_norm([weight, torch.nn.Parameter(torch.zeros(1))], None).item() == pytest.approx(5)
    assert weight.grad.tolist() == [3, 4]
    assert gradient_norm([weight], 1.0).item() == pytest.approx(5)
    assert weight.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-5)
