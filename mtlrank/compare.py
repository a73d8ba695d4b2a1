"""Did it help? Compare trained systems on the same test sets.

mtlrank compare single=runs/a single=runs/b all=runs/c all=runs/d splade=splade.run
"""

if __name__ == "__main__":  # `python -m mtlrank.compare` is `mtlrank compare`
    from mtlrank.entry import start_command

    start_command("compare")

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrank.about import EVALUATION, is_unfinished
from mtlrank.comparing.captions import Table
from mtlrank.comparing.comparison import Comparison, as_spelt, compare_systems, not_compared
from mtlrank.comparing.confounds import confounds
from mtlrank.comparing.depths import write_depths
from mtlrank.comparing.found_runs import find_runs
from mtlrank.comparing.grouping import group_runs, split_run
from mtlrank.comparing.seeds_table import write_seeds
from mtlrank.comparing.systems import System, read_system, with_first_stage_once
from mtlrank.comparing.systems import first_stage as first_stage_of
from mtlrank.comparing.systems_table import columns_of, results_of, write_systems
from mtlrank.comparing.tables import print_comparison, write_comparison
from mtlrank.comparing.trec_runs import judge_files, read_topics
from mtlrank.errors import ConfigError
from mtlrank.evaluation.judged_head import head_folders
from mtlrank.progress import say, warn
from mtlrank.storage import writable_folder
from mtlrank.trec import FIRST_STAGE
from mtlrank.words import counted


def run(
    runs: Sequence[str],
    baselines: Sequence[str] | None = None,
    margin: float = 0.01,
    measures: Sequence[str] | None = None,
    output: Path | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    first_stage: bool = True,
) -> list[Comparison]:
    """Group runs and run files into systems, compare each with baselines and its first stage, and write the table."""
    _check(margin, resamples, seed)
    groups = group_runs(_with_judged_heads(find_runs(runs), runs))
    systems, notes = _read(groups)
    measures = as_spelt(measures or (), systems)
    chosen = list(dict.fromkeys(_baseline(systems, wanted) for wanted in baselines or ()))
    by_itself = FIRST_STAGE in chosen and all(system.name != FIRST_STAGE for system in systems)
    if by_itself and not first_stage:
        raise ConfigError(
            f"--baseline is {FIRST_STAGE!r}, which --no-first-stage leaves out. Leave out one of the two."
        )
    folder = None if output is None else writable_folder(output)
    _say(systems)
    compared = systems
    if first_stage:
        compared, remarks = with_first_stage_once(systems, chosen or [systems[0].name])
        notes += remarks
    by_name = {system.name: system for system in compared}
    comparisons = compare_systems(
        compared,
        [by_name[name] for name in chosen if name in by_name] if chosen else None,
        measures,
        margin,
        resamples,
        seed,
        first_stage,
    )
    table = Table(comparisons, not_compared(systems), [*confounds(groups), *notes])
    print_comparison(table)
    if folder is not None:
        _write(folder, table, compared, measures)
        print(f"results: {folder}")
    return comparisons


def _say(systems: Sequence[System]) -> None:
    """Tell how many runs of which heads each system has."""
    for system in systems:
        folds = f" of {system.num_folds} folds" if system.num_folds > 1 else ""
        say(f"{system.name}: {counted(system.num_runs, 'run')}{folds}; heads: {', '.join(system.heads)}")


def _write(folder: Path, table: Table, systems: Sequence[System], measures: Sequence[str]) -> None:
    """Write the comparison, the systems' own results, those of each seed, and those by the number of candidates."""
    label, columns = folder.resolve().name, columns_of(systems, measures)
    write_comparison(folder, table, label)
    write_systems(folder, results_of(systems, table.rows, columns), label)
    write_seeds(folder, systems, columns)
    write_depths(folder, systems)


def _read(groups: Mapping[str, Sequence[Path]]) -> tuple[list[System], list[str]]:
    """The systems in order, and remarks about them. Run files are judged as the other systems were."""
    read = {name: read_system(name, paths) for name, paths in groups.items() if paths[0].is_dir()}
    files = {name: paths for name, paths in groups.items() if name not in read}
    topics = read_topics(read.values()) if files else []
    notes = [
        f"{name}: {head.name} has the queries of fold {head.fold.fold} of {head.fold.of} only."
        for name, system in read.items()
        for head in system.heads.values()
        if head.fold
    ]
    for name, paths in files.items():
        read[name], remarks = judge_files(name, paths, topics)
        notes += remarks
    return [read[name] for name in groups], notes


def _with_judged_heads(runs: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The finished runs that have judged heads, if there are two: `runs/*` may name others, too.

    A run that was typed with the name of a system is meant, and stays.
    """
    named = {run for run in typed if split_run(run)[0] is not None}
    folders = {run: split_run(run)[1] for run in runs if run not in named}
    without = [
        run
        for run, at in folders.items()
        if at.is_dir() and (is_unfinished(at) or not head_folders([at, at / EVALUATION]))
    ]
    kept = [run for run in runs if run not in without]
    if len(kept) < 2:
        return list(runs)
    if without:
        warn(f"left out, as they are not finished or have no judged heads: {', '.join(without)}")
    return kept


def _baseline(systems: Sequence[System], wanted: str) -> str:
    """The name of what others are compared with: a system, given by its name or one of its folders, or the first stage."""
    known = {str(folder.resolve()): system for system in systems for folder in system.folders}
    known |= {_of_study(system.name): system for system in systems}
    known |= {system.name: system for system in systems}
    found = known.get(wanted) or known.get(str(Path(wanted).resolve()))
    if found is not None:
        return found.name
    names = [system.name for system in systems]
    names += [FIRST_STAGE] if any(first_stage_of(system) for system in systems) else []
    if wanted not in names:
        names_shown = ", ".join(map(repr, names))
        raise ConfigError(
            f"--baseline is {wanted!r}: expected the name of a system or one of its folders: {names_shown}."
        )
    return wanted


def _of_study(name: str) -> str:
    """How a study's own tables call a system of some tasks: a+b for tasks=a,b."""
    return name.removeprefix("tasks=").replace(",", "+")


def _check(margin: float, resamples: int, seed: int) -> None:
    if not (margin > 0 and math.isfinite(margin)):
        raise ConfigError(f"--margin is {margin}, expected a number above 0 in the measures' own unit.")
    if not 100 <= resamples <= 10_000_000:
        raise ConfigError(f"--resamples is {resamples}, expected a whole number from 100 to 10,000,000.")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}, expected a whole number, at least 0.")
