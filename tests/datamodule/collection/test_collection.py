"""Collections: what files and ids give, and what is wrong with files."""

import gzip
import json
from pathlib import Path

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from tests.tiny_collection import write


def test_files_give_queries_judgements_candidates_and_texts(source):
    collection = Collection(source)
    assert collection.queries == {"q1": "silent harbour", "q2": "garden"}
    assert collection.qrels == {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 3}}
    assert [(d.doc_id, d.rank, d.score) for d in collection.candidates(["q1"], 2)["q1"]] == [("d2", 1, 3), ("d1", 2, 2)]
    assert collection.docs.texts(["d3", "d1", "gone"]) == {"d1": "the silent harbour", "d3": "a garden"}


def test_a_run_may_be_of_ranks_alone(source):
    write(source["run"], ["q1\td3\t2", "q1\td1\t10", "q1\td2\t1"])
    candidates = Collection(source).candidates(["q1"], 3)["q1"]
    assert [(doc.doc_id, doc.score) for doc in candidates] == [("d2", -1), ("d3", -2), ("d1", -10)]


def test_a_beir_folder_is_a_collection(tmp_path):
    rows = [{"_id": "d1", "title": "Harbours", "text": "are silent"}, {"_id": "d2", "title": "", "text": "a garden"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "silent", "metadata": {}}) + "\n")
    (tmp_path / "qrels").mkdir()
    write(tmp_path / "qrels" / "dev.tsv", ["query-id\tcorpus-id\tscore", "q\td1\t1"])
    with (tmp_path / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "other", "text": "of another split"}) + "\n")
    collection = Collection({"beir": str(tmp_path), "split": "dev"})
    assert list(collection.all_queries) == ["q"]
    assert list(collection.docs) == [("d1", "Harbours are silent"), ("d2", "a garden")]
    assert collection.qrels == {"q": {"d1": 1}}
    assert [doc.doc_id for doc in collection.candidates(["q"], 5)["q"]] == ["d1"]


def test_a_file_takes_the_place_of_a_part_of_an_ir_datasets_id(tmp_path):
    write(tmp_path / "mine", ["q0 Q0 d1 1 1 x"])
    whole = Collection("mtlrank-embedded/test")
    mixed = Collection({"id": "mtlrank-embedded/test", "run": str(tmp_path / "mine")})
    assert mixed.qrels == whole.qrels
    assert whole.candidates([*whole.queries][:1], 5) != mixed.candidates([*whole.queries][:1], 5)


def test_bm25_retrieves_where_a_collection_says_so():
    whole, retrieved = Collection("mtlrank-embedded/test"), Collection({"id": "mtlrank-embedded/test", "run": "bm25"})
    assert (whole.source.has("run"), retrieved.source.has("run")) == (True, False)
    assert retrieved.qrels == whole.qrels
    (query,) = [*whole.queries][:1]
    assert len(retrieved.candidates([query], 5)[query]) == 5


def test_equal_scores_of_bm25_are_ordered_as_by_trec_eval_wherever_the_documents_stand(source):
    write(source["queries"], ["q1\tharbour"])
    names = [f"d{number}" for number in (3, 11, 1, 2, 10)]
    for order in (names, sorted(names)):
        write(source["docs"], [*(f"{name}\ta harbour" for name in order), "x\tharbour harbour", "y\tgarden"])
        collection = Collection({part: source[part] for part in ("docs", "queries", "qrels")})
        found = {depth: [doc.doc_id for doc in collection.candidates(["q1"], depth)["q1"]] for depth in (3, 9)}
        assert found == {3: ["x", "d3", "d2"], 9: ["x", "d3", "d2", "d11", "d10", "d1"]}


def test_a_collection_may_have_other_settings_of_bm25(source):
    files = {part: source[part] for part in ("docs", "qrels")}
    write(source["queries"], ["q1\tharbours and gardens"])
    files["queries"] = source["queries"]
    plain, stemmed = Collection(files), Collection({**files, "bm25": {"stemmer": "english"}})
    assert [doc.doc_id for doc in plain.candidates(["q1"], 9)["q1"]] == []
    assert {doc.doc_id for doc in stemmed.candidates(["q1"], 9)["q1"]} == {"d1", "d2", "d3", "d4"}
    assert "bm25" not in plain.source.describe()
    assert stemmed.source.describe()["bm25"].startswith(
        "k1=0.9, b=0.4, stopwords=english, stemmer=english of PyStemmer"
    )
    with pytest.raises(ConfigError, match="bm25 names unknown settings: stem. Did you mean 'stemmer'"):
        Collection({**source, "bm25": {"stem": "english"}})


