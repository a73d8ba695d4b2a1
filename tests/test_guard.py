"""What a command line says when something outside goes wrong."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest

from tests.started import started


def test_no_library_swallows_the_end():
    """SIGTERM may come in the middle of a `try` of somebody else's, as around the JSON of an answer."""
    lines = ["import os, signal", "try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()"]
    done = started(*lines, "except Exception: print('swallowed')", timeout=120)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr.splitlines()[-1] == "mtlrank: stopped by SIGTERM: the same command continues."


def test_after_a_step_sigterm_ends_the_process_without_a_word():
    """As torchrun sends it to the others when one process has ended: while Python shuts down, no line can be printed."""
    lines = ["import atexit, os, signal", "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))"]
    for more, told in (
        ([], ""),
        (["from mtlrank.errors import ConfigError", "raise ConfigError('wrong')"], "mtlrank: wrong\n"),
    ):
        done = started(*lines, *more, timeout=120)
        assert (done.returncode, done.stderr) == (-15, told)


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


@pytest.mark.parametrize("stream", [1, 2])
def test_a_step_runs_without_an_output(stream):
    """As of a service that closes it (`>&-`)."""
    lines = ["from mtlrank.pages.tables import show", "from mtlrank.progress import say"]
    lines += ["show(['a'], [['told']], names=1, width=20)", "say('told')"]
    done = started(*lines, preexec_fn=partial(os.close, stream))
    assert done.returncode == 0
    assert [stream for stream, said in ((1, done.stdout), (2, done.stderr)) if "told" not in said] == [stream]


def test_a_broken_pipe_to_something_else_is_no_reader_that_is_gone():
    done = started("raise BrokenPipeError('of a worker')")
    assert done.returncode == 1
    assert done.stderr.endswith("BrokenPipeError: of a worker\n")


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
            "RuntimeError(\"Symlink loop from '/data/loop'\")",
            4,
            "mtlrank: Cannot read or write: Symlink loop from '/data/loop'. Choose another place, or fix this one.\n",
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


def test_a_database_that_may_not_grow_is_told_in_a_line(tmp_path):
    """Under a limit of the size of files, as of `ulimit -f`, of which SQLite only knows that writing failed."""
    done = started(
        "import resource, signal",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))",
        f"database = sqlite3.connect('{tmp_path}/pairs.sqlite')",
        "database.execute('CREATE TABLE t (x)')",
        "database.execute('INSERT INTO t VALUES (randomblob(100000))')",
        "database.commit()",
    )
    assert done.returncode == 4
    assert done.stderr == "mtlrank: Cannot read or write: disk I/O error. Choose another place, or fix this one.\n"


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


@pytest.mark.slow
def test_lightning_is_quiet_also_if_it_is_imported_later():
    program = (
        "from mtlrank.guard import quiet; quiet(); from pytorch_lightning import Trainer; Trainer(accelerator='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_transformers_is_quiet_also_if_it_is_imported_later():
    program = "from mtlrank.guard import quiet; quiet(); from transformers.utils import logging"
    program += "; from huggingface_hub.utils import are_progress_bars_disabled"
    program += "; print(logging.is_progress_bar_enabled(), are_progress_bars_disabled())"
    for before in ("", "import huggingface_hub.utils; "):
        done = subprocess.run([sys.executable, "-c", before + program], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == "False True\n"
