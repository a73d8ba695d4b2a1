"""What is predicted from: rows of Parquet files, and shares of an input."""

import gzip
import io
import json
import re
import sys

import pytest

from mtlrank import predict
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.inference.questions import Form, questions_of_files
from mtlrank.shard import Shard
from tests.saved_models import save_random, settings

TEXT = "Orbis Motors lies in the harbour of Quellin."
PAIR = ("query", "text")
SINGLE_TEXTS = Form(("text",), 0, "text")
SINGLE, PAIRED = [[0, 12], [25, 32]], [[[0, 12], [36, 43]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, datasets):
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


@pytest.fixture
def predicted(model, tmp_path):
    """Predict with some settings; gives the lines that are written."""

    def run(head, **values):
        output = tmp_path / values.pop("output", f"out-{values.get('shard', '').split('/')[0]}.jsonl")
        predict.run(settings("predict", model_dir=model, head=head, output=output, **values))
        return output.read_text().splitlines()

    return run


def asked(head, number):
    """Lines of different lengths that a head can be asked."""
    rows = [{"id": f"a {i}", "text": f"{TEXT} {'It is old. ' * (i % 4)}".strip()} for i in range(number)]
    more = {"msm_ner": {"spans": SINGLE}, "msm_coref": {"spans": PAIRED}, "topics": {}}.get(head)
    return [{**row, **({"query": f"harbour {i}"} if more is None else more)} for i, row in enumerate(rows)]


def write(path, rows):
    """Rows as JSON Lines, Parquet or TSV, by the name of the file."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pylist(rows) if isinstance(rows, list) else pyarrow.table(rows)
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=5)
    else:
        as_line = (
            json.dumps
            if path.suffix == ".jsonl"
            else lambda row: "\t".join(row[key] for key in ("id", *PAIR) if key in row)
        )
        path.write_text("".join(as_line(row) + "\n" for row in rows))
    return path


# -- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["trec2019", "msm_sem_sim", "msm_ner", "msm_coref"])
def test_rows_of_parquet_are_lines_of_json(predicted, tmp_path, head):
    rows = asked(head, 12)
    expected = predicted(head, input=write(tmp_path / "in.jsonl", rows))
    assert len(set(expected)) == 12
    more = [{**row, "label": 0.5} for row in rows]  # which is not read
    assert predicted(head, input=write(tmp_path / "in.parquet", more)) == expected


def test_what_a_row_of_parquet_lacks_is_null(predicted, tmp_path):
    """As a line of JSON may lack it: the id, and all spans of a text."""
    rows = [{"id": 7, "text": TEXT, "spans": SINGLE}, {"text": TEXT, "spans": []}]
    first, second = map(json.loads, predicted("msm_ner", input=write(tmp_path / "in.parquet", rows)))
    assert (first["id"], len(first["predictions"])) == (7, 2)
    assert second == {"predictions": []}


@pytest.mark.parametrize("names", [("premise", "hypothesis"), PAIR])
def test_the_names_of_the_heads_own_data_are_columns_too(tmp_path, names):
    rows = [dict(zip(names, texts, strict=True)) for texts in (("a", "b"), ("c", "d"))]
    form = Form(("premise", "hypothesis"), 0, "text")
    ((first, second),) = questions_of_files([write(tmp_path / "in.parquet", rows)], Reading(), form, 10)
    assert (first.candidate.query, first.candidate.text, first.given) == ("a", "b", {})
    assert second.candidate.place == f"{tmp_path.name}/in.parquet, row 2"


def test_parts_in_parquet_and_json_lines_are_one_input(predicted, tmp_path):
    rows = asked("msm_ner", 12)
    expected = predicted("msm_ner", input=write(tmp_path / "in.jsonl", rows))
    for name, part in (("x-0.parquet", rows[:7]), ("x-1.jsonl", rows[7:8]), ("x-2.parquet", rows[8:])):
        write(tmp_path / name, part)
    assert predicted("msm_ner", input=tmp_path / "x-*") == expected


@pytest.mark.parametrize(
    ("head", "columns", "error", "expected"),
    [
        (
            "msm_ner",
            {"text": ["a", None], "spans": [[[0, 1]]] * 2},
            DataError,
            ", row 2: expected text as text, found none",
        ),
        (
            "msm_ner",
            {"text": ["a"]},
            DataError,
            r", row 1: expected spans as \[\[start, end\], \.\.\.\], found none as",
        ),
        ("msm_ner", {"text": ["a"], "spans": [[[0, 2]]]}, DataError, ", row 1: span 0:2 lies outside the text"),
        (
            "msm_ner",
            {"text": ["a"], "spans": [[[0, 0.5]]]},
            DataError,
            r", row 1: expected spans as .*, found \[\[0.0, 0.5",
        ),
        ("trec2019", {"text": ["a"]}, DataError, ", row 1: expected text as query and text, found none as query"),
        (
            "trec2019",
            {"query": ["a"], "text": ["b"], "id": [0.5]},
            DataError,
            ", row 1: expected text or a whole number",
        ),
        ("trec2019", {"body": ["a"]}, ConfigError, " has none of the columns query, text, id, spans. It has: body."),
        ("trec2019", {"query": [], "text": []}, DataError, "There is nothing to predict: the input has no lines."),
    ],
)
def test_a_bad_row_is_told_with_its_number(predicted, tmp_path, head, columns, error, expected):
    write(tmp_path / "in.parquet", columns)
    with pytest.raises(error, match=expected) as told:
        predicted(head, input=tmp_path / "in.parquet")
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


# -- shares ----------------------------------------------------------------------------------------------------------


def numbers(line):
    """What a line of the output says, and its numbers."""
    found = re.findall(r": (-?\d[\d.e+-]*)", line.partition("predictions")[2] or line)
    return re.sub(r": -?\d[\d.e+-]*", "", line), [float(number) for number in found]


def assert_equal_but_for_rounding(found, expected):
    assert len(found) == len(expected)
    for (says, values), (first_says, first) in zip(map(numbers, found), map(numbers, expected), strict=True):
        assert says == first_says
        assert values == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize("total", [1, 3, 8])
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_the_outputs_of_all_shards_in_order_are_the_whole_output(predicted, tmp_path, ending, total):
    rows = asked("msm_ner", 22)
    expected = predicted("msm_ner", input=write(tmp_path / f"in{ending}", rows))
    shards = [predicted("msm_ner", input=tmp_path / f"in{ending}", shard=f"{i + 1}/{total}") for i in range(total)]
    assert {len(shard) for shard in shards} <= {22 // total, -(-22 // total)}
    assert_equal_but_for_rounding([line for shard in shards for line in shard], expected)


def test_shards_of_several_files_and_of_standard_input_are_those_of_one_file(predicted, tmp_path, monkeypatch):
    rows = asked("msm_sem_sim", 11)
    write(tmp_path / "in.tsv", rows)
    for name, part in (("x-0.tsv", rows[:1]), ("x-1.parquet", rows[1:8]), ("x-2.jsonl", []), ("x-3.jsonl", rows[8:])):
        write(tmp_path / name, part)
    for shard in ("1/3", "2/3", "3/3"):
        expected = predicted("msm_sem_sim", input=tmp_path / "in.tsv", shard=shard)
        assert predicted("msm_sem_sim", input=tmp_path / "x-*", shard=shard) == expected
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "in.tsv").read_bytes())))
        assert predicted("msm_sem_sim", input="-", shard=shard) == expected


def test_an_output_that_is_named_after_another_format_is_refused(predicted, tmp_path):
    for ending in ("tsv", "csv", "run", "parquet"):
        with pytest.raises(ConfigError, match=rf"output is '.*{ending}', but predictions are JSON Lines"):
            predicted("msm_ner", input=write(tmp_path / "in.jsonl", asked("msm_ner", 1)), output=f"out.{ending}")


def test_a_shard_may_be_empty_but_not_the_whole(predicted, tmp_path, capsys):
    rows = asked("msm_ner", 2)
    found = [predicted("msm_ner", input=write(tmp_path / "in.jsonl", rows), shard=f"{i}/5") for i in range(1, 6)]
    assert [len(shard) for shard in found] == [0, 0, 1, 0, 1]
    assert "predicted 0 lines with msm_ner" in capsys.readouterr().err
    write(tmp_path / "in.jsonl", [])
    assert predicted("msm_ner", input=tmp_path / "in.jsonl", shard="1/2") == []
    with pytest.raises(DataError, match="There is nothing to predict"):
        predicted("msm_ner", input=tmp_path / "in.jsonl", shard="1/1")


@pytest.mark.parametrize("shard", ["4/3", "0/3", "3", "a/b"])
def test_what_is_no_shard_is_told(predicted, tmp_path, shard):
    write(tmp_path / "in.jsonl", asked("msm_ner", 2))
    with pytest.raises(ConfigError, match=f"shard is '?{shard}'?, expected (null or )?i/n"):
        predicted("msm_ner", input=tmp_path / "in.jsonl", shard=shard)


def shards_of(paths, total, size=4, form=SINGLE_TEXTS):
    """What is asked of each shard, with the readings that tell how much it is."""
    for number in range(1, total + 1):
        reading = Reading()
        chunks = questions_of_files(paths, reading, form, size, Shard(number, total))
        found = [(asked.given["id"], asked.candidate.place) for chunk in chunks for asked in chunk]
        assert total == 1 or reading.progress.total == len(found)
        yield found


@pytest.mark.parametrize("ending", [".jsonl", ".tsv", ".jsonl.gz", ".parquet"])
def test_lines_are_called_what_they_are_in_the_whole_input(tmp_path, ending):
    """In files of any length, by however many they are shared."""
    paths, rows = [], asked("topics", 40)
    for number, (start, stop) in enumerate([(0, 17), (17, 17), (17, 18), (18, 40)]):
        columns = {key: [row[key] for row in rows[start:stop]] for key in rows[0]}  # which an empty file has, too
        part = columns if ending == ".parquet" else rows[start:stop]
        write(tmp_path / f"{number}{ending.removesuffix('.gz')}", part)
        if ending.endswith(".gz"):
            (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress((tmp_path / f"{number}.jsonl").read_bytes()))
        paths.append(tmp_path / f"{number}{ending}")
    (whole,) = shards_of(paths, 1)
    assert [name for name, _ in whole] == [row["id"] for row in rows]
    assert whole[20][1] == f"{tmp_path.name}/3{ending}" + (", row 3" if ending == ".parquet" else ":3")
    for total in (*range(2, 12), 39, 40, 41, 100):
        shards = list(shards_of(paths, total))
        assert [line for shard in shards for line in shard] == whole
        assert {len(shard) for shard in shards} <= {40 // total, -(-40 // total)}


def test_rows_of_a_long_parquet_file_are_shared_across_its_pieces(tmp_path):
    """1,000 rows are in memory at a time, of row groups of 700."""
    pyarrow = pytest.importorskip("pyarrow")
    ids = list(range(2500))
    table = pyarrow.table({"id": ids, "text": [f"text {i}" for i in ids]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "in.parquet", row_group_size=700)
    for total in (2, 3, 7):
        found = [line for shard in shards_of([tmp_path / "in.parquet"], total, 256) for line in shard]
        assert found == [(i, f"{tmp_path.name}/in.parquet, row {i + 1}") for i in ids]


def test_a_bad_line_is_told_by_its_own_shard(tmp_path):
    """The others do not even parse it; a header is one in the first line only."""
    (tmp_path / "in.jsonl").write_text('\ufeff{"id": 1, "text": "a"}\r\n{"id": 2, "text": "b"}\n{"id": 3}\nno JSON')

    def asked_of(name, *shard):
        return list(questions_of_files([tmp_path / name], Reading(), SINGLE_TEXTS, 9, Shard(*shard)))

    assert [asked.given["id"] for asked in asked_of("in.jsonl", 1, 2)[0]] == [1, 2]
    with pytest.raises(DataError, match=r"in\.jsonl:3: expected text as text, found none"):
        asked_of("in.jsonl", 2, 2)
    with pytest.raises(DataError, match=r"in\.jsonl:4: expected a JSON object"):
        asked_of("in.jsonl", 4, 4)
    (tmp_path / "in.tsv").write_text("id\ttext\nid\ttext\n")
    assert [asked.candidate.place for asked in asked_of("in.tsv", 2, 2)[0]] == [f"{tmp_path.name}/in.tsv:2"]
    with pytest.raises(DataError, match=r"in\.tsv:1: found a header"):
        asked_of("in.tsv", 1, 2)


def test_a_file_that_cannot_be_counted_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match=r"Cannot read .*x\.parquet as Parquet after row 0: .* Copy it again\."):
        list(shards_of([tmp_path / "x.parquet"], 2))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1, "text": "a"}\n' * 100)[:-20])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz is not a complete gzip file"):
        list(shards_of([tmp_path / "x.jsonl.gz"], 2))


def test_parts_by_hand():
    assert [list(Shard(number, 3).part(10)) for number in (1, 2, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert [len(Shard(number, 4).part(2)) for number in (1, 2, 3, 4)] == [0, 1, 0, 1]
    assert list(Shard().part(2)) == [0, 1]
