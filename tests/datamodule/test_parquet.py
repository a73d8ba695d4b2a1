"""Parquet files as datasets, collections and pairs to rank."""

import json
import random
import sys
from collections import Counter

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import GAP, BIOSpans, LabelledAnswers, SentencePairs, SpanPairs
from mtlrank.datamodule.parquet import read_parquet
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.inference.candidates import pairs_of_files
from mtlrank.inference.pair_store import PairStore
from mtlrank.task import Buckets, Classification, Regression, Relevance, SpanClassification, SpanPairClassification
from tests.datamodule.dataset.labelled import TINY, read

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NLI = {"premise": ["a dog", "a cat"], "hypothesis": ["an animal", "a dog"], "label": [0, 2]}


def write(path, columns, classes=None, **settings):
    """A file as the library `datasets` writes it, with the names of the classes by column."""
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in table.column_names if name not in features}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, **settings)
    return path


def pairs(path, task=None, **settings):
    columns = {"score_column": "label", "columns": ("premise", "hypothesis"), **settings}
    return SentencePairs("x", task or Regression(["MSE"]), TINY, str(path), **columns)


def test_columns_are_read_by_name(tmp_path):
    path = write(tmp_path / "x.parquet", {**NLI, "embedding": [[0.5] * 3, [1.0] * 3]})
    assert [(r.query, r.text, r.label, r.place) for r in read(pairs(path))] == [
        ("a dog", "an animal", 0, f"{tmp_path.name}/x.parquet, row 1"),
        ("a cat", "a dog", 2, f"{tmp_path.name}/x.parquet, row 2"),
    ]


def test_rows_are_the_same_in_whatever_pieces_a_file_is_written(tmp_path):
    rows = {"premise": [f"p{i}" for i in range(2500)], "hypothesis": ["h"] * 2500, "label": list(range(2500))}
    path = write(tmp_path / "x.parquet", rows, row_group_size=700, use_dictionary=["hypothesis"])
    found = read(pairs(path))
    assert [(r.query, r.label) for r in found] == list(zip(rows["premise"], rows["label"], strict=True))
    assert found[-1].place.endswith("x.parquet, row 2500")


def test_classes_are_read_by_their_names_where_a_task_learns_classes(tmp_path):
    names = ["entailment", "neutral", "contradiction"]
    path = write(tmp_path / "x.parquet", NLI, {"label": names})
    assert [r.label for r in read(pairs(path, Classification(["Accuracy"])))] == ["entailment", "contradiction"]
    for task in (Regression(["MSE"]), Buckets(["Accuracy"])):
        assert [r.label for r in read(pairs(path, task))] == [0, 2]
    answers = LabelledAnswers("x", Relevance(["AP"]), TINY, str(path), columns=("premise", "label", "hypothesis"))
    assert [r.label for r in read(answers)] == [0, 2]
    unnamed = write(tmp_path / "y.parquet", NLI)
    assert [r.label for r in read(pairs(unnamed, Classification(["Accuracy"])))] == [0, 2]


@pytest.mark.parametrize("number", [-1, 3, None])
def test_what_is_no_class_is_a_bad_row(tmp_path, number):
    path = write(tmp_path / "x.parquet", NLI | {"label": [1, number]}, {"label": ["yes", "no", "perhaps"]})
    with pytest.raises(DataError, match=r"x\.parquet, row 2: expected text or a number as label, found None"):
        read(pairs(path, Classification(["Accuracy"])))


@pytest.mark.parametrize("metadata", [{}, {"huggingface": "no JSON"}, {"huggingface": "[1]"}, {"huggingface": "{}"}])
def test_other_metadata_does_not_disturb(tmp_path, metadata):
    parquet.write_table(pyarrow.table(NLI).replace_schema_metadata(metadata), tmp_path / "x.parquet")
    assert [r.label for r in read(pairs(tmp_path / "x.parquet", Classification(["Accuracy"])))] == [0, 2]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"premise": ["a", None]}, "row 2: expected text or a number as premise, found None"),
        ({"label": [True, False]}, "row 1: expected text or a number as label, found True"),
        ({"premise": [["a"], ["b"]]}, r"row 1: expected text or a number as premise, found \['a'\]"),
        ({"premise": [1, 2]}, "row 1: expected text, found 1 and 'an animal'"),
    ],
)
def test_a_bad_row_is_found_again(tmp_path, changes, complaint):
    with pytest.raises(DataError, match=rf"{tmp_path.name}/x\.parquet, {complaint}"):
        read(pairs(write(tmp_path / "x.parquet", NLI | changes)))


