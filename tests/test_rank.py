"""Ranking with a trained model: the same scores as evaluation's, from any kind of input, and mistakes told in one line."""

import gzip
import io
import json
import os
import random
import re
import sys
from pathlib import Path

import ir_datasets
import pytest
import torch
from ir_datasets.formats import TrecScoredDocs, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload
from ir_measures import ScoredDoc
from torch._dynamo.utils import counters

from mtlrank import embedded, evaluate, rank
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.evaluation.depths import by_depth
from mtlrank.evaluation.measures import ranking_values
from mtlrank.progress import Progress
from mtlrank.storage import home, read_json, write_json
from mtlrank.trec import read_run
from tests.marks import needs_compiler
from tests.saved_models import save_random, settings
from tests.tiny_collection import FILES, write

READERS = {"docs": TsvDocs, "queries": TsvQueries, "run": TrecScoredDocs}


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, datasets):
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


@pytest.fixture(scope="module")
def evaluated(model, data_dir):
    """The run that evaluation writes."""
    evaluate.run(settings("evaluate", model_dir=model, tasks="[trec2019]"), {"trec2019": data_dir / "trec2019"})
    return model.parent / "evaluation-test" / "trec2019" / "run.trec"


@pytest.fixture
def ranked(model, tmp_path):
    """Rank with some settings; gives the lines that are written."""

    def run(**values):
        output = tmp_path / values.pop("output", f"out-{(values.get('shard') or '').split('/')[0]}.run")
        rank.run(settings("rank", model_dir=model, head="trec2019", output=output, **values))
        return output.read_text().splitlines()

    return run


def collection(name):
    return embedded.locate(f"mtlrank-embedded/{name}")


def rows(number=12):
    """Pairs with texts of very different lengths."""
    docs = [line.split("\t") for line in Path(collection("docs.tsv")).read_text().splitlines()]
    queries = [line.split("\t") for line in Path(collection("test/queries.tsv")).read_text().splitlines()]
    text = lambda i: " ".join(docs[i + j][1] for j in range(1 + 4 * (i % 3)))  # noqa: E731
    return [(queries[i // 3][0], docs[i][0], queries[i // 3][1], text(i)) for i in range(number)]


def test_an_output_that_is_a_link_is_proven_where_it_leads(tmp_path):
    """Before the model is loaded, which is not even there."""
    (tmp_path / "out.run").symlink_to("/proc/nowhere/out.run")
    with pytest.raises(StorageError, match="Cannot write to the folder '/proc/nowhere'"):
        rank.run(settings("rank", model_dir=tmp_path, head="x", input="-", output=tmp_path / "out.run"))


def as_tsv(path, pairs):
    write(path, ["\t".join(pair) for pair in pairs])
    return path


def scores(lines):
    return {tuple(line.split()[0:3:2]): float(line.split()[4]) for line in lines}


def test_the_run_is_exactly_evaluations(ranked, evaluated):
    assert ranked(ir_dataset="mtlrank-embedded/test") == evaluated.read_text().splitlines()


def test_a_run_in_any_order_with_files_of_ones_own_gives_the_same(ranked, evaluated, tmp_path):
    lines = Path(collection("test/bm25.run")).read_text().splitlines()
    random.Random(0).shuffle(lines)
    write(tmp_path / "shuffled.run", lines)
    files = {"queries": collection("test/queries.tsv"), "docs": collection("docs.tsv")}
    assert ranked(run=tmp_path / "shuffled.run", **files) == evaluated.read_text().splitlines()


def test_chunks_and_batches_change_scores_by_rounding_only(ranked, evaluated, monkeypatch):
    monkeypatch.setattr(rank, "CHUNK", 37)
    found = scores(ranked(ir_dataset="mtlrank-embedded/test", batch_size=5))
    expected = scores(evaluated.read_text().splitlines())
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair], abs=1e-5) for pair in found)


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own
def test_compiled_layers_give_the_same_scores(ranked, evaluated):
    counters.clear()
    found = scores(ranked(ir_dataset="mtlrank-embedded/test", compile=True))
    assert counters["stats"]["unique_graphs"] > 0
    expected = scores(evaluated.read_text().splitlines())
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair], abs=1e-5) for pair in found)


