"""Where records come from: rankings, BM25 pairs, files."""

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import BIOSpans, BM25Scores, IRDataset, SentencePairs, SpanPairs
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.runs import read_qrels, read_run
from mtlrank.task import PairwiseRelevance, Regression, Relevance, SpanClassification, SpanPairClassification

TINY = Preprocessor("mtlrank-embedded/tiny-bert")
DOCS = ["d1\tthe silent harbour", "d2\tharbour lights", "d3\ta garden", "d4\tgarden and harbour", "d5\tnothing"]
QUERIES = ["q1\tsilent harbour", "q2\tgarden"]
QRELS = ["q1 0 d1 2", "q1 0 d2 1", "q1 0 gone 2", "q2 0 d3 3", "q9 0 d1 1"]
RUN = ["q1 Q0 d2 1 3.0 x", "q1 Q0 d1 2 2.0 x", "q1 Q0 d5 3 1.0 x", "q2 Q0 d4 1 2.0 x", "q2 Q0 d3 2 1.0 x"]


@pytest.fixture
def source(tmp_path):
    files = {"docs": DOCS, "queries": QUERIES, "qrels": QRELS, "run": RUN}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return {name: str(tmp_path / name) for name in files}


def ranking(source, task=None, **kwargs):
    return IRDataset("x", task or Relevance(["nDCG@10"], 2), TINY, source, **kwargs)


def rows(dataset, split):
    return [(r.query_id, r.doc_id, r.label) for r in dataset.records(split)]


def test_pointwise_training_has_judged_documents_and_sampled_candidates(source):
    assert rows(ranking(source, num_negatives=1), "train") == [
        ("q1", "d1", 2),
        ("q1", "d2", 1),
        ("q1", "d5", 0),
        ("q2", "d3", 3),
        ("q2", "d4", 0),
    ]


def test_judged_negatives_can_be_left_out(source):
    assert ("q1", "d2", 1) not in rows(ranking(source, judged_negatives=False), "train")


def test_groups_hold_a_positive_and_its_negatives(source):
    dataset = ranking(source, PairwiseRelevance(["nDCG@10"], 2), num_negatives=1)
    groups = {}
    for record in dataset.records("train"):
        groups.setdefault(record.group, []).append(record.label)
    assert [labels[0] for labels in groups.values()] == [2, 3]
    assert all(len(labels) == 2 and labels[1] < 2 for labels in groups.values())


def test_other_splits_hold_candidates_in_first_stage_order(source):
    assert rows(ranking(source, test=source, num_candidates=2), "test") == [
        ("q1", "d2", 1),
        ("q1", "d1", 2),
        ("q2", "d4", 0),
        ("q2", "d3", 3),
    ]


def test_a_split_can_be_a_share_of_the_training_queries(source):
    many = [f"q{i}\tgarden" for i in range(200)]
    with open(source["queries"], "w") as file:
        file.write("\n".join(many) + "\n")
    with open(source["qrels"], "w") as file:
        file.write("".join(f"q{i} 0 d3 2\n" for i in range(200)))
    dataset = ranking(source, val=0.2, test=0.3)
    splits = {split: dataset.query_ids(split) for split in ("train", "val", "test")}
    assert sorted(query_id for ids in splits.values() for query_id in ids) == sorted(f"q{i}" for i in range(200))
    assert 25 < len(splits["val"]) < 55
    assert 40 < len(splits["test"]) < 80


def test_judgements_keep_every_judged_query_and_document(source, tmp_path):
    dataset = ranking(source, test=source)
    dataset.write_judgements("test", tmp_path)
    qrels = {(q.query_id, q.doc_id, q.relevance) for q in read_qrels(tmp_path / "qrels.txt")}
    assert qrels == {("q1", "d1", 2), ("q1", "d2", 1), ("q1", "gone", 2), ("q2", "d3", 3)}
    assert [d.doc_id for d in read_run(tmp_path / "candidates.run")] == ["d2", "d1", "d5", "d4", "d3"]


def test_without_a_run_candidates_are_retrieved(source):
    del source["run"]
    found = Collection(source).candidates(["q1"], 3)["q1"]
    assert [doc.doc_id for doc in found] == ["d1", "d2", "d4"]
    assert [doc.rank for doc in found] == [1, 2, 3]


