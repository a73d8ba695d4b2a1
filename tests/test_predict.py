"""Predicting with a trained model: what evaluation finds, for heads of every kind, and mistakes told in one line."""

import ast
import csv
import gzip
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

import mtlrank
from mtlrank import embedded, evaluate, loaded, predict, prepare
from mtlrank.datamodule.dataset.shard_writer import samples_of
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.inference.answers import answers_of_items
from mtlrank.progress import Progress
from mtlrank.storage import read_json, write_json, write_manifest
from mtlrank.task import Buckets, Classification, Ordinal
from mtlrank.trec import read_run
from tests.saved_models import composed, save_random, settings
from tests.task.tasks import opened
from tests.tiny_collection import write

ADDED = {  # dataset, task and head of tasks that the embedded experiment lacks
    "buckets": ("msm_bm25", "buckets", "average"),
    "grades": ("msm_sem_sim", "ordinal", "average"),
    "relations": ("msm_sem_sim", "classes", "cls"),
    "terms": ("annotated_terms", "term_importance", "span"),
    "short_ner": ("msm_ner", "spans", "span"),
    "topics": ("msm_sem_sim", "classes", "cls"),
}
USUAL = ["trec2019", "msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"]
TOPICS = "datamodule.dataset.datasets.topics"


def write_topics(folder):
    """Single texts with a class each, under names of their own."""
    docs = [line.split("\t")[1] for line in (embedded.folder() / "docs.tsv").read_text().splitlines()[:180]]
    rows = [{"topic": f"topic {len(doc) % 5}", "utterance": doc} for doc in docs]
    for number, split in enumerate(("train", "val", "test")):
        write(folder / f"{split}.jsonl", [json.dumps(row) for row in rows[number::3]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, home):
    """(model folder, its datasets by key) with a head of each kind."""
    folder = tmp_path_factory.mktemp("run")
    write_topics(folder)
    words = [f"data_dir={data_dir}"]
    for name, (dataset, task, head) in ADDED.items():
        place = f"datamodule.dataset.datasets.{name}"
        words += [f"+datamodule/dataset@{place}={dataset}", f"{place}.name={name}", f"task@{place}.task={task}"]
        words += [f"+model/heads@model.heads.{name}={head}"]
    words += ["datamodule.dataset.datasets.short_ner.preprocessor.max_length=16"]
    words += ["datamodule.dataset.datasets.short_ner.preprocessor.max_query_length=8"]
    words += [f"{TOPICS}.{split}={folder / split}.jsonl" for split in ("train", "val", "test")]
    words += [f"+{TOPICS}.format=jsonl", f"+{TOPICS}.columns=[utterance]", f"+{TOPICS}.score_column=topic"]
    config = composed(*words)
    datasets = prepare.run(config)
    return save_random(folder / "model", config, datasets, spread=5.0, seed=11), datasets


@pytest.fixture(scope="module")
def model(trained):
    return trained[0]


@pytest.fixture(scope="module")
def evaluated(trained):
    """The folder of what evaluation finds for all heads."""
    model, _ = trained
    evaluate.run(settings("evaluate", model_dir=model, data_dir=read_json(model / "config.json")["data_dir"]))
    return model.parent / "evaluation-test"


@pytest.fixture
def predicted(model, tmp_path):
    """Predict with some settings; gives the objects that are written."""

    def run(head, **values):
        output = tmp_path / "out.jsonl"
        predict.run(settings("predict", model_dir=model, head=head, output=output, **values))
        return [json.loads(line) for line in output.read_text().splitlines()]

    return run


def test_heads_of_every_kind_are_there(trained):
    tasks = [dataset.task for dataset in trained[1].values()]
    assert list(trained[1]) == [*USUAL, *ADDED]
    assert {(task.kind, task.num_spans) for task in tasks} >= {
        ("ranking", 0),
        *((kind, spans) for kind in ("regression", "classification") for spans in (0, 1)),
        ("classification", 2),
    }
    assert {Buckets, Ordinal, Classification} <= {type(task) for task in tasks}


def lines_of(dataset):
    """What a dataset tests, as the input of a prediction; a sample is a line."""
    for sample in samples_of(dataset.records("test")):
        first = sample[0]
        texts = {"text": first.text} if first.query is None else {"query": first.query, "text": first.text}
        items = [record.spans for record in sample]
        spans = [item[0] for item in items] if dataset.task.num_spans == 1 else items
        yield {**texts, **({"spans": spans} if dataset.task.num_spans else {})}


def as_jsonl(path, rows):
    write(path, [json.dumps(row) for row in rows])
    return path


def items_of(answers):
    """The predictions of all items, one after another."""
    return [item for answer in answers for item in answer.get("predictions", [answer])]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("head", [*USUAL, *ADDED])
def test_predictions_are_exactly_evaluations(trained, evaluated, predicted, tmp_path, head):
    dataset = trained[1][head]
    rows = list(lines_of(dataset))
    answers = predicted(head, input=as_jsonl(tmp_path / "in.jsonl", rows))
    assert len(answers) == len(rows) > 20
    found = [item for item in items_of(answers) if item is not None]
    if dataset.task.kind == "ranking":
        pairs = [(record.query_id, record.doc_id) for record in dataset.records("test")]
        run = {doc[:2]: doc.score for doc in read_run(evaluated / head / "run.trec")}
        assert {pair: item["score"] for pair, item in zip(pairs, found, strict=True)} == run
        return
    expected = table(evaluated / head / "predictions.tsv")
    if dataset.task.kind == "regression":
        assert [f"{item['score']:.9g}" for item in found] == [row["prediction"] for row in expected]
        return
    told = [(item["class"], f"{max(item['probabilities'].values()):.9g}") for item in found]
    assert told == [(row["prediction"], row["confidence"]) for row in expected]
    for item in found:
        assert list(item["probabilities"]) == dataset.task.classes
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert item["probabilities"][item["class"]] == max(item["probabilities"].values())
    assert len({name for name, _ in told}) > 1, "predictions that do not differ show nothing"


def test_what_evaluation_leaves_out_is_null_and_counted(trained, predicted, tmp_path, capsys):
    """Entities behind the cut: a line may lose some of them, or all."""
    rows, dropped = list(lines_of(trained[1]["short_ner"])), trained[1]["short_ner"].manifest["splits"]["test"]
    without = {"text": f"{'and ' * 20}the harbour", "spans": [[84, 91]]}
    answers = predicted("short_ner", input=as_jsonl(tmp_path / "in.jsonl", [without, *rows]))
    assert answers.pop(0) == {"predictions": [None]}
    assert [len(answer["predictions"]) for answer in answers] == [len(row["spans"]) for row in rows]
    assert items_of(answers).count(None) == dropped["items_dropped"] > 10
    told = f"as a span is cut off or holds no token: {dropped['items_dropped'] + 1:,} ({tmp_path / 'out.jsonl'})\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("head", [*USUAL, *ADDED])
def test_a_program_is_given_what_the_command_writes(trained, predicted, tmp_path, monkeypatch, head):
    """To the bit in equal chunks, in the order of the texts, with or without an id."""
    for module in (predict, loaded):
        monkeypatch.setattr(module, "CHUNK", 16)
    rows = [{**row, **({"id": i} if i % 3 else {})} for i, row in enumerate(lines_of(trained[1][head]))][:50]
    found = mtlrank.load(trained[0], head).predict(iter(rows))
    assert found == predicted(head, input=as_jsonl(tmp_path / "in.jsonl", rows))
    assert [row.get("id") for row in found] == [row.get("id") for row in rows]
    assert len({json.dumps(item) for item in items_of(found)}) > 2, "predictions that do not differ show nothing"
    assert mtlrank.load(trained[0], head).predict([]) == []


@pytest.mark.parametrize("head", ["topics", "relations", "msm_sem_sim", "msm_bm25", "trec2019"])
def test_a_program_may_give_bare_texts_and_pairs_where_there_are_no_spans(trained, head):
    rows = list(lines_of(trained[1][head]))[:20]
    bare = [row["text"] if len(row) == 1 else (row["query"], row["text"]) for row in rows]
    model = mtlrank.load(trained[0], head)
    assert model.predict(bare) == model.predict(rows) == model.predict(map(list, bare) if "query" in rows[0] else bare)


def test_the_program_of_the_page_runs(model, capsys):
    page = (Path(__file__).parent.parent / "docs" / "predict.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    exec(program.replace("runs/my-run", str(model)), {})
    entities, similarity = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert len(entities) == 2
    assert list(similarity[0]) == ["score"]


def test_spans_of_a_program_may_be_tuples(model):
    text = "Orbis Motors lies in the harbour."
    for head, spans in (("msm_ner", [[0, 12], [25, 32]]), ("msm_coref", [[[0, 12], [25, 32]]])):
        as_tuples = tuple(tuple(tuple(part) if isinstance(part, list) else part for part in span) for span in spans)
        given = [{"text": text, "spans": spans}, {"text": text, "spans": as_tuples}]
        first, second = mtlrank.load(model, head).predict(given, batch_size=1)
        assert first == second
        assert None not in first["predictions"]


@pytest.mark.parametrize(
    ("head", "texts", "complaint"),
    [
        ("topics", ["a", ("a", "b")], r"texts\[1\]: expected a text, or a dict of such, found \('a', 'b'\)\."),
        ("topics", ["a", None], r"texts\[1\]: expected a text, or a dict of such, found None\."),
        ("topics", ["a", " "], r"texts\[1\]: expected text, but the text is empty\."),
        ("topics", ["a", "\u00ad"], r"texts\[1\]: expected text, found one without tokens\."),
        ("topics", [{"text": "a"}, {"txt": "a"}], r"texts\[1\]: expected text as utterance, found none as utterance\."),
        ("topics", "one text", r"texts: expected a list, found a single one, 'one text'\. Put it into brackets\."),
        ("topics", {"text": "a"}, r"texts: expected a list, found a single one, \{'text': 'a'\}\."),
        ("relations", [("a", "b"), "a"], r"texts\[1\]: expected a pair of texts, or a dict of such, found 'a'\."),
        ("relations", [("a", "b", "c")], r"texts\[0\]: expected a pair of texts, or a dict of such"),
        ("relations", [("a", 5)], r"texts\[0\]: expected a pair of texts, or a dict of such, found \('a', 5\)\."),
        ("msm_ner", ["a"], r"texts\[0\]: expected spans as \[\[start, end\], \.\.\.\], found none as spans\."),
        ("msm_ner", [{"text": "a", "spans": [(0, 2)]}], r"texts\[0\]: span 0:2 lies outside the text"),
        ("msm_coref", [{"text": "a", "spans": [(0, 1)]}], r"texts\[0\]: expected spans as \[\[\[start"),
    ],
)
def test_what_a_program_cannot_ask_is_told_with_its_position(model, head, texts, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}") as found:
        mtlrank.load(model, head).predict(texts)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("head", [*USUAL, *ADDED])
def test_a_head_scores_pairs_or_says_that_it_predicts(trained, head):
    task, reads = trained[1][head].task, mtlrank.load(trained[0], head)
    if task.num_spans or task.kind == "classification":
        with pytest.raises(
            ConfigError, match=f"^Head '{head}' (judges|chooses) .*: use `predict`, which is for any head."
        ):
            reads.score([("a query", "a passage")])
    else:
        pairs = [("a query", "a passage"), ("another", "one more passage")]
        assert [row["score"] for row in reads.predict(pairs)] == pytest.approx(reads.score(pairs).tolist(), rel=1e-8)


@pytest.mark.parametrize("head", ["msm_ner", "msm_coref", "terms", "relations", "msm_sem_sim"])
def test_chunks_and_batches_change_predictions_by_rounding_only(trained, predicted, tmp_path, monkeypatch, head):
    file = as_jsonl(tmp_path / "in.jsonl", list(lines_of(trained[1][head]))[:60])
    expected = items_of(predicted(head, input=file))
    monkeypatch.setattr(predict, "CHUNK", 7)
    found = items_of(predicted(head, input=file, batch_size=3))
    flat = lambda item: item.get("probabilities") or {"score": item["score"]}  # noqa: E731
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert flat(one) == pytest.approx(flat(other), abs=1e-5)


def test_a_file_of_the_heads_own_data_may_be_the_input(predicted, evaluated):
    """With their names of columns, a pair of spans without a list around it, and labels, which are not read."""
    topics = evaluated.parent / "test.jsonl"
    labels = [json.loads(line)["topic"] for line in topics.read_text().splitlines()]
    found = predicted("topics", input=topics)
    assert [item["class"] for item in found] == [
        row["prediction"] for row in table(evaluated / "topics/predictions.tsv")
    ]
    assert {item["class"] for item in found} <= set(labels)
    found = items_of(predicted("msm_coref", input="mtlrank-embedded/coref/test.jsonl"))
    assert [item["class"] for item in found] == [
        row["prediction"] for row in table(evaluated / "msm_coref/predictions.tsv")
    ]


def test_texts_come_as_json_lines_tsv_gzip_or_standard_input(trained, predicted, tmp_path, monkeypatch):
    rows = [{"id": f"a {number}", **row} for number, row in enumerate(lines_of(trained[1]["relations"]))][:20]
    expected = predicted("relations", input=as_jsonl(tmp_path / "in.jsonl", rows))
    assert [answer["id"] for answer in expected] == [row["id"] for row in rows]
    write(tmp_path / "in.tsv", ["\t".join(row.values()) for row in rows])
    with gzip.open(tmp_path / "in.jsonl.gz", "wb") as file:
        file.write((tmp_path / "in.jsonl").read_bytes())
    for name in ("in.tsv", "in.jsonl.gz"):
        assert predicted("relations", input=tmp_path / name) == expected
    for name in ("in.tsv", "in.jsonl"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes())))
        assert predicted("relations", input="-") == expected
        (tmp_path / "texts").write_bytes((tmp_path / name).read_bytes())  # as /dev/stdin, which has no ending either
        assert predicted("relations", input=tmp_path / "texts") == expected


