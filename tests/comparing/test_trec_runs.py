import pytest

from mtlrank.comparing.systems import first_stage, read_system
from mtlrank.comparing.trec_runs import judge_files, read_topics
from mtlrank.errors import DataError
from tests.evaluation.judged_runs import compare, write_labels, write_ranking

QRELS = "q1 0 a 1\nq1 0 b 2\nq2 0 c 1\nq3 0 d 1\nq3 0 e 0\n"
CANDIDATES = "q1 Q0 a 1 2 x\nq1 Q0 b 2 1 x\nq2 Q0 c 1 1 x\nq3 Q0 d 1 2 x\nq3 Q0 e 2 1 x\n"
RUN = "q1 Q0 y 1 3 x\nq1 Q0 a 2 2 x\nq1 Q0 b 3 1 x\nq2 Q0 c 1 5 x\nq9 Q0 a 1 1 x\n"


def write_judged(folder, qrels=QRELS, candidates=CANDIDATES, measure="AP", **options):
    queries = sorted({line.split()[0] for line in qrels.splitlines()})
    write_ranking(folder, dict.fromkeys(queries, 0.5), measure=measure, **options)
    (folder / "qrels.txt").write_text(qrels)
    (folder / "run.trec").write_text(candidates)


@pytest.fixture
def topics(tmp_path):
    write_judged(tmp_path / "a" / "evaluation" / "rank")
    write_judged(tmp_path / "b" / "evaluation" / "rank", measure="RR(rel=2)")
    write_labels(tmp_path / "b" / "evaluation" / "sim", [("q", "d", 0, 1, 5)])
    return read_topics([read_system(name, [tmp_path / name]) for name in "ab"])


@pytest.fixture
def judge(tmp_path, topics, monkeypatch):
    """The system of a run file, and what is told of it."""
    monkeypatch.chdir(tmp_path)

    def judged(text):
        (tmp_path / "x.run").write_text(text)
        return judge_files("x", [(tmp_path / "x.run").relative_to(tmp_path)], topics)

    return judged


def test_a_run_is_judged_by_all_measures_on_the_judged_queries(judge):
    system, _ = judge(RUN)
    head = system.heads["rank"]
    assert (system.name, system.num_runs, list(system.heads)) == ("x", 1, ["rank"])
    assert head.items == (("q1",), ("q2",), ("q3",))
    assert head.values["AP"].tolist() == [[round((1 / 2 + 2 / 3) / 2, 6), 1, 0]]
    assert head.values["RR(rel=2)"].tolist() == [[round(1 / 3, 6), 0, 0]]
    assert first_stage(system) is None


def test_what_a_reader_must_know_is_told(judge):
    assert judge(RUN)[1] == [
        "x.run lacks 1 of 3 queries of rank, which count as 0.",
        "1 of the 4 documents that x.run ranks for rank are not among the candidates that the heads re-rank: it "
        "retrieves differently, so a difference is not due to re-ranking alone.",
        "x.run also ranks queries that are not judged: 1 are left out.",
    ]
    assert judge(CANDIDATES)[1] == []


def test_a_run_belongs_to_the_test_sets_whose_documents_it_ranks(tmp_path):
    """Ids of queries alone do not tell: many collections number them."""
    for name, split, doc_id in (("rank", "test", "d"), ("rank@other", "test@other", "e"), ("sun", "test", "f")):
        folder = tmp_path / "a" / "evaluation" / name
        write_judged(folder, f"1 0 {doc_id} 1\n", f"1 Q0 {doc_id} 1 1 x\n", split=split)
        text = (folder / "metrics.json").read_text().replace('"name": "rank@other"', '"name": "rank"')
        (folder / "metrics.json").write_text(text)
    system = read_system("a", [tmp_path / "a"])
    (tmp_path / "x.run").write_text("1 Q0 e 1 2 x\n1 Q0 f 2 1 x\n")
    other, _ = judge_files("x", [tmp_path / "x.run"], read_topics([system]))
    assert {name: head.values["AP"].tolist() for name, head in other.heads.items()} == {
        "rank@other": [[1.0]],
        "sun": [[0.5]],
    }
    assert [(row.head, row.baseline_value) for row in compare(system, other)] == [("rank@other", 0.5), ("sun", 0.5)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("q1 Q0 z 1 2 x\n", r"x.run ranks no judged document of the rankings of the other systems \(rank\)"),
        ("q1 Q0 a 1 0 x\nq1 Q0 b 2 0 x\n", "x.run ranks nothing: all documents of a query have the same score"),
        ("q1 Q0 a 1 2 x\nq1 Q0 a 2 1 x\n", "x.run:2: document 'a' is ranked twice for query 'q1'"),
        ("q1 Q0 a 1 nan x\n", "x.run:1: expected a line of a TREC run"),
    ],
)
def test_mistakes(judge, text, complaint):
    with pytest.raises(DataError, match=complaint):
        judge(text)