def test_equal_first_stage_scores_are_ordered_as_trec_eval_orders_them(source):
    with open(source["run"], "w") as file:
        file.write("q1 Q0 d1 1 1.0 x\nq1 Q0 d2 2 1.0 x\n")
    assert [doc.doc_id for doc in Collection(source).candidates(["q1"], 9)["q1"]] == ["d2", "d1"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"val": 1.5}, "shares of training queries lie between 0 and 1"),
        ({"val": 0.6, "test": 0.6}, "shares of training queries"),
        ({"train": 0.5}, "train is 0.5, expected a collection"),
    ],
)
def test_impossible_shares_are_refused(source, change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        IRDataset("x", Relevance(["AP"]), TINY, **{"train": source, **change})


def test_an_unknown_collection_comes_with_the_nearest_ids():
    with pytest.raises(ConfigError, match="Did you mean vaswani"):
        Collection("vaswanni")


def test_a_missing_file_is_named(source):
    with pytest.raises(DataError, match="run file 'nowhere' does not exist"):
        Collection({**source, "run": "nowhere"})


def test_files_of_another_kind_are_refused(source):
    with pytest.raises(ConfigError, match="has docs, queries, qrels, run; found texts"):
        Collection({"texts": "x"})


def test_a_broken_file_is_named_with_what_happened(source):
    with open(source["qrels"], "w") as file:
        file.write("q1 0 d1\n")
    with pytest.raises(DataError, match="Cannot read the collection"):
        Collection(source).qrels  # noqa: B018


def test_the_embedded_collection_is_an_ir_datasets_source():
    collection = Collection("mtlrank-embedded/test")
    assert len(collection.queries) == len(collection.qrels) == 100
    assert sum(1 for _ in collection.docs()) == 2475


def test_bm25_labels_are_the_collections_scores(source):
    dataset = BM25Scores("x", Regression(["MSE"]), TINY, source, per_query=4, depth=3)
    records = list(dataset.records("train"))
    index = Collection(source).bm25
    assert {r.query_id for r in records} == {"q1", "q2"}
    assert all(r.label == pytest.approx(float(index.score(r.query, [r.doc_id])[0])) for r in records)
    assert len({(r.query_id, r.doc_id) for r in records}) == len(records)


def test_sentence_pairs_read_their_columns(tmp_path):
    (tmp_path / "x.tsv").write_text('a\tb\t"quoted\t3.5\tfirst\tsecond\n')
    dataset = SentencePairs("x", Regression(["MSE"]), TINY, str(tmp_path / "x.tsv"), score_column=3, columns=(4, 5))
    (record,) = dataset.records("train")
    assert (record.query, record.text, record.label) == ("first", "second", "3.5")
    assert list(dataset.records("test")) == []


def test_too_few_columns_are_named_with_the_line(tmp_path):
    (tmp_path / "x.tsv").write_text("1\ta\tb\n2\ta\n")
    with pytest.raises(DataError, match=r"x.tsv:2: expected 3 tab-separated columns, found 2"):
        list(SentencePairs("x", Regression(["MSE"]), TINY, str(tmp_path / "x.tsv")).records("train"))


def test_entities_of_a_bio_file(tmp_path):
    (tmp_path / "x").write_text(
        "Mira\tB-PER\nHalden\tI-PER\nsaw\tO\nQuellin\tI-LOC\n\nno\tO\n\nVoss\tB-PER\nPell\tB-PER\n"
    )
    dataset = BIOSpans("x", SpanClassification(["Accuracy"]), TINY, str(tmp_path / "x"))
    records = list(dataset.records("train"))
    surfaces = [(r.text[r.spans[0][0] : r.spans[0][1]], r.label, r.group) for r in records]
    assert surfaces == [("Mira Halden", "PER", 0), ("Quellin", "LOC", 0), ("Voss", "PER", 2), ("Pell", "PER", 2)]


def test_a_line_without_a_tag_is_named(tmp_path):
    (tmp_path / "x").write_text("Mira\tB-PER\nHalden PER\n")
    with pytest.raises(DataError, match="x:2: expected 'token<TAB>tag'"):
        list(BIOSpans("x", SpanClassification(["Accuracy"]), TINY, str(tmp_path / "x")).records("train"))


def test_a_json_line_without_spans_is_named(tmp_path):
    (tmp_path / "x").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(DataError, match="x:1: expected JSON with text, spans and label"):
        list(SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, str(tmp_path / "x")).records("train"))


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"1\ta\t\xff\n")
    with pytest.raises(DataError, match="not valid UTF-8"):
        list(SentencePairs("x", Regression(["MSE"]), TINY, str(tmp_path / "x")).records("train"))
