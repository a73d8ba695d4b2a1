"""What a command line says when something outside goes wrong."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            "OSError(errno.ENOSPC, 'No space left on device', 'out.run')",
            4,
            "mtlrank: The system refuses to go on: No space left on device: out.run. Make room, or choose another place.\n",
        ),
        ("OSError(errno.EIO, 'Input/output error')", 1, "Traceback"),
    ],
)
def test_a_system_that_refuses_is_no_bug(error, code, said):
    step = f"import errno\nfrom mtlrank.entry import start\ndef run(config): raise {error}\nstart('rank', run)"
    words = ["model_dir=x", "output=out.run"]
    done = subprocess.run([sys.executable, "-c", step, *words], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert (len(done.stderr.splitlines()) == 1) == (code == 4)
