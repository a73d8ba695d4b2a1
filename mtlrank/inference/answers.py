"""A head's answers: classes with their probabilities, numbers and scores."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from mtlrank.datamodule.reading import Reading
from mtlrank.inference.questions import Question
from mtlrank.inference.scorer import Scorer
from mtlrank.inference.scoring import one_late
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
            answer: Any = {"predictions": predictions} if scorer.task.num_spans else predictions[0]
            rows.append({**question.given, **answer})
        yield rows


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
