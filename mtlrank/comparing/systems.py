"""Systems to compare: each is one or more training runs that differ only in their seed and their fold."""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtlrank.about import MODEL, WEIGHTS, is_unfinished
from mtlrank.comparing.folds import join_folds
from mtlrank.dtypes import Floats
from mtlrank.errors import DataError
from mtlrank.evaluation.depths import ByDepth
from mtlrank.evaluation.judged_head import (
    JUDGED_RUN,
    SUMMARY,
    HeadResults,
    evaluation_of,
    head_folders,
    read_head,
    run_of,
)
from mtlrank.storage import MANIFEST, is_complete, listed_files, local_path, read_json
from mtlrank.trec import FIRST_STAGE


class System(NamedTuple):
    """One or more runs under one name."""

    name: str
    folders: tuple[Path, ...]  # the folds of a run follow each other
    heads: dict[str, HeadResults]  # by name
    num_folds: int = 1  # of each run
    left_out: tuple[str, ...] = ()  # heads that have no folds, where others have

    @property
    def num_runs(self) -> int:
        """How many seeds there are."""
        return len(self.folders) // self.num_folds

    @property
    def first_run(self) -> tuple[Path, ...]:
        """The folders of the first seed."""
        return self.folders[: self.num_folds]


def read_system(name: str, folders: Sequence[str | Path]) -> System:
    """Read the judged heads of one system from the folders of its seeds: training runs, or their evaluations.

    The folds of a seed are joined. Raises `DataError` if a run has no judged heads, a file is damaged, a fold is missing,
    or the runs differ in their heads or test sets.
    """
    paths = [local_path(folder) for folder in folders]
    folders, heads, num_folds, left_out = join_folds(name, paths, [_read_heads(path) for path in paths])
    system = as_system(name, folders[::num_folds], heads)
    return system._replace(folders=tuple(folders), num_folds=num_folds, left_out=left_out)


def as_system(name: str, paths: Sequence[Path], judged: Sequence[Sequence[HeadResults]]) -> System:
    """A system from the judged heads of each of its runs. Raises `DataError` if they differ in heads or test sets."""
    runs = [{head.name: head for head in heads} for heads in judged]
    for path, run in zip(paths, runs, strict=True):
        if run.keys() != runs[0].keys():
            raise DataError(
                f"{path} and {paths[0]} cannot be seeds of one system {name!r}: the first has the heads "
                f"{', '.join(sorted(run))}, the second {', '.join(sorted(runs[0]))}. Give them different names, as in "
                f"one={paths[0]} other={path}."
            )
        for head in run.values():
            check_same_test_set(runs[0][head.name], head, str(paths[0]), str(path))
    return System(name, tuple(paths), {head: _joined([run[head] for run in runs]) for head in runs[0]})


def first_stage(system: System) -> System | None:
    """The first stage of a system's rankings as a system of its own; None if no ranking has one."""
    ranked = {name: head for name, head in system.heads.items() if _has_first_stage(head)}
    heads = {name: head._replace(values=head.first_stage, by_depth={}) for name, head in ranked.items()}
    return System(FIRST_STAGE, system.first_run, heads, system.num_folds) if heads else None


def with_first_stage_once(systems: Sequence[System], baselines: Container[str]) -> tuple[list[System], list[str]]:
    """The systems without duplicates of the first stage, and a sentence for each that is left out.

    A run file may hold the ranking that the other systems re-rank. If it is a baseline, the first stage is left out,
    and the file stands for it; else the file is.
    """
    heads, notes = {system.name: dict(system.heads) for system in systems}, []
    for name in dict.fromkeys(name for system in systems for name in system.heads):
        having = [system for system in systems if name in system.heads]
        reranking = [system for system in having if _has_first_stage(system.heads[name])]
        firsts = [system.heads[name].first_stage for system in reranking]
        files = [system for system in having if not system.heads[name].first_stage]
        same = [each.name for each in files if firsts and all(_is_same(each.heads[name].values, v) for v in firsts)]
        standing = next((each for each in same if each in baselines), None)
        if standing is not None:
            for system in reranking:
                heads[system.name][name] = system.heads[name]._replace(first_stage={})
        for each in same:
            if each not in baselines:
                del heads[each][name]
            notes.append(
                f"{each} has the values of the first stage of {name} for all queries: compared once, as "
                f"{each if each in baselines else standing or FIRST_STAGE}."
            )
    return [each._replace(heads=heads[each.name]) for each in systems if heads[each.name]], notes


