import numpy as np
import pytest
from scipy import stats

from mtlrank.comparing import comparison
from mtlrank.comparing.comparison import as_spelt, compare_systems, corrected, not_compared
from mtlrank.comparing.systems import read_system
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.pairing import pair_heads
from mtlrank.evaluation.significance import confidence_interval, holm
from tests.evaluation.judged_runs import compare, write_labels, write_ranking, write_run


@pytest.fixture
def systems(tmp_path):
    """Two seeds each: one with the ranking alone, one with another task that does not matter, one where it helps."""
    runs = {}
    for name, gain, tasks in (
        ("alone", 0.0, ["rank"]),
        ("same", 0.001, ["rank", "sim"]),
        ("helped", 0.05, ["rank", "sim"]),
    ):
        folders = [write_run(tmp_path / f"{name}{s}", s, tasks, gain) for s in (1, 2)]
        runs[name] = read_system(name, folders)
    return list(runs.values())


def regression(tmp_path, *predictions, kind="regression", measures=("MSE", "MAE", "R2", "Pearson", "Spearman")):
    """A run each with predictions of the same items, two for each sequence."""
    for number, values in enumerate(predictions):
        rows = [(f"q{i // 2}", "d", i % 2, label, value) for i, (label, value) in enumerate(values)]
        write_labels(tmp_path / str(number) / "evaluation" / "sim", rows, kind, measures)
    return [tmp_path / str(number) for number in range(len(predictions))]


def test_a_gain_on_all_queries_is_better(systems):
    row = compare(systems[0], systems[2])[0]
    assert (row.head, row.measure, row.verdict, row.equivalent) == ("rank", "AP", "better", False)
    assert row.difference == pytest.approx(0.05, abs=0.002)
    assert 0 < row.low < 0.05 < row.high
    assert (row.num_units, row.baseline_runs, row.system_runs) == (30, 2, 2)
    assert compare(systems[2], systems[0])[0].verdict == "worse"


def test_seeds_are_averaged_query_by_query(systems):
    before, after = (s.heads["rank"].values["AP"].mean(0) for s in (systems[0], systems[2]))
    row = compare(systems[0], systems[2])[0]
    assert row.p_t == stats.ttest_rel(after, before).pvalue
    assert row.per_query["q07"] == pytest.approx(after[7] - before[7])
    assert row.baseline_value == pytest.approx(before.mean())


def test_a_difference_that_does_not_matter_is_equivalent(systems):
    row = compare(systems[0], systems[1])[0]
    assert (row.verdict, row.equivalent) == ("equivalent", True)
    assert compare(systems[0], systems[0]._replace(name="again"))[0].verdict == "equivalent"
    assert compare(systems[0], systems[0]._replace(name="again"))[0].p_t == 1.0


def test_p_values_are_corrected_for_the_whole_table(systems):
    rows = compare_systems(systems)
    assert [(r.baseline, r.system) for r in rows] == [
        ("alone", "same"),
        ("alone", "helped"),
        ("first stage", "alone"),
        ("first stage", "same"),
        ("first stage", "helped"),
    ]
    assert [r.p_holm for r in rows] == holm([r.p_randomisation for r in rows])
    assert corrected(rows) == rows
    assert {r.verdict for r in rows[2:]} == {"better"}


def test_equivalence_is_corrected_for_the_whole_table(systems):
    p_values = [0.001, 0.03, 0.03, 0.03, 0.03]  # corrected: 0.005, then 4 * 0.03
    rows = [row._replace(p_tost=p) for row, p in zip(compare_systems(systems), p_values, strict=True)]
    assert [row.equivalent for row in corrected(rows)] == [p < 0.05 for p in holm(p_values)] == [True, *[False] * 4]


def test_intervals_hold_95_percent(systems):
    pair = pair_heads(systems[0].heads["rank"], systems[2].heads["rank"], "AP")
    row = compare(systems[0], systems[2])[0]
    assert (row.low, row.high) == confidence_interval(pair.statistic, 30, 2, level=0.95)


def test_how_much_is_judged_is_compared_only_if_asked_for(tmp_path):
    for name in "ab":
        folder = tmp_path / name / "evaluation" / "rank"
        write_ranking(folder, {"q1": 0.5, "q2": 0.7})
        with (folder / "per_query.tsv").open("a") as file:
            file.write("".join(f"{query_id}\tJudged@10\t1\t1\n" for query_id in ("q1", "q2")))
    systems = [read_system(name, [tmp_path / name]) for name in "ab"]
    assert [row.measure for row in compare(*systems)] == ["AP"]
    assert [row.measure for row in compare(*systems, ["Judged@10"])] == ["Judged@10"]


