"""Data that lies in several files, by a name with `*`: it is read as if it were one file."""

import gzip
import json
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import GAP, BIOSpans, IRDataset, LabelledAnswers, QueryPassages, Shard, SpanPairs
from mtlrank.datamodule.dataset.conll2012 import CoNLLCoreference
from mtlrank.datamodule.dataset.files import FileDataset
from mtlrank.datamodule.named_files import locate_all
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.inference.candidates import pairs_of_files
from mtlrank.inference.pair_store import PairStore
from mtlrank.inference.questions import Form, questions_of_files
from mtlrank.task import LocalizedContrastive, Relevance, SpanClassification, SpanPairClassification
from tests.datamodule.dataset.labelled import CONLL, TINY, gap_file, read, sentences
from tests.tiny_collection import FILES

PAIRS = [{"score": i, "a": f"first {i}", "b": f"second {i}"} for i in range(7)]
NAMED = {"score_column": "score", "columns": ("a", "b")}
ANSWERS = [{"qtext": f"question {i // 2}", "label": i % 2, "atext": f"answer {i}"} for i in range(7)]
PASSAGES = [{"query": f"question {i}", "positive": [f"good {i}"], "negative": [f"bad {i}"]} for i in range(7)]
TRIPLES = [{"q": f"question {i}", "p": f"good {i}", "n": f"bad {i}"} for i in range(7)]
SPANS = [{"text": f"Ann met Mia {i}", "spans": [[0, 3], [8, 11]], "label": "distinct"} for i in range(7)]
SENTENCES = [f"Mira\tB-PER\nslept\tO\n\nnobody\tO\n\nin\tO\nQuellin{i}\tB-LOC\n\n" for i in range(7)]
TAGGED = [{"tokens": ["in", f"Quellin{i}"], "ner_tags": ["O", "B-LOC"]} for i in range(7)]
DOCUMENTS = [CONLL.replace("(b)", f"(book {i})") for i in range(7)]
TEXTS = [{"_id": f"d{i}", "title": f"Title {i}", "text": f"text {i}"} for i in range(7)]
QRELS = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": i % 3} for i in range(7)]


def lines(rows, *columns, by="\t"):
    return [by.join(str(row[column]) for column in columns) + "\n" for row in rows]


def objects(rows):
    return [json.dumps(row) + "\n" for row in rows]