def test_text_that_is_not_utf8_is_a_bad_row(tmp_path):
    raw = pyarrow.array([b"fine", b"caf\xe9"], pyarrow.binary())
    wrong = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
    path = write(tmp_path / "x.parquet", NLI | {"premise": wrong})
    dataset = pairs(path)
    dataset.reading = Reading("quarantine")
    assert [r.query for r in read(dataset)] == ["fine"]
    (bad,) = dataset.reading.bad_rows.values()
    assert r"caf\xe9" in bad.reason


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"score_column": "score"}, r"x\.parquet has no column 'score'\. It has: premise, hypothesis, label\."),
        ({"columns": (0, 1)}, r"Columns of a parquet file are names, found \['label', 0, 1\]"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        read(pairs(write(tmp_path / "x.parquet", NLI), **settings))


def test_a_column_that_is_there_twice_is_told(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        [["a dog"], ["an animal"], ["a cat"], [1]], names=["premise", "hypothesis", "premise", "label"]
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"x\.parquet has the column 'premise' twice\. Rename one\."):
        read(pairs(tmp_path / "x.parquet"))


def test_what_is_no_parquet_or_not_whole_is_told(tmp_path):
    (tmp_path / "x.parquet").write_text("1\ta\tb\n")
    with pytest.raises(DataError, match=r"Cannot read .*x\.parquet as Parquet after row 0: .* Copy it again\."):
        read(pairs(tmp_path / "x.parquet"))
    whole = write(tmp_path / "y.parquet", NLI).read_bytes()
    (tmp_path / "y.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"Cannot read .*y\.parquet as Parquet after row 0: "):
        read(pairs(tmp_path / "y.parquet"))


def test_a_damaged_page_is_told(tmp_path):
    rows = {"premise": [f"{i * 7919 % 10007} words" for i in range(5000)], "hypothesis": ["h"] * 5000}
    path = write(tmp_path / "x.parquet", rows | {"label": list(range(5000))}, compression="gzip", row_group_size=1000)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 64] = b"\xff" * 64
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"Cannot read .*x\.parquet as Parquet after row [123]000: "):
        read(pairs(path))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"x\.parquet is Parquet, which needs pyarrow: pip install 'mtlrank\[parquet\]'"
    ):
        list(read_parquet(tmp_path / "x.parquet", ["a"], Reading()))


def test_a_file_that_is_read_as_lines_is_told(tmp_path):
    path = write(tmp_path / "x.parquet", NLI)
    with pytest.raises(DataError, match=r"x\.parquet is Parquet, expected lines of text\. .* set format=parquet"):
        read(SentencePairs("x", Regression(["MSE"]), TINY, str(path), format="tsv"))
    with pytest.raises(DataError, match=r"x\.parquet is Parquet, expected lines of text\."):
        read(GAP("x", Classification(["Accuracy"]), TINY, str(path)))


def test_a_row_group_is_not_read_whole(tmp_path):
    texts = [random.Random(number).randbytes(250).hex() for number in range(40_000)]  # 20 MB
    path = write(tmp_path / "x.parquet", {"a": texts}, compression="none", use_dictionary=False, row_group_size=40_000)
    del texts
    before, most = pyarrow.total_allocated_bytes(), 0
    for _ in read_parquet(path, ["a"], Reading()):
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 0 < most < 8e6


def test_how_far_it_is_is_told(tmp_path):
    path = write(tmp_path / "x.parquet", {"a": list(range(4000))})
    reading, shares = Reading(), []
    for number, _ in enumerate(read_parquet(path, ["a"], reading)):
        if number % 1000 == 999:
            shares.append(reading.progress.share)
    assert shares == [0, 0.25, 0.5, 0.75]


def test_a_collection_may_be_parquet(tmp_path):
    docs = {"_id": ["d1", "d2"], "title": ["One", None], "text": ["a first", "b"], "vector": [[0.5], [0.25]]}
    source = {
        "docs": str(write(tmp_path / "corpus.parquet", docs)),
        "queries": str(write(tmp_path / "queries.parquet", {"query_id": [1, 2], "contents": ["first", "second"]})),
        "qrels": str(
            write(tmp_path / "q.parquet", {"query-id": [1, 2], "corpus-id": ["d1", "d2"], "score": [2.0, -1.0]})
        ),
    }
    collection = Collection(source)
    assert list(collection.docs) == [("d1", "One a first"), ("d2", "b")]
    assert collection.queries == {"1": "first", "2": "second"}
    assert collection.qrels == {"1": {"d1": 2}, "2": {"d2": -1}}
    assert Counter(type(grade) for judged in collection.qrels.values() for grade in judged.values()) == {int: 2}


