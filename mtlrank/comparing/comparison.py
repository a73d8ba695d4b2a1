"""Did it help? Systems compared on the same test sets, measure by measure, with tests of significance."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mtlrank.checks import nearest
from mtlrank.comparing.systems import System, check_same_test_set, first_stage
from mtlrank.errors import ConfigError
from mtlrank.evaluation.judged_head import HeadResults
from mtlrank.evaluation.measures import exists, is_better, is_quality
from mtlrank.evaluation.pairing import pair_heads
from mtlrank.evaluation.significance import confidence_interval, holm, randomisation_test, t_test, tost
from mtlrank.trec import FIRST_STAGE
from mtlrank.words import listed

LEVEL = 0.05  # of all tests; intervals hold 95 %
Pair = tuple[System, System, Sequence[str] | None]  # a baseline, a system, and the measures to compare them by
_MANY = 5  # systems named in a sentence


class Comparison(NamedTuple):
    """A measure of a head in two systems. Undefined fields are None, and `note` says why."""

    head: str
    measure: str
    baseline: str
    system: str
    baseline_value: float  # the mean over the baseline's runs
    system_value: float
    difference: float  # system - baseline
    low: float | None  # of the 95 % interval of the difference
    high: float | None
    p_t: float | None
    p_randomisation: float
    p_holm: float  # of the randomisation test, corrected for all comparisons
    p_tost: float | None
    equivalent: bool | None  # within the margin, corrected for all comparisons
    verdict: str  # better, worse, equivalent or not decided
    margin: float
    units: str  # the independent units of the tests: queries or sequences
    num_units: int
    baseline_runs: int
    system_runs: int
    resamples: int
    note: str
    per_query: dict[str, float]  # differences, rankings only
    folds: int = 1  # of each run


def compare_systems(
    systems: Sequence[System],
    baselines: Sequence[System] | None = None,
    measures: Sequence[str] | None = None,
    margin: float = 0.01,
    resamples: int = 10_000,
    seed: int = 0,
    with_first_stage: bool = True,
) -> list[Comparison]:
    """Compare each system with each baseline (by default the first system), and with its own first stage.

    Two baselines are compared once, the later one with the earlier one. p-values are corrected for all these comparisons
    together. Raises as `compare_pairs` does, and if nothing can be compared.
    """
    pairs, others = list[Pair](), list(systems)
    for baseline in systems[:1] if baselines is None else baselines:
        others = [system for system in others if system.name != baseline.name]
        pairs += [(baseline, system, measures) for system in others]
    if with_first_stage:
        pairs += [(first, system, measures) for system in systems if (first := first_stage(system)) is not None]
    rows = compare_pairs(pairs, margin, resamples, seed)
    for measure in measures or ():
        if measure not in {row.measure for row in rows}:
            raise ConfigError(_not_shared(measure, _known(systems)))
    if not rows:
        raise ConfigError("There is nothing to compare: name runs of at least two systems that share a head.")
    return rows


def compare_pairs(
    pairs: Iterable[Pair], margin: float = 0.01, resamples: int = 10_000, seed: int = 0
) -> list[Comparison]:
    """Compare two systems each by every head and measure that both have; p-values are corrected for all of them together.

    Without measures, all but Judged are compared, as it measures no quality. `margin` is a difference that does not
    matter, in a measure's own unit. The same `seed` gives the same numbers. Raises `DataError` if test sets differ.
    """
    rows = []
    for baseline, system, measures in pairs:
        for name, theirs in baseline.heads.items():
            if name not in system.heads:
                continue
            ours = system.heads[name]
            check_same_test_set(theirs, ours, baseline.name, system.name)
            wanted = measures or [m for m in theirs.measures if is_quality(m)]
            shared = [m for m in theirs.measures if m in ours.measures and m in wanted]
            rows += [_compare(baseline, system, name, measure, margin, resamples, seed) for measure in shared]
    return corrected(rows)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one table, with p-values corrected for their number, and verdicts.

    Better or worse: the corrected p of the randomisation test is below 0.05, and the interval, which covers seeds too,
    excludes 0. Equivalent: the corrected p of equivalence is below 0.05, and the interval lies within the margin.
    """
    p_values = holm([row.p_randomisation for row in comparisons])
    equivalence = iter(holm([row.p_tost for row in comparisons if row.p_tost is not None]))
    rows = []
    for row, p in zip(comparisons, p_values, strict=True):
        equivalent = None if row.p_tost is None else next(equivalence) < LEVEL
        row = row._replace(p_holm=p, equivalent=equivalent)
        row = row._replace(verdict=_verdict(row))
        rows.append(row._replace(note=_note(row)))
    return rows


def as_spelt(measures: Sequence[str], systems: Sequence[System]) -> list[str]:
    """The measures as the systems spell them, whatever their case is; those that no system has stay as they are."""
    known = _known(systems)
    by_lower = {measure.lower(): measure for measure in known}
    return [measure if measure in known else by_lower.get(measure.lower(), measure) for measure in measures]


