"""The table of results of a paper, on runs that are written by hand."""

import csv

import pytest

from mtlrank.comparing.comparison import compare_systems
from mtlrank.comparing.systems import read_system
from mtlrank.comparing.systems_table import columns_of, results_of, systems_csv, systems_latex
from tests.evaluation.judged_runs import write_labels, write_ranking


@pytest.fixture
def systems(tmp_path):
    """By hand: eight queries with the same value each, so that of 2 ** 8 ways to swap two are as far apart: p = 1 / 128.

    `sim` predicts too much by 2 and by 1 on its only four texts, of which p is 1 / 8.
    """
    runs = {"=a_1": ([0.25, 0.375], [2, 2]), "b & c": ([0.5, 0.75], [1, 1])}
    systems = []
    for name, (values, errors) in runs.items():
        for seed, (value, error) in enumerate(zip(values, errors, strict=True)):
            folder = tmp_path / f"{name}{seed}" / "evaluation"
            write_ranking(
                folder / "rank", {f"q{i}": value for i in range(8)}, first_stage={f"q{i}": 0.5 for i in range(8)}
            )
            write_labels(folder / "sim", [(f"q{i}", "d", 0, i, i + error) for i in range(4)], measures=["MSE"])
        systems.append(read_system(name, [tmp_path / f"{name}{seed}" for seed in range(2)]))
    return systems


def results(systems, *, with_first_stage=False, measures=None):
    rows = compare_systems(systems, measures=measures, with_first_stage=with_first_stage)
    return results_of(systems, rows, columns_of(systems, measures))


def test_values_are_means_over_seeds_with_their_deviation_and_corrected_tests(systems):
    first, second, third, fourth = csv.DictReader(systems_csv(results(systems)).splitlines())
    assert list(first) == ["system", "runs", "head", "measure", "mean", "std", "best", "p_holm"]
    assert [first[key] for key in ("system", "runs", "head", "measure", "mean", "best", "p_holm")] == [
        "'=a_1", "2", "rank", "AP", "0.3125", "false", "",
    ]  # fmt: skip
    assert float(first["std"]) == pytest.approx(0.125 / 2**0.5)
    assert [second[key] for key in ("head", "measure", "mean", "std", "best")] == ["sim", "MSE", "4.0", "0.0", "false"]
    assert [third[key] for key in ("system", "mean", "best")] == ["b & c", "0.625", "true"]
    assert float(third["p_holm"]) == 2 * 2 / 2**8
    assert [fourth[key] for key in ("mean", "best")] == ["1.0", "true"]  # less is better
    assert float(fourth["p_holm"]) == 2 / 2**4


def test_latex_shows_what_is_best_and_what_differs_from_which_baseline(systems):
    text = systems_latex(results(systems, with_first_stage=True), "out")
    assert text.isascii()
    assert r"\label{tab:systems-out}" in text
    rows = [line.split(" & ") for line in text.replace(r"\&", "+").splitlines() if line.endswith(r"\\")]
    assert rows == [
        ["", r"\multicolumn{1}{l}{rank}", r"\multicolumn{1}{l}{sim} \\"],
        ["system", "AP", r"MSE $\downarrow$ \\"],
        [r"(a) =a\_1", r"$0.3125${\tiny$\pm0.0884$}\textsuperscript{b}", r"$4.0000${\tiny$\pm0.0000$} \\"],
        ["(b) first stage", "$0.5000$", r"-- \\"],
        [
            "b + c",
            r"$\mathbf{0.6250}${\tiny$\pm0.1768$}\textsuperscript{ab}",
            r"$\mathbf{1.0000}${\tiny$\pm0.0000$} \\",
        ],
    ]
    (caption,) = (line for line in text.splitlines() if line.startswith(r"\caption{"))
    for told in (
        r"Means over seeds, $\pm$ their standard deviation",
        "Bold: the best of its column",
        "less is better",
        r"different from (a) =a\_1, (b) first stage, by p (Holm) \textless{} 0.05",
        "corrected for 4 comparisons",
        "rank 8 queries, sim 4 sequences",
        "Runs (seeds) of a system: 2 each.",
    ):
        assert told in caption


def test_equal_values_are_both_best_and_a_single_one_is_not(systems):
    one, other = systems
    rank = other.heads["rank"]._replace(values={"AP": one.heads["rank"].values["AP"] + 1e-9})
    found = results([one, other._replace(heads={"rank": rank})], measures=["AP"])
    assert [of["rank", "AP"].best for of in found.rows.values()] == [True, True]
    alone = results([one, other._replace(heads={"rank": rank})])
    assert not alone.rows["=a_1"]["sim", "MSE"].best
    assert "b & c" not in {name for name, of in alone.rows.items() if ("sim", "MSE") in of}


def test_one_run_has_no_deviation_and_a_single_system_its_first_stage(systems, tmp_path):
    single = read_system("one", [tmp_path / "b & c0"])
    found = results([single], with_first_stage=True)
    assert list(found.rows) == ["first stage", "one"]
    assert found.caption.startswith("One run each. ")
    assert found.rows["one"]["rank", "AP"].std is None
    assert r"(a) first stage & $\mathbf{0.5000}$ & --" in systems_latex(found, "out")


def test_columns_that_do_not_fit_on_a_page_follow_below_and_long_names_break(systems):
    names = [f"Success(rel=2)@{k}" for k in (1, 5, 10, 20, 50)]
    wide = []
    for system in systems:
        rank = system.heads["rank"]
        values = dict.fromkeys(names, rank.values["AP"])
        rank = rank._replace(values=values, measures=tuple(names), first_stage={})
        wide.append(system._replace(name=system.name + "tasks=trec2019,msm_bm25,msm_ner", heads={"rank": rank}))
    text = systems_latex(results(wide), "out")
    assert [text.count(f"{name} ") for name in names] == [1] * 5
    parts = text.split(r"\begin{tabular}")[1:]
    assert [part.split("\n")[0] for part in parts] == ["{@{}p{3.5cm}ll@{}}", "{@{}p{3.5cm}ll@{}}", "{@{}p{3.5cm}l@{}}"]
    assert r"trec2019,\allowbreak{}msm\_\allowbreak{}bm25" in text


def test_a_part_of_the_table_leaves_out_systems_that_have_nothing_in_it(systems):
    one, other = systems
    name = "tasks=trec2019,msm_bm25,msm_ner"
    head = one.heads["sim"]._replace(name="a_long_name_of_a_head_that_takes_most_of_the_page")
    text = systems_latex(results([one, other._replace(name=name, heads={**other.heads, head.name: head})]), "out")
    assert [part.count("(a)") for part in text.split(r"\begin{tabular}")[1:]] == [1, 0]