def _has_first_stage(head: HeadResults) -> bool:
    return bool(head.first_stage) and head.baseline_name == FIRST_STAGE


def _is_same(values: dict[str, Floats], others: dict[str, Floats]) -> bool:
    """Whether the measures that both have are the same on every query."""
    shared = values.keys() & others.keys()
    return bool(shared) and all(np.array_equal(values[measure], others[measure]) for measure in shared)


def check_same_test_set(one: HeadResults, other: HeadResults, whose: str, others: str) -> None:
    """Raise `DataError` if two heads were not judged on the same items with the same labels."""
    for what, left, right in (("kind", one.kind, other.kind), ("split", one.split, other.split)):
        if left != right:
            raise _differing(one.name, f"the {what} is {left} in {whose} and {right} in {others}")
    if one.items != other.items:
        things = "queries" if one.kind == "ranking" else "items"
        alone = [sorted(set(a.items) - set(b.items)) for a, b in ((one, other), (other, one))]
        example = " ".join(next(iter(alone[0] + alone[1]), one.items[0]))
        raise _differing(
            one.name,
            f"{len(one.items)} {things} in {whose}, {len(other.items)} in {others}; {len(alone[0])} and {len(alone[1])} of "
            f"them are not in the other, such as {example!r}",
        )
    if not np.array_equal(one.labels, other.labels):
        place = int(np.flatnonzero(one.labels != other.labels)[0])
        found = f"{one.labels[place]} in {whose} and {other.labels[place]} in {others}"
        raise _differing(one.name, f"the label of {' '.join(one.items[place])!r} is {found}")
    for measure in one.first_stage.keys() & other.first_stage.keys():
        if not np.array_equal(one.first_stage[measure], other.first_stage[measure]):
            raise _differing(
                one.name,
                f"the first stage's {measure} differs between {whose} and {others}, so judgements or candidates differ",
            )


def _differing(head: str, reason: str) -> DataError:
    return DataError(f"The test sets of {head} differ: {reason}. Judge both on the same data (`mtlrank evaluate`).")


def _read_heads(run: Path) -> list[HeadResults]:
    if is_unfinished(run_of(run)) and not (run / JUDGED_RUN).exists():
        raise DataError(
            f"{run_of(run)} is not finished: results there may be those of the run before it. Run its command again, or "
            "leave it out."
        )
    folders = head_folders([evaluation_of(run)])
    if not folders:
        raise DataError(
            f"{run} has no judged heads: expected evaluation/<head>/metrics.json, which `mtlrank train` writes. "
            "Name the folder of a finished run."
        )
    _check_weights(run_of(run) / MODEL, folders)
    return [read_head(folder) for folder in folders]


def _check_weights(model: Path, heads: Iterable[Path]) -> None:
    """Refuse results of other weights than a model has, if it is there: it was trained again after they were judged."""
    if not is_complete(model):
        return
    weights = listed_files((model / MANIFEST).read_bytes(), model).get(WEIGHTS)
    for head in heads:
        if weights and read_json(head / SUMMARY).get("weights") != weights:
            raise DataError(f"{head} was judged with other weights than {model} has. Run `mtlrank evaluate` again.")


def _joined(heads: Sequence[HeadResults]) -> HeadResults:
    """A head with all runs of a system, and with the measures that all of them have."""
    measures = tuple(m for m in heads[0].measures if all(m in head.measures for head in heads))
    return heads[0]._replace(
        measures=measures,
        values={m: np.concatenate([head.values[m] for head in heads]) for m in measures if m in heads[0].values},
        predictions=np.concatenate([head.predictions for head in heads]),
        by_depth=_depths(heads) if all(head.measures[:1] == measures[:1] for head in heads) else {},
    )


def _depths(heads: Sequence[HeadResults]) -> ByDepth:
    """The first measure of all runs at the depths that all of them have."""
    return {
        depth: np.concatenate([head.by_depth[depth] for head in heads])
        for depth in heads[0].by_depth
        if all(depth in head.by_depth for head in heads)
    }