@pytest.mark.parametrize(
    ("head", "line", "expected"),
    [
        ("relations", '{"query": "a", "text": "b"}', "expected a JSON object"),
        ("msm_ner", '{"text": "a", "spans": [[0, 1]]}', "expected a JSON object"),
        ("relations", "1\ta\tb", r"expected 3 tab-separated columns \(id, query, text\)"),
    ],
)
def test_a_blank_line_at_the_beginning_is_told_as_such(predicted, tmp_path, monkeypatch, head, line, expected):
    """A line of the output for each of the input: none is left out."""
    given = f"\n{line}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    (tmp_path / "texts").write_bytes(given)
    for name in ("-", tmp_path / "texts"):
        with pytest.raises(DataError, match=f"/texts:1: {expected}, found a blank line: remove it"):
            predicted(head, input=name)


def test_single_texts_as_tsv(predicted, evaluated, tmp_path):
    texts = [json.loads(line)["utterance"] for line in (evaluated.parent / "test.jsonl").read_text().splitlines()]
    write(tmp_path / "in.tsv", [f"{number}\t{text}" for number, text in enumerate(texts)])
    found = predicted("topics", input=tmp_path / "in.tsv")
    assert [item.pop("id") for item in found] == [str(number) for number in range(len(texts))]
    assert found == predicted("topics", input=as_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts]))


