import pytest

from mtlrank.datamodule.dataset import BIOSpans, SpanPairs
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.task import SpanClassification, SpanPairClassification, Tagging
from tests.datamodule.dataset.labelled import TINY, gap_file, read, span_pairs


def spans(path):
    return BIOSpans("x", SpanClassification(["Accuracy"]), TINY, str(path))


def test_a_blank_inside_a_token_is_no_end_of_a_column(tmp_path):
    (tmp_path / "x").write_text("Mira\u00a0Halden B-PER\n")
    assert [record.text for record in read(spans(tmp_path / "x"))] == ["Mira\u00a0Halden"]


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


@pytest.mark.parametrize(("last", "only"), [("E", "S"), ("L", "U")])
def test_tags_may_mark_the_last_and_the_only_token_of_an_entity(tmp_path, last, only):
    tags = ["B-PER", f"{last}-PER", "I-PER", f"{only}-LOC", "I-LOC", f"{last}-LOC", f"{only}-PER", f"{last}-PER", "O"]
    (tmp_path / "x").write_text("".join(f"{word}\t{tag}\n" for word, tag in zip("abcdefghi", tags, strict=True)))
    entities = [(record.text[slice(*record.spans[0])], record.label) for record in read(spans(tmp_path / "x"))]
    assert entities == [("a b", "PER"), ("c", "PER"), ("d", "LOC"), ("e f", "LOC"), ("g", "PER"), ("h", "PER")]


def test_a_task_that_finds_entities_has_a_tag_for_each_token(tmp_path):
    """By parts B and I only, whatever the file has; sentences without an entity belong to it."""
    (tmp_path / "x").write_text("Mira\tB-PER\nHalden\tE-PER\nsaw\tO\nQuellin\tI-LOC\nHalden\tS-PER\n\nno\tO\n")
    dataset = BIOSpans("x", Tagging(["EntityF1"]), TINY, str(tmp_path / "x"))
    found = [(r.text[slice(*r.spans[0])], r.label, r.group, r.place.rpartition("/")[2]) for r in read(dataset)]
    assert found == [
        ("Mira", "B-PER", 0, "x:1"),
        ("Halden", "I-PER", 0, "x:1"),
        ("saw", "O", 0, "x:1"),
        ("Quellin", "B-LOC", 0, "x:1"),
        ("Halden", "B-PER", 0, "x:1"),
        ("no", "O", 1, "x:7"),
    ]
    assert dataset.reading.notes() == []


def test_sentences_without_an_entity_are_counted(tmp_path):
    (tmp_path / "x").write_text("Mira\tB-PER\n\nslept\tO\n\nwell\tO\n")
    dataset = spans(tmp_path / "x")
    read(dataset)
    assert dataset.reading.notes() == ["sentences without an entity: 2"]


@pytest.mark.parametrize("first", ["{ } SYM O", "{} O", '{" O', "{\tO"])
def test_a_conll_file_may_begin_with_a_brace(tmp_path, first):
    (tmp_path / "x").write_text(f"{first}\nMira\tB-PER\n".replace("\t", " "))
    assert [record.label for record in read(spans(tmp_path / "x"))] == ["PER"]


def test_conll_2003_has_blanks_between_its_columns(tmp_path):
    (tmp_path / "x").write_text("-DOCSTART- -X- -X- O\n\nMira NNP I-NP B-PER\nslept VBD O O\n")
    assert [(r.text, r.label) for r in read(spans(tmp_path / "x"))] == [("Mira slept", "PER")]


def test_blanks_around_a_token_or_a_tag_are_none_of_it(tmp_path):
    (tmp_path / "x").write_text("Mira \tB-PER \nHalden\t I-PER\nslept\tO\r \n \nVoss B-PER \n")
    assert [(r.text, r.label) for r in read(spans(tmp_path / "x"))] == [("Mira Halden slept", "PER"), ("Voss", "PER")]


def test_blanks_around_a_tag_in_a_list_are_none_of_it(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"tokens": ["Mira", " Halden"], "ner_tags": ["B-PER", "I-PER "]}\n')
    assert [(r.text, r.label) for r in read(spans(tmp_path / "x.jsonl"))] == [("Mira Halden", "PER")]
    (tmp_path / "x.jsonl").write_text('{"tokens": ["Mira"], "ner_tags": ["I- "]}\n')
    with pytest.raises(DataError, match="x.jsonl:1: expected tokens of text with BIO tags"):
        read(spans(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("line", ["\tO", "Halden\tB- "])
def test_a_token_without_a_word_or_a_tag_is_a_bad_row(tmp_path, line):
    (tmp_path / "x").write_text(f"Mira\tB-PER\n{line}\n")
    with pytest.raises(DataError, match="x:2: expected 'token<TAB>tag' with a BIO tag"):
        read(spans(tmp_path / "x"))


def test_a_sentence_with_a_bad_line_is_named_or_set_aside(tmp_path):
    (tmp_path / "x").write_text("Mira\tB-PER\nHalden\n\nVoss\tB-PER\n")
    with pytest.raises(
        DataError, match=r"x:2: expected 'token<TAB>tag' with a BIO tag \(O, B-PER, I-PER\), found 'Halden'"
    ):
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
