"""Checking that an exported model gives the scores of the head."""

import random
from collections.abc import Callable

from torch import Tensor

from mtlrank.errors import ConfigError
from mtlrank.inference.candidates import Candidate
from mtlrank.inference.scorer import Scorer
from mtlrank.trained_head import TrainedHead

# From pairs, or single texts, to logits: one for each, or one for each class of each.
Score = Callable[[list[tuple[str, ...]]], Tensor]
_TOLERANCE = 1e-4  # of the largest score
_LEAST = 1e-12  # smaller probabilities are compared as this one


def check_scores(head: TrainedHead, score: Score) -> float:
    """Compare scores of a few texts, long ones too; returns the largest difference. Raises `ConfigError` if it is large.

    For classes, logarithms of probabilities are compared.
    """
    pairs = _pairs(head)
    is_single = head.form.is_single
    candidates = [Candidate(i, "check", None if is_single else query, text) for i, (query, text) in enumerate(pairs)]
    expected = Scorer(head.model, head.name, head.task, head.preprocessor(max_passages=1)).score(candidates)
    logits = score([pair[1:] if is_single else pair for pair in pairs])
    if head.task.kind == "classification":
        found, expected = (each.clamp(min=_LEAST).log() for each in (logits.softmax(-1), expected))
    else:
        found = logits[:, 0]
    difference = float((found - expected).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ConfigError(
            f"The exported model gives other scores than head {head.name!r} (largest difference {difference:.2g}), so it "
            "was not kept. Keep the whole model with format=multitask."
        )
    return difference


def _pairs(head: TrainedHead) -> list[tuple[str, str]]:
    """Pairs of words of the vocabulary: queries that are not cut, passages of few tokens or more than fit; one of signs."""
    preprocessor = head.preprocessor()
    tokenizer = preprocessor.tokenizer
    special = set(tokenizer.all_special_ids)
    numbers = [number for number in sorted(tokenizer.get_vocab().values()) if number not in special]
    draw = random.Random(0)
    words = [word for word in map(tokenizer.decode, draw.choices(numbers, k=400)) if word.strip().isalnum()] or ["a"]
    lengths = (3, 20, 2 * preprocessor.lengths.max_length)
    queries = [" ".join(draw.choices(words, k=1 + number % 3)) for number in range(12)]
    longest = preprocessor.lengths.max_query_length
    cut = [
        query if longest is None or len(tokens) <= longest else words[0]
        for query, tokens in zip(queries, preprocessor.ids(queries), strict=True)
    ]
    found = [(query, " ".join(draw.choices(words, k=lengths[number % 3]))) for number, query in enumerate(cut)]
    return [*found, ("a?", 'No! "Never"!!')]
