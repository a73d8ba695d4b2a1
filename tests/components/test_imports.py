"""While a step runs, kfp defines no components: what steps import must do without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "components").rglob("*.py"))
    if path.name not in ("component.py", "base.py", "__init__.py")
]


@pytest.mark.slow
@pytest.mark.parametrize("module", SHARED)
def test_a_running_step_can_import_it(module):
    environment = {**os.environ, "_KFP_RUNTIME": "true"}
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
