"""Writing the folder of a judged head: metrics.json, the results by query or item, and a page."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mtlrank.backbone import load_tokenizer
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.folds import Folds
from mtlrank.evaluation.depths import by_depth
from mtlrank.evaluation.judged_head import PER_QUERY, PREDICTIONS, SUMMARY, Fold, head_name, head_of
from mtlrank.evaluation.measures import implicit_level, ties, with_level
from mtlrank.evaluation.predictions import HeadMeasures, Predictions
from mtlrank.evaluation.section import find_intervals, section_of
from mtlrank.pages import render
from mtlrank.progress import warn
from mtlrank.storage import write_json, write_text
from mtlrank.trec import write_run


def write_head(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, measured: HeadMeasures, weights: str
) -> None:
    """Write the folder of a judged head; metrics.json comes last, so that a folder with it is complete.

    `weights` is the hash of the model's weights, which identifies the judged model.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    summary: dict[str, Any] = {
        "name": dataset.name,
        "kind": dataset.task.kind,
        "split": predictions.split_name,
        "relevance_level": dataset.task.relevance_level,
        "primary": dataset.task.measures[0],
        "values": measured.values,
        "baseline_name": measured.baseline_name,
        "baseline": measured.baseline,
        "num_samples": predictions.num_samples,
        "weights": weights,
    }
    summary |= (_write_ranking if dataset.is_ranking else _write_labels)(folder, dataset, predictions, measured)
    write_summary(folder, summary)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the page of a judged head, whose other files exist, and metrics.json with intervals."""
    summary["intervals"] = find_intervals(head_of(folder, summary))
    write_text(folder / "index.html", render("head.html.j2", head=summary, section=section_of(folder, summary)))
    write_json(folder / SUMMARY, summary)


def _write_ranking(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, measured: HeadMeasures
) -> dict[str, Any]:
    """Write the ranking and each query's results; returns the fields of metrics.json that only rankings have."""
    write_run(folder / "run.trec", measured.run, tag=f"mtlrank-{dataset.name}")
    qrels = "".join(path.read_text(encoding="utf-8") for path in predictions.split.files("qrels.txt"))
    write_text(folder / "qrels.txt", qrels)  # for judging other systems' runs
    write_text(folder / "per_query.tsv", _per_query(measured))
    write_text(folder / "queries.tsv", _queries(predictions))
    fields: dict[str, Any] = {
        "num_queries": len(next(iter(measured.per_query.values()))),
        "max_candidates": max(Counter(doc.query_id for doc in measured.run).values()),
        "by_depth": by_depth(
            dataset.task.measures[0], predictions.split.qrels, measured.run, predictions.split.first_stage()
        ),
    }
    folds = dataset.manifest["source"].get("folds")
    if folds and predictions.split_name in Folds.shares:
        fields["fold"] = Fold(folds["fold"], folds["of"])
    if (found := ties(measured.run)).decide:
        fields["note"] = (
            f"The model gives all documents of {found.num_tied:,} of {found.num_queries:,} queries the same score, so "
            "their order and the measures are arbitrary. If training collapsed, lower loop.optimizer.lr."
        )
        warn(f"{head_name(dataset.name, predictions.split_name)}: {fields['note']}")
    return fields


def _write_labels(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, measured: HeadMeasures
) -> dict[str, Any]:
    """Write each item's prediction; returns the fields of metrics.json that rankings do not have."""
    write_text(folder / "predictions.tsv", _predictions(dataset, predictions))
    classes = getattr(dataset.task, "classes", None)
    return {"constant": classes[int(measured.constant)] if classes else measured.constant}


def warn_of_levels(dataset: PreparedDataset) -> None:
    """Warn of measures whose grade of relevance differs from the task's."""
    if (level := dataset.task.relevance_level) is None:
        return
    for measure in dataset.task.measures:
        if (implicit := implicit_level(measure, level)) is not None:
            counts = f"{measure} of {dataset.name} counts documents from grade {implicit} as relevant"
            warn(f"{counts}, its task from grade {level}: that is {with_level(measure, level)}")


def _per_query(measured: HeadMeasures) -> str:
    lines = ["\t".join(PER_QUERY) + "\n"]
    for measure, by_query in measured.per_query.items():
        for query_id, value in by_query.items():
            lines.append(f"{query_id}\t{measure}\t{value:.6f}\t{measured.baseline_per_query[measure][query_id]:.6f}\n")
    return "".join(lines)


def _queries(predictions: Predictions) -> str:
    """query_id and text of each scored query, as the tokenizer reads it."""
    split, tokenizer = predictions.split, load_tokenizer(str(predictions.dataset.folder / "tokenizer"))
    sequences = {query_id: sequence for sequence, (query_id, _) in enumerate(split.ids)}
    return _tsv(
        [query_id, tokenizer.decode(split.first_text(at).tolist()).strip()] for query_id, at in sequences.items()
    )


def _predictions(dataset: PreparedDataset, predictions: Predictions) -> str:
    """query_id, doc_id, the item's number within its sequence, label, prediction; classes by name, quoted as in CSV.

    For classes also the probability of the predicted one. Nine digits represent a float32 exactly, so measures of the file
    are the measures of the scores.
    """
    (scores, items), split = predictions.scores(), predictions.split
    labels, sequences = split.labels[items.numpy()], split.sequence_of_item[items.numpy()]
    numbers = items.numpy() - split.items[sequences][0]
    if dataset.task.kind == "classification":
        classes = dataset.task.classes  # type: ignore[attr-defined]
        columns = [[classes[int(number)] for number in column] for column in (labels, scores.argmax(-1))]
        columns.append([f"{value:.9g}" for value in scores.max(-1).values.tolist()])
    else:
        columns = [[f"{value:.9g}" for value in column.tolist()] for column in (labels, scores)]
    ids = [split.ids[sequence] for sequence in sequences]
    # csv readers end a row at a carriage return, which the writer quotes only if it quotes everything.
    has_returns = any("\r" in name for name in getattr(dataset.task, "classes", ()))
    rows = ([q, d, n, *rest] for (q, d), n, *rest in zip(ids, numbers.tolist(), *columns, strict=True))
    return _tsv([PREDICTIONS[: 3 + len(columns)], *rows], quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL)


def _tsv(rows: Iterable[Sequence[Any]], quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()
