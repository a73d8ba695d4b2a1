"""What is worth a note when a dataset has been prepared: what was left out, cut or set aside, and what will mislead."""

from collections.abc import Iterator

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.leaks import leaks_within
from mtlrank.datamodule.dataset.merge import LEARNT_TOO
from mtlrank.evaluation.measures import always_zero
from mtlrank.words import counted

_MANY = 0.5  # share of texts that are cut, above which there is a note
_MANY_UNKNOWN = 0.05  # share of tokens, above which there is a note
_FEW = 20  # validation queries, below which there is a warning


def notes(dataset: PreparedDataset) -> Iterator[str]:
    """The notes on a prepared dataset, in one line each."""
    if dropped := sum(split["items_dropped"] for split in dataset.manifest["splits"].values()):
        yield f"{dropped:,} items left out whose spans are cut off or contain no token"
    if leaks := leaks_within(dataset):
        yield f"warning: {leaks}"
    yield from _counts(dataset)
    if bad := dataset.manifest["bad_rows"]:
        yield f"{counted(bad, 'bad row')} set aside in bad_rows.jsonl"
    yield from _cut_texts(dataset)
    yield from _unknown_words(dataset)
    if dataset.is_ranking:
        yield from _judgements(dataset)


def _counts(dataset: PreparedDataset) -> Iterator[str]:
    """What was counted while the source was read, by split: their sum would not do, as splits may share a file."""
    by_split = dataset.manifest["counts"]
    for kind in dict.fromkeys(kind for counts in by_split.values() for kind in counts if kind != LEARNT_TOO):
        times = {split: counts[kind] for split, counts in by_split.items() if counts.get(kind)}
        several = len(times) > 1
        yield f"{kind}: {', '.join(f'{n:,} of {split}' if several else f'{n:,}' for split, n in times.items())}"


def _cut_texts(dataset: PreparedDataset) -> Iterator[str]:
    manifest = dataset.manifest
    splits, most = manifest["splits"], manifest["max_query_length"]
    shares = {name: split["sequences_cut"] / max(split["sequences"], 1) for name, split in splits.items()}
    if cut := ", ".join(f"{share:.0%} of {name}" for name, share in shares.items() if share > _MANY):
        of_query = "" if most is None else f" (preprocessor.max_query_length, {most}, of them for a query)"
        yield (
            f"texts that are cut at {manifest['max_length']} tokens{of_query}: {cut}: raise preprocessor.max_length (or, "
            "for rankings, max_passages), or choose a body whose vocabulary fits them"
        )


def _unknown_words(dataset: PreparedDataset) -> Iterator[str]:
    tokens = dataset.manifest["tokens"]
    if (unknown := tokens["unknown"] / max(tokens["all"], 1)) > _MANY_UNKNOWN:
        yield f"the vocabulary lacks {unknown:.0%} of the tokens: choose a body that knows this language"


def _judgements(dataset: PreparedDataset) -> Iterator[str]:
    """What measures of a ranking cannot tell."""
    judged = {name: dataset.split(name).qrels for name in dataset.splits if name != "train" and dataset.has(name)}
    queries = {qrel.query_id for qrel in judged.get("val", [])}
    if "val" in judged and len(queries) < _FEW:
        yield f"warning: val has only {counted(len(queries), 'query', 'queries')}, so its measures vary much"
    if zero := always_zero(dataset.task.measures, [qrel for qrels in judged.values() for qrel in qrels]):
        yield f"always 0, as no judged document has such a grade: {', '.join(zero)}: choose other measures"
