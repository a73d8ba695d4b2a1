"""`mtlrank compare` as it is typed, on small runs that are written by hand."""

import csv
import json
import shutil

import pytest
from typer.testing import CliRunner

from mtlrank.cli import app
from mtlrank.storage import write_manifest
from tests.evaluation.judged_runs import write_config, write_ranking, write_run
from tests.registry.conftest import write_finished


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds of the ranking alone and two of it beside another task, which helps."""
    for seed in (1, 2):
        write_run(tmp_path / f"single{seed}", seed)
        write_run(tmp_path / f"all{seed}", seed, ["rank", "sim"], gain=0.05)
    monkeypatch.chdir(tmp_path)
    return ["single1", "single2", "all1", "all2"]


def typed(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_did_it_help(runs, tmp_path):
    done = typed(*runs, "--output", "out", "--resamples", 2000)
    assert done.exit_code == 0, done.output
    assert "tasks=rank,sim compared with tasks=rank" in done.stdout
    assert "tasks=rank compared with first stage" in done.stdout
    assert "better" in done.stdout
    assert "Not compared: sim: only tasks=rank,sim has this head." in done.stdout
    assert "tasks=rank,sim: 2 runs; heads: rank, sim" in done.stderr
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    first = kept["comparisons"][0]
    assert (first["baseline"], first["system"], first["verdict"]) == ("tasks=rank", "tasks=rank,sim", "better")
    assert first["p_randomisation"] == 1 / 2001
    assert len(kept["comparisons"]) == 3
    assert (tmp_path / "out" / "differences.svg").read_text().startswith("<svg")
    table = csv.DictReader((tmp_path / "out" / "systems.csv").read_text().splitlines())
    assert [(row["system"], row["head"], row["measure"], row["best"]) for row in table] == [
        ("tasks=rank", "rank", "AP", "false"),
        ("first stage", "rank", "AP", "false"),
        ("tasks=rank,sim", "rank", "AP", "true"),
        ("tasks=rank,sim", "sim", "MSE", "false"),
        ("tasks=rank,sim", "sim", "Pearson", "false"),
    ]
    seeds = csv.DictReader((tmp_path / "out" / "seeds.csv").read_text().splitlines())
    assert [row["folder"] for row in seeds if row["measure"] == "AP"] == runs


def test_what_else_differs_is_told_wherever_the_table_is(runs, tmp_path):
    write_run(tmp_path / "other", 2, **{"loop.optimizer.lr": 1e-5})
    done = typed("x=single1", "x=other", "base=all1", "--output", "out", "--resamples", 500)
    assert done.exit_code == 0, done.output
    told = "x: its 2 runs differ not only in their seed, but in loop.optimizer.lr (null, 1e-05): "
    assert told in " ".join(done.stdout.split())
    confounds = json.loads((tmp_path / "out" / "comparison.json").read_text())["confounds"]
    assert [note.startswith(told) for note in confounds] == [True, False]
    assert told in (tmp_path / "out" / "comparison.tex").read_text()
    assert confounds[1] == "x and base differ in: tasks (rank, rank,sim), loop.optimizer.lr (null/1e-05, null)."


def test_folds_are_joined_and_one_fold_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, gain in (("single", 0.0), ("all", 0.1)):
        for fold in range(3):
            of = {"datamodule.dataset.datasets.rank.folds": 3, "datamodule.dataset.datasets.rank.fold": fold}
            write_config(tmp_path / f"{name}{fold}", **of, gain=gain)
            values = {f"q{fold}{i}": 0.1 * i + gain for i in range(4)}
            write_ranking(tmp_path / f"{name}{fold}" / "evaluation" / "rank", values, fold=[fold, 3])
    done = typed("single0", "single1", "single2", "all0", "all1", "all2", "--resamples", 500, "--output", "out")
    assert done.exit_code == 0, done.output
    assert "gain=0.1: 1 run of 3 folds; heads: rank" in done.stderr
    assert "rank 12 queries" in " ".join(done.stdout.split())
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"][0]
    assert (kept["difference"], kept["num_units"], kept["folds"]) == (pytest.approx(0.1), 12, 3)
    done = typed("single0", "all0", "--resamples", 500, "--no-first-stage")
    assert "gain=0.1: rank has the queries of fold 0 of 3 only." in done.stdout
    done = typed("single0", "single1", "all0", "all1", "all2")
    assert done.exit_code == 3
    assert "expected each fold of rank once, found 0, 1 of 3" in done.stderr


def test_without_the_first_stage_fewer_comparisons_are_corrected_for(runs, tmp_path):
    done = typed(*runs, "--no-first-stage", "--output", "out", "--resamples", 2000)
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(row["baseline"], row["system"]) for row in kept["comparisons"]] == [("tasks=rank", "tasks=rank,sim")]
    assert kept["comparisons"][0]["p_holm"] == kept["comparisons"][0]["p_randomisation"]


@pytest.mark.parametrize("baseline", ["all", "all2", "./all1/"])
def test_names_and_baseline_as_given(runs, baseline):
    words = [f"{run[:-1]}={run}" for run in runs]
    done = typed(*words, "--baseline", baseline, "--measure", "AP", "--margin", 0.2)
    assert done.exit_code == 0, done.output
    assert "single compared with all" in done.stdout
    assert "worse" in done.stdout
    assert "lies within 0.2 of" in " ".join(done.stdout.split())


def test_a_baseline_may_be_called_as_in_the_tables_of_a_study(runs, tmp_path):
    done = typed(*runs, "--baseline", "rank+sim", "--no-first-stage", "--output", "out", "--resamples", 500)
    assert done.exit_code == 0, done.output
    assert [row["baseline"] for row in kept_in(tmp_path / "out")] == ["tasks=rank,sim"]


def test_the_first_stage_may_be_the_only_baseline(runs, tmp_path):
    done = typed(*runs, "--baseline", "first stage", "--output", "out", "--resamples", 500)
    assert done.exit_code == 0, done.output
    pairs = [("tasks=rank", "first stage"), ("tasks=rank,sim", "first stage")]
    assert [(row["system"], row["baseline"]) for row in kept_in(tmp_path / "out")] == pairs
    table = list(csv.DictReader((tmp_path / "out" / "systems.csv").read_text().splitlines()))
    assert table[0]["system"] == "first stage"
    assert {row["system"] for row in table if row["p_holm"]} == {"tasks=rank", "tasks=rank,sim"}
    both = typed(*runs, "--baseline", "first stage", "--baseline", "single1", "--output", "out", "--resamples", 500)
    assert both.exit_code == 0, both.output
    assert [(row["system"], row["baseline"]) for row in kept_in(tmp_path / "out")] == [
        ("tasks=rank,sim", "tasks=rank"),
        *pairs,
    ]


def test_several_baselines_are_corrected_for_together(tmp_path, monkeypatch):
    """By hand: of 8 queries, b gains 1/8 on each over a; c as much over b on 7 and loses it on one."""
    monkeypatch.chdir(tmp_path)
    for name, values in (("a", [0.25] * 8), ("b", [0.375] * 8), ("c", [0.5] * 7 + [0.25])):
        write_config(tmp_path / name, gain=name)
        write_ranking(tmp_path / name / "evaluation" / "rank", {f"q{i}": value for i, value in enumerate(values)})
    words = ["a=a", "b=b", "c=c", "--no-first-stage", "--output", "out"]
    done = typed(*words, "--baseline", "a", "--baseline", "b", "--baseline", "a")
    assert done.exit_code == 0, done.output
    rows = {(row["system"], row["baseline"]): row for row in kept_in(tmp_path / "out")}
    tested = {pair: row["p_randomisation"] for pair, row in rows.items()}  # of 2 ** 8 ways to swap, as many as far
    assert tested == {("b", "a"): 2 / 256, ("c", "a"): 4 / 256, ("c", "b"): 18 / 256}
    corrected = {pair: row["p_holm"] for pair, row in rows.items()}
    assert corrected == {("b", "a"): 3 * 2 / 256, ("c", "a"): 2 * 4 / 256, ("c", "b"): 18 / 256}
    assert [row["difference"] for row in rows.values()] == [1 / 8, 7 / 32, 3 / 32]
    titles = ["b compared with a", "c compared with a", "c compared with b"]
    latex = (tmp_path / "out" / "comparison.tex").read_text()
    for title in titles:
        assert title in done.stdout
        assert rf"{{\raggedright rank: {title}}}" in latex
    assert r"\caption{Differences from a and b. Test sets" in latex
    table = csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines())
    assert [f"{row['system']} compared with {row['baseline']}" for row in table] == titles

    assert typed(*words, "--baseline", "c", "--baseline", "./a").exit_code == 0
    assert [(row["system"], row["baseline"]) for row in kept_in(tmp_path / "out")] == [
        ("a", "c"),
        ("b", "c"),
        ("b", "a"),
    ]


def kept_in(folder):
    return json.loads((folder / "comparison.json").read_text())["comparisons"]


def test_evaluations_by_other_measures_are_compared(runs, tmp_path):
    """What `mtlrank evaluate` writes beside a run is of that run: its seed, and its settings."""
    for run in runs:
        values = {f"q{i}": 0.3 + i / 100 + 0.1 * run.startswith("all") for i in range(9)}
        write_ranking(tmp_path / run / "evaluation-test" / "rank", values, measure="nDCG@20")
    done = typed(*(f"{run}/evaluation-test" for run in runs), "--measure", "nDCG@20")
    assert done.exit_code == 0, done.output
    assert "tasks=rank,sim compared with tasks=rank" in done.stdout
    assert "tasks=rank: 2 runs; heads: rank" in done.stderr
    twice = typed("x=single1", "x=single1/evaluation-test", "all1")
    assert "have the same config and seed 1, so they count once" in twice.stderr
    without = typed(*runs, "--measure", "nDCG@20")
    assert "judge each run with `mtlrank evaluate` and 'measures=[\"nDCG@20\"]'" in without.stderr


def test_measures_are_known_whatever_their_case_is(runs, tmp_path):
    done = typed(*runs, "--measure", "ap", "--output", "out", "--resamples", 500)
    assert done.exit_code == 0, done.output
    assert {row["measure"] for row in kept_in(tmp_path / "out")} == {"AP"}
    assert {line.split(",")[-5] for line in (tmp_path / "out" / "systems.csv").read_text().splitlines()[1:]} == {"AP"}


def test_a_run_file_of_another_system_is_judged_as_the_heads_are(runs, tmp_path):
    for run in runs:
        folder = tmp_path / run / "evaluation" / "rank"
        (folder / "qrels.txt").write_text("".join(f"q{i:02} 0 d 1\n" for i in range(30)))
        (folder / "run.trec").write_text("".join(f"q{i:02} Q0 d 1 1 x\n" for i in range(30)))
    (tmp_path / "splade.run").write_text(
        "".join(f"q{i:02} Q0 {d} 1 {s} x\n" for i in range(30) for d, s in ("d2", "e1"))
    )
    done = typed(*runs, "splade.run", "--output", "out", "--resamples", 500)
    assert done.exit_code == 0, done.output
    assert "splade.run compared with tasks=rank" in done.stdout
    assert "splade.run compared with first stage" not in done.stdout
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (row,) = (row for row in kept["comparisons"] if row["system"] == "splade.run")
    assert (row["system_value"], row["system_runs"], row["baseline_runs"]) == (1.0, 1, 2)
    assert kept["confounds"][-1].startswith("30 of the 60 documents that splade.run ranks for rank are not among")
    swapped = typed("x=splade.run", "all1", "--baseline", "splade.run", "--no-first-stage")
    assert "tasks=rank,sim compared with x" in swapped.stdout, swapped.output
    assert "Not compared: sim: only tasks=rank,sim has this head." in swapped.stdout


@pytest.mark.parametrize(
    ("words", "pairs", "once_as"),
    [
        (["--baseline", "bm25"], [("single", "bm25"), ("all", "bm25")], "bm25"),
        ([], [("all", "single"), ("single", "first stage"), ("all", "first stage")], "first stage"),
        (["--baseline", "single", "--no-first-stage"], [("all", "single"), ("bm25", "single")], None),
        (["--baseline", "first stage"], [("single", "first stage"), ("all", "first stage")], "first stage"),
    ],
)
def test_a_run_file_that_is_the_first_stage_is_compared_once(tmp_path, monkeypatch, words, pairs, once_as):
    """By hand: the second of two candidates is relevant, so BM25 has an AP of 1/2 on each query."""
    monkeypatch.chdir(tmp_path)
    queries = [f"q{i}" for i in range(8)]
    for name, value in (("single", 0.5), ("all", 1.0)):
        write_config(tmp_path / name, gain=name)
        folder = tmp_path / name / "evaluation" / "rank"
        write_ranking(folder, dict.fromkeys(queries, value), first_stage=dict.fromkeys(queries, 0.5))
        (folder / "qrels.txt").write_text("".join(f"{q} 0 d 1\n" for q in queries))
        (folder / "run.trec").write_text("".join(f"{q} Q0 {d} 1 1 x\n" for q in queries for d in ("d", "e")))
    (tmp_path / "bm25.run").write_text("".join(f"{q} Q0 {d} 1 {s} x\n" for q in queries for d, s in ("d1", "e2")))
    done = typed("single=single", "all=all", "bm25=bm25.run", *words, "--output", "out")
    assert done.exit_code == 0, done.output
    kept = kept_in(tmp_path / "out")
    assert [(row["system"], row["baseline"]) for row in kept] == pairs
    told = f"bm25 has the values of the first stage of rank for all queries: compared once, as {once_as}."
    assert (told in " ".join(done.stdout.split())) == (once_as is not None)
    assert "lacks this head" not in done.stdout


def test_runs_that_are_not_finished_are_left_out_if_two_are_left(runs, tmp_path):
    (tmp_path / "started" / "checkpoints").mkdir(parents=True)
    write_config(tmp_path / "trained")
    done = typed("all1", "single1", "single2", "started", "trained")
    assert done.exit_code == 0, done.output
    assert (
        "mtlrank: left out, as they are not finished or have no judged heads: started, trained"
        in done.stderr.splitlines()
    )
    assert "tasks=rank: 2 runs" in done.stderr
    assert "left out" not in typed("all1", "single1").stderr
    for words in (["started"], ["all1", "started"], ["all1", "single1", "x=started"]):
        assert typed(*words).exit_code == 3, words


def test_results_of_weights_that_were_replaced_are_refused(tmp_path, monkeypatch):
    """As of an earlier `mtlrank evaluate`, whose model was trained again."""
    monkeypatch.chdir(tmp_path)
    _, second = (write_finished(tmp_path / name) for name in ("first", "second"))
    assert typed("a=first", "b=second").exit_code == 0
    (second / "evaluation").rename(second / "evaluation-test")
    (second / "model" / "model.safetensors").write_text("of another training")
    write_manifest(second / "model", {"kind": "model"})
    done = typed("a=first", "b=second/evaluation-test")
    assert done.exit_code == 3
    assert "second/evaluation-test/rank was judged with other weights than second/model has" in done.stderr


def test_a_run_that_has_begun_in_the_folder_of_another_is_not_shown_with_its_results(runs, tmp_path):
    """Its settings are those of the new run, and its judged heads those of the old one, until the new one is finished."""
    shutil.copytree(tmp_path / "single2", tmp_path / "anew")
    write_config(tmp_path / "anew", 3)
    (tmp_path / "anew" / "metrics.json").unlink()
    done = typed("all1", "single1", "anew")
    assert done.exit_code == 0, done.output
    assert "mtlrank: left out, as they are not finished or have no judged heads: anew" in done.stderr.splitlines()
    for words in (["all1", "anew"], ["all1", "single1", "x=anew"], ["all1", "anew/evaluation"]):
        done = typed(*words)
        assert done.exit_code == 3, words
        assert "anew is not finished: results there may be those of the run before it" in done.stderr
    (tmp_path / "anew" / "run.json").unlink()  # only what was judged was kept
    assert typed("all1", "x=anew").exit_code == 0


def test_a_folder_has_the_pictures_of_its_last_comparison_only(runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gains-mine.svg").touch()  # before there is a comparison, it is somebody else's
    (tmp_path / "out" / "depths.csv").touch()
    assert typed("a=single1", "b=all1", "--output", "out").exit_code == 0
    assert (tmp_path / "out" / "gains-rank-b-a.svg").exists()
    assert (tmp_path / "out" / "gains-mine.svg").exists()
    assert typed("c=single1", "b=all1", "--output", "out").exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"gains-rank-b-c.svg", "gains-rank-b-c.pdf"} <= names
    assert not names & {"gains-rank-b-a.svg", "gains-rank-b-a.pdf", "gains-mine.svg", "depths.csv"}


def test_an_unfinished_run_below_a_named_folder_is_left_out(runs, tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "study" / f"all{seed}", seed, ["rank", "sim"], gain=0.05)
    write_config(tmp_path / "study" / "trained")
    done = typed("both=study", "single1", "single2")
    assert done.exit_code == 0, done.output
    assert (
        "mtlrank: left out, as they are not finished or have no judged heads: both=study/trained"
        in done.stderr.splitlines()
    )


def test_globs_over_a_study_name_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        write_run(tmp_path / "study" / "rank" / f"seed-{seed}", seed)
        write_run(tmp_path / "study" / "rank+sim" / f"seed-{seed}", seed, ["rank", "sim"], gain=0.05)
    (tmp_path / "study" / "transfer").mkdir()
    for file in ("comparison.json", "comparison.csv"):
        (tmp_path / "study" / "transfer" / file).write_text("")
    for glob in ("study", "study/*", "study/*/*"):
        done = typed(*sorted(tmp_path.glob(glob)), "--resamples", 500)
        assert done.exit_code == 0, done.output
        assert "tasks=rank,sim compared with tasks=rank" in done.stdout
        assert ("left out, as a comparison wrote them" in done.stderr) == (glob != "study")


def test_nothing_is_written_unless_asked_for(runs, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert typed(*runs).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["nowhere"], 3, "The run 'nowhere' does not exist"),
        (["single1", "bm25.run"], 3, "rank has no qrels.txt to judge a run file by. Judge this head again"),
        (["bm25.run"], 3, "bm25.run ranks no judged document of the rankings of the other systems (no ranking)"),
        (["x=single1", "x=bm25.run"], 2, "'x' names folders of runs and a run file"),
        (["single1", "all1", "--baseline", "x"], 2, "--baseline is 'x': expected the name of a system"),
        (
            ["a=single1", "b=all1", "--baseline", "a", "--baseline", "x"],
            2,
            "--baseline is 'x': expected the name of a sy",
        ),
        (["single1", "all1", "--baseline", "x"], 2, "'tasks=rank', 'tasks=rank,sim', 'first stage'."),
        (["single1", "all1", "--baseline", "first stage", "--no-first-stage"], 2, "which --no-first-stage leaves out"),
        (["single1", "all1", "--margin", "0"], 2, "--margin is 0.0, expected a number above 0"),
        (["single1", "all1", "--resamples", "5"], 2, "--resamples is 5, expected a whole number from 100"),
        (["single1", "all1", "--seed", "-1"], 2, "--seed is -1, expected a whole number"),
        (["single1", "all1", "--measure", "nDGC"], 2, "with the measure 'nDGC'. There are AP"),
        (["all1", "all2", "--measure", "Pearsn"], 2, "There are AP, MSE, Pearson. Did you mean 'Pearson'?"),
        (["single1", "all1", "--output", "/proc/x"], 4, "Cannot write to the folder '/proc/x'"),
        (["a=single1", "b=other"], 3, "The test sets of rank differ: 30 queries in a, 1 in b"),
        (["x=single1", "x=single1"], 2, "is named twice"),
    ],
)
def test_a_mistake_gives_one_line(runs, tmp_path, words, code, expected):
    write_ranking(tmp_path / "other" / "evaluation" / "rank", {"q01": 0.5})
    (tmp_path / "bm25.run").write_text("q01 Q0 d 1 2.5 bm25\n")
    done = typed(*words)
    assert done.exit_code == code, done.output
    assert expected in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mtlrank: ")
    assert "Traceback" not in done.output
