"""What a command line says when something outside goes wrong."""

import math
import os
import re
import subprocess
import sys
from importlib.resources import files
from itertools import takewhile
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf

from mtlrank import entry
from mtlrank.cli import app
from mtlrank.evaluation import measures
from mtlrank.loop.finite_steps import FiniteSteps, Learnt
from mtlrank.model.head.pooler import Average
from mtlrank.storage import read_json
from tests.batches import batch

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
MODULES = [name for name in COMMANDS if files("mtlrank").joinpath(f"{name}.py").is_file()]


def started(*lines, **where):
    """A process in which a step does what the lines say."""
    program = [
        "import errno, shutil, sqlite3, sys",
        "from types import SimpleNamespace",
        "from safetensors import SafetensorError",
        "from mtlrank.entry import start",
        "def run(config):",
        *(f"    {line}" for line in lines),
        "sys.modules['mtlrank.rank'] = SimpleNamespace(run=run)",
        "start('rank')",
    ]
    command = [sys.executable, "-c", "\n".join(program), "model_dir=x", "output=out.run"]
    return subprocess.run(command, capture_output=True, text=True, **where)


def test_no_library_swallows_the_end():
    """SIGTERM may come in the middle of a `try` of somebody else's, as around the JSON of an answer."""
    lines = ["import os, signal", "try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()"]
    done = started(*lines, "except Exception: print('swallowed')", timeout=120)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr.splitlines()[-1] == "mtlrank: stopped by SIGTERM: the same command continues."


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("mtlrank.train --help", 141),
        ("mtlrank.train --cfg job", 141),
        ("mtlrank.train --info all", 0),  # Hydra prints by `logging`, which goes on without a reader
        ("mtlrank.doctor", 141),
    ],
)
def test_a_reader_that_has_enough_ends_it_quietly(words, code):
    """As in `mtlrank doctor | head -1`, for long and short outputs."""
    process = subprocess.Popen([sys.executable, "-m", *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (code, b"")


def test_a_broken_pipe_to_something_else_is_no_reader_that_is_gone():
    done = started("raise BrokenPipeError('of a worker')")
    assert done.returncode == 1
    assert done.stderr.endswith("BrokenPipeError: of a worker\n")


def test_an_error_of_ones_own_class_is_told_with_its_line(tmp_path):
    (tmp_path / "my_parts.py").write_text("class Mine:\n    def records(self):\n        yield {}['a']\n")
    lines = ["import my_parts", "from mtlrank.own_parts import records_of"]
    lines += ["list(records_of(my_parts.Mine()))"]
    environment = {**os.environ, "MTLRANK_TRACEBACK": ""}
    done = started(*lines, cwd=tmp_path, env=environment)
    line = "mtlrank: my_parts.Mine.records, my_parts.py:3: KeyError: 'a' (MTLRANK_TRACEBACK=1 shows the calls.)\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert "Traceback" in started(*lines, cwd=tmp_path, env={**environment, "MTLRANK_TRACEBACK": "1"}).stderr


COMPILED = """
def call(*args):
    raise RuntimeError("of the compiled code")
"""


def test_what_a_library_raises_is_not_of_ones_own_class(tmp_path):
    """Neither if it is installed, nor if it was compiled into a file somewhere else."""
    compiled, own = ModuleType("torch._inductor.runtime.compile_tasks.abc"), ModuleType("mine")
    for module in (compiled, own):
        exec(compile(COMPILED, str(tmp_path / "abc.py"), "exec"), vars(module))
    for call in (lambda: measures.with_level("nope(", 1), lambda: called_by_us(compiled.call)):
        with pytest.raises(Exception, match=r"never closed|of the compiled code") as raised:
            call()
        assert entry._of_own_code(raised.value) is None
    with pytest.raises(RuntimeError) as raised:
        called_by_us(own.call)
    assert "mine.call" in str(entry._of_own_code(raised.value))


def called_by_us(function):
    FiniteSteps(1, function)._report(Learnt(1, [("x", torch.tensor([math.nan]), torch.tensor([0]))]))


OWN = """
from mtlrank.model.head import Linear


class Optimizer:
    def step(self, closure):
        closure()


class Swapped(Linear):
    def project(self, in_dim, out_dim):
        return super().project(out_dim, in_dim)


class Whole(Linear):
    def forward(self, states, batch):
        return super().forward(states[0], batch)


class Wrong(Linear):
    def forward(self, states, batch):
        raise KeyError("a")
"""


def test_what_an_optimizers_closure_calls_is_not_of_the_optimizer(tmp_path, monkeypatch):
    own, lightning = ModuleType("mine"), ModuleType("pytorch_lightning.loops.closure")
    exec(compile(OWN, str(tmp_path / "mine.py"), "exec"), vars(own))
    exec(
        compile("def call(function, *args):\n    function(*args)", "/site-packages/closure.py", "exec"), vars(lightning)
    )
    own.__file__ = str(tmp_path / "mine.py")
    monkeypatch.setitem(sys.modules, "mine", own)

    def told(head):
        """What is said of a head's error in a step of an optimizer of one's own."""
        made = getattr(own, head)(4, 1, 2, Average)
        with pytest.raises((KeyError, RuntimeError, TypeError)) as raised:
            called_by_us(
                lambda *_: own.Optimizer().step(lambda: lightning.call(made, [torch.zeros(7, 4)], batch([3, 4])))
            )
        return str(entry._of_own_code(raised.value))

    assert re.match(r"mine.Swapped, \S*head.py:\d+: RuntimeError: mat1 and mat2 shapes", told("Swapped"))
    assert re.match(r"mine.Whole.forward, \S*mine.py:17: ", told("Whole"))
    assert re.match(r"mine.Wrong.forward, \S*mine.py:22: KeyError", told("Wrong"))


def test_what_lightning_refuses_in_a_call_of_ones_own_is_of_that(tmp_path):
    own, lightning = ModuleType("mine"), ModuleType("pytorch_lightning.trainer")
    exec(compile(COMPILED, "/site-packages/trainer.py", "exec"), vars(lightning))
    exec(compile("def hook(*args):\n    call()", str(tmp_path / "mine.py"), "exec"), vars(own))
    own.call = lightning.call
    with pytest.raises(RuntimeError) as raised:
        called_by_us(own.hook)
    assert "mine.hook" in str(entry._of_own_code(raised.value))


def test_without_a_call_of_ours_no_class_is_ones_own():
    with pytest.raises(KeyError) as raised:
        {}["a"]
    assert entry._of_own_code(raised.value) is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            "OSError(errno.ENOSPC, 'No space left on device', 'out.run')",
            4,
            "mtlrank: Cannot read or write: No space left on device: out.run. Free some space, or choose another place.\n",
        ),
        (
            "shutil.Error([('a', 'b', '[Errno 28] No space left on device')])",
            4,
            "mtlrank: Cannot read or write: No space left on device. Free some space, or choose another place.\n",
        ),
        (
            "RuntimeError('Could not determine home directory.')",
            4,
            "mtlrank: This user has no home folder, where libraries keep files: set HOME to one that can be written.\n",
        ),
        (
            "SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')",
            4,
            "mtlrank: Cannot read or write: No space left on device. Free some space, or choose another place.\n",
        ),
        (
            "Exception('No space left on device (os error 28)')",
            4,
            "mtlrank: Cannot read or write: No space left on device. Free some space, or choose another place.\n",
        ),
        (
            "NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'file/model')",
            4,
            "mtlrank: Cannot read or write: Not a directory: file/model. Choose another place, or fix this one.\n",
        ),
        (
            "__import__('torch').OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')",
            6,
            "mtlrank: The GPU ran out of memory: CUDA out of memory. Tried to allocate 2.00 GiB. Use smaller batches: ",
        ),
        ("RuntimeError('CUDA error: misaligned address')", 1, "Traceback"),
        ("OSError(errno.EIO, 'Input/output error')", 1, "Traceback"),
        ("UnicodeDecodeError('utf-8', b'x', 0, 1, 'of a file that is no config')", 1, "Traceback"),
        ("SafetensorError('Error while deserializing header: header too large')", 1, "Traceback"),
    ],
)
def test_a_system_that_refuses_is_no_bug(error, code, said):
    done = started(f"raise {error}")
    assert done.returncode == code
    assert said in done.stderr
    assert (len(done.stderr.splitlines()) == 1) == (code in (4, 6))


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