def test_without_a_run_bm25_retrieves(ranked, model):
    found = ranked(queries=collection("test/queries.tsv"), docs=collection("docs.tsv"), depth=3)
    given = ranked(ir_dataset="mtlrank-embedded/test", run="bm25", depth=3)
    assert found == given
    first_stage = read_run(home() / f"mtlrank-embedded-{embedded.VERSION}" / "test" / "bm25.run")
    best = {}
    for doc in sorted(first_stage, key=lambda doc: (doc.score, doc.doc_id), reverse=True):
        best.setdefault(doc.query_id, []).append(doc.doc_id)
    by_query = {}
    for line in found:
        by_query.setdefault(line.split()[0], set()).add(line.split()[2])
    assert all(docs == set(best[query][:3]) for query, docs in by_query.items())
    assert len(by_query) == len(best)


def test_settings_of_bm25_decide_what_is_retrieved(ranked, source):
    write(source["queries"], ["q1\tharbours", "q2\tgarden"])
    files = {"queries": source["queries"], "docs": source["docs"]}
    assert {line.split()[0] for line in ranked(**files)} == {"q2"}
    assert sum(line.startswith("q1 ") for line in ranked(**files, **{"bm25.stemmer": "porter"})) == 3


@pytest.mark.parametrize("retrieve", [False, True])
def test_shards_together_are_the_whole(ranked, retrieve):
    source = {"ir_dataset": "mtlrank-embedded/test", **({"run": "bm25", "depth": 3} if retrieve else {"top_k": 3})}
    whole = ranked(**source)
    shards = [ranked(**source, shard=f"{number}/3") for number in (1, 2, 3)]
    assert all(0 < len(shard) < len(whole) for shard in shards)
    assert sorted(line.split()[:4] for shard in shards for line in shard) == sorted(line.split()[:4] for line in whole)


def test_shards_of_pairs_keep_a_query_together_and_may_be_empty(ranked, tmp_path):
    pairs = rows()
    as_tsv(tmp_path / "pairs.tsv", pairs)
    found = [
        ranked(input=tmp_path / "pairs.tsv", output=f"{number}.tsv", shard=f"{number}/40") for number in range(1, 41)
    ]
    queries = [{line.split("\t")[0] for line in shard} for shard in found]
    assert sum(len(shard) for shard in found) == len(pairs)
    assert set() in queries
    assert sum(len(shard) for shard in queries) == len({pair[0] for pair in pairs})
    with pytest.raises(ConfigError, match=r"The shard is '4/3', expected i/n"):
        ranked(input=tmp_path / "pairs.tsv", shard="4/3")


def test_only_the_best_of_a_run_are_scored_and_only_the_best_scores_are_kept(ranked, tmp_path):
    run = [
        "{} Q0 {} 1 {} x".format(*pair) for pair in (("q1", "d1", 1), ("q1", "d2", 3), ("q1", "d3", 2), ("q2", "d1", 9))
    ]
    write(tmp_path / "bm25.run", run)
    write(tmp_path / "queries", ["q1\tsilent harbour", "q2\tgarden"])
    write(tmp_path / "docs", ["d1\tthe silent harbour", "d2\tharbour lights", "d3\ta garden"])
    files = {part: tmp_path / part for part in ("queries", "docs")}
    found = ranked(run=tmp_path / "bm25.run", top_k=2, **files)
    assert {tuple(line.split()[0:3:2]) for line in found} == {("q1", "d2"), ("q1", "d3"), ("q2", "d1")}
    kept = ranked(run=tmp_path / "bm25.run", keep=1, **files)
    everything = ranked(run=tmp_path / "bm25.run", **files)
    assert kept == [line for line in everything if line.split()[3] == "1"]
    assert [line.split()[3] for line in everything] == ["1", "2", "3", "1"]


def test_the_rest_of_a_run_may_follow_below_what_is_scored(ranked, tmp_path):
    """In its own order, whatever ids documents have; a scored document without a text stays out."""
    order = ["d4", "d9", "d1", "d3", "d2"]
    run = [f"q1 Q0 {doc} {rank} {9 - rank} x" for rank, doc in enumerate(order)]
    write(tmp_path / "bm25.run", [*run, "q2 Q0 d3 1 1 x"])
    write(tmp_path / "queries", ["q1\tsilent harbour", "q2\tgarden"])
    write(tmp_path / "docs", ["d1\tthe silent harbour", "d2\tharbour lights", "d3\ta garden", "d4\tlights"])
    words = {"run": tmp_path / "bm25.run", **{part: tmp_path / part for part in ("queries", "docs")}}
    words |= {"missing_texts": "skip", "top_k": 3}
    scored, whole = ranked(**words), ranked(**words, rest="keep")
    assert [line.split()[2] for line in whole if line[:2] == "q1"][2:] == ["d3", "d2"]
    assert [line for line in whole if line.split()[2] not in ("d3", "d2") or line[:2] == "q2"] == scored
    least, *rest = [float(line.split()[4]) for line in whole if line[:2] == "q1"][1:]
    assert rest == pytest.approx([least - 1, least - 2])
    assert ranked(**words, rest="keep", keep=3) == [line for line in whole if int(line.split()[3]) <= 3]


