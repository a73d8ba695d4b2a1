"""Cross-validation: training runs that differ only in their fold are joined to one run, judged on all queries."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtlrank.comparing.grouping import identity_if_kept, identity_of, without_fold
from mtlrank.errors import DataError
from mtlrank.evaluation.depths import depths_in, joined
from mtlrank.evaluation.judged_head import JUDGED_RUN, SUMMARY, HeadResults, evaluation_of, head_folders
from mtlrank.storage import read_json, writable_folder, write_json, write_text

_TABLES = ("run.trec", "qrels.txt", "queries.tsv")  # of a judged head, without a header
_OF_A_FOLD = ("fold", "weights", "note")  # fields of metrics.json that belong to one model


class JoinedRuns(NamedTuple):
    """The runs of a system. Without a cross-validation, these are the given ones."""

    folders: list[Path]  # those of one run follow each other
    heads: list[list[HeadResults]]  # of each run
    num_folds: int = 1
    left_out: tuple[str, ...] = ()  # heads without folds, on which the models of all folds were judged


def join_folds(name: str, folders: Sequence[Path], judged: Sequence[Sequence[HeadResults]]) -> JoinedRuns:
    """Join the runs of a system that differ only in their fold. A single fold stays a run by itself.

    Raises `DataError` if a run lacks a fold, has one twice, or a query is in two.
    """
    runs: dict[str, list[tuple[Path, Sequence[HeadResults]]]] = {}
    for folder, heads in zip(folders, judged, strict=True):
        runs.setdefault(_key_of_run(folder, heads), []).append((folder, heads))
    if all(len(parts) == 1 for parts in runs.values()):
        return JoinedRuns(list(folders), [list(heads) for heads in judged])
    joined = [_join_run(name, parts) for parts in runs.values()]
    sizes = {len(parts) for parts in runs.values()}
    if len(sizes) > 1:
        raise DataError(
            f"{name}: its runs have {' and '.join(map(str, sorted(sizes)))} folds, expected the same number. A study's "
            "folder `all-folds` joins its folds: name either that folder or the folds."
        )
    ordered = [folder for parts in runs.values() for folder, _ in parts]
    names = dict.fromkeys(head.name for heads in judged for head in heads)
    left_out = [head for head in names if head not in {each.name for heads in joined for each in heads}]
    return JoinedRuns(ordered, joined, sizes.pop(), tuple(left_out))


def write_joined(output: Path, runs: Sequence[Path]) -> None:
    """Write a folder for each head of a cross-validation, as if one model had been judged on the queries of all `runs`.

    Its run.trec has all queries, each ranked by the model that has not seen it.
    """
    folders = [{folder.name: folder for folder in head_folders([evaluation_of(run)])} for run in runs]
    for name, folder in folders[0].items():
        if "fold" in read_json(folder / SUMMARY):
            _write_head(writable_folder(output / name), [each[name] for each in folders])
    write_json(output / JUDGED_RUN, without_fold(identity_of(runs[0])))


def _write_head(output: Path, parts: Sequence[Path]) -> None:
    from mtlrank.evaluation.results import write_summary  # here, as it imports torch

    (output / SUMMARY).unlink(missing_ok=True)
    for table in _TABLES:
        write_text(output / table, "".join(_text(part / table) for part in parts))
    header = _text(parts[0] / "per_query.tsv").partition("\n")[0]
    rows = [_text(part / "per_query.tsv").partition("\n")[2] for part in parts]
    write_text(output / "per_query.tsv", f"{header}\n{''.join(rows)}")
    summaries = [read_json(part / SUMMARY) for part in parts]
    queries = [summary["num_queries"] for summary in summaries]
    means = {
        key: {m: float(np.average([each[key][m] for each in summaries], weights=queries)) for m in summaries[0][key]}
        for key in ("values", "baseline")
    }
    sums = {key: sum(summary[key] for summary in summaries) for key in ("num_samples", "num_queries")}
    most = {"max_candidates": max(summary["max_candidates"] for summary in summaries)}
    depths = joined([depths_in(summary) for summary in summaries], queries)
    by_depth = {"by_depth": {depth: float(values[0]) for depth, values in depths.items()}}
    same = {key: value for key, value in summaries[0].items() if key not in _OF_A_FOLD}
    write_summary(output, {**same, **means, **sums, **most, **by_depth, "num_folds": len(parts)})


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:  # a carriage return is no line end here
        return file.read()


def _key_of_run(folder: Path, heads: Sequence[HeadResults]) -> str:
    """A key that only the folds of one run share: their settings with the seed, without the fold. Else the folder."""
    has_folds = any(head.fold for head in heads)
    identity = identity_if_kept(folder)
    if identity is None:
        return "" if has_folds else str(folder)
    shared = without_fold(identity)
    return json.dumps(shared, sort_keys=True) if has_folds or shared != identity else str(folder)


def _join_run(name: str, parts: Sequence[tuple[Path, Sequence[HeadResults]]]) -> list[HeadResults]:
    """The heads of a cross-validation on all queries."""
    first, of_first = parts[0]
    by_name = [{head.name: head for head in heads if head.fold} for _, heads in parts]
    for (folder, _), heads in zip(parts, by_name, strict=True):
        if heads.keys() != by_name[0].keys():
            raise DataError(
                f"{folder} and {first} cannot be folds of one run of {name!r}: their heads with folds are "
                f"{', '.join(sorted(heads))} and {', '.join(sorted(by_name[0]))}."
            )
    if not by_name[0] and len(parts) > 1:
        raise DataError(
            f"{name}: {first} and its other folds were judged on the same test sets "
            f"({', '.join(head.name for head in of_first)}), so they cannot count as seeds. Compare the models of one "
            "fold."
        )
    return [
        _join_head(name, [folder for folder, _ in parts], [heads[head] for heads in by_name]) for head in by_name[0]
    ]


def _join_head(name: str, folders: Sequence[Path], heads: Sequence[HeadResults]) -> HeadResults:
    """A head on the queries of all folds, in the order of `read_head`."""
    numbers = [head.fold.fold for head in heads if head.fold]
    wanted = {head.fold.of for head in heads if head.fold}
    if len(wanted) > 1 or sorted(numbers) != list(range(min(wanted))):
        missing = ", ".join(map(str, sorted(set(range(max(wanted))).difference(numbers))))
        found = f"{', '.join(map(str, sorted(numbers)))} of {' and '.join(map(str, sorted(wanted)))}"
        whose = f"{folders[0]} and its other folds" if len(folders) > 1 else folders[0]
        way = f"Train the missing {missing}, or leave" if missing else "Leave"
        raise DataError(
            f"{name}: expected each fold of {heads[0].name} once, found {found} in {whose}. {way} these runs out."
        )
    items = [item for head in heads for item in head.items]
    if len(set(items)) < len(items):
        twice = next(" ".join(item) for item in items if items.count(item) > 1)
        raise DataError(
            f"{name}: query {twice!r} is in two folds of {heads[0].name}, expected one: {folders[0]} and others."
        )
    order = sorted(range(len(items)), key=items.__getitem__)
    measures = tuple(m for m in heads[0].measures if all(m in head.measures for head in heads))

    has_depths = all(head.measures[:1] == measures[:1] for head in heads)  # they are of the first measure

    def all_of(key: str) -> dict[str, np.ndarray]:
        tables = [getattr(head, key) for head in heads]
        return {m: np.concatenate([table[m] for table in tables], axis=1)[:, order] for m in measures if m in tables[0]}

    return heads[0]._replace(
        measures=measures,
        items=tuple(items[i] for i in order),
        units=np.arange(len(items)),
        values=all_of("values"),
        first_stage=all_of("first_stage"),
        by_depth=joined([h.by_depth for h in heads], [len(h.items) for h in heads]) if has_depths else {},
        fold=None,
        num_folds=len(heads),
    )