def test_an_answer_has_what_was_given_and_one_prediction_for_each_span(predicted, tmp_path):
    text = "Orbis Motors lies in the harbour."
    rows = [
        {"id": 7, "text": text, "spans": [[0, 12], [12, 13], [0, 12]]},
        {"text": text, "spans": []},
        {"id": None, "text": text, "spans": [[25, 32]]},
    ]
    first, second, third = predicted("msm_ner", input=as_jsonl(tmp_path / "in.jsonl", rows))
    assert (list(first), first["id"], len(first["predictions"])) == (["id", "predictions"], 7, 3)
    assert first["predictions"][1] is None  # a blank
    assert first["predictions"][0]["probabilities"] == pytest.approx(first["predictions"][2]["probabilities"], abs=1e-6)
    assert second == {"predictions": []}
    assert list(third) == ["predictions"]
    only = [{"text": text, "spans": [[12, 13]]}, {"text": text, "spans": []}]
    answers = predicted("msm_ner", input=as_jsonl(tmp_path / "in.jsonl", only))
    assert answers == [{"predictions": [None]}, {"predictions": []}]


def test_the_lines_of_the_page_are_understood(predicted, tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "predict.md").read_text()
    lines = [json.loads(line) for line in re.search(r"```json\n(.*?)```", page, re.DOTALL)[1].splitlines()]
    for head, line in zip(("msm_ner", "msm_coref", "msm_sem_sim"), lines, strict=True):
        (answer,) = predicted(head, input=as_jsonl(tmp_path / "in.jsonl", [line]))
        assert answer.pop("id") == line["id"]
        assert None not in answer.get("predictions", [])
    surfaces = [lines[0]["text"][slice(*span)] for span in lines[0]["spans"]]
    surfaces += [lines[1]["text"][slice(*span)] for pair in lines[1]["spans"] for span in pair]
    assert surfaces == ["Orbis Motors", "The Paper Sparrow", "The Paper Sparrow", "It"]


