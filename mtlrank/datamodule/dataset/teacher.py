"""What a ranking learns from: grades, or the scores of a teacher."""

from collections.abc import Iterable, Mapping

from mtlrank.annotate.annotator import Annotator, Pair
from mtlrank.datamodule.collection import Collection
from mtlrank.errors import ConfigError
from mtlrank.returned import records_of
from mtlrank.task import Task


def check_teacher(name: str, task: Task, learn_from: str, annotator: Annotator | None) -> None:
    """Refuse to learn from what the task of a dataset cannot: it learns grades, or a teacher's scores."""
    fits = {
        "judged": task.kind != "regression" and not task.distils,
        "docpairs": task.kind != "regression",
        "run": task.kind == "regression" or task.distils,
        "annotator": task.distils,
    }
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


def labels_of(
    annotator: Annotator, collection: Collection, wanted: Iterable[tuple[str, str]], texts: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    """The annotator's labels of (query_id, doc_id) pairs."""
    pairs = [Pair(q, d, collection.queries[q], texts[d]) for q, d in wanted]
    records = records_of(annotator, pairs, collection.docs)
    return {(record.query_id, record.doc_id): float(record.label) for record in records}
