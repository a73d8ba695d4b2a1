"""A run that is stopped anywhere goes on with the same command, and ends with the same weights to the bit."""

import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mtlrank import evaluate, train
from mtlrank.building.dataset import prepared_folder
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, ConflictError
from mtlrank.evaluation.curves import read_curves
from mtlrank.loop.checkpoints import Checkpoints
from mtlrank.loop.loss import DynamicWeightAverage
from mtlrank.loop.milestones import Milestones, Monitored, Plan
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.progress import PlainProgress
from mtlrank.loop.stopping import StopSignals
from mtlrank.storage import sole_user
from tests.loop.runs import assert_same, content, finish, run_until, settings, words
from tests.marks import needs_compiler

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
WAYS = {
    "plain": [],
    "accumulating": ["trainer.accumulate_grad_batches=2", "model.body.attention_dropout=0.1"],
    "round robin": ["datamodule/sampler@datamodule.train_sampler=round_robin", "+trainer.limit_train_batches=15"],
    "token budget": ["training.max_tokens=1250", "training.length_window=3"],
    "two validations": ["training.val_checks_per_epoch=2", "training.patience=1"],
    "worker process": ["datamodule.num_workers=1"],
    "compiled by gradients": ["training.compile=true", "loop/loss=gradnorm"],
}


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The metrics, folder and stream of batches of a run in one of the ways, made when it is first asked for."""
    made = {}

    def run(way):
        if way not in made:
            output = tmp_path_factory.mktemp("undisturbed")
            with pytest.MonkeyPatch.context() as patch:
                stream = record(patch)
                metrics = train.run(settings(data_dir, output, *WAYS[way]))
            made[way] = metrics, output, stream
        return made[way]

    return run


def record(patch):
    """The samples of every batch that is learnt from, by its number."""
    stream, step = {}, MultiTaskLoop.training_step

    def recorded(self, batch, batch_idx):
        stream[self.current_epoch, batch_idx] = {name: part.sample_ids.tolist() for name, part in batch.tasks.items()}
        return step(self, batch, batch_idx)

    patch.setattr(MultiTaskLoop, "training_step", recorded)
    return stream


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ("plain", [3, 15, 32]),
        pytest.param("accumulating", [5, 20], marks=pytest.mark.slow),
        pytest.param("plain", [1, 2, 4, 5, 14, 16, 30, 31, 44, 45], marks=pytest.mark.slow),
        pytest.param("round robin", [10], marks=pytest.mark.slow),
        pytest.param("token budget", [9], marks=pytest.mark.slow),
        pytest.param("two validations", [7, 8, 9], marks=pytest.mark.slow),
        pytest.param("worker process", [6], marks=pytest.mark.slow),
        pytest.param("compiled by gradients", [10], marks=[pytest.mark.slow, needs_compiler]),
    ],
)
def test_stopped_anywhere_it_ends_the_same(undisturbed, data_dir, tmp_path, monkeypatch, way, steps):
    """Stopped at each of the steps of one run in turn: before the first checkpoint, amid an epoch, at its end."""
    metrics, whole, stream = undisturbed(way)
    config = settings(data_dir, tmp_path, *WAYS[way])
    seen = record(monkeypatch)
    for step in steps:
        run_until(config, step)
    assert train.run(config) == metrics
    assert_same(content(tmp_path), content(whole))
    assert seen == stream


@needs_compiler
@pytest.mark.slow
def test_what_another_process_compiles_goes_on_the_same(data_dir, tmp_path):
    """With caches of their own, and dropout inside the compiled layers."""
    more = ["training.compile=true", "model.body.lora={rank: 4, dropout: 0.1}", "trainer.accelerator=cpu"]
    for name, env in (("whole", "a"), ("stopped", "b")):
        if name == "stopped":
            run_until(settings(data_dir, tmp_path / name, *more), 22)
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / env), "OMP_NUM_THREADS": str(torch.get_num_threads())}
        code, said = finish(*words(data_dir, tmp_path / name, *more), env=cache)
        assert code == 0, said
        assert ("resuming at epoch 2, step 19 (" in said) == (name == "stopped")
    assert_same(content(tmp_path / "whole"), content(tmp_path / "stopped"))


def test_it_says_where_it_goes_on(data_dir, tmp_path, monkeypatch, capsys):
    config = settings(data_dir, tmp_path)
    run_until(config, 22)
    capsys.readouterr()
    train.run({**config, "training": {**config["training"], "epochs": 3}})
    assert "resuming at epoch 2, step 19 (" in capsys.readouterr().err


def test_it_says_if_other_code_goes_on(data_dir, tmp_path, monkeypatch, capsys):
    config = settings(data_dir, tmp_path, "training.epochs=1")
    run_until(config, 8)
    train.run(config)
    monkeypatch.setenv("MTLRANK_COMMIT", "another")
    (tmp_path / "metrics.json").unlink()
    capsys.readouterr()
    train.run(config)
    assert re.search(
        r"was written by mtlrank .* and is continued by mtlrank \S+ commit another", capsys.readouterr().err
    )


def test_a_checkpoint_of_code_with_another_model_is_told_as_such(data_dir, tmp_path, monkeypatch):
    config = settings(data_dir, tmp_path, "training.epochs=1", "loop/loss=dwa")
    run_until(config, 5)
    made = DynamicWeightAverage.__init__

    def with_more(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.register_buffer("more", torch.zeros(1))

    monkeypatch.setattr(DynamicWeightAverage, "__init__", with_more)
    with pytest.raises(
        ConfigError, match=r"was written by mtlrank \S+ .* \(such as loss\.more\)\. Continue it with that"
    ):
        train.run(config)


OWN_LOSS = """
from mtlrank.loop.loss import ExampleMean


