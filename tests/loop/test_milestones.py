"""What a validation measures, and that the weights which training starts from are judged too, if they are trained."""

import os
import re
import signal
import time
from statistics import fmean

import pytest
from safetensors.torch import load_file

from mtlrank import evaluate, prepare, train
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import TerminatedError
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.checkpoints import Checkpoint, Checkpoints
from mtlrank.loop.milestones import Milestones, Monitored, Plan
from mtlrank.loop.stopping import StopSignals
from mtlrank.storage import read_json
from tests.loop.runs import assert_same, content, finish, run_until, settings, words
from tests.saved_models import settings as settings_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
MONITORED = "val/trec2019/nDCG@10"
TOO_FAST = ["training.epochs=2", "loop.optimizer.lr=0.1"]
SAID = (
    r"kept the weights of step 0, the best by val/trec2019/nDCG@10 \(0\.\d+\): "
    "training did not improve on what it started from"
)


@pytest.fixture(scope="module")
def trained(data_dir, home, tmp_path_factory):
    """The words for a run that starts from a trained model, and what that reached."""
    output = tmp_path_factory.mktemp("trained")
    reached = train.run(settings(data_dir, output, "training.epochs=4"))
    return [f"model.start_from={output / 'model'}"], reached


@pytest.fixture(scope="module")
def whole(trained, data_dir, tmp_path_factory):
    """The folder of a run that makes the trained model worse, undisturbed."""
    output = tmp_path_factory.mktemp("worse")
    train.run(settings(data_dir, output, *trained[0], *TOO_FAST))
    return output


def validations(said):
    """The steps at which it validated."""
    return [int(step) for step in re.findall(r"^validation at step (\d+)", said, re.MULTILINE)]


@pytest.mark.parametrize(("whole", "accumulated"), [(13, 1), (26, 2), (25, 2), (37, 3)])
def test_validations_come_after_the_same_steps_whatever_is_accumulated(tmp_path, whole, accumulated):
    """13 steps, and three validations."""
    plan = Plan(val_checks_per_epoch=3)
    milestones = Milestones(Checkpoints(tmp_path), Monitored(("x/AP",), "AP"), StopSignals(), plan, {}, [])
    ends = [min(whole, step * accumulated) for step in range(1, 14)]
    due = [step for step, end in enumerate(ends, 1) if milestones._is_validation_due(end, whole, accumulated)]
    assert due == [4, 8, 13]


def test_a_validation_on_few_queries_measures_what_judging_finds_of_these_queries(data_dir, tmp_path, datasets):
    few = ["training.max_val_queries=7", "training.eval_batch_size=8", "training.epochs=1", "tasks=[trec2019]"]
    prepared = {"trec2019": data_dir / "trec2019"}
    limits = "datamodule.train_sampler.limits={trec2019: 60}"
    found = train.run(settings(data_dir, tmp_path / "run", *few, limits), prepared)
    evaluate.run(settings_of("evaluate", model_dir=tmp_path / "run" / "model", split="val"), prepared)
    folder = tmp_path / "run" / "evaluation-val" / "trec2019"
    assert read_json(folder / "metrics.json")["num_queries"] == 50
    drawn = {qrel.query_id for qrel in datasets["trec2019"].split("val").part(7).qrels}
    lines = [line.split("\t") for line in (folder / "per_query.tsv").read_text().splitlines()[1:]]
    values = [float(value) for query_id, measure, value, _ in lines if measure == "nDCG@10" and query_id in drawn]
    assert len(values) == 7
    assert found["val/trec2019/nDCG@10"] == pytest.approx(fmean(values), abs=1e-5)


