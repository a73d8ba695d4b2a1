"""Preparing and reading back: what goes in comes out, whatever the dataset."""

import json
import pickle
import re
from collections import Counter
from itertools import count

import numpy as np
import pytest
import torch

from mtlrank.batch import Record
from mtlrank.datamodule.dataset import PreparedDataset, Shard
from mtlrank.datamodule.dataset.card import queries_of
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.preparation_notes import notes
from mtlrank.task import Regression, Relevance, SpanClassification
from tests.conftest import KEYS

TINY = "mtlrank-embedded/tiny-bert"


class Given(PreparedDataset):
    """Records from a list."""

    def __init__(self, task, train, test=(), **lengths):
        super().__init__("given", task, Preprocessor(TINY, **lengths))
        self.given = {"train": train, "val": [], "test": test}

    def records(self, split):
        return self.given[split]

    def write_judgements(self, split, folder):
        pass


def prepared(tmp_path, task, train, reading=None, total=1, **kwargs):
    """The records as an opened dataset of `total` shards."""
    dataset = Given(task, train, **kwargs)
    shards = [tmp_path / "shards" / str(number) for number in range(1, total + 1)]
    for number, shard in enumerate(shards, 1):
        Given(task, train, **kwargs).prepare_shard(shard, Shard(number, total), reading or Reading())
    dataset.merge(tmp_path / "given", shards)
    dataset.open(tmp_path / "given")
    return dataset


def regression():
    return Regression(["MSE"])


def expected_label(dataset, record):
    classes = dataset.manifest["labels"].get("classes")
    return classes.index(str(record.label)) if classes else dataset.task.parse_label(record.label)


@pytest.mark.parametrize("key", KEYS)
def test_sequences_are_what_the_tokenizer_itself_makes_of_the_texts(datasets, key):
    dataset = datasets[key]
    tokenizer = dataset.preprocessor.load().tokenizer
    records = list(dataset.records("test"))
    split = dataset.split("test")
    batch = split.collate(range(min(50, len(split))))
    sequence = -1
    previous = None
    for record, label, item_sequence in zip(records, batch.labels, batch.item_sequence.tolist(), strict=False):
        sequence += (record.query_id, record.doc_id) != previous
        previous = (record.query_id, record.doc_id)
        assert item_sequence == sequence
        texts = (record.text,) if record.query is None else (record.query, record.text)
        expected = tokenizer(*texts)
        start, end = batch.cu_seqlens[sequence], batch.cu_seqlens[sequence + 1]
        assert batch.input_ids[start:end].tolist() == expected["input_ids"]
        assert batch.token_type_ids[start:end].tolist() == expected["token_type_ids"]
        assert label == pytest.approx(expected_label(dataset, record))


@pytest.mark.parametrize("key", ["msm_ner", "msm_coref"])
def test_every_span_decodes_to_its_surface(datasets, key):
    dataset = datasets[key]
    tokenizer = dataset.preprocessor.load().tokenizer
    records = list(dataset.records("train"))
    split = dataset.split("train")
    batch = split.collate(range(len(split)))
    assert len(batch.spans) == len(records) > 900
    for record, positions in zip(records, batch.spans.tolist(), strict=True):
        for (start, end), (first, last) in zip(record.spans, positions, strict=True):
            decoded = tokenizer.decode(batch.input_ids[first:last]).replace(" ", "")
            assert decoded == record.text[start:end].lower().replace(" ", "")


@pytest.mark.parametrize("key", KEYS)
def test_the_same_inputs_give_the_same_bytes(config, datasets, data_dir, tmp_path, key):
    from mtlrank.prepare import prepare_dataset

    prepare_dataset(config, key, tmp_path / key)
    manifests = [json.loads((folder / key / "manifest.json").read_text()) for folder in (tmp_path, data_dir)]
    assert manifests[0] == manifests[1]


def test_each_text_is_stored_once(tmp_path):
    records = [Record("q1", "d1", "who", "the harbour", 1), Record("q1", "d2", "who", "a bridge", 0)]
    records.append(Record("q2", "d1", "where", "the harbour", 0))
    dataset = prepared(tmp_path, regression(), records)
    assert len(np.load(tmp_path / "given" / "shard-1-of-1" / "token_offsets.npy")) == 4 + 1
    assert dataset.split("train").ids == [("q1", "d1"), ("q1", "d2"), ("q2", "d1")]