@pytest.mark.parametrize(
    ("part", "rows", "complaint"),
    [
        ("docs", {"text": ["a"]}, r"row 1: expected text as _id and text \(and title, if any\), found text \(str\)"),
        ("docs", {"_id": ["a"], "text": [None]}, r"row 1: expected text as .*found _id \(str\), text \(NoneType\)"),
        ("qrels", {"query-id": ["q"], "corpus-id": ["d"], "score": [0.5]}, "row 1: expected ids as .* a whole grade"),
        ("qrels", {"query-id": ["q"], "corpus-id": ["d"], "score": [True]}, "row 1: expected ids as .* a whole grade"),
        (
            "qrels",
            {"query-id": [None], "corpus-id": ["d"], "score": [1]},
            "row 1: expected ids as query-id and corpus-id",
        ),
        (
            "qrels",
            {"query-id": ["q 1"], "corpus-id": ["d"], "score": [1]},
            "row 1: query-id 'q 1' is empty or contains a blank",
        ),
        ("qrels", {"query-id": ["q"], "corpus-id": ["d"], "score": ["1"]}, "row 1: expected ids as query-id and"),
    ],
)
def test_a_bad_row_of_a_collection_is_found_again(tmp_path, part, rows, complaint):
    (tmp_path / "q.tsv").write_text("q\tx\n")
    path = write(tmp_path / "x.parquet", rows)
    with pytest.raises(DataError, match=rf"{tmp_path.name}/x\.parquet, {complaint}"):
        _ = getattr(Collection({"queries": str(tmp_path / "q.tsv"), part: str(path)}), part)


def test_what_has_other_columns_is_told(tmp_path):
    path = str(write(tmp_path / "x.parquet", {"body": ["a"], "key": ["b"]}))
    with pytest.raises(ConfigError, match=r"x\.parquet has none of the columns _id, .*title\. It has: body, key\."):
        _ = Collection({"docs": path}).docs
    with pytest.raises(
        DataError, match=r"x\.parquet is Parquet, expected lines of text\. .* runs and other files as text"
    ):
        list(Collection({"run": path}).source.pair_values("run", Reading()))


def test_pairs_of_spans_may_be_parquet(tmp_path):
    rows = {"text": ["Ann met Mia"], "spans": [[[0, 3], [8, 11]]], "label": ["distinct"]}
    path = write(tmp_path / "x.parquet", rows)
    (record,) = read(SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, str(path)))
    assert (record.text, record.spans, record.label) == ("Ann met Mia", ((0, 3), (8, 11)), "distinct")


def test_pairs_to_rank_may_be_parquet(tmp_path):
    rows = {"query_id": [7], "doc_id": ["d1"], "query": ["who"], "text": ["Ann"], "more": [0.5]}
    store = PairStore(tmp_path / "pairs.sqlite")
    ((pair,),) = pairs_of_files([write(tmp_path / "x.parquet", rows)], Reading(), store, 10)
    assert (pair.query, pair.text) == ("who", "Ann")
    store.put([pair.number], [0.5])
    assert list(store.in_order()) == [("7", "d1", 0.5)]
    store.close()


# -- lists of tokens and of tags -------------------------------------------------------------------------------------

TAGS = ["O", "B-PER", "I-PER", "B-LOC"]
TAGGED = {
    "tokens": [["Mira", " Halden ", "saw", "Quellin"], ["no", "name"], [], ["Voss", "Pell"]],
    "ner_tags": [[1, 2, 0, 3], [0, 0], [], [1, 1]],
    "id": ["0", "1", "2", "3"],
}
TEXT_TAGS = TAGGED | {"ner_tags": [[TAGS[tag] for tag in tags] for tags in TAGGED["ner_tags"]]}
ENTITIES = [
    ("Mira Halden saw Quellin", "PER", ((0, 11),), 0),
    ("Mira Halden saw Quellin", "LOC", ((16, 23),), 0),
    ("Voss Pell", "PER", ((0, 4),), 2),
    ("Voss Pell", "PER", ((5, 9),), 2),
]


def bio(path, **settings):
    return BIOSpans("x", SpanClassification(["Accuracy"]), TINY, str(path), **settings)


def entities(dataset):
    return [(r.text, r.label, r.spans, r.group) for r in read(dataset)]


