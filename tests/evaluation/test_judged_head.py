"""Judged heads, read back."""

from mtlrank.evaluation.judged_head import confusion_matrix, read_head
from tests.evaluation.judged_runs import write_labels


def test_a_confusion_matrix_has_true_classes_as_rows(tmp_path):
    pairs = [("a", "a"), ("a", "b"), ("a", "b"), ("b", "b"), ("b", "c")]
    rows = [(f"q{i}", "d", 0, true, found) for i, (true, found) in enumerate(pairs)]
    write_labels(tmp_path / "ner", rows, kind="classification", measures=("Accuracy",))
    assert confusion_matrix(read_head(tmp_path / "ner")) == (["a", "b", "c"], [[1, 2, 0], [0, 1, 1], [0, 0, 0]])
