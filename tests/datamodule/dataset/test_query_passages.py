"""Rows of a query with its passages, in the forms in which such data are published."""

import json
from collections import Counter

import pytest

from mtlrank.datamodule.dataset import QueryPassages, Shard
from mtlrank.datamodule.dataset.query_passages import texts_of
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import LocalizedContrastive, MarginMSE, Regression, Relevance
from tests.datamodule.dataset.labelled import TINY, read

ROW = {"query": "who won", "positive": ["Ann won"], "negative": ["a garden", "the harbour", "a bridge"]}


def dataset(path, task=None, **settings):
    return QueryPassages("x", task or LocalizedContrastive(["AP"]), TINY, str(path), **settings)


def rows(path, *given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def told(records):
    """The query, the passages and the labels of each sample."""
    samples = {}
    for number, record in enumerate(records):
        key = ("single", number) if record.group is None else record.group
        samples.setdefault(key, []).append((record.query, record.text, record.label))
    return list(samples.values())


LISTS = {"query": "who won", "pos": ["Ann won"], "neg": ["a garden", "the harbour"]}
OBJECTS = {
    "query_id": "7",
    "query": "who won",
    "positive_passages": [{"docid": "d1", "title": "", "text": "Ann won"}],
    "negative_passages": [{"docid": "d2", "title": "a", "text": "garden"}, {"docid": "d3", "text": "the harbour"}],
}
FORMS = {
    "lists": (".jsonl", json.dumps(LISTS), {"positives": "pos", "negatives": "neg"}),
    "objects": (
        *(".jsonl", json.dumps(OBJECTS)),
        {"positives": "positive_passages", "negatives": "negative_passages"},
    ),
    "columns": (
        *(".csv", "anchor,positive,negative_1,negative_2,negative_3\nwho won,Ann won,a garden,the harbour,"),
        {"query": "anchor", "negatives": ["negative_1", "negative_2", "negative_3"]},
    ),
    "triples": (
        *(".tsv", "who won\tAnn won\ta garden\nwho won\tAnn won\tthe harbour"),
        {"query": 0, "positives": 1, "negatives": 2},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_in_which_training_data_are_published(tmp_path, form):
    ending, text, settings = FORMS[form]
    path = tmp_path / f"x{ending}"
    path.write_text(text + "\n")
    samples = told(read(dataset(path, **settings)))
    relevant, others = ("who won", "Ann won", 1.0), [("who won", text, 0.0) for text in ("a garden", "the harbour")]
    if form == "triples":
        assert samples == [[relevant, other] for other in others]
    else:
        assert [sorted(sample, key=lambda each: -each[2])[0] for sample in samples] == [relevant]
        assert sorted(samples[0][1:]) == others


def test_parquet_has_lists_and_objects_too(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([OBJECTS]), tmp_path / "x.parquet")
    settings = {"positives": "positive_passages", "negatives": "negative_passages"}
    assert len(read(dataset(tmp_path / "x.parquet", **settings))) == 3


def test_each_relevant_passage_has_groups_of_its_own(tmp_path):
    row = {"query": "q", "positive": ["good", "better"], "negative": [f"bad {i}" for i in range(12)]}
    made = dataset(rows(tmp_path / "x.jsonl", row), num_negatives=3, groups_per_positive=2)
    samples = told(read(made))
    assert [sample[0][1] for sample in samples] == ["good", "good", "better", "better"]
    assert all([label for *_, label in sample] == [1.0, 0.0, 0.0, 0.0] for sample in samples)
    drawn = [text for sample in samples[:2] for _, text, _ in sample[1:]]
    assert len(set(drawn)) == 6  # different ones while there are enough
    assert told(read(made)) == samples
    assert {record.label for record in read(dataset(tmp_path / "x.jsonl", LocalizedContrastive(["AP"], 2)))} == {
        0.0,
        2.0,
    }


def test_a_task_on_single_documents_learns_them_one_by_one(tmp_path):
    samples = told(read(dataset(rows(tmp_path / "x.jsonl", ROW), Relevance(["AP"]), num_negatives=2)))
    assert [len(sample) for sample in samples] == [1, 1, 1]
    assert Counter(label for sample in samples for *_, label in sample) == {1.0: 1, 0.0: 2}


def test_what_cannot_be_contrasted_is_counted(tmp_path):
    both = {"query": "why", "positive": "so", "negative": ["so", "a bridge"]}
    made = dataset(rows(tmp_path / "x.jsonl", ROW, both, {"query": "where", "positive": "here", "negative": []}))
    assert [[text for _, text, _ in sample] for sample in told(read(made))][1] == ["so", "a bridge"]
    assert made.reading.counts == {"train": {"negatives that are positives too": 1, "rows without a negative": 1}}


def test_candidates_of_a_query_are_all_its_passages(tmp_path):
    again = {"query": "Who  won", "positive": "the harbour", "negative": "a hill"}
    other = {"query": "why", "positive": "so", "negative": "never"}
    test = rows(tmp_path / "test.jsonl", ROW, again)
    made = dataset(rows(tmp_path / "x.jsonl", other), test=str(test))
    records = read(made, "test")
    assert {record.text: record.label for record in records} == {
        "Ann won": 1.0,
        "the harbour": 1.0,
        "a garden": 0.0,
        "a bridge": 0.0,
        "a hill": 0.0,
    }
    assert len({record.query_id for record in records}) == 1
    made.write_judgements("test", tmp_path)
    judged = [line.split() for line in (tmp_path / "qrels.txt").read_text().splitlines()]
    assert sorted(grade for *_, grade in judged) == ["0", "0", "0", "1", "1"]
    assert len((tmp_path / "candidates.run").read_text().splitlines()) == 5


@pytest.mark.parametrize("total", [1, 3])
def test_shares_of_the_queries_are_held_out(tmp_path, total):
    path = rows(tmp_path / "x.jsonl", *({**ROW, "query": f"question {i % 60}"} for i in range(120)))
    made = dataset(path, val=0.2, test=0.2)
    asked = {split: {record.query_id for record in read(made, split)} for split in ("train", "val", "test")}
    assert sum(map(len, asked.values())) == len(set.union(*asked.values())) == 60
    assert all(5 <= len(asked[split]) <= 20 for split in ("val", "test"))
    folders = []
    for number in range(1, total + 1):
        folders.append(tmp_path / f"{number}")
        dataset(path, val=0.2, test=0.2).prepare_shard(folders[-1], Shard(number, total), Reading())
    made.merge(tmp_path / "whole", folders)
    made.open(tmp_path / "whole")
    assert {split: len({query for query, _ in made.split(split).ids}) for split in asked} == {
        split: len(queries) for split, queries in asked.items()
    }
    assert len(made.split("train")) == 2 * len(asked["train"])  # a group for each row


def test_a_query_of_the_test_is_not_learnt(tmp_path):
    test = rows(tmp_path / "test.jsonl", {**ROW, "query": "Who Won"})
    path = rows(tmp_path / "x.jsonl", ROW, {**ROW, "query": "why"})
    with pytest.raises(DataError, match="1 training queries are also asked in another split"):
        read(dataset(path, test=str(test)))
    kept = read(dataset(path, test=str(test), leaked_queries="drop"))
    assert {record.query for record in kept} == {"why"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query": 7}, "x.jsonl:1: expected text as query, found 7"),
        ({"query": " "}, "x.jsonl:1: expected text as query, found ' '"),
        ({"positive": [3]}, r"x.jsonl:1: expected passages, found \[3\]"),
        ({"negative": {"title": "a"}}, "x.jsonl:1: expected passages, found {'title': 'a'}"),
        ({"positive": [" "]}, "x.jsonl:1: expected a relevant passage as positive, found none"),
        ({"positive": None}, "x.jsonl:1: expected a relevant passage as positive, found none"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, change, reason):
    path = rows(tmp_path / "x.jsonl", {**ROW, **change}, {**ROW, "query": "why"})
    with pytest.raises(DataError, match=reason):
        read(dataset(path))
    made = dataset(path)
    made.reading = Reading("quarantine")
    assert {record.query for record in read(made)} == {"why"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"query": "question"}, r"The first row of x\.jsonl has no 'question'\. It has: query, positive, negative\."),
        ({"positives": ["pos", "pos_2"]}, r"The first row of x\.jsonl has no 'pos or pos_2'\. It has: query, "),
        ({"negatives": "negs"}, r"No row of x\.jsonl has 'negs'\. The last one has: query, positive, negative\."),
    ],
)
def test_a_misspelt_column_is_named_beside_those_that_there_are(tmp_path, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        read(dataset(rows(tmp_path / "x.jsonl", ROW), **settings))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"task": Regression(["MSE"])}, "the task is Regression. Expected one such as task=relevance_contrastive"),
        ({"task": MarginMSE(["AP"])}, "scores is None, and the task is MarginMSE. A distillation needs the columns"),
        ({"scores": "label"}, "scores is 'label', and the task is LocalizedContrastive"),
        ({"task": MarginMSE(["AP"]), "scores": "query"}, "need a column of their own, found 'query' twice in"),
        ({"negatives": []}, "negatives is .*, expected a column or a list of columns"),
        ({"negatives": None}, "negatives is None, expected a column or a list of columns"),
        ({"query": None}, "query is None, expected a column"),
        ({"positives": "query"}, "need a column of their own, found 'query' twice in"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"val": 2}, "val is 2: expected a source, or a share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        dataset(tmp_path / "x.jsonl", **settings)