def write_tagged(path, columns, feature=None):
    """A file with the feature of `ner_tags` as the library `datasets` tells it."""
    struct = {"a": {"dtype": "string", "_type": "Value"}}  # of another column, and without a type of its own
    features = {"ner_tags": feature, "struct": struct, "structs": {"feature": struct, "_type": "Sequence"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if feature else {}
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return path


CLASSES = {"names": TAGS, "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": CLASSES, "length": -1, "_type": "Sequence"},  # before version 4 of datasets
        {"feature": CLASSES, "_type": "List"},
        {"feature": CLASSES, "_type": "LargeList"},
        [CLASSES],
    ],
)
def test_tagged_tokens_are_read_as_a_conll_file(tmp_path, feature):
    rows = zip(TEXT_TAGS["tokens"], TEXT_TAGS["ner_tags"], strict=True)
    sentences = ["".join(f"{token}\t{tag}\n" for token, tag in zip(*row, strict=True)) for row in rows]
    (tmp_path / "x.conll").write_text("\n".join(sentences))
    assert entities(bio(tmp_path / "x.conll")) == ENTITIES
    assert entities(bio(write_tagged(tmp_path / "x.parquet", TAGGED, feature))) == ENTITIES
    assert entities(bio(write_tagged(tmp_path / "y.parquet", TEXT_TAGS))) == ENTITIES
    lines = [json.dumps(row) for row in pyarrow.table(TEXT_TAGS).to_pylist()]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    assert entities(bio(tmp_path / "x.jsonl")) == ENTITIES
    places = [record.place.rpartition("/")[2] for record in read(bio(tmp_path / "x.parquet"))]
    assert places == ["x.parquet, row 1"] * 2 + ["x.parquet, row 4"] * 2


def test_tokens_and_tags_may_have_other_names(tmp_path):
    columns = {"words": TEXT_TAGS["tokens"], "tags": TEXT_TAGS["ner_tags"]}
    dataset = bio(write_tagged(tmp_path / "x.parquet", columns), columns=["words", "tags"])
    assert entities(dataset) == ENTITIES
    with pytest.raises(ConfigError, match=r"x\.parquet has no column 'tokens'\. It has: words, tags\."):
        read(bio(tmp_path / "x.parquet"))
    with pytest.raises(ConfigError, match=r"columns is \['tags'\], expected a list of 2: tokens and tags, by name"):
        bio(tmp_path / "x.parquet", columns=["tags"])


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_numbers_of_tags_without_names_are_told_with_the_ways_out(tmp_path, name):
    write_tagged(tmp_path / "x.parquet", TAGGED)
    (tmp_path / "x.jsonl").write_text(json.dumps({"tokens": ["Mira"], "ner_tags": [1]}) + "\n")
    dataset = bio(tmp_path / name)
    dataset.reading = Reading("quarantine")  # it is no matter of one row
    with pytest.raises(ConfigError, match=rf"{name}.* ner_tags are numbers, .* text, such as B-PER, or .*ClassLabel"):
        read(dataset)


@pytest.mark.parametrize(
    ("tokens", "tags", "complaint"),
    [
        (["Mira", "slept"], ["B-PER"], "expected a tag for each token, found 2 tokens and 1 ner_tags"),
        (
            ["Mira", None],
            ["B-PER", "O"],
            r"expected tokens of text with BIO tags \(O, B-PER, I-PER\), found None with 'O'",
        ),
        (["Mira", " "], ["B-PER", "O"], "found ' ' with 'O'"),
        (["Mira"], ["PER"], "found 'Mira' with 'PER'"),
        (["Mira"], [None], "found 'Mira' with None"),
        (["Mira"], None, "expected a list of tokens and one of tags as tokens and ner_tags, found .*'Mira'.* and None"),
        (
            "Mira",
            ["B-PER"],
            r"expected a list of tokens and one of tags as .*, found Mira and \['B-PER'\]",
        ),
    ],
)
def test_a_row_of_tokens_that_cannot_be_read_is_named_or_set_aside(tmp_path, tokens, tags, complaint):
    good = {"tokens": ["Voss"], "ner_tags": ["B-PER"]}
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in (good, {"tokens": tokens, "ner_tags": tags}))
    )
    with pytest.raises(DataError, match=rf"{tmp_path.name}/x\.jsonl:2: .*{complaint}"):
        read(bio(tmp_path / "x.jsonl"))
    dataset = bio(tmp_path / "x.jsonl")
    dataset.reading = Reading("quarantine")
    assert [record.text for record in read(dataset)] == ["Voss"]
    assert [place.rpartition("/")[2] for place in dataset.reading.bad_rows] == ["x.jsonl:2"]


def test_tags_that_are_no_class_and_tokens_that_are_no_text_are_bad_rows(tmp_path):
    raw = pyarrow.array([[b"Mira"], [b"caf\xe9"], [b"Voss"]], pyarrow.list_(pyarrow.binary()))
    values = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.values.buffers())
    columns = {"tokens": pyarrow.ListArray.from_arrays(raw.offsets, values), "ner_tags": [[1], [1], [-1]]}
    dataset = bio(write_tagged(tmp_path / "x.parquet", columns, {"feature": CLASSES, "_type": "List"}))
    dataset.reading = Reading("quarantine")
    assert [record.text for record in read(dataset)] == ["Mira"]
    reasons = [bad.reason.rpartition("found ")[2] for bad in dataset.reading.bad_rows.values()]
    assert reasons == [r"b'caf\xe9' with 'B-PER'", "'Voss' with None"]