def test_the_rest_below_is_what_evaluation_tells_of_that_depth(ranked, datasets):
    split = datasets["trec2019"].split("test")
    runs = []
    for number, words in enumerate(({}, {"top_k": 5, "rest": "keep"})):
        lines = (line.split() for line in ranked(ir_dataset="mtlrank-embedded/test", output=f"{number}.run", **words))
        runs.append([ScoredDoc(cells[0], cells[2], float(cells[4])) for cells in lines])
    told = by_depth("AP", split.qrels, runs[0], split.first_stage())
    found = ranking_values(["AP"], split.qrels, runs[1])["AP"]
    assert sum(found.values()) / len(found) == pytest.approx(told[5]) != pytest.approx(told[20])


def test_a_run_has_the_tag_that_was_asked_for(ranked, tmp_path):
    pairs = as_tsv(tmp_path / "pairs.tsv", rows(3))
    assert {line.split()[5] for line in ranked(input=pairs)} == {"mtlrank-trec2019"}
    assert {line.split()[5] for line in ranked(input=pairs, tag="my-run.2")} == {"my-run.2"}


def test_pairs_come_as_tsv_json_lines_gzip_or_standard_input(ranked, tmp_path, monkeypatch):
    pairs = rows()
    expected = ranked(input=as_tsv(tmp_path / "pairs.tsv", pairs))
    keys = ("query_id", "doc_id", "query", "text")
    objects = [json.dumps(dict(zip(keys, pair, strict=True))) for pair in pairs]
    write(tmp_path / "pairs.jsonl", objects)
    with gzip.open(tmp_path / "pairs.tsv.gz", "wb") as file:
        file.write((tmp_path / "pairs.tsv").read_bytes())
    assert ranked(input=tmp_path / "pairs.jsonl") == expected
    assert ranked(input=tmp_path / "pairs.tsv.gz") == expected
    tsv, json_lines = ((tmp_path / name).read_bytes() for name in ("pairs.tsv", "pairs.jsonl"))
    for given in (tsv, json_lines, b"\xef\xbb\xbf" + json_lines, b" \t" + json_lines):
        piped = io.TextIOWrapper(io.BytesIO(given))
        monkeypatch.setattr(sys, "stdin", piped)
        assert ranked(input="-") == expected
        (tmp_path / "pairs").write_bytes(given)  # as /dev/stdin, which has no ending either
        assert ranked(input=tmp_path / "pairs") == expected
    (tmp_path / "pairs").write_bytes(b"\n" + json_lines)
    with pytest.raises(DataError, match="/pairs:1: expected a JSON object, found a blank line: remove it"):
        ranked(input=tmp_path / "pairs")


def test_queries_and_documents_may_be_json_lines_whatever_their_files_are_called(ranked, tmp_path):
    write(tmp_path / "bm25.run", ["q1 Q0 d1 1 2 x", "q1 Q0 d2 2 1 x"])
    texts = {"queries": {"q1": "silent harbour"}, "docs": {"d1": "harbour lights", "d2": "a garden"}}
    found = []
    for as_line in ("{0}\t{1}".format, lambda name, text: json.dumps({"id": name, "text": text})):
        for part, rows in texts.items():
            write(tmp_path / part, [as_line(name, text) for name, text in rows.items()])
        found.append(ranked(run=tmp_path / "bm25.run", **{part: tmp_path / part for part in texts}))
    assert found[0] == found[1]


def test_pairs_of_several_files_are_ranked_as_those_of_one(ranked, tmp_path):
    pairs = rows()
    expected = ranked(input=as_tsv(tmp_path / "all.tsv", pairs))
    for number, some in enumerate((pairs[:5], pairs[5:])):
        as_tsv(tmp_path / f"pairs-{number}.tsv", some)
    assert ranked(input=tmp_path / "pairs-*.tsv") == expected
    with pytest.raises(
        ConfigError, match=r"pairs-9\.tsv', one of the files of input=.*pairs-\*\.tsv\. Choose another name"
    ):
        ranked(input=tmp_path / "pairs-*.tsv", output="pairs-9.tsv")


