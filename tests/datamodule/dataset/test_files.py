"""Tables in files: what their rows become, and what is wrong with them."""

import json
import re

import pytest

from mtlrank.datamodule.dataset import SentencePairs, Shard
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Regression
from tests.datamodule.dataset.labelled import TINY, read, sentences


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("x.tsv", 'a\tb\t"quoted\t3.5\tfirst\tsecond\n', {"score_column": 3, "columns": (4, 5)}),
        ("x.csv", 'score,a,b\n3.5,first,"second"\n', {"format": "csv", "score_column": "score", "columns": ("a", "b")}),
        ("x.csv", "3.5,first,second\n", {}),
        ("x.data", "3.5,first,second\n", {"format": "csv"}),
        (
            "x.jsonl",
            json.dumps({"a": "first", "b": "second", "s": "3.5"}) + "\n",
            {"score_column": "s", "columns": ("a", "b")},
        ),
    ],
)
def test_sentence_pairs_read_their_columns(tmp_path, name, text, settings):
    (tmp_path / name).write_text(text)
    dataset = sentences(tmp_path / name, **settings)
    (record,) = read(dataset)
    assert (record.query, record.text, record.label) == ("first", "second", "3.5")
    assert record.place.endswith(f"/{name}:{1 + text.startswith('score')}")
    assert read(dataset, "test") == []


def test_a_row_may_have_one_text(tmp_path):
    (tmp_path / "x.tsv").write_text("book\ta table for two\ncancel\tnot today\n")
    records = read(sentences(tmp_path / "x.tsv", columns=[1]))
    assert [(record.query, record.text, record.label) for record in records] == [
        (None, "a table for two", "book"),
        (None, "not today", "cancel"),
    ]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"columns": ("a", "b")}, r"Columns of a tsv file are numbers, from 0, found \[0, 'a', 'b'\]"),
        ({"format": "jsonl"}, "Columns of a jsonl file are names"),
        ({"format": "xml"}, "format is 'xml', expected one of tsv, csv, jsonl"),
        ({"format": "csv", "score_column": "score"}, "x has no column 'score'. It has: 1\ta\tb"),
        ({"columns": (1, -1)}, r"Columns of a tsv file are numbers, from 0, found \[0, 1, -1\]"),
        ({"columns": (1, 2, 3)}, r"columns is \(1, 2, 3\), expected a list of 2: the two sentences, or one of a text"),
        (
            {"format": "csv", "columns": (1, 9)},
            r"x has 1 columns, none with the number 9 \(from 0\)\. Its first row has tabs: is it TSV \(format=tsv\), whose",
        ),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, settings, complaint):
    (tmp_path / "x").write_text("1\ta\tb\n")
    with pytest.raises(ConfigError, match=complaint):
        read(sentences(tmp_path / "x", **settings))


def test_a_split_that_is_empty_is_told_with_its_file(tmp_path):
    (tmp_path / "x").write_text("1\ta\tb\n")
    (tmp_path / "y").write_text("")
    for train, test, complaint in (
        ("x", "y", "split 'test' of x has a source but no samples"),
        ("y", "x", "no training"),
    ):
        dataset, shard = sentences(tmp_path / train, test=str(tmp_path / test)), tmp_path / f"{train}-shard"
        dataset.prepare_shard(shard, Shard(), Reading())
        with pytest.raises(DataError, match=rf"{complaint}.* \(y \(empty\)\)\.$"):
            dataset.merge(tmp_path / "whole", [shard])


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"columns": [0, 1]}, "found 0 twice in [0, 0, 1]"),
        ({"columns": [0]}, "found 0 twice in [0, 0]"),
        ({"score_column": 2}, "found 2 twice in [2, 1, 2]"),
        ({"columns": [1, 1]}, "found 1 twice in [1, 1]"),
        ({"format": "csv", "score_column": "s", "columns": ("s", "a")}, "found 's' twice in ['s', 's', 'a']"),
        ({"format": "csv", "score_column": "s", "columns": (0, "a")}, "found 0 twice in [0, 0, 1]"),
    ],
)
def test_a_label_is_no_text(tmp_path, settings, found):
    (tmp_path / "x").write_text("s,a,b\n1,A,B\n")
    with pytest.raises(ConfigError, match=re.escape(f"The label and each text need a column of their own, {found}.")):
        read(sentences(tmp_path / "x", **settings))