def prepared(path, folder, on_bad_row="stop", **settings):
    made = dataset(path, **settings)
    made.prepare_shard(folder / "shard", Shard(), Reading(on_bad_row))
    made.merge(folder / "whole", [folder / "shard"])
    made.open(folder / "whole")
    return made


def test_several_rows_of_a_query_agree(tmp_path):
    """In spelling, and in what is relevant: a mined negative may be the positive of another row."""
    first, second = {**ROW, "query": "who  won"}, {**ROW, "query": "Who won", "positive": "The harbour"}
    made = prepared(rows(tmp_path / "x.jsonl", first, second), tmp_path, val=str(rows(tmp_path / "val.jsonl", BOTH)))
    assert made.manifest["counts"]["train"]["negatives that are positives too"] == 2
    texts = {record.text for record in read(dataset(tmp_path / "x.jsonl")) if not record.label}
    assert texts == {"a garden", "a bridge"}
    assert len({query for query, _ in made.split("train").ids}) == 1
    assert [int(label) for label in made.split("val").labels.all()] == [1, 1]


BOTH = {"query": "why", "positive": ["so", "never"], "negative": ["So", "NEVER "]}


def test_a_passage_that_cannot_be_used_takes_no_other_with_it(tmp_path):
    strange = {"query": "why", "positive": ["so"], "negative": ["a hill", "\u200b", "a tree"]}
    made = prepared(
        rows(tmp_path / "x.jsonl", ROW), tmp_path, "quarantine", test=str(rows(tmp_path / "test.jsonl", strange))
    )
    (bad,) = (json.loads(line) for line in (tmp_path / "shard" / "bad_rows.jsonl").read_text().splitlines())
    assert bad["place"].endswith("test.jsonl:1, passage 3")
    assert len(made.split("test")) == len(made.split("test").qrels) == 3


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_column_that_no_row_has_is_named(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    if ending == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist([ROW, ROW]), path)
    else:
        rows(path, ROW, {"query": "why", "positive": "so"})
    with pytest.raises(ConfigError, match=r"'neg'.* has: query, positive"):
        read(dataset(path, negatives="neg", task=Relevance(["AP"])))
    assert read(dataset(path, task=Relevance(["AP"])))


