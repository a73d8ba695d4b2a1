import sys

from mtlrank import about


def test_a_run_says_what_it_was(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mtlrank train", "seed=3"])
    told = about.describe(0.0)
    assert told["command"] == "mtlrank train seed=3"
    assert told["started"] == "1970-01-01T00:00:00+00:00"
    assert told["seconds"] > 1e9


def test_the_commit_is_that_of_the_image_or_of_the_checkout(tmp_path, monkeypatch):
    assert about.commit(tmp_path) == "unknown"
    (tmp_path / ".git" / "refs").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/main\n")
    assert about.commit(tmp_path) == "unknown"
    (tmp_path / ".git" / "refs" / "main").write_text("abc\n")
    assert about.commit(tmp_path) == "abc"
    (tmp_path / ".git" / "HEAD").write_text("def\n")
    assert about.commit(tmp_path) == "def"
    monkeypatch.setenv("MTLRANK_COMMIT", "ghi")
    assert about.commit(tmp_path) == "ghi"
