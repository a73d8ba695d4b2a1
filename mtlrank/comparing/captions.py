"""How to read a table of comparisons: its method, its numbers of queries and runs, and its notes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mtlrank.comparing.comparison import LEVEL, Comparison
from mtlrank.comparing.relative_change import RelativeChange, in_sentences
from mtlrank.evaluation.significance.resampling import FEW
from mtlrank.trec import FIRST_STAGE
from mtlrank.words import counted


class Table(NamedTuple):
    """Comparisons that are shown together, with remarks in sentences."""

    rows: Sequence[Comparison]
    not_compared: Sequence[str] = ()  # heads and measures that some systems lack
    confounds: Sequence[str] = ()  # other differences between the systems
    changes: Sequence[RelativeChange] = ()  # of a study's mixtures

    def notes(self) -> list[str]:
        """The lines below the table: changes, the notes of its rows, each once, confounds, and what is not compared."""
        of_rows = dict.fromkeys(row.note for row in self.rows if row.note)
        missing = (f"Not compared: {what}." for what in self.not_compared)
        return [*in_sentences(self.changes), *of_rows, *self.confounds, *missing]


def caption(comparisons: Sequence[Comparison]) -> str:
    """The method of a table, and its numbers of queries and runs."""
    return f"{method(comparisons)} {amounts(comparisons)}"


def method(comparisons: Sequence[Comparison]) -> str:
    """What is computed, and what the verdicts mean."""
    first, number = comparisons[0], len(comparisons)
    num_runs = _num_runs(comparisons).values()
    units = " or ".join(dict.fromkeys(row.units for row in comparisons))
    seeds = " with Student's t for the seeds" if max(num_runs) > 1 else ""
    few = f" (Student's t with fewer than {FEW})" if any(row.num_units < FEW for row in comparisons) else ""
    all_of_them = f"{'all ' if number > 1 else ''}{counted(number, 'comparison')}"
    single = "; with one run of a system, it leaves out the variance between its seeds" if min(num_runs) == 1 else ""
    return (
        f"{counted(number, 'comparison')}. Difference: system - baseline; values are averaged over seeds "
        f"first. 95 % CI: bootstrap over {units}{few}{seeds}, {first.resamples:,} resamples{single}. "
        f"p: paired t-test and randomisation test, two-sided, of these trained models; Holm: the randomisation test, "
        f"corrected for {all_of_them}. Better or worse: p (Holm) < {LEVEL}, and the interval excludes 0. "
        f"Equivalent: two one-sided t-tests, corrected too, p < {LEVEL}, and the interval lies within {first.margin:g} "
        "of a measure's own unit. Otherwise: not decided."
    )


def amounts(comparisons: Sequence[Comparison]) -> str:
    """How many queries or sequences, and how many seeds."""
    sizes = {row.head: (row.num_units, row.units) for row in comparisons}
    return in_all(sizes, _num_runs(comparisons), max(row.folds for row in comparisons))


def in_all(sizes: Mapping[str, tuple[int, str]], num_runs: Mapping[str, int], folds: int) -> str:
    """The same, from the number of units and their name for each head, the runs of each system and the folds of a run."""
    names = {"queries": ("query", "queries"), "sequences": ("sequence", "sequences")}
    tests = [f"{head} {counted(number, *names[units])}" for head, (number, units) in sizes.items()]
    alike = len(set(num_runs.values())) == 1
    runs = f"{next(iter(num_runs.values()))} each" if alike else ", ".join(f"{n} {i}" for n, i in num_runs.items())
    models = f" A run is {folds} models: each ranks the queries of its own fold." if folds > 1 else ""
    return f"Test sets: {', '.join(tests)}. Runs (seeds) of a system: {runs}.{models}"


def _num_runs(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """By system; a first stage has no seeds."""
    baselines = {row.baseline: row.baseline_runs for row in comparisons if row.baseline != FIRST_STAGE}
    return baselines | {row.system: row.system_runs for row in comparisons}