def test_a_first_stage_has_one_run_whose_values_are_in_the_file(systems):
    row = compare_systems(systems)[2]
    assert (row.baseline_value, row.baseline_runs, row.system_runs) == (0.25, 1, 2)


def test_less_error_is_better(tmp_path):
    draw = np.random.default_rng(0)
    labels = draw.normal(size=60)
    near, far = (list(zip(labels, labels + draw.normal(0, width, 60), strict=True)) for width in (0.1, 1))
    systems = [read_system(str(i), [run]) for i, run in enumerate(regression(tmp_path, far, near))]
    rows = {row.measure: row for row in compare(*systems)}
    assert {row.verdict for row in rows.values()} == {"better"}
    assert rows["MSE"].difference < 0 < rows["Pearson"].difference
    assert (rows["MSE"].units, rows["MSE"].num_units) == ("sequences", 30)
    errors = [np.square(np.array(part)[:, 0] - np.array(part)[:, 1]).reshape(30, 2).mean(1) for part in (far, near)]
    assert rows["MSE"].p_t == pytest.approx(stats.ttest_rel(errors[1], errors[0]).pvalue)
    assert (rows["Spearman"].p_t, rows["Spearman"].p_tost, rows["Spearman"].equivalent) == (None, None, None)
    assert rows["Spearman"].note == "Spearman is not a mean over examples: no t-tests, so no statement on equivalence."


def test_swapped_predictions_by_hand(tmp_path):
    # two sequences of two items: of the four ways to swap, none and both are as far apart as the systems are
    labels = [1.0, 2.0, 3.0, 4.0]
    right, wrong = list(zip(labels, labels, strict=True)), list(zip(labels, labels[::-1], strict=True))
    systems = [read_system(str(i), [run]) for i, run in enumerate(regression(tmp_path, wrong, right))]
    row = next(row for row in compare(*systems) if row.measure == "Pearson")
    assert (row.baseline_value, row.system_value) == (pytest.approx(-1), pytest.approx(1))
    assert row.p_randomisation == 2 / 4


def test_pairs_of_a_query_are_one_unit(tmp_path):
    """What a query is like shifts the errors of all its pairs: taken by themselves they seem to tell more than they do."""
    draw = np.random.default_rng(0)
    errors = {"a": draw.normal(1, 0.3, (2, 8)), "b": draw.normal(1, 0.3, (2, 8))}  # of queries, and of their pairs
    for name, (of_queries, of_pairs) in errors.items():
        rows = [(f"q{q}", f"d{q}-{d}", 0, 0.0, of_queries[q] + of_pairs[d] / 10) for q in range(8) for d in range(8)]
        write_labels(tmp_path / name / "evaluation" / "bm25", rows, "regression", ("MSE", "Pearson"))
    systems = [read_system(name, [tmp_path / name]) for name in "ab"]
    row = compare(*systems)[0]
    assert (row.measure, row.units, row.num_units) == ("MSE", "queries", 8)
    by_query = [np.square(q[:, None] + d / 10).mean(1) for q, d in errors.values()]
    assert row.p_t == pytest.approx(stats.ttest_rel(by_query[1], by_query[0]).pvalue)


@pytest.mark.parametrize(("queries", "units"), [("-", 12), ("same", 12), ("-q", 7)])
def test_texts_without_a_query_are_a_unit_each(tmp_path, queries, units):
    names = ["-"] * 6 + ["q"] * 6 if queries == "-q" else [queries] * 12
    for name, wrong in (("a", 0.1), ("b", 0.2)):
        rows = [(names[number], f"d{number}", item, 0.0, wrong * number) for number in range(12) for item in range(2)]
        write_labels(tmp_path / name / "evaluation" / "ner", rows, "regression", ("MSE", "Pearson"))
    row = compare(*(read_system(name, [tmp_path / name]) for name in "ab"))[0]
    assert row.num_units == units


