"""What is kept of a judged head: metrics.json, each query's or item's result, and a page to read."""

import csv
import io
from pathlib import Path

import torch

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.evaluation.head import Judgement, Predictions
from mtlrank.evaluation.runs import write_run
from mtlrank.pages import figures, render
from mtlrank.storage import write_json, write_text


def write_head(folder: Path, dataset: PreparedDataset, predictions: Predictions, judgement: Judgement) -> None:
    """Write the folder of a judged head."""
    summary = {
        "name": dataset.name,
        "kind": dataset.task.kind,
        "split": predictions.split_name,
        "relevance_level": getattr(dataset.task, "relevance_level", None),
        "primary": dataset.task.measures[0],
        "values": judgement.values,
        "baseline_name": judgement.baseline_name,
        "baseline": judgement.baseline,
        "num_samples": len(predictions.by_sample),
    }
    if dataset.has_judgements:
        write_run(folder / "run.trec", judgement.run, tag=f"mtlrank-{dataset.name}")
        write_text(folder / "per_query.tsv", _per_query(judgement))
        queries = len(next(iter(judgement.per_query.values())))
        summary["num_queries"] = queries
    else:
        write_text(folder / "predictions.tsv", _predictions(dataset, predictions))
    write_json(folder / "metrics.json", summary)
    pictures = _pictures(dataset, predictions, judgement)
    write_text(folder / "index.html", render("head.html.j2", head=summary, pictures=pictures))


def _per_query(judgement: Judgement) -> str:
    """query_id, measure, value, first stage's value."""
    lines = ["query_id\tmeasure\tvalue\tfirst_stage\n"]
    for measure, by_query in judgement.per_query.items():
        for query_id, value in by_query.items():
            lines.append(f"{query_id}\t{measure}\t{value:.6f}\t{judgement.baseline_per_query[measure][query_id]:.6f}\n")
    return "".join(lines)


def _predictions(dataset: PreparedDataset, predictions: Predictions) -> str:
    """query_id, doc_id, the item's number within its sequence, label, prediction; a class by its name, quoted as in CSV.

    Nine digits name a float32 exactly, so that measures of the file are the measures of the scores.
    """
    (scores, items), (_, labels), split = predictions.scores(), predictions.labels(), predictions.split
    sequences = split.sequence_of_item[items.numpy()]
    numbers = items.numpy() - split.items[sequences][0]
    if dataset.task.kind == "classification":
        classes = dataset.task.classes  # type: ignore[attr-defined]
        told = [[classes[int(number)] for number in column] for column in (labels, scores.argmax(-1))]
    else:
        told = [[f"{value:.9g}" for value in column.tolist()] for column in (labels, scores)]
    ids = [split.ids[sequence] for sequence in sequences]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["query_id", "doc_id", "item", "label", "prediction"])
    writer.writerows([q, d, n, *pair] for (q, d), n, *pair in zip(ids, numbers.tolist(), *told, strict=True))
    return text.getvalue()


def _pictures(dataset: PreparedDataset, predictions: Predictions, judgement: Judgement) -> list[tuple[str, str]]:
    """(title, SVG) of what shows best how a head did."""
    if dataset.has_judgements:
        measure = dataset.task.measures[0]
        values, baseline = judgement.per_query[measure], judgement.baseline_per_query[measure]
        differences = [values[query_id] - baseline[query_id] for query_id in values]
        return [("Gain over the first stage, per query", figures.gains(differences, measure, "first stage"))]
    scores, labels = predictions.labels()
    if dataset.task.kind == "regression":
        return [("Predicted and true values", figures.predictions(labels, scores))]
    classes = dataset.task.classes  # type: ignore[attr-defined]
    pairs = labels.long() * len(classes) + scores.argmax(-1)
    counts = torch.bincount(pairs, minlength=len(classes) ** 2).view(len(classes), len(classes))
    return [("Confusion matrix", figures.confusion(counts, classes))]
