"""Scoring pairs: mtlrank, sentence-transformers and a loop written by hand, with the same body.

    python -m benchmarks.predict --body /path/to/all-MiniLM-L6-v2
    python -m benchmarks.predict --body bert-base-uncased --device cuda --pairs 50000 --batch-size 512
    python -m benchmarks.predict --random --device cuda --pairs 50000 --batch-size 512        # without a hub

Each system runs in its own process, in turns. Speed is pairs per CPU-second of one thread, on a GPU per second of wall time
with bf16 in all systems. Needs `pip install 'mtlrank[annotate]'`. "mtlrank" and sentence-transformers start from texts in
memory, as `mtlrank.load(...).score` and `CrossEncoder.predict` do; "mtlrank, prepared" starts from a prepared dataset, as
validation and evaluation do, and the ceiling from tokens. --compile also measures layers that were compiled before.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pairs import (
    MAX_LENGTH,
    Clock,
    Measured,
    Pair,
    Pairs,
    body_of,
    compare,
    flops_per_pair,
    pairs,
    parser,
    send,
    table,
    take_turn,
    words,
)

SYSTEMS = ["ceiling", "sentence-transformers", "mtlrank", "mtlrank, prepared"]
COMPILED = "mtlrank, compiled"
WARM = 64  # pairs that are scored before the clock starts


def main() -> None:
    made = parser(__doc__ or "", [*SYSTEMS, COMPILED])
    made.add_argument("--pairs", type=int, default=2000)
    made.add_argument("--compile", action="store_true", help="measure compiled layers too")
    options = made.parse_args()
    if options.system:
        import torch

        if options.device == "cpu":
            torch.set_num_threads(1)
        torch.manual_seed(0)
        send(MEASURES[options.system](options, pairs(options.pairs + WARM)))
        return
    with body_of(options) as body:
        options.body = body
        _report(options)


def _report(options: argparse.Namespace) -> None:
    systems = [*SYSTEMS, COMPILED] if options.compile else SYSTEMS
    found = compare("benchmarks.predict", systems, options.repetitions, words(options), options.device == "cuda")
    table(f"Scoring {options.pairs:,} pairs", found, "sentence-transformers")
    ours = found["mtlrank, prepared"].pairs_per_second
    print(f"{'share of the ceiling':>26}: {ours / found['ceiling'].pairs_per_second:>10.2f}")
    if options.device == "cuda":
        limit = options.peak / flops_per_pair(options.body, [len(ids) for ids in _tokenised(options, pairs(5_000))])
        print(f"{'share of the limit':>26}: {ours / limit:>10.1%} of {limit:,.0f} pairs/s")


def ceiling(options: argparse.Namespace, rows: list[Pair]) -> Measured:
    """Hugging Face's model on ready-made tokens, sorted by length."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.body)
    model = AutoModelForSequenceClassification.from_pretrained(options.body, num_labels=1).eval()
    ids = _tokenised(options, rows[WARM:])
    ids.sort(key=len)
    padded = [
        tokenizer.pad({"input_ids": ids[i : i + options.batch_size]}, return_tensors="pt")
        for i in range(0, len(ids), options.batch_size)
    ]
    take_turn(options)
    model.to(options.device)
    batches = [batch.to(options.device) for batch in padded]
    clock = Clock(options.device)
    with torch.inference_mode(), torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
        for batch in batches if options.device == "cuda" else (batches[0], batches[-1]):  # a GPU meets each shape once
            model(**batch)
        began = clock()
        for batch in batches:
            model(**batch)
        return Measured(len(ids) / (clock() - began), clock.memory())


def sentence_transformers(options: argparse.Namespace, rows: list[Pair]) -> Measured:
    """CrossEncoder.predict, which sorts by length itself."""
    import torch
    from sentence_transformers import CrossEncoder

    texts = [(query, passage) for query, passage, _ in rows]
    take_turn(options)
    model = CrossEncoder(options.body, num_labels=1, device=options.device, max_length=MAX_LENGTH)
    clock = Clock(options.device)
    with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
        model.predict(texts[:WARM], batch_size=options.batch_size, show_progress_bar=False)
        began = clock()
        model.predict(texts[WARM:], batch_size=options.batch_size, show_progress_bar=False)
        return Measured(options.pairs / (clock() - began), clock.memory())