@pytest.mark.parametrize(("statement", "code"), [("INSERT INTO t VALUES (randomblob(100000))", 4), ("SELECT nope", 1)])
def test_a_database_that_cannot_grow_is_told_in_a_line(statement, code):
    done = started(
        "database = sqlite3.connect(':memory:')",
        "database.execute('CREATE TABLE t (x)')",
        "database.execute('PRAGMA max_page_count=2')",
        f"database.execute('{statement}')",
    )
    assert done.returncode == code
    said = "mtlrank: Cannot read or write: database or disk is full. Free some space, or choose another place.\n"
    assert (done.stderr == said) == (code == 4)


def test_a_process_that_assembles_batches_and_dies_is_told():
    done = started(
        "import os, signal",
        "from torch.utils.data import DataLoader",
        "list(DataLoader([1], num_workers=1, collate_fn=lambda rows: os.kill(os.getpid(), signal.SIGKILL)))",
    )
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert line.startswith("mtlrank: A process that assembles batches died: DataLoader worker (pid")
    assert re.search(r"killed by signal: Killed|exited unexpectedly\. Set datamodule\.num_workers=0", line)


def test_a_full_disk_is_told_with_the_file_that_was_written():
    done = started(
        "from pathlib import Path",
        "from mtlrank.storage import new_file",
        "with new_file(Path('my results.csv')) as part, open('/dev/full', 'wb', 0) as full:",
        "    full.write(b'x')",
    )
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("mtlrank: Cannot read or write: No space left on device (while writing /")
    assert line.endswith("/my results.csv). Free some space, or choose another place.")


def test_lightning_is_quiet_also_if_it_is_imported_later():
    program = (
        "from mtlrank.entry import quiet; quiet(); from pytorch_lightning import Trainer; Trainer(accelerator='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_transformers_is_quiet_also_if_it_is_imported_later():
    program = "from mtlrank.entry import quiet; quiet(); from transformers.utils import logging"
    program += "; from huggingface_hub.utils import are_progress_bars_disabled"
    program += "; print(logging.is_progress_bar_enabled(), are_progress_bars_disabled())"
    for before in ("", "import huggingface_hub.utils; "):
        done = subprocess.run([sys.executable, "-c", before + program], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == "False True\n"


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("mtlrank.runs, mtlrank.registry, pipelines.submit", {"torch", "transformers", "scipy"}),
        ("mtlrank.compare, mtlrank.evaluation.report, mtlrank.registry", {"torch", "transformers", "scipy.stats"}),
        ("pipelines.local", {"torch", "transformers"}),
    ],
)
def test_what_only_reads_results_or_starts_a_run_elsewhere_does_not_wait_for_libraries(modules, slow):
    program = f"import sys, {modules}; from mtlrank.entry import guarded\n"
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
