"""Cross-validation over queries: each fold is the test once, the one before it validates, the others are learnt from."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlrank.datamodule.dataset.held_out import Division, hashed_fraction
from mtlrank.datamodule.lines import read_lines
from mtlrank.datamodule.named_files import describe_file, locate
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Task

_LEAST = 3  # one to test, one to validate, one to learn from
_NUMBER = re.compile(r"[0-9]{1,9}")


class Folds(Division):
    """The splits when fold `fold` of `folds` is the test.

    The fold before it (before the first: the last) validates, as with Robust04 in OpenNIR (MacAvaney 2020, WSDM).
    `folds` is their number, or a file (see `read_folds`). Folds of a number have the same size, give or take one query:
    `judged`, the queries that can be tested, are ordered by a hash and dealt out. Other queries are only learnt from.
    """

    shares = ("val", "test")  # the splits that are held out

    def __init__(self, name: str, folds: Any, fold: Any, seed: int, judged: Callable[[], Iterable[str]]) -> None:
        self.name = name
        self.folds = folds
        self.seed = seed
        self._judged = judged
        if type(folds) is not str:
            check_number(name, folds)
        if type(fold) is not int or fold < 0 or (type(folds) is int and fold >= folds):
            numbers = f"0 to {folds - 1}" if type(folds) is int else "a number from 0"
            raise ConfigError(
                f"Dataset {name!r}: fold is {fold!r}, expected {numbers}: the fold that is the test. `mtlrank study` "
                "trains one model for each, of two tasks or more. For this one alone, `mtlrank train -m ... "
                f"++datamodule.dataset.fold=0,1,2` does (in a mixture, ++datamodule.dataset.datasets.{name}.fold), with "
                "each fold named, and `mtlrank compare` joins the runs."
            )
        self.fold = fold

    def __contains__(self, split: str) -> bool:
        return split in ("train", *self.shares)

    def split_of(self, name: str) -> str:
        parts = {self.fold: "test", (self.fold - 1) % self.number: "val"}
        return parts.get(self._fold_of.get(name, -1), "train")

    def check_file(self) -> None:
        """Raise an error if the file of folds is missing or cannot be read."""
        number_of_folds(self.name, self.folds)

    @cached_property
    def number(self) -> int:
        """How many folds there are."""
        return max(self._fold_of.values()) + 1

    def describe(self) -> dict[str, Any]:
        """For the manifest: which fold this is, of how many, and the file that says so."""
        file = {}
        if isinstance(self.folds, str):
            file = describe_file(self.folds, locate(self.folds, "folds"))
        return {"fold": self.fold, "of": self.number, **file}

    @cached_property
    def _fold_of(self) -> dict[str, int]:
        """The fold of each judged query."""
        judged = list(self._judged())
        if isinstance(self.folds, int):
            if len(judged) < self.folds:
                raise DataError(f"{self.name}: folds is {self.folds}, but only {len(judged)} queries are judged.")
            judged.sort(key=lambda query_id: hashed_fraction(f"fold {self.seed} {query_id}"))
            return {query_id: place % self.folds for place, query_id in enumerate(judged)}
        given = read_folds(self.folds)
        check_number(self.name, number := len(set(given.values())), self.folds)
        if self.fold >= number:
            raise ConfigError(
                f"Dataset {self.name!r}: fold is {self.fold}, but the last one of {self.folds} is {number - 1}."
            )
        if missing := [query_id for query_id in judged if query_id not in given]:
            raise DataError(
                f"{self.name}: {len(missing)} judged queries are in no fold of {self.folds}, such as {missing[0]!r}. "
                "Expected each in one."
            )
        found = {query_id: given[query_id] for query_id in judged}
        if empty := set(range(number)).difference(found.values()):
            raise DataError(f"{self.name}: fold {min(empty)} of {self.folds} has no judged query of the collection.")
        return found


def check_divisible(name: str, task: Task, sources: Mapping[str, Any], train_level: int | None) -> None:
    """Refuse folds of a dataset that is no ranking, lacks `train`, has other splits, or grades training differently."""
    given = [split for split in Folds.shares if sources[split] is not None]
    if given or sources["train"] is None or task.kind == "regression":
        reason = "expected a ranking" if task.kind == "regression" else "expected a source for train"
        if given:
            found = " and ".join(f"{split}={sources[split]!r}" for split in given)
            reason = f"found {found} too. Set {' and '.join(f'{split}=null' for split in given)}: folds make them"
        raise ConfigError(f"Dataset {name!r}: folds divide the queries of train, {reason}.")
    if train_level not in (None, task.level):
        raise ConfigError(
            f"Dataset {name!r}: train_relevance_level is {train_level}, for training judgements of another scale than the "
            "others', but folds are judged on train's own. Set train_relevance_level=null."
        )


def number_of_folds(name: str, folds: Any) -> int:
    """How many folds a dataset's setting asks for."""
    if isinstance(folds, str):
        return check_number(name, len(set(read_folds(folds).values())), folds)
    return check_number(name, folds)


def check_number(name: str, number: Any, file: str = "") -> int:
    """Check a number of folds, and return it."""
    if type(number) is not int or number < _LEAST:
        found = f"the file {file} has {number} folds" if file else f"folds is {number!r}"
        raise ConfigError(
            f"Dataset {name!r}: {found}, expected {'' if file else 'a file, or '}at least {_LEAST}: one to test, one to "
            "validate, the others to learn from."
        )
    return number


def read_folds(name: str) -> dict[str, int]:
    """The fold of each query in a file: lines of query_id<TAB>fold, with folds counted from 0 or 1, or a JSON list of a
    list of query ids per fold, as published with Anserini for Robust04.

    Folds are numbered from 0 in the order of their numbers or lists.
    """
    path = locate(name, "folds")
    rows = list(_json_rows(path) if path.suffix == ".json" else _tsv_rows(path))
    numbers = sorted({fold for _, fold, _ in rows})
    if numbers != list(range(first := numbers[0] if numbers else 0, first + len(numbers))) or first not in (0, 1):
        raise DataError(f"{path} has the folds {', '.join(map(str, numbers))}: expected all numbers from 0 or 1 on.")
    found = dict[str, int]()
    for query_id, fold, place in rows:
        if found.setdefault(query_id, fold - first) != fold - first:
            raise DataError(f"{place}: query {query_id!r} is in two folds, expected one.")
    return found


def _tsv_rows(path: Path) -> Iterable[tuple[str, int, str]]:
    for place, text in read_lines(path, Reading(hint=False)):
        query_id, tab, fold = text.partition("\t")
        if not tab or not query_id.strip() or not _NUMBER.fullmatch(fold.strip()):
            raise DataError(f"{place}: expected query_id<TAB>number of its fold, found {text[:80]!r}.")
        yield query_id.strip(), int(fold), place


def _json_rows(path: Path) -> Iterable[tuple[str, int, str]]:
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(folds, list) or not all(isinstance(ids, list) and ids for ids in folds):
        raise DataError(f"{path}: expected a JSON list with a list of query ids for each fold.")
    for fold, ids in enumerate(folds):
        yield from ((str(query_id), fold, str(path)) for query_id in ids)
