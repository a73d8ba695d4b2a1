"""What is kept of a judged head: metrics.json, each query's or item's result, and a page to read."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mtlrank.backbone import load_tokenizer
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.folds import Folds
from mtlrank.evaluation.judged_head import Fold, head_name, head_of
from mtlrank.evaluation.measures import ties, unsaid_level, with_level
from mtlrank.evaluation.predictions import Judgement, Predictions
from mtlrank.evaluation.section import find_intervals, section_of
from mtlrank.pages import render
from mtlrank.progress import warn
from mtlrank.storage import write_json, write_text
from mtlrank.trec import write_run


def write_head(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, judgement: Judgement, weights: str | None = None
) -> None:
    """Write the folder of a judged head; metrics.json comes last, so that a folder with it is complete.

    `weights` is the hash of the model's weights, which tells whose judgement it is.
    """
    (folder / "metrics.json").unlink(missing_ok=True)
    _tell_levels(dataset)
    summary: dict[str, Any] = {
        "name": dataset.name,
        "kind": dataset.task.kind,
        "split": predictions.split_name,
        "relevance_level": dataset.task.relevance_level,
        "primary": dataset.task.measures[0],
        "values": judgement.values,
        "baseline_name": judgement.baseline_name,
        "baseline": judgement.baseline,
        "num_samples": predictions.num_samples,
        "weights": weights,
    }
    summary |= (_write_ranking if dataset.has_judgements else _write_labels)(folder, dataset, predictions, judgement)
    write_summary(folder, summary)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the page of a judged head, whose individual results are there, and metrics.json with intervals."""
    summary["intervals"] = find_intervals(head_of(folder, summary))
    write_text(folder / "index.html", render("head.html.j2", head=summary, section=section_of(folder, summary)))
    write_json(folder / "metrics.json", summary)


def _write_ranking(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, judgement: Judgement
) -> dict[str, Any]:
    """Write the ranking and each query's results; returns what metrics.json says of rankings only."""
    write_run(folder / "run.trec", judgement.run, tag=f"mtlrank-{dataset.name}")
    qrels = "".join(path.read_text(encoding="utf-8") for path in predictions.split.files("qrels.txt"))
    write_text(folder / "qrels.txt", qrels)  # by which other systems' runs can be judged
    write_text(folder / "per_query.tsv", _per_query(judgement))
    write_text(folder / "queries.tsv", _queries(predictions))
    told: dict[str, Any] = {
        "num_queries": len(next(iter(judgement.per_query.values()))),
        "max_candidates": max(Counter(doc.query_id for doc in judgement.run).values()),
    }
    folds = dataset.manifest["source"].get("folds")
    if folds and predictions.split_name in Folds.shares:
        told["fold"] = Fold(folds["fold"], folds["of"])
    if (found := ties(judgement.run)).decide:
        told["note"] = (
            f"For {found.num_tied:,} of {found.num_queries:,} queries all scores are equal but for rounding: it and "
            "document ids decide the measures. If training collapsed, lower loop.optimizer.lr."
        )
        warn(f"{head_name(dataset.name, predictions.split_name)}: {told['note']}")
    return told


def _write_labels(
    folder: Path, dataset: PreparedDataset, predictions: Predictions, judgement: Judgement
) -> dict[str, Any]:
    """Write each item's prediction; returns what metrics.json says of all but rankings."""
    write_text(folder / "predictions.tsv", _predictions(dataset, predictions))
    classes = getattr(dataset.task, "classes", None)
    return {"constant": classes[int(judgement.constant)] if classes else judgement.constant}


def _tell_levels(dataset: PreparedDataset) -> None:
    """Warn of measures that take other documents as relevant than the task does."""
    if (level := dataset.task.relevance_level) is None:
        return
    for measure in dataset.task.measures:
        if (unsaid := unsaid_level(measure, level)) is not None:
            told = f"{measure} of {dataset.name} takes documents from grade {unsaid} on as relevant"
            warn(f"{told}, its task from grade {level}: that is {with_level(measure, level)}")


def _per_query(judgement: Judgement) -> str:
    """query_id, measure, value, first stage's value."""
    lines = ["query_id\tmeasure\tvalue\tfirst_stage\n"]
    for measure, by_query in judgement.per_query.items():
        for query_id, value in by_query.items():
            lines.append(f"{query_id}\t{measure}\t{value:.6f}\t{judgement.baseline_per_query[measure][query_id]:.6f}\n")
    return "".join(lines)


def _queries(predictions: Predictions) -> str:
    """query_id and text of each scored query, as the tokenizer reads it."""
    split, tokenizer = predictions.split, load_tokenizer(str(predictions.dataset.folder / "tokenizer"))
    sequences = {query_id: sequence for sequence, (query_id, _) in enumerate(split.ids)}
    return _tsv([query_id, tokenizer.decode(split.first_text(at).tolist())] for query_id, at in sequences.items())


def _predictions(dataset: PreparedDataset, predictions: Predictions) -> str:
    """query_id, doc_id, the item's number within its sequence, label, prediction; a class by its name, quoted as in CSV.

    Of classes also the probability of the one that is predicted. Nine digits name a float32 exactly, so that measures of
    the file are the measures of the scores.
    """
    (scores, items), (_, labels), split = predictions.scores(), predictions.labels(), predictions.split
    sequences = split.sequence_of_item[items.numpy()]
    numbers = items.numpy() - split.items[sequences][0]
    if dataset.task.kind == "classification":
        classes = dataset.task.classes  # type: ignore[attr-defined]
        told = [[classes[int(number)] for number in column] for column in (labels, scores.argmax(-1))]
        told.append([f"{value:.9g}" for value in scores.max(-1).values.tolist()])
    else:
        told = [[f"{value:.9g}" for value in column.tolist()] for column in (labels, scores)]
    ids = [split.ids[sequence] for sequence in sequences]
    # For readers a carriage return ends the row. The writer quotes it only with everything else.
    has_returns = any("\r" in name for name in getattr(dataset.task, "classes", ()))
    header = ["query_id", "doc_id", "item", "label", "prediction", "confidence"][: 3 + len(told)]
    rows = ([q, d, n, *rest] for (q, d), n, *rest in zip(ids, numbers.tolist(), *told, strict=True))
    return _tsv([header, *rows], quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL)


def _tsv(rows: Iterable[Sequence[Any]], quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()
