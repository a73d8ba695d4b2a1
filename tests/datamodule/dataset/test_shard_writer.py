"""Shards: together they are the dataset, whatever their number, and what cannot be used is told or set aside."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlrank.batch import Record
from mtlrank.datamodule.dataset import merge
from mtlrank.datamodule.dataset.arrays import ArrayFile, Chained
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.shard import Shard
from mtlrank.storage import MANIFEST, read_manifest
from mtlrank.task import Buckets, PairwiseRelevance, Regression, Relevance, SpanClassification, Tagging
from tests.datamodule.dataset.test_prepared import Given, prepared

WORDS = ["garden", "harbour", "silent", "lights", "who", "where"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


@pytest.fixture(autouse=True, scope="module")
def cards_without_pictures():
    """Drawing them would take most of the time; test_prepared looks at cards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "card", lambda folder, manifest, task: "a card")
        yield


def items(dataset, split):
    """What the samples of a split are, in no order: ids, tokens, labels and spans."""
    data = dataset.split(split)
    found = []
    for sample in range(len(data)):
        batch = data.collate([sample])
        labels, spans = batch.labels.tolist(), batch.spans.tolist()
        found.append((batch.input_ids.tolist(), batch.cu_seqlens.tolist(), labels, spans))
    return sorted(found)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), texts, texts, st.floats(0, 1, width=32)),
        min_size=2,
        max_size=30,
        unique_by=lambda row: row[3],
    )
)
def test_the_number_of_shards_does_not_change_what_is_learnt(tmp_path_factory, rows):
    queries = {f"q{q}": query for q, query, _, _ in rows}
    records = [
        Record(f"q{q}", f"d{i}", queries[f"q{q}"], text, label, group=q) for i, (q, _, text, label) in enumerate(rows)
    ]
    records.sort(key=lambda record: record.query_id)
    one, three = (prepared(tmp_path_factory.mktemp("x"), Regression(["MSE"]), records, total=total) for total in (1, 3))
    assert items(one, "train") == items(three, "train")
    assert one.manifest["labels"] == pytest.approx(three.manifest["labels"])
    assert one.manifest["splits"] == three.manifest["splits"]
    assert sorted(one.split("train").ids) == sorted(three.split("train").ids)


def test_classes_are_numbered_alike_in_all_shards(tmp_path):
    records = [Record("-", f"d{i}", None, f"garden {'harbour ' * i}", "ABC"[i % 3], ((0, 6),)) for i in range(30)]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records, total=4)
    assert dataset.manifest["labels"] == {"classes": ["A", "B", "C"], "counts": [10, 10, 10]}
    split = dataset.split("train")
    by_id = dict(zip([doc_id for _, doc_id in split.ids], split.labels.all().tolist(), strict=True))
    assert by_id == {f"d{i}": i % 3 for i in range(30)}
    batch = split.collate(np.random.default_rng(0).permutation(30))
    assert [by_id[split.ids[i][1]] for i in batch.sample_ids] == batch.labels.tolist()


@pytest.mark.parametrize("total", [1, 3])
def test_buckets_hold_equally_many_over_all_shards(tmp_path, total):
    records = [Record(f"q{i}", f"d{i}", "who", f"text {i}", i) for i in range(40)]
    dataset = prepared(tmp_path, Buckets(["Accuracy"], 4), records, total=total)
    assert dataset.manifest["labels"]["counts"] == [10, 10, 10, 10]
    assert dataset.task.output_dim == 4
    assert np.bincount(dataset.split("train").labels.all().astype(int)).tolist() == [10, 10, 10, 10]


def test_mean_and_deviation_by_hand(tmp_path):
    records = [Record(f"q{i}", f"d{i}", "who", f"text {i}", label) for i, label in enumerate([0, 2])]
    assert prepared(tmp_path, Regression(["MSE"]), records).manifest["labels"] == {"mean": 1.0, "std": 1.0}


RECORDS = [Record(f"q{i}", f"d{i}", "who", f"text {i}", i) for i in range(10)]


def shards(tmp_path, total=3, **kwargs):
    folders = [tmp_path / f"{number}" for number in range(1, total + 1)]
    for number, folder in enumerate(folders, 1):
        Given(Regression(["MSE"]), RECORDS, **kwargs).prepare_shard(folder, Shard(number, total), Reading())
    return folders


