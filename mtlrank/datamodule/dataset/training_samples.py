"""A ranking's training samples, of labelled documents: from grades, triples, or the scores of a teacher."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from mtlrank.annotate.annotator import Annotator, Pair
from mtlrank.checks import choice
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection, RankedDocs
from mtlrank.datamodule.dataset.document_texts import Labelled, Texts
from mtlrank.datamodule.dataset.negatives import Negatives
from mtlrank.errors import ConfigError, DataError
from mtlrank.own_parts import records_of
from mtlrank.task import Task

QUERIES = 200  # whose documents are in memory at a time
ANNOTATED = 20  # whose documents an annotator scores at a time, which may take a second each


class TrainingQueries(NamedTuple):
    """The queries to learn from, with their candidates."""

    query_ids: Sequence[str]
    ranked: Mapping[str, RankedDocs]
    collection: Collection
    texts: Texts

    def some(self, size: int) -> Iterator[list[str]]:
        """The queries, `size` at a time."""
        for number, query_ids in enumerate(chunks(self.query_ids, size)):
            self.collection.reading.at(number * size, len(self.ranked))
            yield query_ids


def judged(
    queries: TrainingQueries, qrels: Mapping[str, Mapping[str, int]], negatives: Negatives
) -> Iterator[list[Labelled]]:
    """Relevant documents with their negatives, in groups or, `pointwise`, one by one."""
    for query_ids in queries.some(QUERIES):
        looked_at = {q: [d.doc_id for d in queries.ranked[q]][negatives.ranks] for q in query_ids}
        wanted = ((q, d) for q in query_ids for d in {**qrels[q], **dict.fromkeys(looked_at[q])})
        texts = queries.texts.of(queries.collection, wanted)
        for query_id in query_ids:
            grades = {d: grade for d, grade in qrels[query_id].items() if d in texts}
            others = [d for d in looked_at[query_id] if d in texts]
            groups = list(negatives.groups(query_id, grades, others))
            negatives.count_missing(groups, grades, queries.collection.reading.count)
            for group in groups:
                labelled = [(query_id, d, float(grades.get(d, 0))) for d in group]
                yield from ([d] for d in labelled) if negatives.grouping == "pointwise" else [labelled]


def docpairs(
    name: str, collection: Collection, query_ids: Set[str], labels: tuple[float, float] | None
) -> Iterator[list[Labelled]]:
    """The collection's docpairs with `labels` of the better and the worse document or, without, their own scores."""
    for query_id, better, worse, place, scores in collection.docpairs():
        if better == worse:
            collection.reading.reject(place, f"expected two documents, found {better!r} twice")
        elif query_id in query_ids:
            if not labels and not scores:
                raise DataError(
                    f"{name}: the docpairs of {collection.source.name} have no scores for a distillation. Give a TSV of "
                    "better score, worse score, query id, better and worse document, or another task."
                )
            first, second = labels or scores
            yield [(query_id, better, first), (query_id, worse, second)]


def taught(
    queries: TrainingQueries, negatives: Negatives, groups_per_query: int, annotator: Annotator | None
) -> Iterator[list[Labelled]]:
    """Groups of candidates with the labels of an annotator or, without one, their scores in the run."""
    collection, ranked = queries.collection, queries.ranked
    for query_ids in queries.some(QUERIES if annotator is None else ANNOTATED):
        looked_at = {query_id: list(ranked[query_id])[negatives.ranks] for query_id in query_ids}
        scores = {(query_id, d.doc_id): d.score for query_id in query_ids for d in looked_at[query_id]}
        texts = queries.texts.of(collection, scores)
        groups = [
            [(query_id, doc_id) for doc_id in group]
            for query_id in query_ids
            for group in negatives.samples(
                query_id, [d.doc_id for d in looked_at[query_id] if d.doc_id in texts], groups_per_query
            )
        ]
        if annotator is not None:
            asked = dict.fromkeys(pair for group in groups for pair in group)
            pairs = [Pair(q, d, collection.queries[q], texts[d]) for q, d in asked]
            records = records_of(annotator, pairs, collection.docs)
            scores = {(record.query_id, record.doc_id): float(record.label) for record in records}
        yield from ([(q, d, scores[q, d]) for q, d in group if (q, d) in scores] for group in groups)


def check(
    name: str,
    task: Task,
    learn_from: str,
    annotator: Annotator | None,
    negatives_run: str | None,
    max_queries: int | None,
) -> None:
    """Refuse settings of the dataset `name` that do not go together. A task learns either grades or a teacher's scores."""
    fits = {
        "judged": task.kind != "regression" and not task.distils,
        "docpairs": task.kind == "ranking",
        "run": task.kind == "regression" or task.distils,
        "annotator": task.distils,
    }
    choice(fits).check("learn_from", learn_from)
    if negatives_run is not None and learn_from not in ("judged", "annotator"):
        raise ConfigError(
            f"Dataset {name!r}: negatives_run is for learn_from=judged or annotator, but learn_from is {learn_from}, "
            "which has its own documents."
        )
    if not fits[learn_from]:
        raise ConfigError(
            f"Dataset {name!r}: learn_from={learn_from} does not fit a {type(task).__name__} task. Expected "
            "task=regression or task=distillation_* for learn_from=run, task=distillation_* for "
            "learn_from=annotator or docpairs with scores, and another ranking task otherwise."
        )
    if (learn_from == "annotator") != (annotator is not None):
        raise ConfigError(
            f"Dataset {name!r}: learn_from=annotator and annotator belong together, found learn_from="
            f"{learn_from} {'without' if annotator is None else 'with'} an annotator."
        )
    if max_queries is not None and learn_from == "docpairs":
        raise ConfigError(
            f"Dataset {name!r}: max_queries is not for learn_from=docpairs. Give a file of fewer docpairs."
        )