def not_compared(systems: Sequence[System]) -> list[str]:
    """Heads and measures that some systems lack: a sentence for each head, or measure of a head."""
    lines = [
        f"{name}: it has no folds, and the models of all folds were judged on it"
        for name in dict.fromkeys(name for system in systems for name in system.left_out)
    ]
    for name in dict.fromkeys(name for system in systems for name in system.heads):
        having = [system for system in systems if name in system.heads]
        lacking = [system for system in systems if name not in system.heads]
        if lacking and len(having) == 1:
            lines.append(f"{name}: only {having[0].name} has this head")
        elif lacking:
            verb = "lacks" if len(lacking) == 1 else "lack"
            lines.append(f"{name}: {_names(lacking)} {verb} this head ({_names(having)} have it)")
        for measure in dict.fromkeys(measure for system in having for measure in system.heads[name].measures):
            judged = [system for system in having if measure in system.heads[name].measures]
            others = [system for system in having if system not in judged]
            if others and len(judged) == 1:
                lines.append(f"{name}: only {judged[0].name} was judged by {measure}")
            elif others:
                verb = "was" if len(others) == 1 else "were"
                lines.append(f"{name}: {_names(others)} {verb} not judged by {measure} ({_names(judged)} were)")
    return lines


def _known(systems: Sequence[System]) -> list[str]:
    return sorted({measure for system in systems for head in system.heads.values() for measure in head.measures})


def _not_shared(measure: str, known: Sequence[str]) -> str:
    """There may be another way to spell it, or other runs may be judged by it."""
    way = (
        f" For others, judge each run with `mtlrank evaluate` and 'measures=[\"{measure}\"]', and compare their "
        "evaluation-test folders."
    )
    hint = way if exists(measure) else nearest(measure, known)
    return f"No two systems share a head with the measure {measure!r}. There are {', '.join(known)}.{hint}"


def _names(systems: Sequence[System]) -> str:
    return listed([system.name for system in systems], _MANY)


def _compare(
    baseline: System, system: System, name: str, measure: str, margin: float, resamples: int, seed: int
) -> Comparison:
    theirs, ours = baseline.heads[name], system.heads[name]
    pair = pair_heads(theirs, ours, measure)
    num_units = theirs.num_units
    values = pair.statistic(np.ones((num_units, 1)))[:, 0]
    before, after = (float(part.mean()) for part in (values[: baseline.num_runs], values[baseline.num_runs :]))
    is_mean = pair.contributions is not None
    interval = confidence_interval(
        pair.statistic, num_units, baseline.num_runs, resamples, seed, level=1 - LEVEL, is_mean=is_mean
    )
    low, high = interval or (None, None)
    p = randomisation_test(pair.swapped, num_units, resamples, seed)
    p_t = p_tost = None
    if pair.contributions:
        p_t, p_tost = t_test(*pair.contributions), tost(*pair.contributions, margin)
    found = Comparison(
        head=name,
        measure=measure,
        baseline=baseline.name,
        system=system.name,
        baseline_value=before,
        system_value=after,
        difference=after - before,
        low=low,
        high=high,
        p_t=p_t,
        p_randomisation=p,
        p_holm=p,
        p_tost=p_tost,
        equivalent=None,
        verdict="",
        margin=margin,
        units=theirs.name_of_units,
        num_units=num_units,
        baseline_runs=baseline.num_runs,
        system_runs=system.num_runs,
        resamples=resamples,
        note="",
        per_query=_per_query(theirs, ours, measure) if theirs.kind == "ranking" else {},
        folds=max(theirs.num_folds, ours.num_folds),
    )
    return found._replace(note=_why_untested(found, is_mean=is_mean))


def _per_query(baseline: HeadResults, system: HeadResults, measure: str) -> dict[str, float]:
    differences = system.values[measure].mean(0) - baseline.values[measure].mean(0)
    return {query_id: float(value) for (query_id,), value in zip(baseline.items, differences, strict=True)}


def _why_untested(row: Comparison, *, is_mean: bool) -> str:
    """Why a value is missing; empty if none is."""
    if row.low is None:
        few = "one example" if row.num_units == 1 else f"{row.num_units} examples"
        return f"{row.head} has only {few}: no interval, no t-tests."
    if not is_mean:
        return f"{row.measure} is not a mean over examples: no t-tests, so no statement on equivalence."
    where = f"on all {row.units} in {_runs(row)}"
    if row.p_t is None:
        return f"{row.measure} of {row.head} differs by the same amount {where}: no t-tests."
    if row.p_tost is None:
        return f"{row.measure} of {row.head} is the same {where}, but these are too few to show equivalence."
    return ""


def _runs(row: Comparison) -> str:
    return f"these runs of {row.system} and {row.baseline}"


def _note(row: Comparison) -> str:
    """Why a value is missing, or how a verdict could be misread."""
    if row.note:
        return row.note
    runs = _runs(row)
    of_trained = [row.system_runs] + [row.baseline_runs] * (row.baseline != FIRST_STAGE)
    interval = "the interval, which covers seeds," if min(of_trained) > 1 else "the interval"
    if row.verdict == "not decided" and row.p_holm < LEVEL:
        return f"{row.measure} of {row.head} differs in {runs}, but {interval} includes 0."
    if row.verdict == "not decided" and row.equivalent:
        return f"{row.measure} of {row.head} is equivalent in {runs}, but {interval} is wider."
    return ""


def _verdict(row: Comparison) -> str:
    low, high = (-float("inf"), float("inf")) if row.low is None or row.high is None else (row.low, row.high)
    if row.p_holm < LEVEL and not low <= 0 <= high:
        return "better" if is_better(row.measure, row.system_value, row.baseline_value) else "worse"
    return "equivalent" if row.equivalent and -row.margin < low and high < row.margin else "not decided"