class Mine(ExampleMean):
    {}
"""


def test_own_code_that_was_changed_is_other_code(data_dir, tmp_path, monkeypatch, capsys):
    """In the pipeline it starts over; elsewhere it resumes and says so. mtlrank's own version and commit are the same."""
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "my_own_loss.py"
    own.write_text(OWN_LOSS.format('"""First."""'))
    config = settings(data_dir, tmp_path / "run", "training.epochs=1", "loop.loss._target_=my_own_loss.Mine")
    run_until(config, 8)
    config = select_tasks(config)
    prepared = {key: Path(prepared_folder(config, key)) for key in config["datamodule"]["dataset"]["datasets"]}
    steps = tmp_path / "steps"
    train.run_step({**config, "output_dir": str(tmp_path / "step")}, str(steps), prepared)
    own.write_text(OWN_LOSS.format('"""Second."""'))
    capsys.readouterr()
    train.run(config)
    assert re.search(
        r"by mtlrank .*, own classes \w+ and is continued by mtlrank .*, own classes", capsys.readouterr().err
    )
    train.run_step({**config, "output_dir": str(tmp_path / "again")}, str(steps), prepared)
    assert "resuming" not in capsys.readouterr().err
    assert len(list(steps.iterdir())) == 2
    own.write_text(OWN_LOSS.format('"""Third."""'))
    with pytest.raises(ConfigError, match="what it was made from has changed since: class my_own_loss.Mine"):
        train.run(config)