def test_a_csv_column_that_is_there_twice_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("score,a,a,b,c,c\n1,A,AA,B,C,CC\n")
    settings = {"format": "csv", "score_column": "score"}
    with pytest.raises(ConfigError, match=r"x.csv has the column 'a' twice. Rename one, or give columns by number"):
        read(sentences(tmp_path / "x.csv", columns=("a", "b"), **settings))
    assert len(read(sentences(tmp_path / "x.csv", columns=("b", 1), **settings))) == 1  # nobody asks which c


def test_a_csv_field_may_be_long(tmp_path):
    (tmp_path / "x.csv").write_text(f"1,{'a' * 200_000},b\n")
    assert len(read(sentences(tmp_path / "x.csv", format="csv"))[0].query) == 200_000


def test_the_place_of_a_csv_file_in_this_folder_is_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("1,a,b\n")
    assert [record.place for record in read(sentences("x.csv", format="csv"))] == ["x.csv:1"]


def test_too_few_columns_are_named_with_the_line(tmp_path):
    (tmp_path / "x.tsv").write_text("1\ta\tb\n2\ta\n")
    with pytest.raises(DataError, match=r"x.tsv:2: expected at least 3 tab-separated columns .*, found 2"):
        read(sentences(tmp_path / "x.tsv"))


def test_a_csv_row_of_another_width_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("1,a,b\n2,a,b,c\n")
    with pytest.raises(DataError, match=r"x.csv:2: expected 3 columns as in the first row, found 4"):
        read(sentences(tmp_path / "x.csv", format="csv"))


def test_a_path_that_is_no_file_is_named(tmp_path):
    with pytest.raises(DataError, match="is a folder, expected a file"):
        read(sentences(tmp_path))
    with pytest.raises(ConfigError, match="is 3, expected the path of a file"):
        read(SentencePairs("x", Regression(["MSE"]), TINY, 3))


def test_a_quoted_field_of_several_lines_keeps_the_place_of_its_first(tmp_path):
    (tmp_path / "x.csv").write_text('1,"a\nb",c\n2,d,e\n')
    places = [record.place for record in read(sentences(tmp_path / "x.csv", format="csv"))]
    assert [place.rpartition("/")[2] for place in places] == ["x.csv:1", "x.csv:3"]


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"1\ta\t\xff\n")
    with pytest.raises(DataError, match="x:1: expected UTF-8, found byte 0xff at position 5"):
        read(sentences(tmp_path / "x"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="The file of split 'train' 'nowhere' does not exist"):
        read(sentences("nowhere"))


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_how_much_of_a_file_is_read_is_known(tmp_path, format):
    row = {"csv": "1,a,b", "tsv": "1\ta\tb", "jsonl": '{"0": 1, "1": "a", "2": "b"}'}[format]
    (tmp_path / "x").write_text(f"{row}\n" * 30_000)
    columns = {"score_column": "0", "columns": ("1", "2")} if format == "jsonl" else {}
    dataset = sentences(tmp_path / "x", format=format, **columns)
    shares = [dataset.reading.progress.share for _ in dataset.records("train")]
    assert shares[20_000] == pytest.approx(2 / 3, abs=0.1)


def test_a_csv_file_with_a_line_that_is_no_text_always_stops(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"1,a,b\n2,\xff,b\n")
    dataset = sentences(tmp_path / "x.csv", format="csv")
    dataset.reading = Reading("quarantine")
    with pytest.raises(DataError, match=r"x.csv:2: expected UTF-8, found byte 0xff at position 3\.$"):
        read(dataset)


def test_a_csv_file_with_a_stray_quote_always_stops(tmp_path):
    (tmp_path / "x.csv").write_text('1,a,b\n2,"c,d\n' + "3,e,f\n" * 50)
    dataset = sentences(tmp_path / "x.csv", format="csv")
    dataset.reading = Reading("quarantine")
    with pytest.raises(DataError, match="x.csv:2: expected CSV, .*Is a quote missing"):
        read(dataset)


@pytest.mark.parametrize("value", [None, True, ["a"], {"a": 1}])
def test_json_values_that_are_no_text_are_bad_rows(tmp_path, value):
    (tmp_path / "x.jsonl").write_text(json.dumps({"s": 1, "a": value, "b": "text"}) + "\n")
    with pytest.raises(DataError, match="x.jsonl:1: expected text or a number as a, found "):
        read(sentences(tmp_path / "x.jsonl", format="jsonl", score_column="s", columns=("a", "b")))