def test_scores_of_pairs_come_in_the_order_of_the_input(ranked, tmp_path):
    pairs = rows()
    random.Random(1).shuffle(pairs)
    file = as_tsv(tmp_path / "pairs.tsv", pairs)
    of_run = scores(ranked(input=file))
    tsv = [line.split("\t") for line in ranked(input=file, output="out.tsv")]
    objects = [json.loads(line) for line in ranked(input=file, format="jsonl")]
    assert [tuple(row[:2]) for row in tsv] == [pair[:2] for pair in pairs]
    assert {tuple(row[:2]): float(row[2]) for row in tsv} == of_run
    assert {(row["query_id"], row["doc_id"]): row["score"] for row in objects} == of_run
    assert [row["doc_id"] for row in objects] == [pair[1] for pair in pairs]


def test_a_regression_head_scores_in_the_labels_own_unit(model, config, datasets, data_dir, tmp_path):
    evaluate.run(
        settings("evaluate", model_dir=model, tasks="[msm_sem_sim]", output_dir=tmp_path),
        {"msm_sem_sim": data_dir / "msm_sem_sim"},
    )
    lines = Path(collection("sem_sim/test.tsv")).read_text().splitlines()
    pairs = [(f"a{i}", f"b{i}", *line.split("\t")[1:3]) for i, line in enumerate(lines)]
    file = as_tsv(tmp_path / "pairs.tsv", pairs)
    rank.run(settings("rank", model_dir=model, head="msm_sem_sim", input=file, output=tmp_path / "out.tsv"))
    found = torch.tensor([float(line.split("\t")[2]) for line in (tmp_path / "out.tsv").read_text().splitlines()])
    labels = torch.tensor([float(line.split("\t")[0]) for line in lines])
    expected = read_json(tmp_path / "msm_sem_sim" / "metrics.json")["values"]["MSE"]
    assert float(((found - labels) ** 2).mean()) == pytest.approx(expected, rel=1e-4)


GOOD = "q1\td1\tsilent harbour\tthe harbour"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([GOOD, "q1\td2\tsilent harbour"], "pairs.tsv:2: expected 4 tab-separated columns"),
        ([GOOD, GOOD], "pairs.tsv:2: document 'd1' of query 'q1' is given twice, first at .*pairs.tsv:1"),
        ([GOOD, "q1\td2\tsilent harbour\t "], "pairs.tsv:2: expected text, but the text is empty"),
        ([GOOD, "q2\td2\t\ttext"], "pairs.tsv:2: expected text, but the query is empty"),
        ([GOOD, "q1\td2\tother words\ttext"], "pairs.tsv:2: query 'q1' has a different text at .*pairs.tsv:1"),
        ([GOOD, "q2\td1\tgarden\tother words"], "pairs.tsv:2: document 'd1' has a different text at"),
        ([GOOD, "q 2\td2\tgarden\ttext"], "pairs.tsv:2: query_id 'q 2' is empty or contains a blank"),
        ([GOOD, "q2\td2\tgarden\t\u00ad"], "pairs.tsv:2: expected text, found one without tokens"),
        ([], "There is nothing to score"),
    ],
)
def test_a_bad_row_is_told_with_its_place_and_nothing_is_written(ranked, tmp_path, lines, expected):
    write(tmp_path / "pairs.tsv", lines)
    with pytest.raises(DataError, match=expected):
        ranked(input=tmp_path / "pairs.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.tsv"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{"query_id": "q2", "doc_id": "d2", "query": "x"}',
            "pairs.jsonl:1: expected text for .*, found none for text",
        ),
        ('{"query_id"', "pairs.jsonl:1: expected a JSON object"),
    ],
)
def test_a_bad_object_is_told_with_its_place(ranked, tmp_path, line, expected):
    write(tmp_path / "pairs.jsonl", [line])
    with pytest.raises(DataError, match=expected):
        ranked(input=tmp_path / "pairs.jsonl")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("q1 Q0 d9 2 2 x", "bm25.run:2: document 'd9' of query 'q1' has no text"),
        ("q1 Q0 d1 2 2 x", "bm25.run:2: document 'd1' of query 'q1' is given twice, first at .*bm25.run:1"),
        ("q1 Q0 d2 2", "bm25.run:2: expected a line of a TREC run"),
    ],
)
def test_a_bad_line_of_a_run_is_told_with_its_place(ranked, tmp_path, source, line, expected):
    write(tmp_path / "bm25.run", ["q1 Q0 d1 1 3 x", line])
    with pytest.raises(DataError, match=expected):
        ranked(run=tmp_path / "bm25.run", queries=source["queries"], docs=source["docs"])


