import pytest

from mtlrank.errors import DataError
from tests.datamodule.dataset.labelled import CONLL, coreference, read


def test_conll_2012_gives_neighbours_of_an_entity_and_pairs_of_two(tmp_path):
    (tmp_path / "x.conll").write_text(CONLL)
    records = read(coreference(tmp_path / "x.conll"))
    assert {record.text for record in records} == {"Ann met old Mia She left"}
    same, different = records
    assert (same.label, [same.text[slice(*span)] for span in same.spans]) == ("coreferent", ["Ann", "She"])
    assert different.label == "distinct"
    assert "old Mia" in [different.text[slice(*span)] for span in different.spans]


def test_a_passage_has_whole_sentences_up_to_a_length(tmp_path):
    (tmp_path / "x.conll").write_text(CONLL)
    assert read(coreference(tmp_path / "x.conll", max_words=4)) == []  # no sentence mentions anyone twice


def test_documents_are_shared_out_to_the_splits(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.conll").write_text(CONLL.replace("(b)", f"(book {i})"))
    dataset = coreference(tmp_path / "*.conll", val=0.3)
    train, val = ({record.doc_id for record in read(dataset, split)} for split in ("train", "val"))
    assert not train & val
    assert len(train) + len(val) == 40
    assert len(val) > 4
    assert read(dataset, "test") == []


def test_how_many_of_the_files_are_read_is_known(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.conll").write_text(CONLL.replace("(b)", f"({name})") * 1000)
    dataset = coreference(tmp_path / "*.conll")
    share = {record.doc_id[1]: dataset.reading.progress.share for record in dataset.records("train")}
    assert share == {"a": 0, "b": 0.25, "c": 0.5, "d": 0.75}


def test_how_much_of_the_only_file_is_read_is_known(tmp_path):
    (tmp_path / "x.conll").write_text("".join(CONLL.replace("(b)", f"({i})") for i in range(3000)))
    dataset = coreference(tmp_path / "x.conll")
    shares = [dataset.reading.progress.share for _ in dataset.records("train")]
    assert shares[len(shares) // 2] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("2)", "-", r"x.conll:2: expected '2\)' after '\(2'"),
        ("(2\n", "-\n", r"x.conll:2: expected '\(2' before '2\)'"),
        ("b 0 1 met - - - - - - - - -", "b 0 1", "x.conll:3: expected at least 5 columns, found 3"),
        ("b 0 1 met - -", "b\t0\t1\t\t-\t-", "x.conll:3: expected a word in the fourth column, found none"),
        ("#end document", "", "x.conll: expected '#end document' at the end"),
    ],
)
def test_broken_conll_2012_is_named(tmp_path, old, new, complaint):
    (tmp_path / "x.conll").write_text(CONLL.replace(old, new))
    with pytest.raises(DataError, match=complaint):
        read(coreference(tmp_path / "x.conll"))


def test_each_passage_of_conll_2012_is_a_sample(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.conll").write_text(CONLL.replace("(b)", f"({name})"))
    records = read(coreference(tmp_path / "*.conll"))
    assert len({record.group for record in records}) == len({record.doc_id for record in records}) == 3