def from_texts(options: argparse.Namespace, rows: list[Pair]) -> Measured:
    """The code that `mtlrank.load(...).score` and `mtlrank rank` use."""
    from mtlrank.datamodule.preprocessor import Preprocessor
    from mtlrank.inference.candidates import pairs_of_texts
    from mtlrank.inference.scorer import CHUNK, Scorer
    from mtlrank.inference.scoring import one_late
    from mtlrank.task import Relevance

    model = _model(options)
    preprocessor = Preprocessor(options.body, max_length=MAX_LENGTH).load()
    scorer = Scorer(model, "ranking", Relevance(["AP"]), preprocessor, options.batch_size, _precision(options))

    def score(texts: list[tuple[str, str]]) -> int:
        return sum(len(each.scores()) for each in one_late(map(scorer.submit, pairs_of_texts(texts, CHUNK))))

    texts = [(query, passage) for query, passage, _ in rows]
    take_turn(options)
    model.to(options.device)
    score(texts[:WARM])
    clock = Clock(options.device)
    began = clock()
    assert score(texts[WARM:]) == options.pairs
    return Measured(options.pairs / (clock() - began), clock.memory())


def prepared(options: argparse.Namespace, rows: list[Pair], *, compiled: bool = False) -> Measured:
    """The code that validation and evaluation use."""
    import torch

    from mtlrank.datamodule.dataset import MTLDataset
    from mtlrank.datamodule.loader import MTLLoader
    from mtlrank.datamodule.sampler import LongestFirst
    from mtlrank.inference.scoring import score_split

    model = _model(options)

    def score(dataset: Pairs) -> None:
        data = MTLDataset({"ranking": dataset}).split("train")
        loader = MTLLoader(data, LongestFirst(data.sizes, options.batch_size, lengths=data.lengths))
        found = score_split(model, {"ranking": dataset}, "train", loader, _precision(options))
        assert found["ranking"].num_samples == len(dataset.rows)

    with tempfile.TemporaryDirectory() as folder:
        warm = Pairs("ranking", rows[:WARM], options.body).prepared_in(Path(folder) / "warm")
        dataset = Pairs("ranking", rows[WARM:], options.body).prepared_in(Path(folder) / "all")
        take_turn(options)
        model.to(options.device)
        if compiled:
            model.body.compile_layers(torch.device(options.device), scoring=True)
        score(warm)
        clock = Clock(options.device)
        began = clock()
        score(dataset)
        return Measured(options.pairs / (clock() - began), clock.memory())


MEASURES: dict[str, Callable[..., Measured]] = {
    "ceiling": ceiling,
    "sentence-transformers": sentence_transformers,
    "mtlrank": from_texts,
    "mtlrank, prepared": prepared,
    COMPILED: partial(prepared, compiled=True),
}


def _model(options: argparse.Namespace) -> Any:
    """A model with one head, as mtlrank builds it."""
    from mtlrank.model.body import MTLBody
    from mtlrank.model.head import Linear
    from mtlrank.model.head.pooler import CLSToken, LastToken
    from mtlrank.model.multitask import MultiTaskModel

    body = MTLBody(options.body)
    pooler = LastToken if body.is_causal else CLSToken
    head = Linear(body.out_dim, body.num_layers, 1, partial(pooler, layers=[-1]))
    return MultiTaskModel(body, {"ranking": head})


def _precision(options: argparse.Namespace) -> Callable[[], AbstractContextManager[object]]:
    """The context to compute in."""
    import torch

    return partial(torch.autocast, "cuda", torch.bfloat16) if options.device == "cuda" else nullcontext


def _tokenised(options: argparse.Namespace, rows: list[Pair]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.body)
    texts = tokenizer([q for q, _, _ in rows], [p for _, p, _ in rows], truncation=True, max_length=MAX_LENGTH)
    return list(texts["input_ids"])


if __name__ == "__main__":
    main()