def test_documents_of_another_collection_are_told_as_such(ranked, tmp_path, source):
    write(tmp_path / "bm25.run", ["q1 Q0 x1 1 3 x", "q1 Q0 x2 2 2 x"])
    with pytest.raises(
        DataError, match=r"bm25.run:1: none of 2 documents, such as 'x1', has a text in .*Give the documents"
    ):
        ranked(run=tmp_path / "bm25.run", queries=source["queries"], docs=source["docs"])


def test_documents_without_a_text_can_be_left_out(ranked, tmp_path, source, capsys):
    write(tmp_path / "bm25.run", ["q1 Q0 d1 1 3 x", "q1 Q0 d9 2 2 x"])
    found = ranked(run=tmp_path / "bm25.run", queries=source["queries"], docs=source["docs"], missing_texts="skip")
    assert len(found) == 1
    assert "documents without a text: 1" in capsys.readouterr().err


def test_lines_of_a_run_of_other_queries_are_left_out_and_counted(ranked, tmp_path, source, capsys):
    """The run may be that of all splits, and the queries those of one."""
    files = {"queries": source["queries"], "docs": source["docs"]}
    expected = ranked(run=source["run"], **files)
    whole = write(tmp_path / "whole.run", ["q0 Q0 d1 1 9 x", *FILES["run"], "q9 Q0 nowhere 1 9 x", "q9 Q0 d2 2 8 x"])
    capsys.readouterr()
    found = [ranked(run=whole, **files, shard=shard) for shard in (None, "1/3", "2/3", "3/3")]
    assert found[0] == expected
    assert sorted(line.split()[:4] for shard in found[1:] for line in shard) == sorted(
        line.split()[:4] for line in expected
    )
    told = re.findall(r"run lines of queries without a text: (\d+)", capsys.readouterr().err)
    assert (told[0], sum(map(int, told[1:]))) == ("3", 3)


def test_a_run_of_other_queries_only_is_refused(ranked, tmp_path, source):
    """By every shard, so that none waits for a part that has none."""
    write(tmp_path / "other.run", ["q8 Q0 d1 1 9 x", "q9 Q0 d1 1 9 x"])
    for shard in (None, "1/3", "2/3", "3/3"):
        with pytest.raises(DataError, match=r"other.run:1: query 'q8' has no text in .*, and neither has any other"):
            ranked(run=tmp_path / "other.run", queries=source["queries"], docs=source["docs"], shard=shard)