def test_sequences_of_any_number_of_items_give_the_mean_over_items(tmp_path):
    for name, wrong in (("a", 1), ("b", 3)):
        rows = [("q1", "d", i, "x", "y" if i < wrong else "x") for i in range(5)] + [("q2", "d", 0, "x", "x")]
        write_labels(tmp_path / name / "evaluation" / "ner", rows, "classification", ("Accuracy", "MacroF1"))
    systems = [read_system(name, [tmp_path / name]) for name in "ab"]
    row = compare(*systems)[0]
    assert (row.baseline_value, row.system_value) == (pytest.approx(5 / 6), pytest.approx(3 / 6))
    assert row.difference == pytest.approx(-2 / 6)
    pair = pair_heads(*(system.heads["ner"] for system in systems), "Accuracy")
    before, after = pair.contributions
    assert np.mean(after - before) == pytest.approx(row.difference)
    assert pair.swapped(np.zeros((2, 1), dtype=bool))[0] == pytest.approx(row.difference)


def test_other_numbers_of_seeds_can_be_compared(tmp_path):
    draw = np.random.default_rng(1)
    labels = draw.normal(size=40)
    runs = regression(tmp_path, *([*zip(labels, labels + draw.normal(0, 0.5, 40), strict=True)] for _ in range(5)))
    rows = compare(read_system("two", runs[:2]), read_system("three", runs[2:]))
    assert all(row.low < row.high and 0 < row.p_randomisation <= 1 for row in rows)
    assert {(row.baseline_runs, row.system_runs) for row in rows} == {(2, 3)}


def test_the_same_seed_gives_the_same_table(systems):
    assert compare_systems(systems, resamples=500) == compare_systems(systems, resamples=500)
    one, other = compare_systems(systems, resamples=500), compare_systems(systems, resamples=500, seed=1)
    assert (one[0].low, one[0].high) != (other[0].low, other[0].high)
    assert one[0].p_randomisation != other[0].p_randomisation


def test_an_interval_covers_seeds_only_if_both_systems_have_several(tmp_path):
    a, b = ({f"q{i}": base + (i % 3) / 10 for i in range(6)} for base in (0.1, 0.2))
    for name, values in (("a", a), ("b", b), ("c", a)):
        write_ranking(tmp_path / name / "evaluation" / "rank", values)
    one, two = read_system("one", [tmp_path / "b"]), read_system("two", [tmp_path / "a", tmp_path / "c"])
    row = compare(one, two)[0]
    told = row._replace(verdict="not decided", p_holm=0.01, note="")
    assert "covers seeds" not in comparison._note(told)
    assert "covers seeds" in comparison._note(told._replace(system_runs=2, baseline_runs=2))


@pytest.mark.parametrize(
    ("baseline", "system", "verdict", "note"),
    [
        ({"q1": 0.2}, {"q1": 0.5}, "not decided", "rank has only one example"),
        ({"q1": 0.25, "q2": 0.5}, {"q1": 0.5, "q2": 0.75}, "not decided", "differs by the same amount on all queries"),
        ({"q1": 0.25, "q2": 0.5}, {"q1": 0.25, "q2": 0.5}, "not decided", "too few to show equivalence"),
        (dict.fromkeys("abcdefghij", 0.5), dict.fromkeys("abcdefghij", 0.5), "equivalent", ""),
    ],
)
def test_degenerate_samples(tmp_path, baseline, system, verdict, note):
    for name, values in (("a", baseline), ("b", system)):
        write_ranking(tmp_path / name / "evaluation" / "rank", values)
    row = compare(*(read_system(name, [tmp_path / name]) for name in "ab"))[0]
    assert row.verdict == verdict
    assert note in row.note if note else not row.note
    assert (row.low is None) == (len(baseline) == 1)


@pytest.mark.parametrize(
    ("gain", "note"),
    [
        (0.1, "AP of rank differs in these runs of b and a, but the interval, which covers seeds, includes 0."),
        (0.0, "AP of rank is equivalent in these runs of b and a, but the interval, which covers seeds, is wider."),
    ],
)
def test_a_verdict_that_other_seeds_might_turn_is_none(tmp_path, gain, note):
    runs = {name: [] for name in "ab"}
    for name, values in (("a", (0.2, 0.6)), ("b", (0.2 + gain, 0.6 + gain))):
        for seed, value in enumerate(values):
            noise = {f"q{i}": value + (i % 5 - 2) / 1000 * (1 if name == "a" else -1) for i in range(30)}
            write_ranking(tmp_path / f"{name}{seed}" / "evaluation" / "rank", noise, dict.fromkeys(noise, 0.1))
            runs[name].append(tmp_path / f"{name}{seed}")
    row = compare(*(read_system(name, folders) for name, folders in runs.items()))[0]
    assert row.low < 0 < row.high
    assert (row.verdict, row.note) == ("not decided", note)


