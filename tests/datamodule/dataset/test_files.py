"""Labelled files: what their rows become, and what is wrong with them."""

import json

import pytest

from mtlrank.datamodule.dataset import (
    GAP,
    BIOSpans,
    CoNLLCoreference,
    LabelledAnswers,
    SentencePairs,
    Shard,
    SpanPairs,
)
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import PairwiseRelevance, Regression, Relevance, SpanClassification, SpanPairClassification

TINY = Preprocessor("mtlrank-embedded/tiny-bert")


def sentences(path, **kwargs):
    return SentencePairs("x", Regression(["MSE"]), TINY, str(path), **kwargs)


def spans(path):
    return BIOSpans("x", SpanClassification(["Accuracy"]), TINY, str(path))


def read(dataset, split="train"):
    return list(dataset.records(split))


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("x.tsv", 'a\tb\t"quoted\t3.5\tfirst\tsecond\n', {"score_column": 3, "columns": (4, 5)}),
        ("x.csv", 'score,a,b\n3.5,first,"second"\n', {"format": "csv", "score_column": "score", "columns": ("a", "b")}),
        ("x.csv", "3.5,first,second\n", {"format": "csv"}),
        (
            "x.jsonl",
            json.dumps({"a": "first", "b": "second", "s": "3.5"}) + "\n",
            {"format": "jsonl", "score_column": "s", "columns": ("a", "b")},
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


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"columns": ("a", "b")}, r"Columns of a tsv file are numbers, from 0, found \[0, 'a', 'b'\]"),
        ({"format": "jsonl"}, "Columns of a jsonl file are names"),
        ({"format": "xml"}, "format is 'xml', expected one of tsv, csv, jsonl"),
        ({"format": "csv", "score_column": "score"}, "x has no column 'score'. It has: 1\ta\tb"),
        ({"columns": (1, -1)}, r"Columns of a tsv file are numbers, from 0, found \[0, 1, -1\]"),
        ({"columns": (1,)}, r"columns is \(1,\), expected a list of 2: the two sentences"),
        ({"format": "csv", "columns": (1, 9)}, r"x has 1 columns, none with the number 9 \(from 0\)"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, settings, complaint):
    (tmp_path / "x").write_text("1\ta\tb\n")
    with pytest.raises(ConfigError, match=complaint):
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


def test_an_answer_with_two_grades_is_named(tmp_path):
    (tmp_path / "x").write_text("who\t1\tme\nwho\t0\tme\n")
    answers = LabelledAnswers("x", Relevance(["AP"]), TINY, str(tmp_path / "x"), format="tsv", columns=(0, 1, 2))
    with pytest.raises(DataError, match="x:2: expected one grade of an answer, found 1 and 0"):
        read(answers)


def test_a_blank_inside_a_token_is_no_end_of_a_column(tmp_path):
    (tmp_path / "x").write_text("Mira\u00a0Halden B-PER\n")
    assert [record.text for record in read(spans(tmp_path / "x"))] == ["Mira\u00a0Halden"]


def test_a_quoted_field_of_several_lines_keeps_the_place_of_its_first(tmp_path):
    (tmp_path / "x.csv").write_text('1,"a\nb",c\n2,d,e\n')
    places = [record.place for record in read(sentences(tmp_path / "x.csv", format="csv"))]
    assert [place.rpartition("/")[2] for place in places] == ["x.csv:1", "x.csv:3"]


def test_entities_of_a_bio_file(tmp_path):
    (tmp_path / "x").write_text(
        "Mira\tB-PER\nHalden\tI-PER\nsaw\tO\nQuellin\tI-LOC\n\nno\tO\n\nVoss\tB-PER\nPell\tB-PER\n"
    )
    surfaces = [
        (r.text[slice(*r.spans[0])], r.label, r.group, r.place.rpartition("/")[2]) for r in read(spans(tmp_path / "x"))
    ]
    assert surfaces == [
        ("Mira Halden", "PER", 0, "x:1"),
        ("Quellin", "LOC", 0, "x:1"),
        ("Voss", "PER", 2, "x:8"),
        ("Pell", "PER", 2, "x:8"),
    ]