def test_the_format_may_differ_from_the_ending(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "x.pq")
    assert len(read(dataset(tmp_path / "x.pq", format="parquet"))) == 4


@pytest.mark.parametrize("header", ["query\tpositive\tnegative", "anchor\tpos\tneg", "Question\tPositives\tnegative_1"])
def test_a_header_is_no_query(tmp_path, header):
    (tmp_path / "x.tsv").write_text(f"{header}\nwho\tAnn\ta garden\n")
    with pytest.raises(DataError, match="x.tsv:1: expected a query and passages, found a header"):
        read(dataset(tmp_path / "x.tsv", query=0, positives=1, negatives=2))


def test_shares_are_described_as_shares(tmp_path):
    described = dataset(rows(tmp_path / "x.jsonl", ROW), val=0.1).describe()
    assert described["val"] == 0.1
    assert described["train"]["file"] == "x.jsonl"


def test_columns_of_json_are_names(tmp_path):
    with pytest.raises(ConfigError, match=r"Columns of x.jsonl are names, found \[0, 1, 2\]"):
        read(dataset(rows(tmp_path / "x.jsonl", ROW), query=0, positives=1, negatives=2))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a", ["a"]),
        (["a", " ", "b"], ["a", " ", "b"]),
        ([{"text": "a", "title": "t"}, "b"], ["t a", "b"]),
        (None, []),
        ("['a' is a letter", ["['a' is a letter"]),
    ],
)
def test_what_a_cell_may_hold(cell, expected):
    assert texts_of(cell) == expected


