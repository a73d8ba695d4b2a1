"""A step in a process of its own, as the command line starts it."""

import subprocess
import sys


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