def test_conll_2003_has_blanks_between_its_columns(tmp_path):
    (tmp_path / "x").write_text("-DOCSTART- -X- -X- O\n\nMira NNP I-NP B-PER\nslept VBD O O\n")
    assert [(r.text, r.label) for r in read(spans(tmp_path / "x"))] == [("Mira slept", "PER")]


def test_blanks_around_a_token_or_a_tag_are_none_of_it(tmp_path):
    (tmp_path / "x").write_text("Mira \tB-PER \nHalden\t I-PER\nslept\tO\r \n \nVoss B-PER \n")
    assert [(r.text, r.label) for r in read(spans(tmp_path / "x"))] == [("Mira Halden slept", "PER"), ("Voss", "PER")]


@pytest.mark.parametrize("line", ["\tO", "Halden\tB- "])
def test_a_token_without_a_word_or_a_tag_is_a_bad_row(tmp_path, line):
    (tmp_path / "x").write_text(f"Mira\tB-PER\n{line}\n")
    with pytest.raises(DataError, match="x:2: expected 'token<TAB>tag' with a BIO tag"):
        read(spans(tmp_path / "x"))


def test_a_sentence_with_a_bad_line_is_named_or_set_aside(tmp_path):
    (tmp_path / "x").write_text("Mira\tB-PER\nHalden\n\nVoss\tB-PER\n")
    with pytest.raises(DataError, match="x:2: expected 'token<TAB>tag' with a BIO tag, found 'Halden'"):
        read(spans(tmp_path / "x"))
    dataset = spans(tmp_path / "x")
    dataset.reading = Reading("quarantine")
    assert [record.text for record in read(dataset)] == ["Voss"]
    assert [place.rpartition("/")[2] for place in dataset.reading.bad_rows] == ["x:2"]


def test_a_json_line_without_spans_is_named(tmp_path):
    (tmp_path / "x").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(DataError, match="x:1: expected JSON with text, spans and label"):
        read(SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, str(tmp_path / "x")))


@pytest.mark.parametrize("offset", [True, 1.0, "1", None])
def test_an_offset_that_is_no_whole_number_is_named(tmp_path, offset):
    row = {"text": "Ann told Mia", "spans": [[0, 3], [offset, 12]], "label": "distinct"}
    with pytest.raises(DataError, match=f"x:1: expected JSON with text, spans and label: TypeError {offset!r} is no"):
        read(span_pairs(tmp_path / "x", row))


def gap_file(path, **changes):
    row = {"ID": "t-1", "Text": "Ann told Mia that she won.", "Pronoun": "she", "Pronoun-offset": "18"}
    row |= {"A": "Ann", "A-offset": "0", "A-coref": "TRUE", "B": "Mia", "B-offset": "9", "B-coref": "FALSE", **changes}
    path.write_text("\t".join([*GAP.COLUMNS, "URL"]) + "\n" + "\t".join([*row.values(), "http"]) + "\n")
    return GAP("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


def test_gap_pairs_the_pronoun_with_both_names(tmp_path):
    records = read(gap_file(tmp_path / "x"))
    assert [(r.label, r.spans) for r in records] == [
        ("coreferent", ((0, 3), (18, 21))),
        ("distinct", ((9, 12), (18, 21))),
    ]
    assert records[0].group == records[1].group


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"A-offset": "1"}, "x:2: expected 'Ann' at character 1 of the text"),
        ({"B-offset": "late"}, "x:2: expected 'Mia' at character late of the text"),
        ({"A-coref": "MAYBE"}, "x:2: expected TRUE or FALSE as A-coref, found 'MAYBE'"),
    ],
)
def test_a_mention_that_is_not_where_gap_says_is_named(tmp_path, change, complaint):
    with pytest.raises(DataError, match=complaint):
        read(gap_file(tmp_path / "x", **change))