def test_a_number_is_in_the_labels_own_unit_and_a_bucket_has_its_range():
    bucket = opened(Buckets(["Accuracy"], 4), edges=[0.5, 1.5])
    ranges = [answer["range"] for answer in answers_of_items(torch.eye(3), bucket)]
    assert ranges == [[None, 0.5], [0.5, 1.5], [1.5, None]]
    classes = opened(Classification(["Accuracy"]), classes=["no", "yes"])
    assert list(answers_of_items(torch.tensor([[0.25, 0.75], [torch.nan, torch.nan]]), classes)) == [
        {"class": "yes", "probabilities": {"no": 0.25, "yes": 0.75}},
        None,
    ]
    grades = Ordinal(["MSE"], [0, 1, 3])
    scores = grades.scores(torch.tensor([[50.0, 50.0], [0.0, -50.0]]))
    assert list(answers_of_items(scores, grades)) == [{"score": 3.0}, {"score": 0.5}]


SINGLE = '{"text": "the harbour"}'
SPANS = '{"text": "the harbour", "spans": [[0, 3]]}'
PAIR = '{"query": "harbour", "text": "the harbour"}'


@pytest.mark.parametrize(
    ("head", "good", "bad", "expected"),
    [
        ("topics", SINGLE, '{"txt": "x"}', "expected text as utterance, found none as utterance"),
        ("topics", SINGLE, '{"text": 5}', "expected text as text, found 5 as text"),
        ("topics", SINGLE, '{"text": " "}', "expected text, but the text is empty"),
        ("topics", SINGLE, '{"utterance": "\\u0000"}', "expected text, but the utterance contains the invalid"),
        ("topics", SINGLE, '{"text": "\\u00ad"}', "expected text, found one without tokens"),
        ("topics", SINGLE, PAIR, "found a query, but the head reads single texts. Leave it out"),
        ("topics", SINGLE, SPANS, "found spans, but the head judges whole texts. Leave them out"),
        ("topics", SINGLE, '{"id": [1], "text": "x"}', r"expected text or a whole number as id, found \[1\] as id"),
        ("topics", SINGLE, '{"id": "\\ud800", "text": "x"}', "expected text or a whole number as id"),
        ("topics", SINGLE, '{"text": "x"', "expected a JSON object"),
        ("topics", SINGLE, "", "expected a JSON object, found a blank line: remove it"),
        ("relations", PAIR, SINGLE, "expected text as query and text, found none as query"),
        ("relations", PAIR, '{"query": "\\u00ad", "text": "x"}', "expected text, found one without tokens"),
        ("relations", PAIR, '{"query": "", "text": "x"}', "expected text, but the query is empty"),
        ("msm_ner", SPANS, SINGLE, r"expected spans as \[\[start, end\], ...\], found none as spans"),
        ("msm_ner", SPANS, SPANS.replace("[[0, 3]]", "[0, 3]"), r"expected spans as .*, found \[0, 3\] as spans"),
        ("msm_ner", SPANS, SPANS.replace("[[0, 3]]", '""'), "expected spans as .*, found  as spans"),
        ("msm_ner", SPANS, SPANS.replace("0, 3", "0, 3.0"), "expected spans as"),
        ("msm_ner", SPANS, SPANS.replace("0, 3", "false, 3"), "expected spans as"),
        ("msm_ner", SPANS, SPANS.replace("0, 3", "4, 12"), "span 4:12 lies outside the text, which has 11 characters"),
        ("msm_ner", SPANS, SPANS.replace("0, 3", "3, 3"), "span 3:3 has no characters: expected start < end"),
        (
            "msm_coref",
            SPANS.replace("[[0, 3]]", "[[[0, 3], [4, 11]]]"),
            SPANS,
            r"expected spans as \[\[\[start, end\], \[start, end\]\], ...\], found \[\[0, 3\]\] as spans",
        ),
        ("msm_coref", SPANS.replace("[[0, 3]]", "[]"), SPANS.replace("[[0, 3]]", "[[[0, 3]]]"), "expected spans as"),
        (
            "terms",
            PAIR.replace("}", ', "spans": [[0, 7]]}'),
            PAIR.replace("}", ', "spans": [[0, 11]]}'),  # within the text, but the spans are the query's
            "span 0:11 lies outside the text, which has 7 characters",
        ),
    ],
)
def test_a_bad_line_is_told_with_its_place_and_nothing_is_written(predicted, tmp_path, head, good, bad, expected):
    write(tmp_path / "in.jsonl", [good])
    assert len(predicted(head, input=tmp_path / "in.jsonl")) == 1
    (tmp_path / "out.jsonl").unlink()
    write(tmp_path / "in.jsonl", [good, bad])
    with pytest.raises(DataError, match=f"in.jsonl:2: {expected}") as told:
        predicted(head, input=tmp_path / "in.jsonl")
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1\tharbour"], r"in.tsv:1: expected 3 tab-separated columns \(id, query, text\), found 2: '1\\tharbour'"),
        (["1\ta\tb", "1\ta\tb\tc"], "in.tsv:2: expected 3 tab-separated columns"),
        (["id\tpremise\thypothesis"], "in.tsv:1: found a header"),
        (["1\ta\t "], "in.tsv:1: expected text, but the text is empty"),
        ([], "There is nothing to predict: the input has no lines."),
    ],
)
def test_a_bad_line_of_a_tsv_is_told_with_its_place(predicted, tmp_path, lines, expected):
    write(tmp_path / "in.tsv", lines)
    with pytest.raises(DataError, match=expected):
        predicted("relations", input=tmp_path / "in.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tsv"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"head": "topic"}, "no head 'topic'. Did you mean 'topics'"),
        ({"head": None}, "Which head.*Heads: trec2019, .*short_ner, topics"),
        ({"input": "nowhere.jsonl"}, "The input 'nowhere.jsonl' does not exist"),
        ({"input": "pipe"}, "The input 'pipe' is not a regular file. Pipe it in with input=- instead."),
        ({"input": None}, "The input is None, expected the path of a file"),
        ({"output": "in.jsonl"}, "output is 'in.jsonl', the same file as input"),
        ({"output": "-"}, "output is '-', expected the name of a file"),
        ({"head": "msm_ner", "input": "in.tsv"}, "in.tsv is TSV, but the head judges spans of a text"),
        ({"model_dir": "nowhere"}, "There is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line(model, tmp_path, monkeypatch, values, expected):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    write("in.jsonl", [SINGLE])
    write("in.tsv", ["1\tthe harbour"])
    usual = {"model_dir": model, "head": "topics", "input": "in.jsonl", "output": "out.jsonl"}
    with pytest.raises((ConfigError, DataError), match=expected) as told:
        predict.run(settings("predict", **{**usual, **values}))
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.tsv", "pipe"]
    assert (tmp_path / "in.jsonl").read_text() == f"{SINGLE}\n"


def test_an_output_that_is_a_link_is_proven_where_it_leads(tmp_path):
    """Before the model is loaded, which is not even there."""
    (tmp_path / "out.jsonl").symlink_to("/proc/nowhere/out.jsonl")
    with pytest.raises(StorageError, match="Cannot write to the folder '/proc/nowhere'"):
        predict.run(settings("predict", model_dir=tmp_path, head="x", input="-", output=tmp_path / "out.jsonl"))


def test_a_folder_from_outside_may_not_name_code(tmp_path, config, datasets):
    folder = save_random(tmp_path / "model", config, datasets)
    saved = read_json(folder / "config.json")
    saved["model"]["heads"]["msm_ner"]["_target_"] = "os.system"
    write_json(folder / "config.json", saved, sort_keys=False)
    write_manifest(folder, {"kind": "model"})
    with pytest.raises(ConfigError, match="_target_ 'os.system' is not allowed"):
        predict.run(settings("predict", model_dir=folder, head="msm_ner", input="-", output=tmp_path / "x"))


def test_progress_tells_rate_and_time_left(predicted, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS", 0.0)
    monkeypatch.setattr(predict, "CHUNK", 400)
    predicted("msm_coref", input="mtlrank-embedded/coref/test.jsonl")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("predict msm_coref/predictions")]
    assert len(lines) == 3
    assert "800 lines, " in lines[1]
