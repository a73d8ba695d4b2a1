"""Rankings by the number of re-ranked candidates, on runs that are written by hand."""

import csv
import json

import pytest

from mtlrank.comparing.depths import write_depths
from mtlrank.comparing.systems import first_stage, read_system
from mtlrank.comparing.trec_runs import judge_files, read_topics
from mtlrank.errors import DataError
from mtlrank.storage import read_json
from tests.evaluation.judged_runs import write_labels, write_ranking


def system(tmp_path, name, *by_depth, measure="AP"):
    """A system of a run for each dict of values by depth."""
    for seed, values in enumerate(by_depth):
        folder = tmp_path / f"{name}-{seed}" / "evaluation"
        write_ranking(folder / "rank", {"q1": 0.5, "q2": 0.75}, measure=measure, by_depth=values)
        write_labels(folder / "sim", [("q1", "d", 0, 1, 2), ("q2", "d", 0, 2, 2)])
        (folder / "rank" / "qrels.txt").write_text("q1 0 a 1\nq2 0 a 1\n")
        (folder / "rank" / "run.trec").write_text("q1 Q0 a 1 2 x\n")
    return read_system(name, [tmp_path / f"{name}-{seed}" for seed in range(len(by_depth))])


def test_each_depth_of_each_system_has_its_mean_over_seeds_as_a_row_and_a_point(tmp_path):
    systems = [
        system(tmp_path, "=both", {"5": 0.25, "20": 0.5, "100": 0.5}, {"5": 0.75, "20": 0.75, "100": 0.625}),
        system(tmp_path, "one", {"5": 0.25, "100": 0.5}),
    ]
    write_depths(tmp_path / "out", systems)
    with (tmp_path / "out" / "depths.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["system", "head", "measure", "candidates", "mean", "standard_deviation", "seeds"],
        ["'=both", "rank", "AP", "5", "0.5", str(0.125**0.5), "2"],
        ["'=both", "rank", "AP", "20", "0.625", str(0.03125**0.5), "2"],
        ["'=both", "rank", "AP", "100", "0.5625", str(0.0078125**0.5), "2"],
        ["one", "rank", "AP", "5", "0.25", "", "1"],
        ["one", "rank", "AP", "100", "0.5", "", "1"],
    ]
    svg = (tmp_path / "out" / "depths-rank.svg").read_text()
    assert (tmp_path / "out" / "depths-rank.pdf").exists()
    for text in ("=both", "one", "first stage", "rank: candidates re-ranked", "AP", "5", "20", "100"):
        assert f"<!-- {text} -->" in svg


def test_an_order_that_is_no_first_stage_is_named(tmp_path):
    write_ranking(
        tmp_path / "a" / "evaluation" / "rank",
        {"q1": 0.5, "q2": 0.75},
        by_depth={"5": 0.25, "9": 0.5},
        baseline_name="BM25 order",
    )
    write_depths(tmp_path / "out", [read_system("a", [tmp_path / "a"])])
    assert "<!-- BM25 order -->" in (tmp_path / "out" / "depths-rank.svg").read_text()


def test_what_has_not_re_ranked_has_no_depths(tmp_path):
    """Other systems' runs, a first stage, and runs that were judged before depths were."""
    older = system(tmp_path, "older", {})
    file = tmp_path / "other.run"
    file.write_text("q1 Q0 a 1 2 x\n")
    other, _ = judge_files("other", [file], read_topics([older]))
    write_depths(tmp_path / "out", [older, other])
    assert not (tmp_path / "out").exists()
    newer = system(tmp_path, "newer", {"5": 0.25, "100": 0.5})
    assert first_stage(newer).heads["rank"].by_depth == {}
    mixed = read_system("mixed", [tmp_path / "newer-0", tmp_path / "older-0"])
    assert mixed.heads["rank"].by_depth == {}


def test_seeds_whose_first_measures_differ_have_no_depths(tmp_path):
    folders = []
    for seed, names in enumerate((["AP", "RR"], ["RR", "AP"], ["RR"])):
        folders.append(tmp_path / f"x-{seed}")
        folder = folders[-1] / "evaluation" / "rank"
        write_ranking(folder, {"q1": 0.5, "q2": 0.75}, measure=names[0], by_depth={"5": 0.25})
        table = (folder / "per_query.tsv").read_text()
        for other in names[1:]:
            table += "".join(f"{query}\t{other}\t0.5\t0.25\n" for query in ("q1", "q2"))
        (folder / "per_query.tsv").write_text(table)
    assert read_system("x", folders[:2]).heads["rank"].by_depth == {}
    of_both = read_system("x", folders[::2]).heads["rank"]
    assert (of_both.measures, of_both.by_depth) == (("RR",), {})
    assert list(read_system("x", folders[1:]).heads["rank"].by_depth) == [5]


@pytest.mark.parametrize("damaged", [{"5": float("nan")}, {"-5": 0.5}, {"5": "x"}, {"many": 0.5}, [0.5]])
def test_what_is_no_value_at_a_depth_is_refused(tmp_path, damaged):
    system(tmp_path, "a", {"5": 0.25})
    path = tmp_path / "a-0" / "evaluation" / "rank" / "metrics.json"
    path.write_text(json.dumps({**read_json(path), "by_depth": damaged}))
    with pytest.raises(DataError, match="rank is damaged: "):
        read_system("a", [tmp_path / "a-0"])


def test_systems_with_different_first_measures_have_a_panel_each(tmp_path):
    systems = [system(tmp_path, "a", {"5": 0.25, "9": 0.5}), system(tmp_path, "b", {"5": 0.25, "9": 0.5}, measure="RR")]
    write_depths(tmp_path / "out", systems)
    svg = (tmp_path / "out" / "depths-rank.svg").read_text()
    assert [svg.count(f"<!-- {text} -->") for text in ("AP", "RR", "rank: candidates re-ranked")] == [1, 1, 2]
