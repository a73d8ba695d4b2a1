"""Names of files with `*`: which files they are, and when data that was made of them is another."""

import os

import pytest

from mtlrank.building.dataset import prepared_folder
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule.dataset import SentencePairs
from mtlrank.datamodule.dataset.folds import read_folds
from mtlrank.datamodule.named_files import locate_all
from mtlrank.errors import DataError
from mtlrank.storage.patterns import is_pattern, matching
from mtlrank.task import Regression
from tests.datamodule.dataset.labelled import TINY, read, sentences
from tests.datamodule.test_several_files import write


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("x-*", ["x-1", "x-10", "x-2", "x-[1]"]),
        ("*", ["X-1", "x-1", "x-10", "x-2", "x-[1]", "y"]),
        ("x-1*", ["x-1", "x-10"]),
        ("*-*0", ["x-10"]),
        ("x-[1]*", ["x-[1]"]),
        ("x-?*", []),
        ("**", ["X-1", "x-1", "x-10", "x-2", "x-[1]", "y"]),
        (".*", [".x-1"]),
    ],
)
def test_a_star_stands_for_any_characters_and_nothing_else_does(pattern, expected):
    assert matching(pattern, ["y", "x-2", ".x-1", "x-10", "x-1", "X-1", "x-[1]"]) == expected


def test_many_stars_are_not_tried_in_all_ways():
    assert matching("*a" * 20, ["a" * 200 + "b", "a" * 20]) == ["a" * 20]


def test_a_star_in_a_folder_makes_no_pattern():
    assert is_pattern("a/x-*.tsv")
    assert is_pattern("*")
    assert not is_pattern("a*/x.tsv")
    assert not is_pattern("a/x.tsv")


def test_folders_are_no_files(tmp_path):
    (tmp_path / "x-0").mkdir()
    write(tmp_path / "x-1", ["1\ta\tb\n"])
    assert locate_all(str(tmp_path / "x-*"), "input") == [tmp_path / "x-1"]
    os.symlink(tmp_path / "nowhere", tmp_path / "x-2")
    with pytest.raises(DataError, match=r"The input '.*/x-2' does not exist\."):
        locate_all(str(tmp_path / "x-*"), "input")


def test_files_of_the_current_folder_and_of_the_embedded_collection_match(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x-1.tsv", ["1\ta\tb\n"])
    assert [record.place for record in read(sentences("x-*.tsv"))] == ["x-1.tsv:1"]
    found = locate_all("mtlrank-embedded/ner/t*.conll", "input")
    assert [path.name for path in found] == ["test.conll", "train.conll"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("x-*.tsv", r"The input 'x-\*\.tsv' matches no file\. The folder '\.' holds a0, a1, a2, a3, a4 and 2 more\."),
        ("empty/*", r"The input 'empty/\*' matches no file\. The folder 'empty' holds no file\."),
        ("no/*", r"The folder of the input 'no/\*' does not exist in the current folder '.*'\.$"),
        ("e*y/*", r"The folder of the input .* A \* may stand in the name of the file, not of a folder\."),
        ("e*y/x", r"The input 'e\*y/x' does not exist .* A \* may stand in the name of the file, not of a folder\."),
        ("$HERE/x-*", r"The folder of the input '\$HERE/x-\*' does not exist\. Set the environment variable HERE\."),
        ("a0/x-*", r"Cannot read the folder of the input 'a0/x-\*': Not a directory\."),
    ],
)
def test_what_matches_nothing_is_told_in_a_line(tmp_path, monkeypatch, name, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for number in range(7):
        write(tmp_path / f"a{number}", [])
    with pytest.raises(DataError, match=complaint):
        locate_all(name, "input")


def test_where_one_file_is_needed_a_pattern_names_none(tmp_path):
    write(tmp_path / "f-1.tsv", ["q1\t0\n"])
    with pytest.raises(DataError, match=r"The folds '.*/f-\*\.tsv' does not exist\. Expected the name of one file\."):
        read_folds(str(tmp_path / "f-*.tsv"))


def folder_of(pattern):
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={pattern}"]
    return prepared_folder(select_tasks(compose_config(words, trusted=True)), "msm_sem_sim")


def test_prepared_folders_notice_that_a_part_was_added_changed_or_removed(tmp_path):
    pattern = tmp_path / "x-*.tsv"
    nothing = folder_of(pattern)
    write(tmp_path / "x-1.tsv", ["1\ta\tb\n"])
    one = folder_of(pattern)
    write(tmp_path / "y-2.tsv", ["2\ta\tb\n"])
    assert folder_of(pattern) == one
    write(tmp_path / "x-2.tsv", ["2\ta\tb\n"])
    two = folder_of(pattern)
    write(tmp_path / "x-2.tsv", ["3\ta\tb\n"])
    changed = folder_of(pattern)
    assert len({nothing, one, two, changed}) == 4
    (tmp_path / "x-2.tsv").unlink()
    assert folder_of(pattern) == one


def test_prepared_folders_notice_a_part_of_a_collection(tmp_path):
    def folder():
        words = ["datamodule/dataset=trec2019", f"datamodule.dataset.train={{docs: {tmp_path}/d-*.tsv}}"]
        return prepared_folder(select_tasks(compose_config(words, trusted=True)), "trec2019")

    write(tmp_path / "d-1.tsv", ["d1\ta\n"])
    before = folder()
    write(tmp_path / "d-2.tsv", ["d2\ta\n"])
    assert folder() != before


def test_a_class_of_sentences_takes_a_pattern_for_each_split(tmp_path):
    write(tmp_path / "train-1.tsv", ["1\ta\tb\n"])
    write(tmp_path / "test-1.tsv", ["1\tc\td\n"])
    where = [str(tmp_path / f"{split}-*.tsv") for split in ("train", "test")]
    dataset = SentencePairs("x", Regression(["MSE"]), TINY, where[0], test=where[1])
    assert [record.text for record in read(dataset, "test")] == ["d"]
