"""Whether a new model may replace the one in use, on runs that are written by hand."""

import pytest

from mtlrank.comparing.systems import read_system
from mtlrank.errors import ConfigError, DataError
from mtlrank.registry import Source
from mtlrank.registry.decision import Decision, decide, markdown, worst
from tests.evaluation.judged_runs import write_labels, write_ranking, write_run


@pytest.fixture
def systems(tmp_path):
    """A system of values by query."""

    def make(name, values):
        write_ranking(tmp_path / name / "evaluation" / "rank", values)
        return read_system(name, [tmp_path / name])

    return make


def by_query(*values):
    return {f"q{number}": value for number, value in enumerate(values)}


def test_the_same_model_is_not_worse(systems):
    same = systems("a", by_query(0.1, 0.5, 0.9))
    assert decide(same, same._replace(name="b"), ["rank/AP"], margin=0.0).promoted


@pytest.mark.parametrize(("loss", "promoted"), [(0.01, True), (0.03, False)])
def test_an_even_loss_counts_against_the_margin(systems, loss, promoted):
    values = [0.1, 0.5, 0.9, 0.7]
    before, after = systems("a", by_query(*values)), systems("b", by_query(*(value - loss for value in values)))
    decision = decide(before, after, ["rank/AP"], margin=0.02)
    assert decision.promoted is promoted
    assert worst(decision.comparisons[0]) == pytest.approx(-loss)


def test_a_gain_that_may_be_a_loss_is_not_promoted(systems):
    """One query of ten gains much and one loses much: the mean is +0.01, its interval reaches far below."""
    before = systems("a", by_query(*[0.5] * 10))
    after = systems("b", by_query(1.0, 0.1, *[0.5] * 8))
    decision = decide(before, after, ["rank/AP"], margin=0.02)
    assert not decision.promoted
    assert decision.comparisons[0].difference == pytest.approx(0.01)
    assert (
        "may be worse by more than 0.02: rank/AP 0.5000 in use, 0.5100 now (+0.0100, 95 % interval" in decision.reason
    )


def test_all_measures_must_pass(tmp_path):
    before, after = (
        read_system(n, [write_run(tmp_path / n, tasks=["rank", "sim"], gain=g)]) for n, g in (("a", 0), ("b", 0.2))
    )
    assert decide(before, after, ["rank/AP"], 0.02).promoted
    write_labels(tmp_path / "b" / "evaluation" / "sim", [(f"q{i:02}", "d", 0, i, i + 30) for i in range(30)])
    after = read_system("b", [tmp_path / "b"])
    decision = decide(before, after, ["rank/AP", "sim/MSE"], 0.02)
    assert not decision.promoted
    assert "sim/MSE" in decision.reason  # a larger error is worse


def test_one_topic_decides_by_its_difference(systems):
    before, after = systems("a", by_query(0.5)), systems("b", by_query(0.4))
    assert not decide(before, after, ["rank/AP"], 0.05).promoted
    assert decide(before, after, ["rank/AP"], 0.2).promoted


def test_other_topics_cannot_be_compared(systems):
    with pytest.raises(DataError, match="test sets of rank differ"):
        decide(systems("a", by_query(0.5, 0.5)), systems("b", by_query(0.5)), ["rank/AP"], 0.05)


def test_the_test_set_of_a_head_that_does_not_decide_may_change(tmp_path):
    for name, gain, items in (("a", 0.0, 30), ("b", 0.1, 31)):
        run = write_run(tmp_path / name, gain=gain)
        write_labels(run / "evaluation" / "sim", [(f"q{i:02}", "d", 0, i, i + 1) for i in range(items)])
    before, after = (read_system(name, [tmp_path / name]) for name in ("a", "b"))
    assert decide(before, after, ["rank/AP"], 0.02).promoted
    with pytest.raises(DataError, match="test sets of sim differ"):
        decide(before, after, ["rank/AP", "sim/MSE"], 0.02)


@pytest.mark.parametrize("measure", ["rank/nDCG", "sim/AP", "AP", ""])
def test_an_unknown_measure_is_told(systems, measure):
    one = systems("a", by_query(0.5, 0.5))
    with pytest.raises(ConfigError, match="was not judged by .* It was judged by rank/AP"):
        decide(one, one, [measure], 0.05)


def test_the_page_shows_the_numbers(systems):
    before, after = systems("a", by_query(0.5, 0.5)), systems("b", by_query(0.75, 0.75))
    page = markdown(decide(before, after, ["rank/AP"], 0.02), "gs://bucket/registry")
    assert page.startswith("# Promoted\n")
    assert "| rank/AP | 0.5000 | 0.7500 | +0.2500 | +0.2500 to +0.2500 | 0.02 |" in page
    assert "gs://bucket/registry" in page
    assert "Model:" not in page


def test_the_page_names_the_model_and_where_it_came_from():
    decision = Decision(False, "no", model="3fa9c1d20b47", source=Source("gs://bucket/run-7/model", "unknown", "0.1.0"))
    assert "\nModel: `3fa9c1d20b47`, from gs://bucket/run-7/model, mtlrank 0.1.0\n" in markdown(decision, "r")
