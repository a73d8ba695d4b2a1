"""kfp's own command line, as the documents show it, against a server that checks types."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = {
    path.name: re.findall(r"^kfp .*?(?=\s*#|$)", path.read_text(), re.MULTILINE)
    for path in (ROOT / "README.md", ROOT / "docs" / "pipelines.md")
}


@pytest.fixture
def shell(server, package, tmp_path):
    """Run a command in a folder where the pipeline was compiled."""
    (tmp_path / "build").mkdir()
    shutil.copy(package, tmp_path / "build" / "mtl_ranking.yaml")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(command):
        given = {**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
        return subprocess.run(command, shell=True, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=300)

    return run


def test_the_documents_show_each_command():
    assert [len(commands) for commands in COMMANDS.values()] == [1, 4]


def test_the_commands_of_the_documents_work(server, shell):
    for command in [*COMMANDS["pipelines.md"], *COMMANDS["README.md"]]:
        done = shell(command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert [version["display_name"] for version in server.store.versions.values()] == ["mtl-ranking", "0.1.0-g1a2b3c4"]
    assert [run["runtime_config"]["parameters"] for run in server.store.runs.values()] == [
        {"seed": 7, "learning_rate": 2e-5, "tasks": ["trec2019", "msm_bm25"]},
        {"seed": 8, "body": "tiny"},
        {"seed": 7},
    ]


def test_a_schedule_of_kfps_own_is_refused_because_it_sends_texts(server, shell):
    """Why pipelines.schedule exists."""
    package = "--pipeline-package-path build/mtl_ranking.yaml"
    command = f"kfp recurring-run create --experiment-name a --job-name b --cron-expression '0 0 3 * * *' {package} "
    done = shell(command + "seed=7")
    assert done.returncode != 0
    assert "input parameter seed requires type double or integer" in done.stderr
    assert server.store.recurring_runs == {}