@pytest.mark.parametrize("measure", ["Pearson", "Spearman"])
def test_the_scale_of_predictions_is_no_matter_to_measures_that_are_blind_to_it(tmp_path, measure):
    draw = np.random.default_rng(3)
    labels = draw.normal(size=60)
    near, far = (labels + draw.normal(0, width, 60) for width in (0.6, 0.9))
    runs = [list(zip(labels, found, strict=True)) for found in (far, near, 100 * near + 7)]
    first, second, scaled = (read_system(str(i), [run]) for i, run in enumerate(regression(tmp_path, *runs)))
    p = [compare(first, other, [measure])[0].p_randomisation for other in (second, scaled)]
    assert p[0] == pytest.approx(p[1])


def test_what_is_tested_is_the_difference_that_is_told(tmp_path):
    """One run beside four: each counts, whichever comes first."""
    draw = np.random.default_rng(4)
    labels = draw.normal(size=60)
    runs = [labels + draw.normal(0, width, 60) for width in (0.9, 0.3, 3, 3, 3)]
    folders = regression(tmp_path, *([*zip(labels, run, strict=True)] for run in runs))
    one, four = read_system("one", folders[:1]), read_system("four", folders[1:])
    pair = pair_heads(one.heads["sim"], four.heads["sim"], "Pearson")
    row = compare(one, four, ["Pearson"])[0]
    assert pair.swapped(np.zeros((30, 1), dtype=bool))[0] == pytest.approx(row.difference)
    again = compare(one, read_system("four", folders[:0:-1]), ["Pearson"])[0]
    assert again.p_randomisation == pytest.approx(row.p_randomisation)


def test_what_some_systems_lack_is_told_once_for_all_of_them(systems):
    alone, same, helped = systems
    assert not_compared([alone, same]) == not_compared([same, alone]) == ["sim: only same has this head"]
    assert not_compared([same, helped]) == []
    assert not_compared(systems) == ["sim: alone lacks this head (same, helped have it)"]
    many = [alone._replace(name=f"a{i}") for i in range(7)]
    assert not_compared([same, *many, helped]) == [
        "sim: a0, a1, a2, a3, a4 and 2 more lack this head (same, helped have it)"
    ]


def test_what_some_systems_were_not_judged_by_is_told_once_for_all_of_them(systems):
    few = [system._replace(heads={"sim": system.heads["sim"]._replace(measures=("MSE",))}) for system in systems[1:]]
    both = [system._replace(heads={"sim": system.heads["sim"]}) for system in systems[1:]]
    both[1] = both[1]._replace(name="again")
    assert not_compared([few[0], both[1]]) == ["sim: only again was judged by Pearson"]
    assert not_compared([few[0], *both]) == ["sim: same was not judged by Pearson (same, again were)"]


def test_measures_are_chosen_and_must_exist(systems):
    assert {row.measure for row in compare_systems(systems[1:], measures=["MSE"])} == {"MSE"}
    with pytest.raises(
        ConfigError, match="No two systems share a head with the measure 'nDGC'. There are AP, MSE, Pearson"
    ):
        compare_systems(systems, measures=["AP", "nDGC"])
    with pytest.raises(ConfigError, match=r"There are AP, MSE, Pearson. Did you mean 'MSE'\?$"):
        compare_systems(systems, measures=["MES"])
    with pytest.raises(ConfigError, match=r"judge each run with `mtlrank evaluate` and 'measures=\[\"nDCG@10\"\]'"):
        compare_systems(systems, measures=["nDCG@10"])


def test_measures_are_spelt_as_the_systems_spell_them(systems):
    assert as_spelt(["ap", "Mse", "PEARSON", "nDGC"], systems) == ["AP", "MSE", "Pearson", "nDGC"]


def test_nothing_to_compare_is_an_error(tmp_path):
    runs = regression(tmp_path, [(1, 2), (2, 3)])
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare_systems([read_system("x", runs)])


def test_other_test_sets_are_refused(tmp_path, systems):
    write_ranking(tmp_path / "other" / "evaluation" / "rank", {"q01": 0.5})
    with pytest.raises(DataError, match="The test sets of rank differ: 30 queries in alone, 1 in other"):
        compare(systems[0], read_system("other", [tmp_path / "other"]))