def test_long_texts_are_cut_and_the_query_keeps_its_share(tmp_path):
    long = Record("q", "d", "what " * 50, "garden " * 50, 1)
    dataset = prepared(
        tmp_path,
        regression(),
        [long, long._replace(query_id="r", query="who", label=2)],
        max_length=20,
        max_query_length=6,
    )
    first, second = (dataset.split("train").collate([i]) for i in (0, 1))
    assert len(first.input_ids) == len(second.input_ids) == 20
    assert first.token_type_ids.tolist() == [0] * 8 + [1] * 12  # [CLS], six of the query, [SEP]; the rest
    assert int(first.token_type_ids.sum()) < int(second.token_type_ids.sum())


def test_what_the_vocabulary_lacks_is_counted_and_told(tmp_path):
    records = [Record("-", "d1", None, "silent garden", 1.0), Record("-", "d2", None, "тихий сад", 2.0)]
    dataset = prepared(tmp_path, Regression(["MSE"]), records)
    tokens = dataset.manifest["tokens"]
    assert 0 < tokens["unknown"] < tokens["all"]
    assert any("choose a body that knows this language" in note for note in notes(dataset))
    page = (tmp_path / "given" / "card.html").read_text()
    assert f"{tokens['unknown']} are not in the vocabulary" in page


def test_spans_cut_off_by_truncation_are_left_out_and_counted(tmp_path):
    text = "garden " * 30
    records = [Record("-", "d", None, text, "AB"[i % 2], ((7 * i, 7 * i + 6),), group=0) for i in (0, 1, 2, 29)]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records, max_length=20, max_query_length=6)
    cut = {"sequences_cut": 1}
    assert dataset.manifest["splits"]["train"] == {"samples": 1, "sequences": 1, "items": 3, "items_dropped": 1, **cut}


def test_a_span_without_a_token_is_left_out_and_counted(tmp_path):
    spans = ((0, 6), (6, 7), (7, 14))
    records = [Record("-", f"d{i}", None, "garden harbour", "AAB"[i], (span,)) for i, span in enumerate(spans)]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records)
    assert dataset.manifest["splits"]["train"]["items_dropped"] == 1
    assert dataset.split("train").ids == [("-", "d0"), ("-", "d2")]


def test_a_group_is_a_sample(tmp_path):
    records = [Record("q", f"d{i}", "who", f"text {i}", i % 2, group=i // 3) for i in range(6)]
    split = prepared(tmp_path, Relevance(["AP"]), records).split("train")
    assert len(split) == 2
    assert split.collate([1]).item_sample.tolist() == [0, 0, 0]
    assert split.num_items(np.array([1, 0])).tolist() == [3, 3]
    assert split.items_of_samples(np.array([1, 0])).tolist() == [3, 4, 5, 0, 1, 2]


def test_a_group_that_is_torn_apart_is_refused(tmp_path):
    records = [Record("q", f"d{i}", "who", f"text {i}", i % 2, group=i % 3) for i in range(6)]
    with pytest.raises(DataError, match="train, query 'q', doc 'd3': group 0 comes a second time"):
        prepared(tmp_path, Relevance(["AP"]), records)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (Record("q", "d", "who", "  ", 1), "the text is empty"),
        (Record("q", "d", "", "text", 1), "the query is empty"),
        (Record("q", "d", "who", "text", "nan"), "label 'nan' is not finite"),
        (Record("q 1", "d", "who", "text", 1), "query_id 'q 1' is empty or contains a blank"),
        (Record("q\0", "d", "who", "text", 1), r"query_id 'q\x00' contains the invalid character '\x00'"),
        (Record("q", "d", "who", "text", 1, ((0, 2),)), "expected 0 spans, found 1"),
    ],
)
def test_a_bad_record_is_named_with_what_was_expected(tmp_path, record, complaint):
    good = Record("a", "ok", "who", "text", 1)
    with pytest.raises(DataError, match="test, query") as error:
        prepared(tmp_path, regression(), [good], test=[record])
    assert complaint in str(error.value)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_span_outside_the_text_is_named(tmp_path):
    good = Record("-", "c", None, "text", "B", ((0, 4),))
    bad = Record("-", "d", None, "text", "A", ((2, 9),))
    with pytest.raises(DataError, match="doc 'd': span 2:9 lies outside the text, which has 4 characters"):
        prepared(tmp_path, SpanClassification(["Accuracy"]), [good, bad])


def test_a_single_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="has only the class 'A'"):
        prepared(tmp_path, SpanClassification(["Accuracy"]), [Record("-", "d", None, "text", "A", ((0, 4),))])


def test_labels_that_are_all_the_same_are_refused(tmp_path):
    same = [Record("-", f"d{i}", None, f"text {i}", 2.5) for i in range(3)]
    with pytest.raises(DataError, match=r"All labels of .*/train are 2\.5: there is nothing to learn"):
        prepared(tmp_path, regression(), same)


