"""The mean relative change of a mixture, by hand."""

import pytest

from mtlrank.comparing.relative_change import in_sentences, relative_changes
from mtlrank.comparing.systems import read_system
from tests.evaluation.judged_runs import compare, write_run


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    single, both = (read_system(name, [write_run(folder / name)]) for name in ("single", "both"))
    return compare(single, both, resamples=100)[0]


def changed(row, head, measure, before, after, system="both"):
    values = {"baseline_value": before, "system_value": after, "difference": after - before}
    return row._replace(head=head, measure=measure, system=system, **values)


def test_heads_count_alike_and_less_of_an_error_is_better(row):
    rows = [
        changed(row, "rank", "nDCG@10", 0.5, 0.55),  # +10 %
        changed(row, "rank", "AP", 0.25, 0.2),  # -20 %
        changed(row, "rank", "Judged@10", 0.5, 1.0),  # no quality
        changed(row, "sim", "MSE", 2.0, 1.0),  # +50 %
        changed(row, "coref", "Pearson", -0.1, -0.05),  # +50 %
        changed(row, "rank", "nDCG@10", 0.5, 0.49, system="other"),
    ]
    both, other = relative_changes(rows)
    assert both.mean == pytest.approx((-0.05 + 0.5 + 0.5) / 3)
    assert both.heads == ("rank", "sim", "coref")
    assert (other.mean, other.heads) == (pytest.approx(-0.02), ("rank",))
    told = ["Mean relative change of heads, + is better: both +31.7% (3 heads), other -2.0% (1 head)."]
    assert in_sentences([both, other]) == told


def test_a_head_whose_single_task_is_at_0_is_left_out_and_named(row):
    rows = [changed(row, "rank", "AP", 0.0, 0.5), changed(row, "sim", "MSE", 1.0, 1.0)]
    (found,) = relative_changes(rows)
    assert (found.mean, found.heads, found.left_out) == (0.0, ("sim",), ("rank",))
    (alone,) = relative_changes(rows[:1])
    assert alone.mean is None
    assert in_sentences([alone]) == ["The mean relative change leaves out, as the single task reaches 0: rank."]
    assert in_sentences([]) == []
