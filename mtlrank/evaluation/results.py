"""What is kept of a judged head: metrics.json, a TREC run, per-query values and a page to read."""

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
