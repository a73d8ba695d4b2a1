"""Whether a new model may replace the one in use: on the same topics, it must not be worse by more than a margin."""

from collections.abc import Sequence
from typing import NamedTuple

from mtlrank.comparing.comparison import Comparison, compare_pairs
from mtlrank.comparing.systems import System
from mtlrank.errors import ConfigError
from mtlrank.evaluation.measures import is_lower_better, is_quality
from mtlrank.registry.history import Source
from mtlrank.words import interval


class Decision(NamedTuple):
    """The outcome, its reason in a sentence, and the numbers behind it."""

    promoted: bool
    reason: str
    comparisons: tuple[Comparison, ...] = ()  # of the measures that decide
    model: str = ""  # its name in the registry
    source: Source | None = None  # where it came from


def decide(
    current: System, candidate: System, measures: Sequence[str], margin: float, resamples: int = 10_000
) -> Decision:
    """Compare two models, judged on the same test sets, by `measures` as in trec2019/nDCG@10.

    The candidate passes a measure if the 95 % interval of the paired difference lies above -margin
    (non-inferiority, as in Piaggio et al. 2012, CONSORT), and it must pass all; so no correction for their number is
    needed. With a single topic there is no interval, and the difference itself decides. Raises `DataError` if the test
    sets of a head in `measures` differ; those of other heads may.
    """
    wanted = parse_measures(measures, candidate)
    before, after = (_with_heads(system, {head for head, _ in wanted}) for system in (current, candidate))
    rows = {
        (row.head, row.measure): row
        for row in compare_pairs([(before, after, [measure for _, measure in wanted])], margin, resamples)
    }
    new = [f"{head}/{measure}" for head, measure in wanted if (head, measure) not in rows]
    if new:
        raise ConfigError(
            f"The model in use was not judged by {', '.join(new)}. Choose a measure that both models have."
        )
    decisive = tuple(rows[pair] for pair in wanted)
    failed = [row for row in decisive if worst(row) < -margin]
    if failed:
        return Decision(False, f"may be worse by more than {margin:g}: {_in_words(failed[0])}", decisive)
    return Decision(True, f"not worse by more than {margin:g}: {_in_words(decisive[0])}", decisive)


def markdown(decision: Decision, registry: str) -> str:
    """The decision and its numbers for a page that shows Markdown."""
    verdict = "Promoted" if decision.promoted else "Not promoted"
    lines = [f"# {verdict}", "", f"{decision.reason}.", ""]
    if decision.model:
        lines += [f"Model: `{decision.model}`" + (f", from {decision.source}" if decision.source else ""), ""]
    if registry:
        lines += [f"Registry: `{registry}`", ""]
    if decision.comparisons:
        lines += ["| measure | in use | new | difference | 95 % interval | margin |", "|---|---:|---:|---:|---:|---:|"]
    for row in decision.comparisons:
        values = f"{row.baseline_value:.4f} | {row.system_value:.4f} | {row.difference:+.4f}"
        lines.append(f"| {row.head}/{row.measure} | {values} | {interval(row.low, row.high)} | {row.margin:g} |")
    return "\n".join(lines) + "\n"


def worst(row: Comparison) -> float:
    """The end of the interval that is worse for the system, as a gain; the difference itself without an interval."""
    sign = -1 if is_lower_better(row.measure) else 1
    ends = [row.difference] if row.low is None or row.high is None else [row.low, row.high]
    return min(sign * end for end in ends)


def parse_measures(measures: Sequence[str], system: System) -> list[tuple[str, str]]:
    """(head, measure) of each. Raises `ConfigError` for one that the system was not judged by."""
    return [_parse(measure, system) for measure in measures]


def _with_heads(system: System, names: set[str]) -> System:
    return system._replace(heads={name: head for name, head in system.heads.items() if name in names})


def _parse(measure: str, system: System) -> tuple[str, str]:
    head, _, name = measure.partition("/")
    if not is_quality(name):
        raise ConfigError(f"{measure} does not say which model is better: choose another measure.")
    if head not in system.heads or name not in system.heads[head].measures:
        known = [f"{head.name}/{name}" for head in system.heads.values() for name in head.measures]
        raise ConfigError(f"The new model was not judged by {measure!r}. It was judged by {', '.join(known)}.")
    return head, name


def _in_words(row: Comparison) -> str:
    between = interval(row.low, row.high)
    known = f", 95 % interval {between}" if between else ""
    return (
        f"{row.head}/{row.measure} {row.baseline_value:.4f} in use, {row.system_value:.4f} now ({row.difference:+.4f}"
        f"{known}, {row.num_units} {row.units})"
    )
