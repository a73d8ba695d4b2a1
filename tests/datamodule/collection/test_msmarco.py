"""MS MARCO's own files: judgements of grade 1, and a run of two columns, without ranks and scores."""

import ir_datasets
import pytest
import torch
from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.annotate.bm25_settings import BM25Settings
from mtlrank.building.dataset import build_dataset
from mtlrank.comparing import systems
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import Shard
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.evaluation.predictions import Predictions
from mtlrank.evaluation.report import markdown
from mtlrank.evaluation.results import write_head
from mtlrank.evaluation.section import read_section
from mtlrank.inference.candidates import pairs_of_run
from mtlrank.inference.pair_store import PairStore
from mtlrank.prepare import prepare_dataset
from mtlrank.task import Regression
from mtlrank.trec import in_order, read_run
from tests.datamodule.dataset.rankings import distilled, ranking
from tests.tiny_collection import write

TRAIN = "msmarco-passage/train/judged"
VAL, TEST = "msmarco-passage/trec-dl-2020/judged", "msmarco-passage/trec-dl-2019/judged"
WORDS = ["harbour", "garden", "silent", "lights", "winter"]


@pytest.fixture(autouse=True)
def msmarco(tmp_path, monkeypatch):
    """Forty passages, and a few queries of each split, as ir_datasets gives them."""
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))
    write(tmp_path / "docs", [f"{i}\tpassage {i} {WORDS[i % 5]} {WORDS[i // 5 % 5]}" for i in range(40)])
    docs = TsvDocs(LocalDownload(tmp_path / "docs"))
    for name, kind, grades in ((TRAIN, "learn", [1]), (VAL, "check", [0, 3]), (TEST, "judge", [1, 2])):
        queries = [f"{kind}{i}" for i in range(5)]
        folder = tmp_path / kind
        folder.mkdir()
        write(folder / "queries", [f"{query}\t{kind} {WORDS[i]}" for i, query in enumerate(queries)])
        write(folder / "qrels", [f"{q} 0 {i + 5 * n} {g}" for i, q in enumerate(queries) for n, g in enumerate(grades)])
        write(folder / "top1000", [f"{query}\t{doc}" for query in queries for doc in range(30)])
        files = {part: LocalDownload(folder / part) for part in ("queries", "qrels", "top1000")}
        dataset = ir_datasets.Dataset(
            docs, TsvQueries(files["queries"]), TrecQrels(files["qrels"], {}), TrecScoredDocs(files["top1000"])
        )
        monkeypatch.setitem(ir_datasets.registry._registered, name, dataset)


def config(name):
    return select_tasks(compose_config(["collection=msmarco", f"datamodule/dataset={name}"], trusted=True))


def test_a_ranking_learns_from_judgements_of_grade_1_and_negatives_from_the_pool(tmp_path):
    dataset = prepare_dataset(config("trec2019"), "trec2019", tmp_path / "prepared")
    train = dataset.split("train")
    groups = train.pairs()
    assert [group[0] for group in groups] == [(f"learn{i}", f"{i}") for i in range(5)]
    assert all(len(group) == 1 + 6 and {int(doc) for _, doc in group} <= set(range(30)) for group in groups)
    assert sorted(set(train.labels.all().tolist())) == [0, 2]  # what is relevant has the grade that the task calls so
    assert dataset.split("test").ids[0] == ("judge0", "0")  # by BM25: the passage that says its word twice
    assert dataset.split("val").labels.all().max() == 3


def test_pairs_are_annotated_with_what_bm25_retrieves(tmp_path):
    dataset = prepare_dataset(config("msm_bm25"), "msm_bm25", tmp_path / "prepared")
    assert {split: len(dataset.split(split)) for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), 50
    )
    assert dataset.split("train").labels.all().max() > 0