def merged(tmp_path, folders):
    Given(Regression(["MSE"]), RECORDS).merge(tmp_path / "merged", folders)


def test_merging_takes_shards_as_they_are_in_any_order(tmp_path):
    folders = shards(tmp_path)
    merged(tmp_path, folders[::-1])
    first = read_manifest(tmp_path / "merged")
    for number in (1, 2, 3):
        name = f"shard-{number}-of-3/tokens.npy"
        assert (tmp_path / "merged" / name).samefile(folders[number - 1] / "tokens.npy")
    shutil.rmtree(tmp_path / "merged")
    merged(tmp_path, folders)
    assert read_manifest(tmp_path / "merged") == first


def test_shards_can_be_merged_where_files_cannot_be_linked(tmp_path, monkeypatch):
    folders = shards(tmp_path)
    merged(tmp_path, folders)
    linked = read_manifest(tmp_path / "merged")
    shutil.rmtree(tmp_path / "merged")
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    merged(tmp_path, folders)
    assert read_manifest(tmp_path / "merged") == linked


def test_a_missing_shard_is_named(tmp_path):
    folders = shards(tmp_path)
    with pytest.raises(DataError, match="Expected the shards 1 to 3 once each, found 1/3, 3/3; missing: 2/3"):
        merged(tmp_path, [folders[0], folders[2]])
    with pytest.raises(DataError, match="once each, found 1/3, 1/3, 3/3; missing: 2/3"):
        merged(tmp_path, [folders[0], folders[0], folders[2]])


def test_shards_of_other_settings_are_refused(tmp_path):
    folders = shards(tmp_path)
    shutil.rmtree(folders[1])
    Given(Regression(["MSE"]), RECORDS, max_length=32, max_query_length=8).prepare_shard(
        folders[1], Shard(2, 3), Reading()
    )
    with pytest.raises(DataError, match="were prepared differently: their max_length differs"):
        merged(tmp_path, folders)