def test_a_sample_that_truncation_empties_is_left_out(tmp_path):
    text = "garden " * 30
    spans = ((0, 6), (7 * 29, 7 * 29 + 6), (7, 13))
    records = [Record("-", f"d{i}", None, text, "AAB"[i], (span,)) for i, span in enumerate(spans)]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records, max_length=20, max_query_length=6)
    split, cut = dataset.split("train"), {"sequences_cut": 2}
    assert dataset.manifest["splits"]["train"] == {"samples": 2, "sequences": 2, "items": 2, "items_dropped": 1, **cut}
    assert split.ids == [("-", "d0"), ("-", "d2")]
    assert split.collate([0, 1]).item_sample.tolist() == [0, 1]


def test_a_bad_training_label_is_named_with_its_record(tmp_path):
    records = [Record("q", "a", "who", "text", 1), Record("q", "b", "who", "text", "many")]
    with pytest.raises(DataError, match="train, query 'q', doc 'b': label 'many' is not a number"):
        prepared(tmp_path, regression(), records)


def test_no_training_records_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no training records. Check its source\.$"):
        prepared(tmp_path, regression(), [])


def test_an_unknown_split_lists_the_others(tmp_path):
    dataset = prepared(tmp_path, regression(), [Record("q", "d", "who", "text", 1)])
    with pytest.raises(DataError, match="no split 'val'. It has: train"):
        dataset.split("val")


@pytest.mark.parametrize("key", KEYS)
def test_a_part_of_a_split_is_some_of_its_samples_in_every_process(datasets, key):
    whole = datasets[key].split("val")
    part = whole.part(7)
    sent = pickle.loads(pickle.dumps(part))
    firsts = whole.samples[np.arange(len(whole))][0].tolist()
    chosen = [firsts.index(first) for first in part.samples[np.arange(len(part))][0].tolist()]
    for split in (part, sent):
        found, expected = split.collate(range(len(part))), whole.collate(chosen)
        assert found.input_ids.tolist() == expected.input_ids.tolist()
        assert found.labels.tolist() == expected.labels.tolist()
        assert split.lengths().tolist() == whole.lengths()[chosen].tolist()
    assert whole.part(10**6).pairs() == whole.pairs()
    assert part.part(7).pairs() == part.pairs()
    if datasets[key].is_ranking:
        queries = {query_id for [(query_id, _)] in part.pairs()}
        assert len(queries) == 7
        assert chosen == [number for number, [(query_id, _)] in enumerate(whole.pairs()) if query_id in queries]
        assert {qrel.query_id for qrel in part.qrels} == {qrel.query_id for qrel in sent.qrels} == queries
    else:
        assert len(part) == 7


def test_another_schema_is_refused(tmp_path):
    from mtlrank.storage import write_manifest

    dataset = prepared(tmp_path, regression(), [Record("q", "d", "who", "text", 1)])
    manifest = {k: v for k, v in dataset.manifest.items() if k != "files"}
    write_manifest(tmp_path / "given", {**manifest, "schema": 99})
    with pytest.raises(DataError, match="has schema 99, expected 6"):
        dataset.open(tmp_path / "given")


def test_a_note_that_no_user_of_the_head_could_give_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train, query 'q', doc 'd': expected no note, .* has no bm25_text\."):
        prepared(tmp_path, regression(), [Record("q", "d", "who", "text", 1, note="37")])


def test_a_ranking_of_ones_own_needs_nothing_but_records(tmp_path):
    """Every record is a candidate with its grade, in BM25's order, whatever the shard."""

    class Mine(PreparedDataset):
        def records(self, split):
            for query in ("q1", "q2", "q3"):
                yield Record(query, f"{query}-d1", "silent harbour", "a garden", 0)
                yield Record(query, f"{query}-d2", "silent harbour", "the silent harbour", 2)

    shards = [tmp_path / "1", tmp_path / "2"]
    dataset = Mine("mine", Relevance(["nDCG@10"], 1), Preprocessor(TINY))
    for number, shard in enumerate(shards, 1):
        dataset.prepare_shard(shard, Shard(number, 2), Reading())
    dataset.merge(tmp_path / "mine", shards)
    lines = {
        name: [line for file in (tmp_path / "mine").rglob(f"test/{name}") for line in file.read_text().splitlines()]
        for name in ("qrels.txt", "candidates.run")
    }
    qrels, run = lines["qrels.txt"], [line.split() for line in lines["candidates.run"]]
    assert sorted(qrels) == sorted(f"{q} 0 {q}-d{d} {2 * d - 2}" for q in ("q1", "q2", "q3") for d in (1, 2))
    assert {(q, d, rank) for q, _, d, rank, *_ in run} == {
        (q, f"{q}-d{d}", str(rank)) for q in ("q1", "q2", "q3") for d, rank in ((2, 1), (1, 2))
    }


