import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtlrank import embedded
from mtlrank.embedded.world import World, join
from mtlrank.evaluation.measures import means, ranking_values
from mtlrank.trec import read_qrels, read_run


@pytest.fixture(scope="module")
def world():
    return World(seed=1)


def test_counts_and_first_tenth_and_last_passage(home):
    docs = (home / "docs.tsv").read_text().splitlines()
    assert len(docs) == 2475
    assert docs[0].startswith("d0\t")
    assert docs[9].startswith("d9\t")
    assert docs[-1].startswith("d2474\t")
    queries = {split: len((home / split / "queries.tsv").read_text().splitlines()) for split in embedded.SPLITS}
    assert queries == {"train": 650, "val": 50, "test": 100}


@pytest.mark.parametrize("split", ["val", "test"])
def test_bm25_is_a_fair_first_stage_that_can_be_beaten(home, split):
    qrels, run = read_qrels(home / split / "qrels.txt"), read_run(home / split / "bm25.run")
    values = means(ranking_values(["nDCG@10", "R(rel=2)@20"], qrels, run))
    assert 0.3 < values["nDCG@10"] < 0.7
    assert values["R(rel=2)@20"] > 0.85
    assert {qrel.relevance for qrel in qrels} == {0, 1, 2, 3}


def test_no_question_of_one_split_asks_what_another_asks(world):
    facts = {}
    for split, _, _, fact in world.questions():
        facts.setdefault((fact.entity.name, fact.facet), set()).add(split)
    assert all(len(splits) == 1 for splits in facts.values())


def test_mentions_are_where_they_are_said_to_be(world):
    checked = 0
    for passage in world.passages:
        for mention in passage.sentence.mentions:
            surface = passage.sentence.text[mention.start : mention.end]
            expected = r"(she|he|it|her|his|its)" if mention.tag is None else re.escape(mention.entity)
            assert re.fullmatch(expected, surface, re.IGNORECASE)
            checked += 1
    assert checked > 10_000


def test_a_passage_on_the_fact_is_the_best_answer(world):
    fact = world.facts[0]
    grades = {}
    for passage in world.passages:
        grades.setdefault(world.grade(fact, passage), []).append(passage)
    assert len(grades[3]) == 3
    assert all(p.entity == fact.entity.name and p.facet == fact.facet for p in grades[3])
    assert all(p.aside == fact.facet for p in grades.get(2, []))


def test_coreference_has_both_answers_about_equally_often(home):
    labels = [json.loads(line)["label"] for line in (home / "coref" / "train.jsonl").read_text().splitlines()]
    assert 0.4 < labels.count("coreferent") / len(labels) < 0.6


def test_no_passage_is_in_two_splits_of_the_span_tasks(home):
    texts = {}
    for split in embedded.SPLITS:
        for line in (home / "coref" / f"{split}.jsonl").read_text().splitlines():
            texts.setdefault(json.loads(line)["id"], set()).add(split)
    assert all(len(splits) == 1 for splits in texts.values())


def test_joined_sentences_keep_their_mentions(world):
    first, second = world._statements(world.facts[0])[:2]
    text, mentions = join([first, second])
    assert text == f"{first.text} {second.text}"
    assert [text[m.start : m.end] for m in mentions[len(first.mentions) :]] == [
        second.text[m.start : m.end] for m in second.mentions
    ]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_collection_is_the_same_bytes_in_any_process(home, tmp_path, hash_seed):
    environment = {**os.environ, "MTLRANK_HOME": str(tmp_path), "PYTHONHASHSEED": hash_seed}
    command = "from mtlrank import embedded; print(embedded.folder())"
    made = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (Path(made.stdout.strip()) / "manifest.json").read_bytes() == (home / "manifest.json").read_bytes()


def test_paths_of_the_collection_are_located_and_others_left_alone(home):
    assert embedded.locate("mtlrank-embedded/docs.tsv") == str(home / "docs.tsv")
    assert embedded.locate("/elsewhere/docs.tsv") == "/elsewhere/docs.tsv"
    assert embedded.locate("bert-base-uncased") == "bert-base-uncased"


def test_no_sentence_pair_is_in_two_splits(home):
    pairs = {
        split: {line.partition("\t")[2] for line in (home / "sem_sim" / f"{split}.tsv").read_text().splitlines()}
        for split in embedded.SPLITS
    }
    assert all(len(found) > 250 for found in pairs.values())
    assert len(set().union(*pairs.values())) == sum(map(len, pairs.values()))
