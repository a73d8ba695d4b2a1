import subprocess
import sys

import pytest

from mtlrank import about


def test_a_run_says_what_it_was(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mtlrank train", "tasks=[trec2019, msm_ner]", "seed=3"])
    told = about.describe(0.0)
    assert told["command"] == "mtlrank train 'tasks=[trec2019, msm_ner]' seed=3"
    assert told["started"] == "1970-01-01T00:00:00+00:00"


def test_a_module_is_named_so_that_its_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", [about.__file__.replace("about", "train"), "seed=3"])
    assert about.describe(0.0)["command"] == "python -m mtlrank.train seed=3"


def test_a_step_of_a_pipeline_is_named_without_all_that_it_is_given(monkeypatch):
    given = ["--component_module_path", "/tmp/x.py", "--executor_input", "{}", "--function_to_execute", "train"]
    monkeypatch.setattr(sys, "argv", ["/venv/kfp/dsl/executor_main.py", *given])
    assert about.describe(0.0)["command"] == "step train of a pipeline"


def test_the_commit_is_that_of_the_image_or_of_the_checkout(tmp_path, monkeypatch):
    assert about.commit(tmp_path) == "unknown"
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert about.commit(tmp_path) == "unknown"
    (tmp_path / ".git").unlink()
    here = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init"], [*who, "commit", "--allow-empty", "-m", "first"], ["gc"]):
        subprocess.run(["git", *words], **here)
    head = subprocess.run(["git", "rev-parse", "HEAD"], **here).stdout.strip()
    assert about.commit(tmp_path) == head
    (tmp_path / "code.py").write_text("1")
    assert about.commit(tmp_path) == head  # a file that is not the repository's
    subprocess.run(["git", "add", "code.py"], **here)
    assert about.commit(tmp_path) == f"{head}-dirty"
    monkeypatch.setenv("MTLRANK_COMMIT", "abc")
    assert about.commit(tmp_path) == "abc"


@pytest.mark.parametrize("content", [None, "", '{"seed": 1,', "[1]", "[" * 100_000])
def test_a_description_that_is_missing_or_damaged_is_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "about.json").write_text(content)
    assert about.read_about(tmp_path) == {}