def test_a_task_with_weights_is_refused_as_they_would_not_learn():
    task = regression()
    task.loss = torch.nn.MSELoss()
    Given(task, [])
    for scale in (torch.nn.Parameter(torch.ones(1)), torch.nn.Linear(1, 1)):
        task.scale = scale
        with pytest.raises(ConfigError, match="Dataset 'given': its task .*Regression has weights, 'scale'"):
            Given(task, [])


@pytest.mark.parametrize("grade", [2, 0])
def test_a_document_that_a_ranking_of_ones_own_has_twice_is_refused(tmp_path, grade):
    class Mine(PreparedDataset):
        def records(self, split):
            yield Record("q", "d1", "silent harbour", "the silent harbour", 2)
            yield Record("q", "d2", "silent harbour", "a garden", 0)
            yield Record("q", "d1", "silent harbour", "the silent harbour", grade)

    dataset = Mine("mine", Relevance(["nDCG@10"], 1), Preprocessor(TINY))
    with pytest.raises(DataError, match="mine/val: document 'd1' of query 'q' comes 2 times"):
        dataset.prepare_shard(tmp_path / "1", Shard(), Reading())


@pytest.mark.parametrize("grades", [count(), iter([0, 1] * 2)], ids=["other labels", "an iterator that ends"])
def test_records_of_a_ranking_that_differ_from_call_to_call_are_refused(tmp_path, grades):
    """Its labels would be those of one call, and its judgements those of another."""

    class Mine(PreparedDataset):
        def records(self, split):
            for number, grade in zip(range(2), grades, strict=False):
                yield Record("q", f"d{number}", "silent harbour", "the silent harbour", grade)

    dataset = Mine("mine", Relevance(["nDCG@10"], 1), Preprocessor(TINY))
    with pytest.raises(DataError, match=r"Mine\.records\('(val|test)'\) gives other records when it is called again"):
        dataset.prepare_shard(tmp_path / "1", Shard(), Reading())
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("shard", [Shard(1, 2), Shard(2, 2)], ids=str)
def test_a_bad_row_of_a_ranking_is_set_aside_in_shards_too(tmp_path, shard):
    """It has no query, so its document says which shard it belongs to."""

    class Mine(PreparedDataset):
        def records(self, split):
            yield from (Record(f"q{i}", f"d{i}", f"query {i}", "the silent harbour", i % 3) for i in range(4))
            yield from (Record(f"q{i}", f"d{i}", None, "the silent harbour", 1) for i in range(4, 12))

    dataset = Mine("mine", Relevance(["nDCG@10"], 1), Preprocessor(TINY))
    dataset.prepare_shard(tmp_path / "made", shard, Reading("quarantine"))
    assert "qrels.txt" in {path.name for path in (tmp_path / "made" / "test").iterdir()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_card_counts_what_there_is_to_rank_for_each_query(datasets, split):
    dataset = datasets["trec2019"]
    opened = dataset.split(split)
    candidates = Counter(query_id for query_id, _ in set(opened.ids))
    found = queries_of(opened, dataset.task)
    assert (found.queries, found.median) == (len(candidates), int(np.median(list(candidates.values()))))
    assert found.most == max(candidates.values())
    if split == "test":
        qrels = [line.split() for line in opened.files("qrels.txt")[0].read_text().splitlines()]
        relevant = {(row[0], row[2]) for row in qrels if int(row[3]) >= 2}
        assert found.judged == len({row[0] for row in qrels}) == 100
        assert found.relevant == len(relevant) / 100
        assert 0.5 < found.recall == len(relevant & set(opened.ids)) / len(relevant) < 1


@pytest.mark.parametrize(
    ("labels", "shown"),
    [([0, 1, 3], ["0", "1", "3"]), ([number / 20 for number in range(20)], ["0.0", "0.2", "0.4", "0.6", "0.8"])],
    ids=["a bar for each grade", "a histogram of numbers"],
)
def test_a_card_draws_the_labels_and_the_lengths_that_there_are(tmp_path, labels, shown):
    records = [Record("-", f"d{i}", None, f"silent garden {i}", label) for i, label in enumerate(labels)]
    prepared(tmp_path, regression(), records, test=records)
    page = (tmp_path / "given" / "card.html").read_text()
    assert re.findall(r"<tr><td>(\w+)</td>", page) == ["train", "test"]
    picture, lengths = (part.split("</svg>")[0] for part in page.split("<svg ")[1:3])
    assert re.findall(r"<!-- ([\d.]+) -->", picture)[: len(shown)] == shown
    assert max(map(int, re.findall(r"<!-- (\d+) -->", lengths))) < 20