def test_checkpoints_of_another_run_are_refused(data_dir, tmp_path):
    """Else its weights would be taken for this run's."""
    shared = f"training.checkpoint_dir={tmp_path / 'shared'}"
    train.run(settings(data_dir, tmp_path / "a", "training.epochs=1", shared))
    other = settings(data_dir, tmp_path / "b", "training.epochs=1", shared, "loop.optimizer.lr=1e-3")
    with pytest.raises(
        ConfigError,
        match=r"shared .* another config \(it differs in 1 key: loop.optimizer.lr: .*Choose another training.check",
    ):
        train.run(other)
    assert not (tmp_path / "b" / "model").exists()
    train.run({**other, "force": True})
    assert (tmp_path / "b" / "model").exists()


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_epochs(data_dir, tmp_path, capsys):
    """At the rate of the longer schedule. Fewer epochs than are over are refused."""
    more = ["loop/schedule=linear_warmup", "training.patience=null", "trainer.log_every_n_steps=1"]
    train.run(settings(data_dir, tmp_path / "part", *more, "training.max_steps=20"))
    with pytest.raises(ConfigError, match=r"training.epochs is 1, but 2 have begun\. Expected at least 2\."):
        train.run(settings(data_dir, tmp_path / "part", *more, "training.epochs=1", "training.accept_changes=[epochs]"))
    train.run(settings(data_dir, tmp_path, *more, "training.epochs=1"))
    steps = content(tmp_path)["global_step"]
    longer = [*more, "training.epochs=3"]
    with pytest.raises(ConfigError, match=r"another config \(it differs in 1 key: training.epochs: 1 there, 3 now\)"):
        train.run(settings(data_dir, tmp_path, *longer))
    train.run(settings(data_dir, tmp_path, *longer, "training.accept_changes=[epochs]"))
    assert f"resuming at epoch 2, step {steps} (" in capsys.readouterr().err
    assert content(tmp_path)["global_step"] == 3 * steps
    train.run(settings(data_dir, tmp_path / "whole", *longer))
    rates, expected = (rates_of(folder) for folder in (tmp_path, tmp_path / "whole"))
    assert [step for step in expected if step > steps] == [step for step in rates if step > steps]
    assert all(rates[step] == rate for step, rate in expected.items() if step > steps)
    with pytest.raises(ConfigError, match=r"training.epochs is 2, but 3 have begun\. Expected at least 3\."):
        train.run(settings(data_dir, tmp_path, *more, "training.epochs=2", "training.accept_changes=[epochs]"))
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match="is finished, and its checkpoints are gone: it cannot go on"):
        train.run(settings(data_dir, tmp_path, *more, "training.epochs=4", "training.accept_changes=[epochs]"))


def rates_of(folder):
    """The learning rate at each step."""
    return dict(read_curves(folder)["lr"])