def write(path, blocks, header=""):
    """A file of some rows, in the format that its name says."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(blocks), path)
    else:
        content = (header + "".join(blocks)).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def cut(folder, ending, blocks, header=""):
    """The same rows as one file, and in parts; the names of both, as a config has them. Each part has its header."""
    for name, some in (("whole", blocks), ("x-0", blocks[:3]), ("x-1", blocks[3:4]), ("x-2", blocks[4:])):
        write(folder / f"{name}{ending}", some, header)
    (folder / f"y{ending}").write_text("of something else")
    return str(folder / f"whole{ending}"), str(folder / f"x-*{ending}")


def gap_rows(folder):
    gap_file(folder / "gap")
    header, row = (folder / "gap").read_text().splitlines(keepends=True)
    return header, [row.replace("t-1", f"t-{i}").replace("won.", f"won {i}.") for i in range(7)]


def coreference(path):
    return CoNLLCoreference("x", SpanPairClassification(["Accuracy"]), TINY, path)


def answers(path, **settings):
    return LabelledAnswers("x", Relevance(["AP"]), TINY, path, **settings)


def passages(path, **settings):
    return QueryPassages("x", LocalizedContrastive(["AP"]), TINY, path, **settings)


def bio(path):
    return BIOSpans("x", SpanClassification(["Accuracy"]), TINY, path)


def span_pairs(path):
    return SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, path)


def gap(path):
    return GAP("x", SpanPairClassification(["Accuracy"]), TINY, path)


CASES = {
    "SentencePairs-tsv": (sentences, {}, ".tsv", lines(PAIRS, "score", "a", "b"), ""),
    "SentencePairs-gz": (sentences, {}, ".tsv.gz", lines(PAIRS, "score", "a", "b"), ""),
    "SentencePairs-csv": (sentences, NAMED, ".csv", lines(PAIRS, "b", "score", "a", by=","), "b,score,a\n"),
    "SentencePairs-jsonl": (sentences, NAMED, ".jsonl", objects(PAIRS), ""),
    "SentencePairs-parquet": (sentences, NAMED, ".parquet", PAIRS, ""),
    "LabelledAnswers-csv": (
        *(answers, {}, ".csv", lines(ANSWERS, "qtext", "label", "atext", by=","), "qtext,label,atext\n"),
    ),
    "LabelledAnswers-tsv": (answers, {"columns": (0, 1, 2)}, ".tsv", lines(ANSWERS, "qtext", "label", "atext"), ""),
    "LabelledAnswers-jsonl": (answers, {}, ".jsonl", objects(ANSWERS), ""),
    "LabelledAnswers-parquet": (answers, {}, ".parquet", ANSWERS, ""),
    "QueryPassages-tsv": (
        *(passages, {"query": 0, "positives": 1, "negatives": 2}, ".tsv", lines(TRIPLES, "q", "p", "n"), ""),
    ),
    "QueryPassages-jsonl": (passages, {}, ".jsonl", objects(PASSAGES), ""),
    "QueryPassages-parquet": (passages, {}, ".parquet", PASSAGES, ""),
    "BIOSpans-conll": (bio, {}, ".conll", SENTENCES, ""),
    "BIOSpans-jsonl": (bio, {}, ".jsonl", objects(TAGGED), ""),
    "BIOSpans-parquet": (bio, {}, ".parquet", TAGGED, ""),
    "SpanPairs-jsonl": (span_pairs, {}, ".jsonl", objects(SPANS), ""),
    "SpanPairs-parquet": (span_pairs, {}, ".parquet", SPANS, ""),
    "GAP": (gap, {}, ".tsv", None, None),
    "CoNLLCoreference": (coreference, {}, "_conll", DOCUMENTS, ""),
}


def case(name, folder):
    """The dataset that reads the whole, and the one that reads the parts."""
    make, settings, ending, blocks, header = CASES[name]
    if blocks is None:
        header, blocks = gap_rows(folder)
    whole, parts = cut(folder, ending, blocks, header)
    if make in (sentences, answers):
        settings = {**settings, "format": name.rpartition("-")[2].replace("gz", "tsv")}
    return make(whole, **settings), make(parts, **settings)


def without_places(rows):
    return [row._replace(place="") for row in rows]


def test_each_class_that_reads_files_is_a_case():
    classes = {each.__name__ for each in FileDataset.__subclasses__() if each.__module__.startswith("mtlrank.")}
    assert {name.partition("-")[0] for name in CASES} == classes | {"CoNLLCoreference"}


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_file_are_read_as_the_whole(tmp_path, name):
    whole, parts = case(name, tmp_path)
    found = read(parts)
    assert without_places(found) == without_places(read(whole))
    assert len({record.doc_id for record in found}) >= 7
    files = [record.place.partition(":")[0].partition(",")[0].rpartition("/")[2] for record in found]
    assert list(dict.fromkeys(name.partition("_")[0].partition(".")[0] for name in files)) == ["x-0", "x-1", "x-2"]
    assert read(parts, "val") == []


@pytest.mark.parametrize("name", CASES)
def test_the_manifest_names_each_part_with_its_hash(tmp_path, name):
    whole, parts = case(name, tmp_path)
    files = sorted(tmp_path.glob("x-*"))
    told = [{"file": file.name, "sha256": sha256(file.read_bytes()).hexdigest()} for file in files]
    assert parts.describe() == {"train": {"file": f"x-*{files[0].name[3:]}", "parts": told}}
    parts.check_sources()
    assert "parts" not in whole.describe()["train"]


@pytest.mark.parametrize("total", [1, 3])
def test_shards_of_parts_are_those_of_the_whole(tmp_path, total):
    found = []
    for number, dataset in enumerate(case("SentencePairs-tsv", tmp_path)):
        shards = [tmp_path / f"{number}-{shard}" for shard in range(1, total + 1)]
        for shard, folder in enumerate(shards, 1):
            dataset.prepare_shard(folder, Shard(shard, total), Reading())
        dataset.merge(tmp_path / str(number), shards)
        dataset.open(tmp_path / str(number))
        split = dataset.split("train")
        found.append(sorted(zip(split.ids, split.labels.all().tolist(), strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) == 7


def test_a_place_is_that_of_the_part(tmp_path):
    write(tmp_path / "x-1.tsv", ["1\ta\tb\n"])
    write(tmp_path / "x-2.tsv", ["1\ta\tb\n", "2\ta\n"])
    with pytest.raises(DataError, match=rf"^{tmp_path.name}/x-2\.tsv:2: expected at least 3 tab-separated columns"):
        read(sentences(tmp_path / "x-*.tsv"))


def test_a_header_of_any_part_is_a_bad_row(tmp_path):
    write(tmp_path / "x-1", ["1\ta\tb\n"])
    write(tmp_path / "x-2", ["label\tsentence1\tsentence2\n", "1\ta\tb\n"])
    with pytest.raises(DataError, match=r"x-2:1: expected a label and a text, found a header"):
        read(sentences(tmp_path / "x-*"))
    write(tmp_path / "d-1", ["d1\ta text\n"])
    write(tmp_path / "d-2", ["doc_id\ttext\n"])
    with pytest.raises(DataError, match=r"d-2:1: expected an id and a text, found a header"):
        _ = Collection({"docs": str(tmp_path / "d-*")}).docs


def test_a_sentence_ends_with_its_file(tmp_path):
    write(tmp_path / "x-1", ["Mira\tB-PER"])
    write(tmp_path / "x-2", ["Halden\tI-PER\n"])
    assert [record.text for record in read(bio(str(tmp_path / "x-*")))] == ["Mira", "Halden"]


def test_how_far_it_is_counts_all_parts(tmp_path):
    for number in range(4):
        write(tmp_path / f"x-{number}.tsv", ["1\ta\tb\n"] * 10_000)
    dataset = sentences(tmp_path / "x-*.tsv")
    shares = [dataset.reading.progress.share for _ in dataset.records("train")]
    assert shares[10_000] == 0.25
    assert shares[15_000] == pytest.approx(0.375, abs=0.05)
    assert shares == sorted(shares)


def test_bad_rows_of_all_parts_are_counted_together(tmp_path):
    for number in range(3):
        write(tmp_path / f"x-{number}.tsv", ["1\ta\tb\n", "2\ta\n"])
    dataset = sentences(tmp_path / "x-*.tsv")
    dataset.reading = Reading("quarantine")
    assert len(read(dataset)) == 3
    assert [Path(place).name for place in dataset.reading.bad_rows] == ["x-0.tsv:2", "x-1.tsv:2", "x-2.tsv:2"]
    dataset.reading = Reading("quarantine", max_bad_rows=2)
    with pytest.raises(DataError, match="3 bad rows, more than"):
        read(dataset)


def test_an_empty_part_of_an_empty_split_is_named(tmp_path):
    write(tmp_path / "x-1.tsv", [])
    write(tmp_path / "y.tsv", ["1\ta\tb\n"])
    dataset = sentences(tmp_path / "y.tsv", test=str(tmp_path / "x-*.tsv"))
    dataset.prepare_shard(tmp_path / "shard", Shard(), Reading())
    with pytest.raises(
        DataError, match=r"split 'test' of x has a source but no samples.* \(x-\*\.tsv, x-1\.tsv \(empty\)"
    ):
        dataset.merge(tmp_path / "merged", [tmp_path / "shard"])


# -- collections -----------------------------------------------------------------------------------------------------

PARTS = {
    "docs-tsv": ("docs", ".tsv", lines(TEXTS, "_id", "text"), ""),
    "docs-gz": ("docs", ".jsonl.gz", objects(TEXTS), ""),
    "docs-parquet": ("docs", ".parquet", TEXTS, ""),
    "queries-tsv": ("queries", ".tsv", lines(TEXTS, "_id", "text"), ""),
    "queries-jsonl": ("queries", ".jsonl", objects(TEXTS), ""),
    "qrels-trec": ("qrels", ".txt", [f"q{i} 0 d{i} {i % 3}\n" for i in range(7)], ""),
    "qrels-beir": (*("qrels", ".tsv", lines(QRELS, "query-id", "corpus-id", "score"), "query-id\tcorpus-id\tscore\n"),),
    "qrels-parquet": ("qrels", ".parquet", QRELS, ""),
    "run": ("run", ".run", [f"q{i} Q0 d{i} 1 {-i} x\n" for i in range(7)], ""),
    "docpairs": ("docpairs", ".tsv", [f"q{i}\td{i}\te{i}\n" for i in range(7)], ""),
    "docpairs-scored": ("docpairs", ".tsv", [f"2.5\t{i}\tq{i}\td{i}\te{i}\n" for i in range(7)], ""),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_collection_are_read_as_the_whole(tmp_path, name):
    part, ending, blocks, header = PARTS[name]
    whole, parts = (Collection({part: name}).source for name in cut(tmp_path, ending, blocks, header))

    def rows(source):
        if part in ("docs", "queries"):
            return list(source.texts(part, Reading()))
        return list(source.docpairs(Reading()) if part == "docpairs" else source.pair_values(part, Reading()))

    assert without_places(rows(parts)) == without_places(rows(whole))
    assert len(rows(parts)) == 7
    assert [row.place.rpartition("/")[2][:3] for row in rows(parts)] == [*["x-0"] * 3, "x-1", *["x-2"] * 3]
    assert [each["file"] for each in parts.describe()[part]["parts"]] == [f"x-{i}{ending}" for i in range(3)]
    assert parts.name == f"x-*{ending}"


def test_a_ranking_in_parts_is_the_ranking(source, tmp_path):
    (tmp_path / "parts").mkdir()
    for part, rows in FILES.items():
        for number, row in enumerate(rows):
            (tmp_path / "parts" / f"{part}-{number}").write_text(f"{row}\n")
    several = {part: str(tmp_path / "parts" / f"{part}-*") for part in FILES}
    whole, parts = (
        IRDataset("x", Relevance(["AP"]), TINY, where, test=where, leaked_queries="drop") for where in (source, several)
    )
    for split in ("train", "test"):
        assert without_places(read(parts, split)) == without_places(read(whole, split))
        assert parts.candidates(split).keys() == whole.candidates(split).keys()
    assert parts.qrels("test") == whole.qrels("test") == {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 3}}
    assert len(read(parts, "test")) == 5
    parts.check_sources()


def test_documents_are_read_again_when_a_part_is_added(tmp_path):
    write(tmp_path / "d-1.tsv", ["d1\tone\n"])
    source = {"docs": str(tmp_path / "d-*.tsv")}
    before = Collection(source).docs
    assert Collection(source).docs.path == before.path
    assert "*" not in before.folder.name
    write(tmp_path / "d-2.tsv", ["d2\ttwo\n"])
    assert list(Collection(source).docs) == [("d1", "one"), ("d2", "two")]
    (tmp_path / "d-2.tsv").unlink()
    assert list(Collection(source).docs) == [("d1", "one")]


def test_candidates_of_training_may_lie_in_parts(source, tmp_path):
    write(tmp_path / "n-1.run", ["q1 Q0 d2 1 3 x\n", "q1 Q0 d5 2 2 x\n"])
    write(tmp_path / "n-2.run", ["q2 Q0 d4 1 2 x\n"])
    dataset = IRDataset("x", Relevance(["AP"]), TINY, source, negatives_run=str(tmp_path / "n-*.run"))
    dataset.check_sources()
    assert {q: [d.doc_id for d in ranked] for q, ranked in dataset.candidates("train").items()} == {
        "q1": ["d2", "d5"],
        "q2": ["d4"],
    }


# -- what is scored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".tsv", ".jsonl", ".parquet"])
def test_pairs_to_rank_may_lie_in_parts(tmp_path, ending):
    pairs = [
        {"query_id": f"q{i // 2}", "doc_id": f"d{i}", "query": f"who {i // 2}", "text": f"t {i}"} for i in range(7)
    ]
    blocks = {".tsv": lines(pairs, *pairs[0]), ".jsonl": objects(pairs), ".parquet": pairs}[ending]
    found = []
    for name in cut(tmp_path, ending, blocks):
        with closing(PairStore(tmp_path / f"{len(found)}.sqlite")) as store:
            chunks = pairs_of_files(locate_all(name, "input"), Reading(), store, 4)
            found.append(without_places(pair for chunk in chunks for pair in chunk))
    assert found[0] == found[1]
    assert [pair.text for pair in found[1]] == [f"t {i}" for i in range(7)]


def test_texts_to_predict_may_lie_in_parts(tmp_path):
    cut(tmp_path, ".jsonl", objects({"id": i, "text": f"t {i}"} for i in range(7)))
    form = Form(("text",), 0, "text")
    chunks = list(questions_of_files(locate_all(str(tmp_path / "x-*"), "input"), Reading(), form, 4))
    assert [asked.given["id"] for chunk in chunks for asked in chunk] == list(range(7))
    assert [len(chunk) for chunk in chunks] == [4, 3]
    write(tmp_path / "x-3.tsv", ["t\ttext\n"])
    with pytest.raises(DataError, match=r"x-3\.tsv is TSV, but the head judges spans"):
        questions_of_files(locate_all(str(tmp_path / "x-*"), "input"), Reading(), form._replace(num_spans=1), 4)