@pytest.mark.parametrize("cell", [["a", None], 1.5, '["a", "b"]', " ['a',\n 'b'] ", [{"text": 1}]])
def test_what_a_cell_may_not_hold(cell):
    """Neither the text of a list."""
    with pytest.raises(DataError, match="expected passages, found "):
        texts_of(cell)


TEACHER = MarginMSE(["AP"])
SCORED = {"pos_scores": [9.5], "neg_scores": [1, -2.5, 0.25]}


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        (ROW | SCORED, {"scores": ["pos_scores", "neg_scores"]}),
        (ROW | {"label": [9.5, 1, -2.5, 0.25]}, {"scores": "label"}),
        (  # blank passages have scores, too
            {"query": "who won", "positive": "Ann won", "negative": ["a garden", " ", "the harbour", "a bridge"]}
            | {"a": 9.5, "b": [1, None, -2.5, 0.25]},
            {"scores": ["a", "b"]},
        ),
    ],
)
def test_a_teachers_scores_are_learnt(tmp_path, row, settings):
    (group,) = told(read(dataset(rows(tmp_path / "x.jsonl", row), TEACHER, **settings)))
    assert group[0] == ("who won", "Ann won", 9.5)
    assert sorted(group[1:]) == [
        ("who won", text, score) for text, score in (("a bridge", 0.25), ("a garden", 1.0), ("the harbour", -2.5))
    ]


def test_a_teachers_scores_may_be_columns_of_a_table(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("query,positive,n1,n2,score,s1,s2\nwho won,Ann won,a garden,,9.5,1e-1,\n")
    settings = {"negatives": ["n1", "n2"], "scores": ["score", "s1", "s2"]}
    assert told(read(dataset(path, TEACHER, **settings))) == [
        [("who won", "Ann won", 9.5), ("who won", "a garden", 0.1)]
    ]


def test_what_a_teacher_taught_is_judged_by_what_is_relevant(tmp_path):
    scored, plain = (rows(tmp_path / f"{name}.jsonl", row) for name, row in (("x", ROW | SCORED), ("y", ROW)))
    made = dataset(scored, TEACHER, val=str(plain), scores=["pos_scores", "neg_scores"], leaked_queries="drop")
    assert {(record.text, record.label) for record in made.records("val")} == {
        ("Ann won", 1.0),
        *((text, 0.0) for text in ROW["negative"]),
    }


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([1], "expected a score for each of 4 passages, found 1"),
        (None, "expected a score for each of 4 passages, found 0"),
        ([1, 2, 3, "four"], "label 'four' is not a number"),
        ([1, 2, 3, None], "label 'None' is not a number"),
        ([1, 2, 3, True], "expected a number as a score, found True"),
        ([1, 2, 3, float("nan")], "label nan is not finite"),
    ],
)
def test_what_is_no_score_is_told_with_its_place(tmp_path, scores, reason):
    path = rows(tmp_path / "x.jsonl", ROW | {"label": scores})
    with pytest.raises(DataError, match=f"x.jsonl:1: {reason}"):
        read(dataset(path, TEACHER, scores="label"))


def test_a_share_that_nothing_falls_into_is_told(tmp_path):
    few = dataset(rows(tmp_path / "x.jsonl", ROW), val=1e-6)
    few.prepare_shard(tmp_path / "shard", Shard(), Reading())
    with pytest.raises(DataError, match=r"split 'val' of x has no samples: it is the share 1e-06 of the training data"):
        few.merge(tmp_path / "whole", [tmp_path / "shard"])