def test_gzipped_files_with_a_byte_order_mark_and_windows_line_ends_are_read(source, tmp_path):
    text = "\ufeffd1\tthe silent harbour\r\nd2\tharbour lights\r\n"
    with gzip.open(tmp_path / "docs.tsv.gz", "wb") as file:
        file.write(text.encode())
    collection = Collection({**source, "docs": str(tmp_path / "docs.tsv.gz")})
    assert list(collection.docs) == [("d1", "the silent harbour"), ("d2", "harbour lights")]


def test_half_a_gzipped_file_is_named(source, tmp_path):
    whole = gzip.compress(b"d1\ttext\n" * 1000)
    (tmp_path / "docs.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="docs.tsv.gz is not a complete gzip file"):
        list(Collection({**source, "docs": str(tmp_path / "docs.tsv.gz")}).docs)


def test_a_damaged_gzipped_file_is_named(source, tmp_path):
    whole = gzip.compress("".join(f"d{i}\ttext {i * 7919}\n" for i in range(500)).encode())
    for position in range(12, len(whole), len(whole) // 20):
        name = tmp_path / f"docs{position}.tsv.gz"
        name.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with pytest.raises(DataError, match="is not a complete gzip file"):
            list(Collection({**source, "docs": str(name)}).docs)


def test_a_run_that_ranks_nothing_is_a_pool(source):
    write(source["run"], ["q1 Q0 d1 1 0 x", "q1 Q0 d2 2 0 x", "q2 Q0 d1 1 1 x"])
    with pytest.raises(DataError, match=r"ranks nothing: all documents of a query have the same score, and x needs"):
        Collection(source).require_order("x")
    assert {doc.doc_id for doc in Collection(source).candidates(["q1"], 9)["q1"]} == {"d1", "d2"}


@pytest.mark.parametrize("lines", [["q1 Q0 d1 1 7.5 x", "q1 Q0 d2 2 7.5 x"], ["q1 Q0 d1 1 7.5 x"]])
def test_a_query_whose_documents_tie_does_not_speak_for_a_run(source, lines):
    Path(source["run"]).write_text("\n".join([*lines, "q2 Q0 d3 1 3 x", "q2 Q0 d4 2 2 x", ""]))
    collection = Collection(source)
    collection.require_order("x")
    assert [doc.doc_id for doc in collection.candidates(["q2"], 2)["q2"]] == ["d3", "d4"]


def test_file_names_may_hold_what_urls_may_not(source, tmp_path):
    for name in ("docs#1", "docs?x=1", "docs%41", "docs 1"):
        write(tmp_path / name, ["d1\ttext"])
        assert len(Collection({**source, "docs": str(tmp_path / name)}).docs) == 1


def test_without_a_run_candidates_are_retrieved(source):
    del source["run"]
    found = Collection(source).candidates(["q1"], 3)["q1"]
    assert [doc.doc_id for doc in found] == ["d1", "d4", "d2"]
    assert [doc.rank for doc in found] == [1, 2, 3]


def test_scores_tie_as_the_float32_that_trec_eval_reads(source):
    write(source["run"], ["q1 Q0 d1 1 1.000000001 x", "q1 Q0 d2 2 1.0 x", "q1 Q0 d3 3 0.5 x"])
    assert [doc.doc_id for doc in Collection(source).candidates(["q1"], 9)["q1"]] == ["d2", "d1", "d3"]


def count_runs(collection, monkeypatch):
    """A list that grows whenever the collection's run is read, apart from its first lines."""
    collection.is_ordered  # noqa: B018
    pair_values, times = collection.source.pair_values, []
    monkeypatch.setattr(
        collection.source, "pair_values", lambda part, reading: (times.append(part), pair_values(part, reading))[1]
    )
    return times


def test_a_run_is_read_again_only_for_what_is_not_held(source, monkeypatch):
    collection = Collection(source)
    times = count_runs(collection, monkeypatch)
    collection.read_run(["q1", "q2"], 2)
    assert [doc.doc_id for doc in collection.candidates(["q1"], 1)["q1"]] == ["d2"]
    assert len(collection.candidates(["q2"], 2)["q2"]) == 2
    assert times == ["run"]
    assert len(collection.candidates(["q1"], 3)["q1"]) == 3
    assert len(collection.candidates(["q2"], 3)["q2"]) == 2
    assert times == ["run", "run"]


def test_lines_of_a_run_that_match_no_query_are_counted_once(source):
    with open(source["run"], "a") as file:
        file.write("q9 Q0 d1 1 1 x\nq9 Q0 d2 2 0 x\n")
    parts = [Collection(source, holds=lambda name, odd=odd: (name[-1] in "13579") == odd) for odd in (False, True)]
    for collection in parts:
        for depth in (1, 2):
            collection.candidates(list(collection.queries), depth)
    assert [part.reading.counts for part in parts] == [
        {},
        {"train": {"run lines of queries that the split has not": 2}},
    ]


def test_only_wanted_queries_are_read(source):
    collection = Collection(source, holds=lambda query_id: query_id == "q2")
    assert list(collection.queries) == list(collection.qrels) == ["q2"]
    assert list(collection.all_queries) == ["q1", "q2"]


def test_an_unknown_collection_comes_with_the_nearest_ids():
    with pytest.raises(ConfigError, match="Did you mean vaswani"):
        Collection("vaswanni")


def test_a_missing_file_is_named(source):
    with pytest.raises(DataError, match="run file 'nowhere' does not exist"):
        Collection({**source, "run": "nowhere"})


def test_files_of_another_kind_are_refused(source):
    with pytest.raises(
        ConfigError, match="docs, queries, qrels, run, docpairs, id, beir, split or bm25 in a collection, found texts"
    ):
        Collection({"texts": "x"})


def test_a_split_of_no_beir_folder_is_refused(source):
    with pytest.raises(ConfigError, match="split belongs to a beir folder, found split 'dev' without one"):
        Collection({**source, "split": "dev"})


def test_a_missing_part_is_named(source):
    del source["qrels"]
    with pytest.raises(ConfigError, match="has no qrels, which this dataset needs"):
        Collection(source).qrels  # noqa: B018


def all_of(collection):
    return collection.queries, collection.qrels, collection.candidates(["q1"], 5), list(collection.docs)


BAD_LINES = [
    ("docs", "d9", r"docs:6: expected 2 tab-separated columns \(id, text; titles need JSON Lines\), found 1: 'd9'"),
    ("docs", " ", r"docs:6: expected 2 tab-separated columns .*, found a blank line: remove it"),
    (
        "docs",
        "d9\ttitle\ttext",
        r"docs:6: expected 2 tab-separated columns \(id, text; titles need JSON Lines\), found 3",
    ),
    ("docs", "d 9\ttext", "docs:6: doc_id 'd 9' is empty or contains a blank"),
    ("docs", "d1\tanother text", "docs:6: document 'd1' has a different text at .*docs:1"),
    ("docs", "d9\tte\0xt", "docs:6: expected text, found a NUL character"),
    ("queries", "q3\t ", "queries:3: expected a text, found a blank one for query 'q3'"),
    ("queries", "q1\tanother", "queries:3: query 'q1' has two different texts"),
    ("qrels", "q1 0 d1", r"qrels:4: expected a TREC qrel \(query, 0, document, grade\).*found 'q1 0 d1'"),
    ("qrels", "q1 0 d4 1.5", "qrels:4: expected a TREC qrel"),
    ("qrels", "q1\td 4\t1", "qrels:4: expected a TREC qrel .* without blanks in ids, found 'q1"),
    ("qrels", "q1 0 d1 1", "qrels:4: expected one grade for 'd1' and query 'q1', found two grades, 2 and 1"),
    ("run", "q1 Q0 d4 1 nan x", "run:6: expected a line of a TREC run .*with a finite score, found 'q1 Q0 d4 1 nan x'"),
    ("run", "q1 Q0 d4 1 1_0 x", "run:6: expected a line of a TREC run .*with a finite score, found 'q1 Q0 d4 1 1_0 x'"),
    ("run", "q1 Q0 d4 1", "run:6: expected a line of a TREC run .*, or of MS MARCO's"),
    ("run", "q1 d4 0.5", r"run:6: expected a line of a TREC run .*, or of MS MARCO's \(query, document, rank\)"),
    ("run", "q1 Q0 d2 9 0.5 x", "run:6: document 'd2' has two scores for query 'q1'"),
]


@pytest.mark.parametrize(("part", "line", "complaint"), BAD_LINES)
def test_a_bad_line_stops_with_its_place_or_is_set_aside(source, part, line, complaint):
    good = all_of(Collection(source))
    with open(source[part], "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=complaint):
        all_of(Collection(source))
    reading = Reading("quarantine")
    assert all_of(Collection(source, reading)) == good
    (bad,) = reading.bad_rows.values()
    assert bad.place.endswith("/" + complaint.split(": ")[0])


@pytest.mark.parametrize(
    ("part", "header"),
    [
        ("docs", "docid\ttext"),
        ("docs", "docno\tpassage_text"),
        ("docs", "pid\tpassage"),
        ("queries", "Query-ID\tQuery"),
        ("queries", "qid\tquestion"),
        ("docs", "id\tbody of the text"),
    ],
)
def test_a_header_is_no_row(source, part, header):
    good = all_of(Collection(source))
    path = Path(source[part])
    path.write_text(f"{header}\n{path.read_text()}")
    with pytest.raises(DataError, match=rf"{part}:1: expected an id and a text, found a header .*remove it"):
        all_of(Collection(source))
    assert all_of(Collection(source, Reading("quarantine"))) == good


@pytest.mark.parametrize("name", ["queries.jsonl", "queries.json", "queries.ndjson"])
def test_json_lines_are_told_by_the_name(source, tmp_path, name):
    (tmp_path / name).write_text('{"_id": "q1", "text": "a jay"}\n')
    assert Collection({**source, "queries": str(tmp_path / name)}).queries == {"q1": "a jay"}


@pytest.mark.parametrize(
    "row", ['{"_id": true, "text": "a"}', '{"_id": "d1", "text": "a", "title": ["b"]}', '{"_id": "d1"}']
)
def test_json_of_other_types_is_a_bad_row(source, tmp_path, row):
    (tmp_path / "docs.jsonl").write_text(f"{row}\n")
    with pytest.raises(
        DataError, match=r"docs.jsonl:1: expected text as _id and text \(and title, if any\), found _id \("
    ):
        list(Collection({**source, "docs": str(tmp_path / "docs.jsonl")}).docs)


def test_bytes_that_are_no_utf8_are_named(source):
    with open(source["docs"], "ab") as file:
        file.write(b"d9\tcaf\xe9\n")
    with pytest.raises(DataError, match="docs:6: expected UTF-8, found byte 0xe9 at position 7"):
        list(Collection(source).docs)


def test_what_is_there_twice_is_counted(source):
    for part, line in (("qrels", "q1 0 d1 2"), ("docs", "d1\tthe silent harbour"), ("qrels", "q9 0 d1 1")):
        with open(source[part], "a") as file:
            file.write(f"{line}\n")
    collection = Collection(source)
    assert len(collection.qrels["q1"]) == 2
    assert len(collection.docs) == 5
    counts = {"judgements given twice": 1, "judgements of queries without a text": 1, "documents given twice": 1}
    assert collection.reading.counts == {"train": counts}


def test_documents_of_several_splits_that_are_there_twice_are_counted_once(source):
    with open(source["docs"], "a") as file:
        file.write("d1\tthe silent harbour\n")
    reading = Reading()
    for reading.split in ("train", "val", "test"):
        assert len(Collection(source, reading).docs) == 5
    assert reading.counts == {"train": {"documents given twice": 1}}


def test_too_many_bad_rows_stop_with_the_first(source):
    write(source["docs"], ["one", "two", "three", "d4\tgarden"])
    with pytest.raises(DataError, match=r"3 bad rows, more than prepare.max_bad_rows=2. The first: .*docs:1: .*docs:3"):
        list(Collection(source, Reading("quarantine", 2)).docs)


def test_the_embedded_collection_is_an_ir_datasets_source():
    collection = Collection("mtlrank-embedded/test")
    assert len(collection.queries) == len(collection.qrels) == 100
    assert len(collection.docs) == 2475


@pytest.mark.parametrize("grade", ["1.5", "x", "1_0", "99999", "+1"])
def test_a_grade_that_is_no_whole_number_is_named(source, tmp_path, grade):
    write(tmp_path / "bad", [f"q1 0 d1 {grade}"])
    with pytest.raises(DataError, match="bad:1: expected a TREC qrel"):
        _ = Collection({**source, "qrels": str(tmp_path / "bad")}).qrels


def test_a_collection_that_is_neither_a_name_nor_a_mapping_of_paths_is_refused():
    with pytest.raises(ConfigError, match="an ir_datasets id or a mapping"):
        Collection(["docs.tsv"])
    with pytest.raises(
        ConfigError, match=r"Expected paths and names as the parts of a collection, found \{'docs': 3\}"
    ):
        Collection({"docs": 3})


def test_a_damaged_store_of_documents_is_named(source):
    store = Collection(source).docs
    store.path.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(DataError, match="is damaged: .* it will be rebuilt"):
        len(Collection(source).docs)
