"""Training queries and passages that other splits contain too: a model may just remember them there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations

from mtlrank.checks import choice
from mtlrank.datamodule.dataset.held_out import drawn
from mtlrank.datamodule.dataset.merge import LEARNT_TOO
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.lines import CONTROL
from mtlrank.datamodule.reading import Reading
from mtlrank.datamodule.short_hash import short_hash
from mtlrank.errors import DataError


class LeakedQueries:
    """Training queries whose text another split asks too: an error (`stop`), or left out of training (`drop`)."""

    def __init__(self, dataset: str, action: str) -> None:
        self.dataset = dataset
        self.action = choice(("stop", "drop")).check("leaked_queries", action)

    def without(self, queries: Mapping[str, str], elsewhere: Iterable[str], reading: Reading) -> list[str]:
        """The ids of `queries` that are not asked elsewhere. The others are an error, or counted."""
        kept = dict.fromkeys(_not_asked(queries, elsewhere))
        leaked = [query_id for query_id in queries if query_id not in kept]
        if leaked and self.action == "stop":
            raise DataError(
                f"{self.dataset}: {len(leaked)} training queries are also asked in another split, the first is "
                f"{leaked[0]!r} ({queries[leaked[0]]!r}). `leaked_queries: drop` in its YAML leaves them out of training."
            )
        reading.count("queries of another split", len(leaked))
        return list(kept)


def not_drawn(queries: Mapping[str, str], elsewhere: Iterable[str], most: int | None, seed: int) -> set[str]:
    """Of the `queries` that are not asked `elsewhere`: the ids of all but `most`, which are drawn by `seed`."""
    if most is None:
        return set()
    usable = _not_asked(queries, elsewhere)
    return set(usable).difference(drawn(usable, most, seed))


def _not_asked(queries: Mapping[str, str], elsewhere: Iterable[str]) -> list[str]:
    """The ids of `queries` whose text is not among those `elsewhere`."""
    asked = {normal(query) for query in elsewhere}
    return [query_id for query_id, query in queries.items() if normal(query) not in asked]


def leaks_between(datasets: Sequence[PreparedDataset]) -> Iterator[str]:
    """A sentence for each dataset that learns from queries (as the tokenizer reads them) on which a ranking is judged, or
    from texts on which another dataset with labels of the same kind is.
    """
    yield from _queries_learnt(datasets)
    yield from _texts_learnt([dataset for dataset in datasets if not dataset.is_ranking])


def _texts_learnt(datasets: Sequence[PreparedDataset]) -> Iterator[str]:
    labels = {each.name: (each.task.kind, each.task.num_spans) for each in datasets}
    alike = [(a, b) for a, b in permutations(datasets, 2) if labels[a.name] == labels[b.name] and b.has("train")]
    learning = {other.name: other for _, other in alike}
    any_order = not all(each.split("train").has_roles for each in learning.values())
    learnt = {n: frozenset(each.split("train").digests(any_order=any_order)) for n, each in learning.items()}
    for judged, other in alike:
        for split in judged.sets("val") + judged.sets("test"):
            asked = list(judged.split(split).digests(any_order=any_order))
            if shared := sum(text in learnt[other.name] for text in asked):
                yield (
                    f"{other.name} learns from {shared:,} of the {len(asked):,} texts that {judged.name} is judged on "
                    f"({split}), which may be known by heart. Give one of them other texts."
                )


def _queries_learnt(datasets: Sequence[PreparedDataset]) -> Iterator[str]:
    longest = _longest(datasets)
    learnt = {dataset.name: dataset.split("train").queries(longest) for dataset in datasets if dataset.has("train")}
    for judged in datasets:
        for split in judged.sets("val") + judged.sets("test") if judged.is_ranking else ():
            asked = judged.split(split).queries(longest)
            for name, queries in learnt.items():
                if shared := len(asked & queries):
                    yield (
                        f"{name} learns from {shared:,} of the {len(asked):,} queries that {judged.name} is judged on "
                        f"({split}): its measures do not hold for new queries. Give one of them other queries."
                    )


def leave_out_leaks(datasets: Sequence[PreparedDataset]) -> Iterator[str]:
    """Keep queries of a cross-validation that validate or test out of what other datasets learn from; a sentence for each.

    Folds divide the queries of a collection; another dataset of the same collection still has all of them.
    """
    longest = _longest(datasets)
    for judged in datasets:
        if "folds" not in judged.manifest["source"]:
            continue
        asked = set[bytes]()
        for split in ("val", "test"):
            asked |= judged.split(split).queries(longest) if judged.has(split) else set()
        for dataset in datasets:
            if dataset is judged or not dataset.has("train") or not (number := dataset.leave_out(asked, longest)):
                continue
            if not dataset.has("train"):
                raise DataError(
                    f"{dataset.name} learns only from queries that {judged.name} is judged on. Give it others."
                )
            yield (
                f"{dataset.name} learns without the {number:,} samples whose query is in the fold of {judged.name} that "
                "validates or tests"
            )


def _longest(datasets: Sequence[PreparedDataset]) -> int:
    """How many tokens of a text all datasets keep."""
    splits = (dataset.split(name) for dataset in datasets for name in dataset.splits if dataset.has(name))
    return min(split.longest_text for split in splits)


def leaks_within(dataset: PreparedDataset) -> str:
    """Says how many texts (both of a pair) of other splits a dataset also learns from; empty if there are none."""
    shared = {split: found[LEARNT_TOO] for split, found in dataset.manifest["counts"].items() if LEARNT_TOO in found}
    totals = {split: dataset.manifest["splits"][split]["sequences"] for split in shared}
    found = ", ".join(f"{count:,} of {totals[split]:,} in {split}" for split, count in shared.items())
    return f"texts that are in train too, and may be known by heart: {found}" if found else ""


def normal(query: str) -> str:
    """The query without differences of case and blanks, to compare queries."""
    return " ".join(CONTROL.sub(" ", query).casefold().split())


def hash_of_words(text: str) -> bytes:
    """A short hash that is equal for passages that `normal` makes equal."""
    return short_hash(normal(text))
