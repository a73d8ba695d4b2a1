"""A ranking head that reads BM25's score between query and passage, from training to use."""

import json

import pytest

import mtlrank
from mtlrank import evaluate, export, predict, prepare, rank
from mtlrank.datamodule.collection import Collection
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import read_json
from tests.saved_models import composed, save_random, settings

HEAD = "datamodule.dataset.datasets.trec2019"
SOURCE = "mtlrank-embedded/test"


@pytest.fixture(scope="module")
def model(tmp_path_factory, data_dir, home):
    """A random model whose scores depend on BM25's."""
    config = composed(f"+{HEAD}.bm25_in_text=20", "tasks=[trec2019,msm_bm25]", f"data_dir={data_dir}")
    datasets = prepare.run(config)
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


@pytest.fixture(scope="module")
def evaluated(model, data_dir):
    """The run that evaluation writes, by pair."""
    evaluate.run(settings("evaluate", model_dir=model, tasks="[trec2019]", data_dir=data_dir))
    return by_pair((model.parent / "evaluation-test" / "trec2019" / "run.trec").read_text())


def by_pair(run):
    return {(line.split()[0], line.split()[2]): float(line.split()[4]) for line in run.splitlines()}


def rows(pairs):
    """The pairs with their texts and BM25 scores, as JSON Lines have them."""
    collection = Collection(SOURCE)
    texts = collection.docs.texts({doc_id for _, doc_id in pairs})
    positions = collection.docs.positions({doc_id for _, doc_id in pairs})
    queries = [collection.queries[query_id] for query_id, _ in pairs]
    scores = collection.bm25.score_pairs(queries, [positions[doc_id] for _, doc_id in pairs]).tolist()
    return [
        {"query_id": q, "doc_id": d, "query": query, "text": texts[d], "bm25": score}
        for (q, d), query, score in zip(pairs, queries, scores, strict=True)
    ]


@pytest.fixture
def ranked(model, tmp_path):
    def run(**values):
        rank.run(settings("rank", model_dir=model, head="trec2019", output=tmp_path / "out.run", **values))
        return by_pair((tmp_path / "out.run").read_text())

    return run


def test_re_ranking_a_run_gives_what_evaluation_gives(ranked, evaluated):
    assert ranked(ir_dataset=SOURCE) == evaluated


def test_scores_come_with_pairs_of_files(ranked, evaluated, tmp_path):
    given = rows(list(evaluated))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    (tmp_path / "in.tsv").write_text("".join("\t".join(map(str, row.values())) + "\n" for row in given))
    for name in ("in.jsonl", "in.tsv"):
        assert ranked(input=tmp_path / name) == pytest.approx(evaluated, abs=1e-5)
    (tmp_path / "none.jsonl").write_text("".join(json.dumps({**row, "bm25": 0}) + "\n" for row in given))
    differences = [abs(score - evaluated[pair]) for pair, score in ranked(input=tmp_path / "none.jsonl").items()]
    assert max(differences) > 0.1, "the head reads the scores"


def test_scores_come_with_pairs_of_a_program(model, evaluated):
    given = rows(list(evaluated)[:50])
    head = mtlrank.load(model, head="trec2019")
    found = head.score([(row["query"], row["text"], row["bm25"]) for row in given])
    assert found == pytest.approx([evaluated[row["query_id"], row["doc_id"]] for row in given], abs=1e-5)
    for wrong in [("a", "b"), ("a", "b", "3"), ("a", "b", True), ("a", "b", float("nan"))]:
        with pytest.raises(
            DataError,
            match=r"pairs\[0\]: expected (two texts, a query and a passage, and their |a )BM25 score( \(bm25\))?, found",
        ):
            head.score([wrong])
    with pytest.raises(ConfigError, match="also reads BM25 scores"):
        head.predict([("a", "b")])


@pytest.mark.parametrize("score", ["", "high", "nan", None, True, [1]])
def test_pairs_without_a_score_are_told(ranked, tmp_path, score):
    row = {"query_id": "q", "doc_id": "d", "query": "harbour", "text": "a harbour", "bm25": score}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"in\.jsonl:1: expected a BM25 score \(bm25\), found "):
        ranked(input=tmp_path / "in.jsonl")


def test_documents_that_bm25_retrieves_are_scored_by_the_settings_of_the_training(ranked, evaluated):
    parts = {"ir_dataset": SOURCE, "run": "bm25", "depth": 5}
    usual = ranked(**parts)
    with pytest.raises(
        ConfigError,
        match=r"with BM25's scores by k1=0\.9, .* has k1=2, .*\. Set bm25=\{k1: 0\.9, b: 0\.4, stopwords: english, ",
    ):
        ranked(**parts, bm25="{k1:2.0,b:0.1}")
    known = usual.keys() & evaluated.keys()
    assert {pair: usual[pair] for pair in known} == pytest.approx({pair: evaluated[pair] for pair in known}, abs=1e-5)


def test_another_collection_is_judged_with_its_scores(model, evaluated, data_dir, tmp_path):
    config = settings(
        "evaluate", model_dir=model, on=f"{{again: {SOURCE}}}", head="trec2019", output_dir=tmp_path / "on"
    )
    evaluate.run({**config, "data_dir": str(tmp_path / "data")})
    (run,) = (tmp_path / "on").rglob("run.trec")
    assert by_pair(run.read_text()) == evaluated
    told, again = (
        read_json(p / "metrics.json")["values"] for p in (model.parent / "evaluation-test/trec2019", run.parent)
    )
    assert told == again


def test_another_collection_needs_the_settings_of_the_training(model, tmp_path):
    words = {"model_dir": model, "head": "trec2019", "output_dir": tmp_path / "on"}
    config = settings("evaluate", **words, on=f"{{again: {{id: {SOURCE}, bm25: {{k1: 2.0}}}}}}")
    with pytest.raises(ConfigError, match=r"trained with BM25's scores by k1=0\.9, .* has k1=2, "):
        evaluate.run(config)


def test_forms_without_a_place_for_scores_are_refused(model, tmp_path):
    with pytest.raises(
        ConfigError, match=r"'trec2019' also reads BM25 scores \(bm25_in_text\), for which an export has no"
    ):
        export.run(settings("export", model_dir=model, head="trec2019", output_dir=tmp_path / "x"))
    (tmp_path / "in.jsonl").write_text(json.dumps({"query": "a", "text": "b"}) + "\n")
    with pytest.raises(ConfigError, match=r"'trec2019' also reads BM25 scores \(bm25_in_text\): use `mtlrank rank`"):
        parts = {"input": tmp_path / "in.jsonl", "output": tmp_path / "out.jsonl"}
        predict.run(settings("predict", model_dir=model, head="trec2019", **parts))
    assert not (tmp_path / "x").exists()
