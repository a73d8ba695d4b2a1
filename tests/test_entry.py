"""Commands as they are typed: options, help, configs of one's own, sweeps."""

import os
import subprocess
import sys
from importlib.resources import files
from itertools import takewhile

import pytest
from omegaconf import OmegaConf

from mtlrank.cli import app
from mtlrank.storage import read_json

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
MODULES = [name for name in COMMANDS if files("mtlrank").joinpath(f"{name}.py").is_file()]


@pytest.mark.parametrize("name", ["train", "evaluate", "study", "rank", "predict", "export", "probe"])
def test_help_explains_every_setting(name):
    done = subprocess.run([sys.executable, "-m", f"mtlrank.{name}", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    config = OmegaConf.load(str(files("mtlrank.conf") / f"{name}.yaml"))
    for key in set(config) - {"defaults", "hydra"}:
        assert any(line.startswith(f"  {key}: ") or line == f"  {key}:" for line in lines), key
    assert f"{name} " in lines[0]  # how it is called
    assert {"--cfg", "--config-dir", "-m"} <= set(" ".join(lines[-3:]).split())
    assert ("loop/loss: " in done.stdout) == (name == "train")
    assert ("prepare --shard 3/8  # prepares" in done.stdout) == (name == "train")
    if name == "train":
        assert "  training: {batch_size: 16, epochs: 4}" in lines  # what the default experiment sets
        for key in (
            "trainer.precision",
            "loop.head_lr",
            "loop.optimizer.lr",
            "loop.schedule.warmup",
            "model.body.lora",
        ):
            part, _, setting = key.rpartition(".")
            start = next(number for number, line in enumerate(lines) if line.startswith(f"  {part}:  # "))
            settings = takewhile(lambda line: line.startswith("    "), lines[start + 1 :])
            assert any(line.startswith(f"    {setting}: ") for line in settings), key


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_step_may_be_called_as_a_module_too(name):
    """One that does nothing and ends well would be believed to have done its work."""
    assert {"promote", "compare", "runs", "doctor", "train"} <= set(MODULES)
    done = subprocess.run([sys.executable, "-m", f"mtlrank.{name}", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_module_that_is_called_takes_the_commands_words_and_gives_its_exit_code(tmp_path):
    words = ["nowhere", "--registry", "registry"]
    done = subprocess.run(
        [sys.executable, "-m", "mtlrank.promote", *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("mtlrank: nowhere is not the folder of a finished run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("mtlrank.runs, mtlrank.registry, pipelines.submit", {"torch", "transformers", "scipy"}),
        ("mtlrank.compare, mtlrank.evaluation.report, mtlrank.registry", {"torch", "transformers", "scipy.stats"}),
        ("pipelines.local", {"torch", "transformers"}),
    ],
)
def test_what_only_reads_results_or_starts_a_run_elsewhere_does_not_wait_for_libraries(modules, slow):
    program = f"import sys, {modules}; from mtlrank.guard import guarded\n"
    program += f"with guarded(): print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_hint_is_a_key_of_the_config_that_the_command_line_composes(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nmine: {harbour: 1}\n")
    words = ["--config-dir", str(tmp_path), "experiment=mine", "mine.harbor=2", "seed=3"]
    done = subprocess.run([sys.executable, "-m", "mtlrank.train", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Unknown config key 'mine.harbor'. Did you mean 'mine.harbour'?" in done.stderr


def test_configs_of_ones_own_are_found_where_the_environment_says(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 77\n")
    command = [sys.executable, "-m", "mtlrank.train", "experiment=mine", "tasks=[msm_ner]", "--cfg", "job"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MTLRANK_CONFIG_DIR": str(tmp_path)}
    )
    assert "seed: 77" in done.stdout, done.stderr
    nowhere = {**os.environ, "MTLRANK_CONFIG_DIR": "/nowhere"}
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere)
    assert done.returncode == 2
    assert done.stderr == "mtlrank: MTLRANK_CONFIG_DIR is '/nowhere', which is not a folder.\n"


def test_a_key_of_the_collection_may_be_read_by_any_config_of_ones_own(tmp_path):
    (tmp_path / "datamodule" / "dataset").mkdir(parents=True)
    (tmp_path / "datamodule" / "dataset" / "mine.yaml").write_text("train: ${collection.titles}\n")
    command = [sys.executable, "-m", "mtlrank.prepare", "+collection.titles=x", "tasks=[nope]"]
    told = "mtlrank: There is no setting collection.titles, and no config refers to ${collection.titles}."
    for words, expected in (([], told), (["--config-dir", str(tmp_path)], "mtlrank: Unknown task 'nope' in tasks.")):
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert (done.returncode, done.stderr.startswith(expected)) == (2, True), done.stderr


def test_a_config_with_the_name_of_one_of_ours_is_refused_as_ours_would_be_read(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "embedded.yaml").write_text("# @package _global_\nseed: 77\n")
    said = "experiment/embedded.yaml has the name of an option of mtlrank, which would be used instead: rename it.\n"
    command = [sys.executable, "-m", "mtlrank.train", "--cfg", "job"]
    for words, env in ((["--config-dir", str(tmp_path)], {}), ([], {"MTLRANK_CONFIG_DIR": str(tmp_path)})):
        done = subprocess.run([*command, *words], capture_output=True, text=True, env={**os.environ, **env})
        assert (done.returncode, done.stderr) == (2, f"mtlrank: {tmp_path}/{said}")


def test_options_may_stand_between_overrides(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 77\n")
    words = ["experiment=mine", "--config-dir", str(tmp_path), "tasks=[msm_ner]", "--cfg", "job", "test=false"]
    done = subprocess.run([sys.executable, "-m", "mtlrank.train", *words], capture_output=True, text=True)
    assert "seed: 77" in done.stdout, done.stderr


@pytest.mark.parametrize("options", [[], ["--cfg", "job"]])
def test_a_word_without_a_value_is_named(options):
    command = [sys.executable, "-m", "mtlrank.train", "foo", "seed=1", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "mtlrank: Cannot read 'foo': expected key=value.\n")


@pytest.mark.parametrize("word", ["--epochs", "--training.epochs=3"])
def test_an_option_that_there_is_not_is_told_in_a_line(word):
    done = subprocess.run([sys.executable, "-m", "mtlrank.train", "seed=1", word, "3"], capture_output=True, text=True)
    told = f"There is no option {word}. Settings are typed without dashes, as in training.epochs=3: --help lists them."
    assert (done.returncode, done.stderr) == (2, f"mtlrank: {told}\n")


TOLD = """
from hydra.experimental.callback import Callback


class Told(Callback):
    def on_job_end(self, config, job_return, **kwargs):
        print("told", job_return.return_value)
"""


@pytest.mark.slow
def test_a_sweeper_is_told_what_a_run_reached_in_validation_also_if_it_was_finished(tmp_path, data_dir):
    """By the metric that chose the weights, by default the first measure of the first task with a val split."""
    (tmp_path / "my_told.py").write_text(TOLD)
    small = ["tasks=[msm_sem_sim,msm_ner]", "training.epochs=1", "+trainer.limit_train_batches=2", "test=false"]
    no_val = ["datamodule.dataset.datasets.msm_sem_sim.val=null", f"data_dir={data_dir}"]
    sweep = ["-m", "training.monitor=null,val/msm_ner/MacroF1", "+hydra.callbacks.told._target_=my_told.Told"]
    command = [sys.executable, "-m", "mtlrank.train", *small, *no_val, *sweep]
    told = []
    for said in ("kept the weights of", "already finished"):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(said) == 2
        jobs = [line for line in done.stderr.splitlines() if line.startswith("job ")]
        assert jobs == ["job 1/2: training.monitor=null", "job 2/2: training.monitor=val/msm_ner/MacroF1"]
        told.append([float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("told ")])
    reached = {
        config["training"]["monitor"]: read_json(folder / "metrics.json") for folder, config in runs_of(tmp_path)
    }
    expected = [reached[None]["val/msm_ner/Accuracy"], reached["val/msm_ner/MacroF1"]["val/msm_ner/MacroF1"]]
    assert told == [expected, expected]


@pytest.mark.slow
def test_runs_of_a_sweep_have_folders_of_their_own(tmp_path, data_dir):
    small = [
        "tasks=[msm_ner]",
        "training.epochs=1",
        "+trainer.limit_train_batches=2",
        "test=false",
        f"data_dir={data_dir}",
    ]
    folders = ["output_dir=runs/rates", "training.checkpoint_dir=kept"]
    for words in (folders, ["output_dir=runs/rate-${loop.optimizer.lr}"]):
        command = [sys.executable, "-m", "mtlrank.train", "-m", *small, "loop.optimizer.lr=1e-4,2e-4", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = {path.parent.name for path in (tmp_path / "runs" / "rates").glob("*/metrics.json")}
    assert len(names) == 2
    assert {path.name for path in (tmp_path / "kept").iterdir()} == names
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {"rates", "rate-0.0001", "rate-0.0002"}


def runs_of(folder):
    """The folders of finished runs and their configs."""
    for path in (folder / "runs").glob("*/model/config.json"):
        yield path.parent.parent, read_json(path)
