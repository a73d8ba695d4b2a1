"""A head's answers: classes with their probabilities, numbers and scores."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

from torch import Tensor

from mtlrank.datamodule.reading import Reading
from mtlrank.inference.candidates import Candidate
from mtlrank.inference.questions import Question
from mtlrank.inference.scorer import Scorer
from mtlrank.inference.scoring import one_late
from mtlrank.tags import entities
from mtlrank.task import Buckets, Task


def answers(chunks: Iterable[list[Question]], scorer: Scorer, reading: Reading) -> Iterator[list[dict[str, Any]]]:
    """The answers to each chunk, one object per question, while the model scores the next chunk."""
    pending = ((chunk, scorer.submit([question.candidate for question in chunk])) for chunk in chunks)
    for chunk, scored in one_late(pending):
        items = answers_of_items(scored.scores(), scorer.task)
        rows = list[dict[str, Any]]()
        for question in chunk:
            predictions = list(islice(items, len(question.candidate.items)))
            reading.count("items without a prediction, as a span is cut off or holds no token", predictions.count(None))
            rows.append({**question.given, **_of_text(question.candidate, predictions, scorer.task)})
        yield rows


def _of_text(candidate: Candidate, predictions: list[dict[str, Any] | None], task: Task) -> dict[str, Any]:
    """The answer for a text or a pair: the prediction, those of its spans, or the entities among its words."""
    if not task.num_spans:
        assert predictions[0] is not None, "a text without spans has a prediction"
        return predictions[0]
    return {"entities": list(_entities(candidate, predictions))} if task.tags else {"predictions": predictions}


def _entities(candidate: Candidate, predictions: list[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """The entities by the tags of words; the probability is the mean over an entity's words of that of their tags.

    Words without a prediction are passed over, as evaluation leaves them out.
    """
    words = [(span, word) for (span,), word in zip(candidate.items, predictions, strict=True) if word is not None]
    for first, end, kind in entities([word["class"] for _, word in words]):
        start, stop = words[first][0][0], words[end - 1][0][1]
        probability = fmean(word["probabilities"][word["class"]] for _, word in words[first:end])
        yield {
            "span": [start, stop],
            "text": candidate.located[start:stop],
            "class": kind,
            "probability": float(f"{probability:.9g}"),
        }


def answers_of_items(scores: Tensor, task: Task) -> Iterator[dict[str, Any] | None]:
    """The answer for each item; None for an item without scores."""
    choices = scores.argmax(-1).tolist() if scores.dim() > 1 else [0] * len(scores)
    for row, choice in zip(scores.tolist(), choices, strict=True):
        values = row if isinstance(row, list) else [row]
        yield None if math.isnan(values[0]) else _answer([float(f"{value:.9g}") for value in values], choice, task)


def _answer(values: Sequence[float], choice: int, task: Task) -> dict[str, Any]:
    """One number, or a class with the probabilities of all; for a bucket also its range."""
    if task.kind != "classification":
        return {"score": values[0]}
    classes: list[str] = task.classes  # type: ignore[attr-defined]
    answer = {"class": classes[choice], "probabilities": dict(zip(classes, values, strict=True))}
    return {**answer, "range": [None, *task.edges, None][choice : choice + 2]} if isinstance(task, Buckets) else answer
