import pytest

from mtlrank.comparing.found_runs import find_runs
from mtlrank.errors import DataError
from mtlrank.storage import write_text


@pytest.fixture
def study(tmp_path, monkeypatch):
    """One seed of two mixtures, another with folds, what a comparison wrote, and a run file beside it."""
    for run in ("a/seed-1", "a+b/seed-1", "c/seed-1/fold-0", "c/seed-1/fold-1"):
        write_text(tmp_path / "study" / run / "run.json", "{}")
        write_text(tmp_path / "study" / run / "inner" / "run.json", "{}")  # of a run, and no run itself
    for file in ("comparison.json", "comparison.csv", "transfer.svg", "bm25.run"):
        write_text(tmp_path / "study" / "transfer" / file, "")
    monkeypatch.chdir(tmp_path)
    return ["study/a/seed-1", "study/a+b/seed-1", "study/c/seed-1/fold-0", "study/c/seed-1/fold-1"]


def test_the_runs_of_a_study_are_found_below_it_and_by_any_glob(study, capsys):
    assert find_runs(["study"]) == find_runs(["study/a", "study/a+b", "study/c"]) == find_runs(study) == study
    assert find_runs(["x=study/c", "y=study/a/seed-1"]) == [f"x={study[2]}", f"x={study[3]}", f"y={study[0]}"]
    assert capsys.readouterr().err == ""


def test_what_a_comparison_wrote_is_left_out_with_a_note(study, capsys):
    written = [f"study/transfer/{file}" for file in ("comparison.csv", "comparison.json", "transfer.svg")]
    assert find_runs([*study, *written, "study/transfer/bm25.run"]) == [*study, "study/transfer/bm25.run"]
    assert capsys.readouterr().err == f"mtlrank: left out, as a comparison wrote them: {', '.join(written)}\n"
    assert find_runs(["study/a", "study/transfer"]) == study[:1]
    assert find_runs(["study/transfer"]) == ["study/transfer"]


def test_runs_below_a_folder_of_results_are_found_too(study, tmp_path):
    write_text(tmp_path / "study" / "comparison.json", "{}")
    assert find_runs(["study"]) == study


def test_a_run_that_a_comparison_was_written_into_is_a_run(study, tmp_path):
    write_text(tmp_path / study[0] / "comparison.json", "{}")
    assert find_runs(study) == study


def test_a_folder_that_is_not_there_is_told(study):
    with pytest.raises(DataError, match="The run 'gone' does not exist"):
        find_runs(["study", "gone"])