def test_a_part_of_a_pool_is_drawn_by_a_hash():
    drawn = [Collection(TRAIN).candidates(["learn0", "learn1"], k) for k in (3, 10)]
    some, more = ([doc.doc_id for doc in ranked["learn0"]] for ranked in drawn)
    assert some == more[:3]
    assert len(set(more)) == 10
    assert more != [doc.doc_id for doc in drawn[1]["learn1"]]
    assert max(map(int, more)) - min(map(int, more)) > 10


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: ranking(TRAIN, negative_ranks=(1, 5)), "negative_ranks"),
        (lambda: ranking(TRAIN, val=0.2, num_candidates=29), "val by num_candidates=29"),
        (lambda: ranking(TRAIN, test=TEST, num_candidates=29), "test by num_candidates=29"),
        (lambda: distilled(TRAIN, learn_from="run"), "learn_from=run"),
        (lambda: ranking(None, Regression(["MSE"]), learn_from="run", more_tests={"b": TEST}), "learn_from=run"),
        (lambda: build_dataset(pairs_of_the_pool()), "depth"),
    ],
)
def test_where_ranks_count_a_pool_is_refused_before_anything_is_made(make, what):
    with pytest.raises(DataError, match=rf"The run of {TRAIN[:15]}.* ranks nothing: .*, and {what} needs ranks"):
        next(iter(make().records("train")))


@pytest.mark.parametrize("total", [1, 2])
def test_a_list_without_scores_is_re_ranked_whole_and_compared_with_bm25(tmp_path, total):
    dataset = ranking(TRAIN, test=TEST, num_candidates=30, train_relevance_level=1)
    shards = [tmp_path / str(number) for number in range(1, total + 1)]
    for number, shard in enumerate(shards, 1):
        dataset.prepare_shard(shard, Shard(number, total), Reading())
    dataset.merge(tmp_path / "whole", shards)
    dataset.open(tmp_path / "whole")
    test = dataset.split("test")
    assert sorted(test.ids) == sorted((f"judge{i}", f"{doc}") for i in range(5) for doc in range(30))
    first_stage = [doc for _, doc in in_order(read_run(*test.files("candidates.run")))]
    index = BM25Index.build([text for _, text in Collection(TEST).docs][:30])  # the documents of the run
    for i, docs in enumerate([first_stage[n : n + 30] for n in range(0, 150, 30)]):
        query_id = docs[0].query_id
        scores = index.scores(Collection(TEST).queries[query_id])
        assert [doc.score for doc in docs] == pytest.approx(sorted(scores.tolist(), reverse=True), rel=1e-5), i
        assert scores[int(docs[0].doc_id)] == max(scores) > 0
    assert dataset.manifest["source"]["test"]["first_stage"] == "run without an order"
    predictions = Predictions(dataset, "test")
    predictions.add(torch.arange(len(test)), torch.rand(len(test)))
    judgement = predictions.judge()
    assert judgement.baseline_name == "BM25 order"
    write_head(tmp_path / "evaluation" / "x", dataset, predictions, judgement, "0123")
    section = read_section(tmp_path / "evaluation" / "x")
    assert "(BM25 order)" in markdown([section])
    assert section.pictures()[0][0].startswith("Gain over the BM25 order")
    assert systems.first_stage(systems.read_system("one", [tmp_path])) is None


def test_the_order_of_a_pool_follows_the_settings_of_bm25(tmp_path):
    source = {"id": TEST, "bm25": {"k1": 2, "b": 1}}
    ranking(TRAIN, test=source, num_candidates=30, train_relevance_level=1).write_judgements("test", tmp_path)
    index = BM25Index.build([text for _, text in Collection(TEST).docs][:30], BM25Settings(2, 1))
    first_stage = [doc for _, doc in in_order(read_run(tmp_path / "candidates.run"))]
    best = max(index.scores(Collection(TEST).queries[first_stage[0].query_id]).tolist())
    assert first_stage[0].score == pytest.approx(best, rel=1e-5)


def pairs_of_the_pool():
    return {**config("msm_bm25")["datamodule"]["dataset"]["datasets"]["msm_bm25"], "val": TEST}


def test_all_of_a_pool_can_be_scored_but_not_its_best(tmp_path):
    store = PairStore(tmp_path / "pairs.sqlite")
    with pytest.raises(DataError, match="ranks nothing: .*, and top_k needs ranks"):
        list(pairs_of_run(Collection(TEST), store, 50, 3, "stop"))
    assert sum(map(len, pairs_of_run(Collection(TEST), store, 50, None, "stop"))) == 5 * 30
    store.close()