def test_a_damaged_shard_is_named(tmp_path):
    folders = shards(tmp_path)
    (folders[1] / "tokens.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="tokens.npy was changed or damaged"):
        merged(tmp_path, folders)


def test_a_flipped_byte_in_any_file_is_found_and_named(tmp_path):
    dataset = prepared(tmp_path, Regression(["MSE"]), RECORDS, total=2)
    folder = tmp_path / "given"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    assert len(files) > 25
    for path in files:
        good = path.read_bytes()
        for position in {0, len(good) // 2, len(good) - 1} if good else ():
            path.unlink()  # the shard that it is linked to stays whole
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(
                DataError, match=r"was changed or damaged: .* removed, the same command prepares it"
            ) as error:
                dataset.open(folder)
            assert str(path) in str(error.value)
        path.write_bytes(good)
    dataset.open(folder)


BAD = [
    (Record("q", "bad", "who", "  ", 1, place="x:7"), "the text is empty"),
    (Record("q", "bad", "who", "te\0xt", 1, place="x:7"), r"the text contains the invalid character '\x00'"),
    (Record("q", "bad", "wh\ud800o", "text", 1, place="x:7"), r"the query contains the invalid character '\ud800'"),
    (Record("q", "bad", "who", "text", "nan", place="x:7"), "label 'nan' is not finite"),
    (Record("q", "bad", "who", "text", 9, place="x:7"), "label 9 is out of range: expected 0 to 5"),
    (
        Record("q", "d1", "who", "other", 1, place="x:7"),
        "query 'q' or doc 'd1' has two different texts, one of them 'other'",
    ),
    (Record("q1", "bad", "another", "text", 1, place="x:7"), "query 'q1' or doc 'bad' has two different texts"),
]


@pytest.mark.parametrize(("record", "complaint"), BAD)
def test_a_bad_record_stops_or_is_set_aside_with_its_reason(tmp_path, record, complaint):
    good = [Record("q1", "d1", "who", "a garden", 1), Record("q2", "d2", "where", "lights", 2)]
    with pytest.raises(DataError, match="x:7: ") as error:
        prepared(tmp_path / "a", Regression(["MSE"], 0, 5), [*good, record])
    assert complaint in str(error.value)
    assert "prepare.on_bad_row=quarantine sets bad rows aside" in str(error.value)
    dataset = prepared(tmp_path / "b", Regression(["MSE"], 0, 5), [*good, record], reading=Reading("quarantine"))
    assert items(dataset, "train") == items(prepared(tmp_path / "c", Regression(["MSE"], 0, 5), good), "train")
    assert dataset.manifest["bad_rows"] == 1
    row = json.loads((tmp_path / "b" / "given" / "bad_rows.jsonl").read_text())
    assert row["place"] == "x:7"
    assert complaint in row["reason"]


def test_control_characters_are_read_as_blanks_and_counted(tmp_path):
    records = [Record("q", "a", "who", "silent\x92harbour\x07", 1), Record("q", "b", "who", "silent harbour ", 2)]
    dataset = prepared(tmp_path, Regression(["MSE"]), records)
    first, second = (dataset.split("train").collate([i]).input_ids.tolist() for i in (0, 1))
    assert first == second
    assert dataset.manifest["counts"]["train"] == {"control characters read as blanks": 2}


def test_classes_are_told_apart_by_what_can_be_seen_of_their_names(tmp_path):
    names = ["yes", "yes\r", " yes", "no", "no\x07", "so\rso"]
    records = [Record("-", f"d{i}", None, "garden", name, ((0, 6),)) for i, name in enumerate(names)]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records)
    assert dataset.manifest["labels"] == {"classes": ["no", "so so", "yes"], "counts": [2, 1, 3]}
    assert dataset.manifest["counts"]["train"] == {"control characters read as blanks": 3}


@pytest.mark.parametrize("name", ["", " ", "\r", "\x07 ", "a\0b"])
def test_a_class_without_a_name_is_a_bad_row(tmp_path, name):
    records = [Record("-", f"d{i}", None, "garden", "AB"[i], ((0, 6),)) for i in (0, 1)]
    bad = Record("-", "bad", None, "garden", name, ((0, 6),), place="x:7")
    with pytest.raises(DataError, match="x:7: .*label"):
        prepared(tmp_path, SpanClassification(["Accuracy"]), [*records, bad])


def test_a_ranking_without_a_query_is_a_bad_row(tmp_path):
    records = [Record("q", "d", None, "garden", 1, place="x:7")]
    with pytest.raises(DataError, match="x:7: expected a query, as the task is a ranking, found none"):
        prepared(tmp_path, Relevance(["AP"]), records)


def test_sequences_that_are_cut_are_counted(tmp_path):
    records = [Record("q", f"d{n}", "who", "garden " * n, n) for n in (2, 30, 40)]
    dataset = prepared(tmp_path, Regression(["MSE"]), records, max_length=20, max_query_length=6)
    assert dataset.manifest["splits"]["train"]["sequences_cut"] == 2


def test_a_class_that_training_lacks_is_named_with_its_place(tmp_path):
    train = [Record("-", f"d{i}", None, "garden", "AB"[i], ((0, 6),)) for i in (0, 1)]
    test = [Record("-", "t", None, "garden", "Z", ((0, 6),), place="test.conll:3")]
    with pytest.raises(
        DataError, match="test.conll:3: label 'Z' of given/test is not a class of its training split: A, B"
    ):
        prepared(tmp_path, SpanClassification(["Accuracy"]), train, test=test)


def test_both_tags_of_a_type_are_classes_also_if_training_has_one(tmp_path):
    train = [Record("-", "d", None, "garden", tag, ((0, 6),)) for tag in ("B-PER", "O")]
    test = [Record("-", "t", None, "garden", tag, ((0, 6),), 0, place="test.conll:3") for tag in ("I-PER", "B-LOC")]
    dataset = prepared(tmp_path / "right", Tagging(["EntityF1"], "balanced"), train, test=test[:1])
    assert dataset.manifest["labels"] == {"classes": ["O", "B-PER", "I-PER"], "counts": [1, 1, 0]}
    with pytest.raises(DataError, match="test.conll:3: label 'B-LOC' of given/test is not a class .*: O, B-PER, I-PER"):
        prepared(tmp_path / "wrong", Tagging(["EntityF1"]), train, test=test)
    with pytest.raises(DataError, match="label 'PER' is no BIO tag: expected O, or B- or I- and a type, as in B-PER"):
        prepared(tmp_path / "types", Tagging(["EntityF1"]), [train[0]._replace(label="PER")])


def test_a_ranking_without_a_relevant_document_is_refused(tmp_path):
    records = [Record("q", f"d{i}", "who", f"text {i}", 1, group=0) for i in range(3)]
    with pytest.raises(DataError, match="given/train has no document of grade 2 or more: there is nothing to learn"):
        prepared(tmp_path, PairwiseRelevance(["AP"], 2), records)


def test_a_loss_that_compares_documents_needs_samples_of_several(tmp_path):
    records = [Record("q", f"d{i}", "who", f"text {i}", i % 2) for i in range(4)]
    with pytest.raises(DataError, match="given/train has no sample of two documents, so PairwiseRelevance has nothing"):
        prepared(tmp_path / "single", PairwiseRelevance(["AP"]), records)
    one_pair = [record._replace(group=i // 3) for i, record in enumerate(records)]  # and a document by itself
    assert len(prepared(tmp_path / "grouped", PairwiseRelevance(["AP"]), one_pair).split("train")) == 2


@given(st.lists(st.lists(st.integers(0, 100), max_size=5), min_size=1, max_size=4), st.data())
def test_chained_arrays_are_indexed_as_one(parts, data):
    chained = Chained([np.array(part, dtype=np.int64) for part in parts], lambda part, rows: rows + 1000 * part)
    whole = [value + 1000 * number for number, part in enumerate(parts) for value in part]
    wanted = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=10)) if whole else []
    assert chained[np.array(wanted, dtype=np.int64)].tolist() == [whole[i] for i in wanted]
    assert chained.all().tolist() == whole
    assert len(chained) == len(whole)


@pytest.mark.parametrize("row", [(), (2,), (0, 2)])
def test_an_array_file_is_an_npy_file(tmp_path, row):
    with ArrayFile(tmp_path / "x.npy", np.int32, row) as file:
        for rows in (3, 0, 2):
            file.append(np.ones((rows, *row)))
    assert np.load(tmp_path / "x.npy").shape == (5, *row)


def test_a_class_whose_rows_are_all_cut_off_is_no_class(tmp_path):
    text = "garden " * 30
    spans = {"A": (0, 6), "B": (7, 13), "C": (7 * 29, 7 * 29 + 6)}
    records = [Record("-", f"d{name}", None, text, name, (span,)) for name, span in spans.items()]
    dataset = prepared(tmp_path, SpanClassification(["Accuracy"]), records, max_length=20, max_query_length=6)
    assert dataset.manifest["labels"]["classes"] == ["A", "B"]
    assert dataset.split("train").collate([0, 1]).labels.tolist() == [0, 1]


def test_what_is_set_aside_does_not_depend_on_the_size_of_chunks(tmp_path, monkeypatch):
    texts = ["one", "one", "two", "one", "three"]
    records = [Record(f"q{i}", "d", "who", text, i, place=f"x:{i}") for i, text in enumerate(texts, 1)]
    for size in (2, 2000):
        monkeypatch.setattr("mtlrank.datamodule.dataset.shard_writer._CHUNK", size)
        reading = Reading("quarantine")
        prepared(tmp_path / str(size), Regression(["MSE"]), records, reading=reading)
        assert list(reading.bad_rows) == ["x:3", "x:5"]


def test_shards_that_are_made_from_something_else_are_refused(tmp_path):
    for number in (1, 2):
        Given(Regression(["MSE"]), RECORDS).prepare_shard(
            tmp_path / f"{number}", Shard(number, 2), Reading(), f"{number}"
        )
    with pytest.raises(DataError, match="were prepared differently: their fingerprint differs"):
        merged(tmp_path, [tmp_path / "1", tmp_path / "2"])


def test_a_whole_dataset_is_no_shard(tmp_path):
    merged(tmp_path, shards(tmp_path))
    with pytest.raises(DataError, match="merged is not a shard of a dataset"):
        merged(tmp_path, [tmp_path / "merged"])


def test_bad_rows_of_all_shards_together_have_a_limit(tmp_path):
    records = [*RECORDS, *(Record(f"bad{i}", f"bad{i}", "who", " ", 1) for i in range(12))]
    folders = [tmp_path / f"{number}" for number in (1, 2)]
    for number, folder in enumerate(folders, 1):
        Given(Regression(["MSE"]), records).prepare_shard(folder, Shard(number, 2), Reading("quarantine", 10))
    with pytest.raises(DataError, match="12 bad rows in all, more than prepare.max_bad_rows=10"):
        Given(Regression(["MSE"]), records).merge(tmp_path / "merged", folders, max_bad_rows=10)
