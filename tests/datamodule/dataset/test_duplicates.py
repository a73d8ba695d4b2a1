import pytest

from mtlrank.datamodule.dataset import GAP
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.task import SpanPairClassification
from tests.datamodule.dataset.labelled import CONLL, TINY, coreference, gap_file, read, span_pairs


def gap_rows(path, *rows):
    texts = []
    for row in rows:
        gap_file(path, **row)
        texts.append(path.read_text())
    path.write_text("".join([texts[0], *(text.split("\n", 1)[1] for text in texts[1:])]))
    return GAP("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


def documents(path, *changes):
    path.mkdir()
    for number, (old, new) in enumerate(changes):
        (path / f"{number}.conll").write_text(CONLL.replace(old, new))
    return coreference(path / "*.conll")


ITEM = {"text": "Ann told Mia", "spans": [[0, 3], [9, 12]], "label": "distinct"}
TWICE = [
    (span_pairs, [ITEM, {**ITEM, "spans": [[0, 3], [4, 8]]}], [ITEM], {**ITEM, "label": "coreferent"}, "items"),
    (gap_rows, [{}, {"A": "told", "A-offset": "4", "B": "that", "B-offset": "13"}], [{"ID": "t-2"}] * 2, None, "items"),
    (gap_rows, [{}], [{"ID": "t-2"}], {"ID": "t-2", "B-coref": "TRUE"}, "items"),
    (documents, [("", ""), ("part 0", "part 1")], [("", "")], ("met", "saw"), "documents"),
    (documents, [("", "")], [("", "")], ("(1)\nb 0 1 left", "-\nb 0 1 left"), "documents"),
]


@pytest.mark.parametrize(("make", "once", "again", "otherwise", "what"), TWICE)
def test_what_is_there_twice_is_kept_once_and_what_says_otherwise_is_named(
    tmp_path, make, once, again, otherwise, what
):
    expected = read(make(tmp_path / "once", *once))
    dataset = make(tmp_path / "again", *once, *again)
    found = read(dataset)
    assert [(r.text, r.label, r.spans) for r in found] == [(r.text, r.label, r.spans) for r in expected]
    each = 2 if make is gap_rows else 1
    assert dataset.reading.counts == {"train": {f"{what} given twice": each * len(again)}}
    if otherwise is not None:
        dataset = make(tmp_path / "otherwise", *once, otherwise)
        with pytest.raises(DataError, match="expected one .*, found a second, different one"):
            read(dataset)
        dataset.reading = Reading("quarantine")
        assert len(read(dataset)) == len(expected)
        assert len(dataset.reading.bad_rows) == 1
