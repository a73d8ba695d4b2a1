"""What is predicted from: rows of Parquet files, and shares of an input."""

import json

import pytest

from mtlrank import predict
from mtlrank.datamodule.asked import Form, asked_of_files
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from tests.saved_models import save_random, settings

TEXT = "Orbis Motors lies in the harbour of Quellin."
PAIR = ("query", "text")
SINGLE, PAIRED = [[0, 12], [25, 32]], [[[0, 12], [36, 43]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, datasets):
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


@pytest.fixture
def predicted(model, tmp_path):
    """Predict with some settings; gives the lines that are written."""

    def run(head, **values):
        output = tmp_path / values.pop("output", "out.jsonl")
        predict.run(settings("predict", model_dir=model, head=head, output=output, **values))
        return output.read_text().splitlines()

    return run


def asked(head, number):
    """Lines of different lengths that a head can be asked."""
    rows = [{"id": f"a {i}", "text": f"{TEXT} {'It is old. ' * (i % 4)}".strip()} for i in range(number)]
    more = {"msm_ner": {"spans": SINGLE}, "msm_coref": {"spans": PAIRED}}.get(head)
    return [{**row, **(more or {"query": f"harbour {i}"})} for i, row in enumerate(rows)]


def write(path, rows):
    """Rows as JSON Lines, Parquet or TSV, by the name of the file."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pylist(rows) if isinstance(rows, list) else pyarrow.table(rows)
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=5)
    else:
        as_line = json.dumps if path.suffix == ".jsonl" else lambda row: "\t".join(row[key] for key in ("id", *PAIR))
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
    ((first, second),) = asked_of_files([write(tmp_path / "in.parquet", rows)], Reading(), form, 10)
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