def test_a_query_that_an_ir_dataset_lacks_is_an_error(ranked, source, monkeypatch):
    """Its run is of its queries, so something is missing."""
    write(source["run"], [*FILES["run"], "q9 Q0 d1 1 9 x"])
    parts = (kind(LocalDownload(Path(source[part]))) for part, kind in READERS.items())
    monkeypatch.setitem(ir_datasets.registry._registered, "incomplete", ir_datasets.Dataset(*parts))
    with pytest.raises(DataError, match="query 'q9' has no text in incomplete. Add it"):
        ranked(ir_dataset="incomplete")
    assert len(ranked(ir_dataset="incomplete", run=source["run"])) == len(FILES["run"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"head": "trec2091"}, "no head 'trec2091'. Did you mean 'trec2019'"),
        ({"head": "msm_ner"}, "Head 'msm_ner' judges a span of a text and does not score"),
        ({"head": "msm_coref"}, "Head 'msm_coref' judges 2 spans"),
        ({"head": None}, "Which head.*trec2019, msm_bm25, msm_sem_sim"),
        ({"input": "nowhere.tsv"}, "The input 'nowhere.tsv' does not exist"),
        ({"input": "pipe"}, "The input 'pipe' is not a regular file. Pipe it in with input=- instead."),
        ({"input": None}, "There is nothing to score"),
        ({"docs": "docs.tsv"}, "leave out either input or docs"),
        ({"input": None, "docs": "mtlrank-embedded/docs.tsv"}, "There are no queries"),
        ({"input": None, "ir_dataset": "vaswanni"}, "Did you mean vaswani"),
        ({"output": "pairs.tsv"}, "output is 'pairs.tsv', the same file as input"),
        ({"output": "o.run.gz"}, "output is 'o.run.gz', but it is not compressed: leave out .gz"),
        ({"output": "-"}, "output is '-', expected the name of a file"),
        ({"output": "/dev/null"}, "output is '/dev/null', expected the name of a file"),
        (
            {"input": "header.tsv"},
            "header.tsv:1: found a header, but TSV files are expected to start with their first pair",
        ),
        ({"bm25.k1": -1}, "bm25.k1 is -1, expected a finite number, at least 0"),
        ({"bm25.k1": 1.2}, "bm25 is .*'k1': 1.2.*, but input has pairs: BM25 retrieves none. Leave bm25 out."),
        (
            {"input": None, "ir_dataset": "mtlrank-embedded/test", "bm25.k1": 1.2},
            "but the run of mtlrank-embedded/test is re-ranked. Set run=bm25, so that BM25 retrieves",
        ),
        ({"rest": "below"}, "rest is 'below', expected one of drop, keep"),
        ({"rest": "keep"}, "rest=keep is for a TREC run .format=run. whose first documents are re-ranked: set top_k"),
        ({"top_k": 5}, "top_k is 5, but all pairs of input are scored. Leave top_k out."),
        (
            {"input": None, "ir_dataset": "mtlrank-embedded/test", "run": "bm25", "top_k": 5},
            "top_k is 5, but there is no run to re-rank: BM25 retrieves. Set depth=5 instead.",
        ),
        ({"depth": 5}, "depth is 5, but input has pairs: BM25 retrieves none. Leave depth out."),
        (
            {"input": None, "ir_dataset": "mtlrank-embedded/test", "depth": 5},
            "depth is 5, but the run of mtlrank-embedded/test is re-ranked. Set top_k=5 .*, or run=bm25",
        ),
        ({"format": "csv"}, "format is 'csv', expected one of run, tsv, jsonl"),
        ({"output": "out.json"}, "output is 'out.json': choose its format, one of run, tsv, jsonl"),
        ({"format": "tsv", "keep": 3}, "keep is for rankings"),
        ({"format": "tsv", "tag": "me"}, "tag is for TREC runs, but format=tsv has none"),
        ({"tag": "'my run'"}, "tag is 'my run', expected null or one word without blanks, as in my-run"),
        ({"tag": "''"}, "tag is '', expected null or one word"),
        ({"missing_texts": "drop"}, "missing_texts is 'drop', expected one of stop, skip"),
        ({"model_dir": "nowhere"}, "There is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line(model, tmp_path, monkeypatch, values, expected):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    as_tsv(tmp_path / "pairs.tsv", rows(3))
    as_tsv(tmp_path / "header.tsv", [("query_id", "doc_id", "query", "text"), *rows(3)])
    before = (tmp_path / "pairs.tsv").read_text()
    usual = {"model_dir": model, "head": "trec2019", "input": "pairs.tsv", "output": "out.run"}
    with pytest.raises((ConfigError, DataError), match=expected) as told:
        rank.run(settings("rank", **{**usual, **values}))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out.run").exists()
    assert (tmp_path / "pairs.tsv").read_text() == before


def test_a_folder_from_outside_may_not_name_code(tmp_path, config, datasets):
    folder = save_random(tmp_path / "model", config, datasets)
    saved = read_json(folder / "config.json")
    saved["model"]["heads"]["trec2019"]["_target_"] = "os.system"
    from mtlrank.storage import write_manifest

    write_json(folder / "config.json", saved, sort_keys=False)
    write_manifest(folder, {"kind": "model"})
    wanted = settings(
        "rank", model_dir=folder, head="trec2019", ir_dataset="mtlrank-embedded/test", output=tmp_path / "x"
    )
    with pytest.raises(ConfigError, match="_target_ 'os.system' is not allowed"):
        rank.run(wanted)


def test_progress_tells_rate_and_time_left(ranked, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS", 0.0)
    monkeypatch.setattr(rank, "CHUNK", 500)
    ranked(ir_dataset="mtlrank-embedded/test")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rank trec2019/scores")]
    assert len(lines) == 4
    assert "1,000 pairs, " in lines[1]
    assert "s left" in lines[1]
