import numpy as np
import pytest

from mtlrank.comparing.systems import check_same_test_set, first_stage, read_system
from mtlrank.errors import DataError
from tests.evaluation.judged_runs import write_labels, write_ranking, write_run


def test_a_ranking_is_read_by_query_whatever_the_order(tmp_path):
    write_ranking(tmp_path / "a" / "evaluation" / "rank", {"q2": 0.5, "q1": 0.75}, {"q1": 0.1, "q2": 0.2})
    write_ranking(tmp_path / "b" / "evaluation" / "rank", {"q1": 0.25, "q2": 1.0}, {"q1": 0.1, "q2": 0.2})
    system = read_system("x", [tmp_path / "a", tmp_path / "b"])
    head = system.heads["rank"]
    assert (system.num_runs, head.items) == (2, (("q1",), ("q2",)))
    assert head.values["AP"].tolist() == [[0.75, 0.5], [0.25, 1.0]]
    assert first_stage(system).heads["rank"].values["AP"].tolist() == [[0.1, 0.2]]


def test_items_of_a_sequence_are_one_unit(tmp_path):
    rows = [("q", "d2", 0, 1.5, 2.0), ("q", "d1", 1, 3, 4), ("q", "d1", 0, 1, 1)]
    write_labels(tmp_path / "evaluation" / "sim", rows)
    head = read_system("x", [tmp_path]).heads["sim"]
    assert head.items == (("q", "d1", "0"), ("q", "d1", "1"), ("q", "d2", "0"))
    assert head.units.tolist() == [0, 0, 1]
    assert (head.labels.tolist(), head.predictions.tolist()) == ([1.0, 3.0, 1.5], [[1.0, 4.0, 2.0]])
    assert head.values["MSE"].tolist() == [[0.0, 1.0, 0.25]]
    assert first_stage(read_system("x", [tmp_path])) is None


def test_classes_are_names(tmp_path):
    rows = [("q", "d", 0, '"a\tb"', "c"), ("q", "d", 1, "c", "c")]
    write_labels(tmp_path / "evaluation" / "ner", rows, "classification", ("Accuracy", "MacroF1"))
    head = read_system("x", [tmp_path]).heads["ner"]
    assert head.labels.tolist() == ["a\tb", "c"]
    assert head.values["Accuracy"].tolist() == [[0.0, 1.0]]
    assert head.measures == ("Accuracy", "MacroF1")


def two(tmp_path, write, one, other, **options):
    write(tmp_path / "a" / "evaluation" / "head", one)
    write(tmp_path / "b" / "evaluation" / "head", other, **options)
    return [read_system(name, [tmp_path / name]).heads["head"] for name in "ab"]


@pytest.mark.parametrize(
    ("other", "options", "complaint"),
    [
        ({"q1": 0.5, "q3": 0.5}, {}, r"2 queries in A, 2 in B; 1 and 1 of them are not in the other, such as 'q2'"),
        ({"q1": 0.5, "q2": 0.5}, {"split": "val"}, "the split is test in A and val in B"),
        (
            {"q1": 0.5, "q2": 0.5},
            {"first_stage": {"q1": 0.3, "q2": 0.25}},
            "the first stage's AP differs between A and B",
        ),
    ],
)
def test_rankings_of_other_queries_are_refused(tmp_path, other, options, complaint):
    pair = two(tmp_path, write_ranking, {"q1": 0.5, "q2": 0.5}, other, **options)
    with pytest.raises(DataError, match=f"test sets of head differ: {complaint}"):
        check_same_test_set(*pair, "A", "B")


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ([("q", "d", 0, 1, 5)], "2 items in A, 1 in B; 1 and 0 of them are not in the other, such as 'q d 1'"),
        ([("q", "d", 0, 1, 5), ("q", "d", 1, 7, 5)], "the label of 'q d 1' is 2.0 in A and 7.0 in B"),
    ],
)
def test_other_items_and_labels_are_refused(tmp_path, other, complaint):
    pair = two(tmp_path, write_labels, [("q", "d", 0, 1, 5), ("q", "d", 1, 2, 5)], other)
    with pytest.raises(DataError, match=complaint):
        check_same_test_set(*pair, "A", "B")


def test_seeds_of_a_system_share_their_heads(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", tasks=("rank", "sim"))]
    with pytest.raises(
        DataError, match=r"cannot be seeds of one system 'x': the first has the heads rank, sim, the second rank"
    ):
        read_system("x", runs)


def test_measures_that_not_all_seeds_have_are_left_out(tmp_path):
    rows = [("q", "d", 0, 1, 5), ("q", "d", 1, 2, 5)]
    write_labels(tmp_path / "a" / "evaluation" / "sim", rows, measures=("MSE", "MAE", "Pearson"))
    write_labels(tmp_path / "b" / "evaluation" / "sim", rows, measures=("MSE", "Pearson"))
    head = read_system("x", [tmp_path / "a", tmp_path / "b"]).heads["sim"]
    assert (head.measures, list(head.values)) == (("MSE", "Pearson"), ["MSE"])
    assert np.shape(head.predictions) == (2, 2)


def test_a_folder_without_judged_heads_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no judged heads: expected evaluation/<head>/metrics.json"):
        read_system("x", [tmp_path])


def test_predictions_that_are_gone_are_asked_for(tmp_path):
    write_labels(tmp_path / "evaluation" / "sim", [("q", "d", 0, 1, 5)])
    (tmp_path / "evaluation" / "sim" / "predictions.tsv").unlink()
    with pytest.raises(DataError, match="Judge this head again with `mtlrank evaluate model_dir="):
        read_system("x", [tmp_path])


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("q1\tAP\tnan\t0.2\n", "lacks numbers"),
        ("q1\tAP\tx\t0.2\n", "could not convert"),
        ("q1\tAP\t0.1\n", "should have the columns query_id, measure, value, first_stage"),
        ("", "at least one row"),
        ("q1\tAP\t0.1\t0.2\nq1\tRR\t0.1\t0.2\nq2\tRR\t0.1\t0.2\n", "not every measure has every query"),
        ("q1\tRR\t0.1\t0.2\n", "'AP'"),
    ],
)
def test_damaged_values_are_refused(tmp_path, lines, complaint):
    folder = tmp_path / "evaluation" / "rank"
    write_ranking(folder, {"q1": 0.5})
    (folder / "per_query.tsv").write_text("query_id\tmeasure\tvalue\tfirst_stage\n" + lines)
    with pytest.raises(DataError, match=f"is damaged: .*{complaint}"):
        read_system("x", [tmp_path])


@pytest.mark.parametrize("row", [("q", "d", 0, "nan", 5), ("q", "d", 0, 1, "nan"), ("q", "d", 0, 1, "inf")])
def test_damaged_predictions_are_refused(tmp_path, row):
    folder = tmp_path / "evaluation" / "sim"
    write_labels(folder, [("q", "d", 1, 2, 5), ("q", "d", 0, 1, 5)])
    good = (folder / "predictions.tsv").read_text()
    (folder / "predictions.tsv").write_text(good.replace("q\td\t0\t1\t5", "\t".join(map(str, row))))
    with pytest.raises(DataError, match=r"is damaged: predictions.tsv lacks numbers"):
        read_system("x", [tmp_path])