def test_validation_tells_and_logs_losses_and_what_the_baselines_reach(data_dir, tmp_path, datasets, capsys):
    tasks = ["tasks=[msm_bm25,trec2019]", "datamodule.train_sampler.limits={msm_bm25: 60, trec2019: 60}"]
    train.run(settings(data_dir, tmp_path, *tasks, "training.epochs=1", "training.val_checks_per_epoch=2"))
    curves, labels = read_curves(tmp_path), datasets["msm_bm25"].manifest["labels"]
    errors = [(step, error / labels["std"] ** 2) for step, error in curves["val/msm_bm25/MSE"]]  # as they are learnt
    assert [step for step, _ in errors] == [7, 15]
    for found, expected in zip(curves["val/msm_bm25/loss"], errors, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert [step for step, _ in curves["val/trec2019/loss"]] == [7, 15]
    ((_, value), (_, again)), ((_, base), _) = curves["baseline/msm_bm25/MSE"], curves["baseline/trec2019/nDCG@10"]
    assert value == again
    said = capsys.readouterr().err
    reached = curves["val/msm_bm25/MSE"][0][1]
    first = f"validation at step 7\n  msm_bm25: MSE {reached:.4f} (training mean {value:.4f})  Pearson "
    assert first in said
    assert f"(first stage {base:.4f})  AP(rel=2) " in said


def test_a_trained_model_that_gets_worse_is_kept(trained, data_dir, tmp_path, capsys):
    start, reached = trained
    metrics = train.run(settings(data_dir, tmp_path, *start, *TOO_FAST))
    said = capsys.readouterr().err
    assert validations(said) == [0, 15, 30]
    assert len(re.findall(f"^{SAID}$", said, re.MULTILINE)) == 1
    assert re.fullmatch(SAID, "kept the weights of " + read_json(tmp_path / "about.json")["weights"])
    assert metrics == pytest.approx(reached)
    kept, expected = (
        load_file(f"{folder}/model.safetensors") for folder in (tmp_path / "model", start[0].partition("=")[2])
    )
    assert_same(kept, expected)
    curve = dict(read_curves(tmp_path)[MONITORED])
    assert curve[0] == metrics[MONITORED] > max(curve[15], curve[30])
    assert Checkpoints(tmp_path / "checkpoints").all("best") == [Checkpoint("best", 0)]


def test_one_that_gets_better_is_not_and_its_start_is_removed(trained, data_dir, tmp_path, capsys):
    metrics = train.run(settings(data_dir, tmp_path, *trained[0], "training.monitor=val/msm_ner/Accuracy"))
    said = capsys.readouterr().err
    assert metrics["val/msm_ner/Accuracy"] > trained[1]["val/msm_ner/Accuracy"]
    assert "kept the weights of step 0" not in said
    assert "training did not improve" not in said
    assert Checkpoint("best", 0) not in Checkpoints(tmp_path / "checkpoints").all("best")


def test_a_mean_of_measures_may_choose_the_weights(data_dir, tmp_path):
    names = ["trec2019/nDCG@10", "msm_ner/Accuracy"]
    monitor = f"training.monitor=[{','.join(f'val/{name}' for name in names)}]"
    config = settings(data_dir, tmp_path, monitor, "training.epochs=4", "training.patience=null")
    metrics, curves, key = train.run(config), read_curves(tmp_path), "val/(mean)/trec2019 nDCG@10, msm_ner Accuracy"
    for kind in ("val", "baseline"):
        parts = zip(*(curves[f"{kind}/{name}"] for name in names), strict=True)
        means = [(step, (first + second) / 2) for (step, first), (_, second) in parts]
        assert curves[key.replace("val", kind, 1)] == [(step, pytest.approx(mean)) for step, mean in means]
    best = max(curves[key], key=lambda point: point[1])
    assert metrics[key] == best[1] == pytest.approx(fmean(metrics[f"val/{name}"] for name in names))
    about = read_json(tmp_path / "about.json")
    assert about["chosen by"] == key
    assert about["weights"].startswith(f"step {best[0]}, the best by {key} ({best[1]:.4f})")
    assert train.objective(config, metrics) == metrics[key]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "What chooses the weights" in page
    assert "trec2019 nDCG@10, msm_ner Accuracy" in page


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "last"), [(0, 15), (1, 15), (2, 30)])
def test_the_start_is_no_validation_that_is_waited_for(trained, data_dir, tmp_path, patience, last, capsys):
    more = [f"training.patience={patience}", "training.epochs=3"]
    train.run(settings(data_dir, tmp_path, *trained[0], *TOO_FAST, *more))
    assert content(tmp_path)["global_step"] == last
    waited = "1 validation" if last == 15 else "2 validations"
    assert f"training stops at step {last}: {waited} without a better val/" in capsys.readouterr().err


