"""BM25 scores between queries and passages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.annotate.lexical import BM25
from mtlrank.backbone import load_tokenizer
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import IRDataset, Shard
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError
from mtlrank.inference.candidates import Candidate
from mtlrank.inference.packed import PackedPairs
from mtlrank.task import KLDistillation, PairwiseRelevance, Regression, Relevance
from tests.datamodule.dataset.rankings import TINY
from tests.tiny_collection import write

BACKBONE = "mtlrank-embedded/tiny-bert"


def prepared(folder, source, task=None, preprocessor=TINY, **settings):
    settings = {"test": {**source}, "bm25_in_text": 2.0, "leaked_queries": "drop", **settings}
    dataset = IRDataset("x", task or Relevance(["nDCG@10"], 1), preprocessor, source, **settings)
    dataset.prepare_shard(folder / "shard", Shard(), Reading())
    dataset.merge(folder / "whole", [folder / "shard"])
    dataset.open(folder / "whole")
    return dataset


@pytest.fixture
def elsewhere(source, tmp_path):
    """The same documents with other queries."""
    write(tmp_path / "others", ["t1\tharbour lights", "t2\tthe garden of Quellin"])
    write(tmp_path / "others.qrels", ["t1 0 d2 1", "t2 0 d3 1"])
    run = [f"{query} Q0 d{number} {number} {9 - number} x" for query in ("t1", "t2") for number in (1, 2, 3, 4, 5)]
    parts = {"queries": "others", "qrels": "others.qrels", "run": "others.run"}
    write(tmp_path / "others.run", run)
    return {**source, **{part: str(tmp_path / name) for part, name in parts.items()}}


def expected(collection, pairs, highest):
    """What the tokenizer itself makes of the score as the end of the first text, as others feed such rerankers."""
    tokenizer, texts = load_tokenizer(BACKBONE), collection.docs.texts({doc_id for _, doc_id in pairs})
    scores = {q: dict(zip(collection.docs.names(range(5)), collection.bm25.scores(t).tolist(), strict=True))
              for q, t in collection.queries.items()}  # fmt: skip
    firsts = [f"{collection.queries[q]} [SEP] {int(min(100 * scores[q][d] / highest, 100))}" for q, d in pairs]
    return [
        (found["input_ids"], found["token_type_ids"])
        for found in (tokenizer(first, texts[d]) for first, (_, d) in zip(firsts, pairs, strict=True))
    ]


def sequences(batch):
    ends = batch.cu_seqlens[1:-1].tolist()
    return [
        tuple(part.tolist() for part in parts)
        for parts in zip(
            np.split(batch.input_ids.numpy(), ends), np.split(batch.token_type_ids.numpy(), ends), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "0"),
        (-3.0, "0"),
        (0.49, "0"),
        (24.9, "49"),
        (25.0, "50"),
        (28.5, "57"),
        (29.0, "58"),
        (49.99, "99"),
        (80.0, "100"),
    ],
)
def test_scores_are_whole_numbers_to_a_hundred(score, text):
    assert BM25Text("x", 50, TINY).of(score) == text


@given(st.floats(allow_nan=False), st.floats(1e-3, 1e6))
def test_every_score_has_a_text(score, highest):
    assert 0 <= int(BM25Text("x", highest, TINY).of(score)) <= 100


@pytest.mark.parametrize("task", [Relevance(["nDCG@10"], 1), PairwiseRelevance(["nDCG@10"], 1)])
def test_each_pair_has_its_score_between_its_texts(source, elsewhere, tmp_path, task):
    dataset = prepared(tmp_path, source, task, test=elsewhere)
    for split, where in (("train", source), ("test", elsewhere)):
        found = dataset.split(split)
        pairs = [pair for sample in found.pairs() for pair in sample]
        batch = found.collate(range(len(found)))
        assert sequences(batch) == expected(Collection(where), pairs, 2.0)
        assert batch.second_starts.tolist() == [
            start + types.index(1)
            for start, (_, types) in zip(batch.cu_seqlens.tolist(), sequences(batch), strict=False)
        ]
        assert found.lengths().sum() == len(batch.input_ids)
    assert dataset.manifest["source"]["bm25_in_text"].startswith("2 is 100; BM25, k1=0.9, b=0.4, ")


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (Regression(["MSE"]), {"learn_from": "run"}),
        (KLDistillation(["nDCG@10"], 1), {"learn_from": "run", "num_negatives": 1}),
        (KLDistillation(["nDCG@10"], 1), {"learn_from": "annotator", "annotator": BM25(), "num_negatives": 1}),
    ],
)
def test_teachers_score_pairs_whose_texts_have_bm25s_score(source, elsewhere, tmp_path, task, settings):
    found = prepared(tmp_path, source, task, test=elsewhere, **settings).split("train")
    pairs = [pair for sample in found.pairs() for pair in sample]
    assert sequences(found.collate(range(len(found)))) == expected(Collection(source), pairs, 2.0)


def test_scores_follow_the_settings_of_the_collection(source, elsewhere, tmp_path):
    source = {**source, "bm25": {"k1": 0}}
    found = prepared(tmp_path, source, test={**elsewhere, "bm25": {"k1": 0}}).split("train")
    pairs = [pair for sample in found.pairs() for pair in sample]
    assert sequences(found.collate(range(len(found)))) == expected(Collection(source), pairs, 2.0)


def test_splits_with_other_settings_of_bm25_are_refused(source):
    with pytest.raises(ConfigError, match=r"same settings of BM25.* Found: k1=0\.9, .*; k1=1, "):
        IRDataset("x", Relevance(["AP"]), TINY, source, test={**source, "bm25": {"k1": 1}}, bm25_in_text=50)
    assert IRDataset(
        "x", Relevance(["AP"]), TINY, source, val=0.1, test={**source, "bm25": {"k1": 0.9}}, bm25_in_text=50
    )


def test_each_passage_of_a_long_document_has_the_score_of_the_whole(source, elsewhere, tmp_path):
    write(source["docs"], [f"d{number}\t{'harbour lights ' * 40}" for number in range(1, 6)])
    cutting = Preprocessor(BACKBONE, max_length=40, max_query_length=8, max_passages=3)
    found = prepared(tmp_path, source, test=elsewhere, preprocessor=cutting).split("test")
    batch = found.collate([0])
    tokenizer, (query_id, doc_id) = load_tokenizer(BACKBONE), found.pairs()[0][0]
    note = BM25Text("x", 2.0, TINY).of_pairs([(query_id, doc_id)], Collection(elsewhere))[0]
    separator = tokenizer.sep_token_id
    for ids, types in sequences(batch):
        ends = [place for place, token in enumerate(ids) if token == separator]
        assert (len(ids), len(ends)) == (40, 3)
        assert ids[ends[0] + 1 : ends[1]] == tokenizer(note, add_special_tokens=False)["input_ids"]
        assert types == [0] * (ends[1] + 1) + [1] * (39 - ends[1])
    assert len(sequences(batch)) == 3
    assert found.lengths()[0] == 120


def test_a_scorer_packs_what_preparation_packs(source, elsewhere, tmp_path):
    dataset = prepared(tmp_path, source, test=elsewhere)
    split, where = dataset.split("test"), Collection(elsewhere)
    pairs = [pair for sample in split.pairs() for pair in sample]
    notes, texts = BM25Text("x", 2.0, TINY).of_pairs(pairs, where), where.docs.texts({d for _, d in pairs})
    asked = [
        Candidate(i, "", where.queries[q], texts[d], note=note)
        for i, ((q, d), note) in enumerate(zip(pairs, notes, strict=True))
    ]
    packed = PackedPairs(asked, TINY.load())
    assert sequences(packed.collate(np.arange(len(asked)))) == sequences(split.collate(range(len(split))))
    assert packed.store.lengths(packed.pairs).tolist() == split.lengths().tolist()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"bm25_in_text": 0}, "bm25_in_text is 0, expected null or the score that counts as 100"),
        ({"bm25_in_text": True}, "bm25_in_text is True, expected null"),
        ({"preprocessor": Preprocessor(BACKBONE, template="{query} of {text}")}, "bm25_in_text and template do not go"),
        (
            {"preprocessor": Preprocessor(BACKBONE, max_length=80)},
            "at least 32 above max_query_length, found 80 and 64",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(source, settings, complaint):
    settings = {"bm25_in_text": 50, "preprocessor": TINY, **settings}
    with pytest.raises(ConfigError, match=f"'x'.*{complaint}"):
        IRDataset("x", Relevance(["nDCG@10"]), train=source, **settings)