def span_pairs(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


def gap_rows(path, *rows):
    texts = []
    for row in rows:
        gap_file(path, **row)
        texts.append(path.read_text())
    path.write_text("".join([texts[0], *(text.split("\n", 1)[1] for text in texts[1:])]))
    return GAP("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


def documents(path, *changes):
    path.mkdir()
    for number, (old, new) in enumerate(changes):
        (path / f"{number}.conll").write_text(CONLL.replace(old, new))
    return coreference(path)


ITEM = {"text": "Ann told Mia", "spans": [[0, 3], [9, 12]], "label": "distinct"}
TWICE = [
    (span_pairs, [ITEM, {**ITEM, "spans": [[0, 3], [4, 8]]}], [ITEM], {**ITEM, "label": "coreferent"}, "items"),
    (gap_rows, [{}, {"A": "told", "A-offset": "4", "B": "that", "B-offset": "13"}], [{"ID": "t-2"}] * 2, None, "items"),
    (gap_rows, [{}], [{"ID": "t-2"}], {"ID": "t-2", "B-coref": "TRUE"}, "items"),
    (documents, [("", ""), ("part 0", "part 1")], [("", "")], ("met", "saw"), "documents"),
    (documents, [("", "")], [("", "")], ("(1)\nb 0 1 left", "-\nb 0 1 left"), "documents"),
]


@pytest.mark.parametrize(("make", "once", "again", "otherwise", "what"), TWICE)
def test_what_is_there_twice_is_kept_once_and_what_says_otherwise_is_named(
    tmp_path, make, once, again, otherwise, what
):
    expected = read(make(tmp_path / "once", *once))
    dataset = make(tmp_path / "again", *once, *again)
    found = read(dataset)
    assert [(r.text, r.label, r.spans) for r in found] == [(r.text, r.label, r.spans) for r in expected]
    each = 2 if make is gap_rows else 1
    assert dataset.reading.counts == {"train": {f"{what} given twice": each * len(again)}}
    if otherwise is not None:
        dataset = make(tmp_path / "otherwise", *once, otherwise)
        with pytest.raises(DataError, match="expected one .*, found another than before"):
            read(dataset)
        dataset.reading = Reading("quarantine")
        assert len(read(dataset)) == len(expected)
        assert len(dataset.reading.bad_rows) == 1


CONLL = """#begin document (b); part 0
b 0 0 Ann - - - - - - - - (1)
b 0 1 met - - - - - - - - -
b 0 2 old - - - - - - - - (2
b 0 3 Mia - - - - - - - - 2)

b 0 0 She - - - - - - - - (1)
b 0 1 left - - - - - - - - -

#end document
"""


def coreference(path, **kwargs):
    return CoNLLCoreference("x", SpanPairClassification(["Accuracy"]), TINY, str(path), **kwargs)


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
    dataset = coreference(tmp_path, val=0.3)
    train, val = ({record.doc_id for record in read(dataset, split)} for split in ("train", "val"))
    assert not train & val
    assert len(train) + len(val) == 40
    assert len(val) > 4
    assert read(dataset, "test") == []


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


def answers(path, task=None, **kwargs):
    return LabelledAnswers("x", task or Relevance(["AP"]), TINY, str(path), **kwargs)


def test_labelled_answers_are_a_ranking(tmp_path):
    (tmp_path / "x.csv").write_text(
        "qtext,label,atext\r\nwho,1,Ann did\r\nwho,0,a garden\r\nwho,0,a garden\r\nwhy,1,so\r\n"
    )
    dataset = answers(tmp_path / "x.csv")
    rows = [(r.query_id, r.doc_id, r.label, r.group) for r in read(dataset)]
    assert rows == [
        ("train-q0", "train-a0", "1", None),
        ("train-q0", "train-a1", "0", None),
        ("train-q1", "train-a2", "1", None),
    ]
    assert dataset.reading.counts == {"train": {"answers given twice": 1}}
    dataset.write_judgements("train", tmp_path)
    assert (tmp_path / "qrels.txt").read_text().splitlines()[0] == "train-q0 0 train-a0 1"
    assert len((tmp_path / "candidates.run").read_text().splitlines()) == 3
    grouped = answers(tmp_path / "x.csv", PairwiseRelevance(["AP"]))
    assert [record.group for record in read(grouped)] == [0, 0, 1]


@pytest.mark.parametrize("total", [1, 2])
def test_answers_that_are_set_aside_are_not_judged(tmp_path, total):
    rows = ["who,1,Ann did", "who,0,a garden", " ,1,blank", "who,1, ", "why,0,so", "why,good,many", "why,1,\u200d"]
    (tmp_path / "x.csv").write_text("\n".join(["qtext,label,atext", *rows]) + "\n")
    judged, ranked = [], []
    for number in range(1, total + 1):
        folder = tmp_path / f"{number}"
        reading = Reading("quarantine")
        answers(tmp_path / "x.csv", Relevance(["AP"])).prepare_shard(folder, Shard(number, total), reading)
        judged += [line.split() for line in (folder / "train" / "qrels.txt").read_text().splitlines()]
        ranked += [line.split() for line in (folder / "train" / "candidates.run").read_text().splitlines()]
    assert sorted((q, d) for q, _, d, _ in judged) == sorted((q, d) for q, _, d, *_ in ranked)
    kept = {"train-q0": ["train-a0", "train-a1"], "train-q2": ["train-a4"]}
    assert {q: sorted(d for p, _, d, _ in judged if p == q) for q, *_ in judged} == kept


def test_a_question_in_two_splits_is_an_error_or_is_dropped(tmp_path):
    for name, question in (("train", "Who ?"), ("test", "who ?")):
        (tmp_path / name).write_text(f"qtext,label,atext\n{question},1,Ann\nwhy,1,so\n".replace("why", name))
    with pytest.raises(DataError, match="1 training queries are also asked in another split"):
        read(answers(tmp_path / "train", test=str(tmp_path / "test")))
    kept = read(answers(tmp_path / "train", test=str(tmp_path / "test"), leaked_queries="drop"))
    assert [record.query for record in kept] == ["train"]


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"1\ta\t\xff\n")
    with pytest.raises(DataError, match="x:1: expected UTF-8, found byte 0xff at position 5"):
        read(sentences(tmp_path / "x"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="The file of split 'train' 'nowhere' does not exist"):
        read(sentences("nowhere"))


def test_a_csv_file_with_a_stray_quote_always_stops(tmp_path):
    (tmp_path / "x.csv").write_text('1,a,b\n2,"c,d\n' + "3,e,f\n" * 50)
    dataset = sentences(tmp_path / "x.csv", format="csv")
    dataset.reading = Reading("quarantine")
    with pytest.raises(DataError, match="x.csv:2: expected CSV, .*Is a quote missing"):
        read(dataset)


@pytest.mark.parametrize("value", [None, True, ["a"], {"a": 1}])
def test_json_values_that_are_no_text_are_bad_rows(tmp_path, value):
    (tmp_path / "x.jsonl").write_text(json.dumps({"s": 1, "a": value, "b": "text"}) + "\n")
    with pytest.raises(DataError, match="x.jsonl:1: expected text or numbers as s, a, b"):
        read(sentences(tmp_path / "x.jsonl", format="jsonl", score_column="s", columns=("a", "b")))


def test_numbers_are_no_sentences(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"s": 1, "a": 5, "b": "text"}) + "\n")
    with pytest.raises(DataError, match="x.jsonl:1: expected two texts, found 5 and 'text'"):
        read(sentences(tmp_path / "x.jsonl", format="jsonl", score_column="s", columns=("a", "b")))


def test_each_passage_of_conll_2012_is_a_sample(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.conll").write_text(CONLL.replace("(b)", f"({name})"))
    records = read(coreference(tmp_path))
    assert len({record.group for record in records}) == len({record.doc_id for record in records}) == 3


def test_the_first_stage_of_labelled_answers_does_not_depend_on_shards(tmp_path):
    rows = [f"question {q} harbour,{int(a == 0)},answer {a} harbour {q}" for q in range(9) for a in range(4)]
    (tmp_path / "x.csv").write_text("qtext,label,atext\n" + "\n".join(rows) + "\n")

    def run(total):
        lines = []
        for number in range(1, total + 1):
            folder = tmp_path / f"{number} of {total}"
            folder.mkdir()
            dataset = answers(tmp_path / "x.csv")
            dataset.shard = Shard(number, total)
            dataset.write_judgements("train", folder)
            lines += (folder / "candidates.run").read_text().splitlines()
        return sorted(lines)

    assert run(1) == run(3)
    assert {int(line.split()[3]) for line in run(2)} == {1, 2, 3, 4}