def test_stopped_anywhere_it_ends_the_same_and_judges_its_start_once(trained, whole, data_dir, tmp_path, capsys):
    """But again if there was no checkpoint yet."""
    config, found = settings(data_dir, tmp_path, *trained[0], *TOO_FAST), []
    capsys.readouterr()
    for step in (3, 6, 22):
        run_until(config, step)
        found.append(validations(capsys.readouterr().err))
    train.run(config)
    assert [*found, validations(capsys.readouterr().err)] == [[0], [0], [15], [30]]
    assert_same(content(tmp_path), content(whole))
    assert read_json(tmp_path / "metrics.json") == read_json(whole / "metrics.json")


def test_training_is_the_same_with_a_validation_before_it(trained, whole, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(Milestones, "on_fit_start", lambda *_: None)
    train.run(settings(data_dir, tmp_path, *trained[0], *TOO_FAST))
    for part in ("state_dict", "optimizer_states"):
        assert_same(content(tmp_path)[part], content(whole)[part])


def test_sigterm_while_it_judges_its_start_leaves_nothing_half_done(trained, whole, data_dir, tmp_path, monkeypatch):
    validate, config = Milestones._validate, settings(data_dir, tmp_path, *trained[0], *TOO_FAST)

    def terminate(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        validate(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Milestones, "_validate", terminate)
        with pytest.raises(TerminatedError, match="the same command continues"):
            train.run(config)
    assert not Checkpoints(tmp_path / "checkpoints").all("step")
    train.run(config)
    assert_same(content(tmp_path), content(whole))


@pytest.mark.slow
def test_weights_with_which_a_run_starts_over_are_judged_too(data_dir, tmp_path, capsys):
    run_until(settings(data_dir, tmp_path), 44)
    over = settings(data_dir, tmp_path, *TOO_FAST, "training.accept_changes=[data]", "prepare.num_shards=2")
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / "run.json").unlink()
    capsys.readouterr()
    train.run(over)
    said = capsys.readouterr().err
    assert "starting over with the weights of" in said
    assert validations(said) == [0, 15, 30]
    assert re.search(SAID, said)


@pytest.mark.slow
def test_two_processes_judge_their_start_once(trained, data_dir, tmp_path):
    prepare.run(select_tasks(settings(data_dir, tmp_path)))
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "training.batch_size=4"]
    run = words(data_dir, tmp_path, *trained[0], *TOO_FAST, *two)
    code, said = finish(*run)
    assert code == 0, said
    assert validations(said) == [0, 15, 30]
    assert len(re.findall(SAID, said)) == 1
    kept, expected = (
        load_file(f"{folder}/model.safetensors") for folder in (tmp_path / "model", trained[0][0].partition("=")[2])
    )
    assert_same(kept, expected)


def test_a_new_head_is_not_judged_before_it_learns(trained, data_dir, tmp_path, capsys):
    """Although the body is trained: its first weights are random."""
    other = ["training.monitor=val/msm_ner/Accuracy", "model.heads.msm_ner.pooler.layers=[1]", "training.epochs=1"]
    train.run(settings(data_dir, tmp_path, *trained[0], *other))
    said = capsys.readouterr().err
    assert "new heads: msm_ner" in said
    assert validations(said) == [15]


@pytest.mark.parametrize(
    ("values", "baseline", "waited"),
    [([0, 0, 0], 0, 0), ([0, 0, 0.1, 0], 0, 1), ([0.3, 0.3, 0.2], 0, 2), ([0.5, 0.4], 0.5, 1), ([0.2, 0.2], None, 1)],
)
def test_a_model_that_still_predicts_a_constant_is_waited_for(tmp_path, monkeypatch, values, baseline, waited):
    monitored = Monitored(("a/EntityF1",), "EntityF1")
    milestones = Milestones(Checkpoints(tmp_path), monitored, StopSignals(), Plan(), {}, [])
    monkeypatch.setattr(milestones._agreement, "on_first", lambda write: None)
    for step, value in enumerate(values):
        milestones.values = {monitored.key: value}
        milestones.position = milestones.position._replace(step=step)
        milestones._keep_the_best(None, baseline)
    assert milestones.best.waited == waited


def test_the_time_of_earlier_attempts_counts(tmp_path):
    def attempt(started):
        parts = (Checkpoints(tmp_path), Monitored(("x",), "AP"), StopSignals(), Plan(), {}, [])
        return Milestones(*parts, started=time.time() - started)

    second = attempt(30)
    second.load_state_dict(attempt(100).state_dict())
    assert 130 <= second.seconds() < 190