@pytest.mark.slow
def test_training_ends_after_a_number_of_steps(data_dir, tmp_path, capsys):
    """With a validation and a checkpoint, from which it can go on."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    metrics = train.run(settings(data_dir, whole, "training.max_steps=30"))
    assert content(whole)["global_step"] == 30
    assert any(key.startswith("val/") for key in metrics)
    run_until(settings(data_dir, parts, "training.max_steps=30"), 22)
    assert train.run(settings(data_dir, parts, "training.max_steps=30")) == metrics
    assert_same(content(parts), content(whole))
    capsys.readouterr()
    train.run(settings(data_dir, parts, "training.max_steps=32", "training.accept_changes=[epochs]"))
    assert "step 30 (" in capsys.readouterr().err
    assert content(parts)["global_step"] == 32
    with pytest.raises(ConfigError, match=r"training.max_steps is 31, but 32 are done\. Expected at least 32\."):
        train.run(settings(data_dir, parts, "training.max_steps=31", "training.accept_changes=[epochs]"))


def test_a_run_is_finished_although_nobody_reads_what_it_prints(data_dir, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise BrokenPipeError

    config = settings(data_dir, tmp_path, "training.epochs=1", "test=true")
    monkeypatch.setattr(train, "print_table", refuse)
    with pytest.raises(BrokenPipeError):
        train.run(config)
    capsys.readouterr()
    assert "test/msm_ner/Accuracy" in train.run(config)
    assert "already finished" in capsys.readouterr().err


def test_a_run_that_starts_over_logs_anew(data_dir, tmp_path):
    train.run(settings(data_dir, tmp_path, "training.epochs=2"))
    train.run(settings(data_dir, tmp_path, "training.epochs=1", "force=true"))
    assert [path.name for path in sorted((tmp_path / "logs").iterdir())] == ["attempt_2"]
    steps = content(tmp_path)["global_step"]
    assert max(step for points in read_curves(tmp_path).values() for step, _ in points) <= steps


def test_a_finished_run_is_not_run_again_unless_forced(undisturbed, data_dir, tmp_path, capsys):
    metrics, whole, _ = undisturbed("plain")
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    config = settings(data_dir, tmp_path)
    assert train.run(config) == metrics
    assert "already finished" in capsys.readouterr().err
    assert train.run({**config, "force": True}) == metrics
    assert "resuming" not in capsys.readouterr().err
    assert_same(content(tmp_path), content(whole))


def test_a_finished_run_needs_no_checkpoints(data_dir, tmp_path, capsys):
    metrics = train.run(settings(data_dir, tmp_path / "run", "training.epochs=1"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train.run(settings(data_dir, tmp_path / "run", "training.epochs=1")) == metrics
    assert "already finished" in capsys.readouterr().err
    judged = evaluate.run(
        compose_config([f"model_dir={tmp_path}/run", f"data_dir={data_dir}"], trusted=True, name="evaluate")
    )
    assert "test/trec2019/nDCG@10" in judged


def test_a_mistake_leaves_a_finished_run_finished(data_dir, tmp_path, capsys):
    metrics = train.run(settings(data_dir, tmp_path, "training.epochs=1"))
    with pytest.raises(ConfigError, match="training.monitor is 'val/typo'"):
        train.run(settings(data_dir, tmp_path, "training.epochs=1", "force=true", "training.monitor=val/typo"))
    assert train.run(settings(data_dir, tmp_path, "training.epochs=1")) == metrics
    assert "already finished" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "sole_user", partial(sole_user, patience=0.1))
    with sole_user(tmp_path), pytest.raises(ConflictError, match="Another process is working in .*output_dir"):
        train.run(settings(data_dir, tmp_path, "training.epochs=1"))
    assert not (tmp_path / "run.json").exists()
    train.run(settings(data_dir, tmp_path, "training.epochs=1"))


def test_of_two_runs_with_the_same_checkpoints_the_later_one_goes_on(data_dir, tmp_path, monkeypatch):
    """A clone of a run, or the retry of a pod that is only believed to be gone: neither removes what the other needs."""
    first, later = (
        settings(data_dir, tmp_path / name, f"training.checkpoint_dir={tmp_path / 'checkpoints'}", "training.epochs=2")
        for name in ("first", "later")
    )
    kept = []

    def overtake(self, trainer, *args):
        if trainer.global_step == 10 and not kept:
            kept.append({})
            train.run(later)
            kept[0] = contents(tmp_path / "checkpoints")

    monkeypatch.setattr(PlainProgress, "on_train_batch_end", overtake)
    with pytest.raises(
        ConflictError, match=r"A later process, on .*, trains the same run .* another training.checkpoint_dir"
    ):
        train.run(first)
    assert contents(tmp_path / "checkpoints") == kept[0]
    assert (tmp_path / "later" / "metrics.json").exists()
    assert not (tmp_path / "first" / "metrics.json").exists()


def contents(folder):
    """The files below a folder with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_best_weights_are_what_is_kept(undisturbed):
    from safetensors.torch import load_file

    from mtlrank.loop.checkpoints import Checkpoints

    metrics, output, _ = undisturbed("plain")
    checkpoints = Checkpoints(output / "checkpoints")
    assert len(checkpoints.all("best")) <= 2
    (best,) = (found for found in checkpoints.all("best") if checkpoints.read(found)["values"] == metrics)
    assert len(checkpoints.all("step")) == 2
    state = checkpoints.read(best)
    assert state["values"] == metrics
    saved = load_file(output / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], state["state_dict"][f"model.{name}"]) for name in saved)


@pytest.mark.parametrize(("max_steps", "place"), [(-1, 5), (100, 10)])
def test_the_place_in_the_schedule_is_counted_in_the_steps_of_this_number_of_processes(tmp_path, max_steps, place):
    """Ten of twenty steps of an epoch are five of ten on two processes. A number of steps is the same on any number."""

    class Twenty:
        def num_batches(self, split, world_size=1):
            return 20 // world_size

        def start_at(self, epoch, batches):
            pass

    settings = {"overfit_batches": 0, "limit_train_batches": None, "accumulate_grad_batches": 1, "max_steps": max_steps}
    trainer = SimpleNamespace(datamodule=Twenty(), world_size=2, **settings)
    milestones = Milestones(Checkpoints(tmp_path), Monitored(("x",), "AP"), StopSignals(), Plan(), {}, [])
    state = {**milestones.state_dict(), "step": 10, "batches": 10, "processes": 1}
    checkpoint = {"callbacks": {milestones.state_key: state}, "global_step": 10, "loops": {"fit_loop": {}}}
    checkpoint["lr_schedulers"] = [{"last_epoch": 10}]
    milestones.on_load_checkpoint(trainer, SimpleNamespace(total_steps=100), checkpoint)
    assert checkpoint["lr_schedulers"] == [{"last_epoch": place}]
