"""Training: mtlrank, sentence-transformers and a loop written by hand, on the same pairs with the same body.

    python -m benchmarks.train --body /path/to/all-MiniLM-L6-v2
    python -m benchmarks.train --body bert-base-uncased --device cuda --batch-size 256

Each system runs in a process of its own, in turns. On a CPU speed is pairs a CPU-second of one thread, on a GPU wall time
with bf16 on all sides. Needs `pip install 'mtlrank[annotate,bench]'`. The ceiling is the fastest that Hugging Face's model
goes: batches of like length, no attention dropout, nothing but the steps. The mixture has five tasks with heads at a third,
.4, .4, half and the full depth of the body, in equal shares. With --compile, mtlrank runs with training.compile=true too.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pairs import (
    MAX_LENGTH,
    Clock,
    Measured,
    Pair,
    Pairs,
    compare,
    flops_per_pair,
    pairs,
    parser,
    say,
    table,
)

SYSTEMS = ["ceiling", "sentence-transformers", "bare loop", "mtlrank", "mixture: s-t", "mixture: bare loop", "mixture"]
COMPILED = {"mtlrank": "mtlrank, compiled", "mixture": "mixture, compiled"}
DEPTHS = {"terms": 1 / 3, "entities": 0.4, "coreference": 0.4, "similarity": 0.5, "ranking": 1.0}
WARM = 2  # steps before the clock starts; much is compiled in the first, the rest in the second


def main() -> None:
    made = parser(__doc__ or "", [*SYSTEMS, *COMPILED.values()])
    made.add_argument("--steps", type=int, default=6)
    made.add_argument("--compile", action="store_true", help="measure training.compile=true too")
    options = made.parse_args()
    if options.system:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        rows = pairs(options.batch_size * (options.steps + WARM))
        name = options.system.removeprefix("mixture: ")
        mixed = options.system.startswith("mixture")
        say(MEASURES[name](options, rows, mixed))
        return
    arguments = [
        f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items() if key not in ("system", "compile")
    ]
    alone, mixture = SYSTEMS[:4], SYSTEMS[4:]
    if options.compile:
        alone, mixture = [*alone, COMPILED["mtlrank"]], [*mixture, COMPILED["mixture"]]
    found = compare("benchmarks.train", [*alone, *mixture], options.repetitions, arguments)
    table("Training on ranking pairs", {name: found[name] for name in alone}, "sentence-transformers")
    ours = found["mtlrank"].pairs_per_second
    print(f"{'share of the ceiling':>26}: {ours / found['ceiling'].pairs_per_second:>10.2f}")
    print(f"{'cost of the framework':>26}: {1 - ours / found['bare loop'].pairs_per_second:>10.1%}")
    table("Training on five tasks", {name: found[name] for name in mixture}, "mixture: s-t")
    cost = 1 - found["mixture"].pairs_per_second / found["mixture: bare loop"].pairs_per_second
    print(f"{'cost of the framework':>26}: {cost:>10.1%}")
    for name, compiled in COMPILED.items() if options.compile else ():
        ratio = found[compiled].pairs_per_second / found[name].pairs_per_second
        print(f"{name + ', gain by compiling':>26}: {ratio:>10.2f} x")
    if options.device == "cuda":
        limit = options.peak / (3 * flops_per_pair(options.body, _lengths(pairs(5_000), options.body)))
        print(f"{'share of the limit':>26}: {ours / limit:>10.1%} of {limit:,.0f} pairs/s")


# -- systems: each gives pairs a second over all steps but the first two ---------------------------------------------


def ceiling(options: argparse.Namespace, rows: list[Pair], mixed: bool) -> Measured:
    """Hugging Face's model in a loop of five lines, on batches of like length."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.body)
    settings = {"num_labels": 1, "attention_probs_dropout_prob": 0.0, "attn_implementation": "sdpa"}
    model = AutoModelForSequenceClassification.from_pretrained(options.body, **settings).to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    many = pairs(50 * options.batch_size, seed=1)
    lengths = _lengths(many, options.body)
    by_length = sorted(range(len(many)), key=lambda i: lengths[i])
    starts = [50 * (2 * i + 1) // (2 * options.steps) * options.batch_size for i in range(options.steps)]
    prepared, tokens = [], 0
    for start in [starts[len(starts) // 2]] * WARM + starts:
        chosen = by_length[start : start + options.batch_size]
        queries, passages, labels = zip(*(many[i] for i in chosen), strict=True)
        texts = tokenizer(
            queries, passages, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        ).to(options.device)
        prepared.append((texts, torch.tensor(labels, dtype=torch.float32, device=options.device)))
        tokens += sum(lengths[i] for i in chosen) if len(prepared) > WARM else 0
    clock = Clock(options.device)
    for number, (texts, labels) in enumerate(prepared):
        if number == WARM:
            began = clock()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
            logits = model(**texts).logits
        binary_cross_entropy_with_logits(logits.squeeze(-1).float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    mean = sum(lengths) / len(lengths)
    return Measured(tokens / mean / (clock() - began), clock.memory())


def sentence_transformers(options: argparse.Namespace, rows: list[Pair], mixed: bool) -> Measured:
    """CrossEncoderTrainer as its documentation shows it; mixed: its multi-dataset training."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback

    clock, times = Clock(options.device), list[float]()

    class Times(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clock())

    model = CrossEncoder(options.body, num_labels=1, device=options.device, max_length=MAX_LENGTH)
    parts = _shares(rows) if mixed else {"rank": rows}
    data = {
        name: Dataset.from_dict({"query": q, "passage": p, "label": [float(label) for label in labels]})
        for name, (q, p, labels) in ((name, zip(*part, strict=True)) for name, part in parts.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=1,
            learning_rate=2e-5,
            save_strategy="no",
            report_to="none",
            use_cpu=options.device == "cpu",
            bf16=options.device == "cuda",
            disable_tqdm=True,
        )
        losses = {name: BinaryCrossEntropyLoss(model) for name in data}
        CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=data if mixed else data["rank"],
            loss=losses if mixed else losses["rank"],
            callbacks=[Times()],
        ).train()
    done = len(rows) - options.batch_size * WARM
    return Measured(done / (times[-1] - times[WARM - 1]), clock.memory())


def bare_loop(options: argparse.Namespace, rows: list[Pair], mixed: bool) -> Measured:
    """mtlrank's data, model and losses without Lightning, logs and checkpoints."""
    import torch

    clock = Clock(options.device)
    with tempfile.TemporaryDirectory() as folder:
        datamodule, model, datasets = _parts(options, rows, mixed, Path(folder))
        model.to(options.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
        for number, batch in enumerate(_on(datamodule.train_dataloader(), options.device)):
            if number == WARM:
                start = clock()
            with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
                logits = model(batch.tasks)
            losses = [datasets[name].task.loss(logits[name], part) for name, part in batch.tasks.items()]
            torch.cat(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return Measured(options.batch_size * options.steps / (clock() - start), clock.memory())


def mtlrank(options: argparse.Namespace, rows: list[Pair], mixed: bool, compiled: bool = False) -> Measured:
    """All of it, as `python -m mtlrank.train` builds it."""
    import pytorch_lightning as pl
    import torch

    from mtlrank.build import Monitored, build_trainer
    from mtlrank.compose import compose_config
    from mtlrank.loop.checkpoints import Checkpoints
    from mtlrank.loop.loss import ExampleMean
    from mtlrank.loop.milestones import Milestones, Plan
    from mtlrank.loop.multitask import MultiTaskLoop
    from mtlrank.loop.schedule import linear_warmup
    from mtlrank.loop.stopping import StopSignals

    clock, times = Clock(options.device), list[float]()

    class Times(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            times.append(clock())

    precision = "bf16-mixed" if options.device == "cuda" else "32-true"
    config = compose_config([f"trainer.precision={precision}", "training.epochs=1"], trusted=True)
    with tempfile.TemporaryDirectory() as folder, StopSignals() as signals:
        datamodule, model, datasets = _parts(options, rows, mixed, Path(folder))
        if compiled:
            model.body.compile_layers(torch.device(options.device))
        milestones = Milestones(Checkpoints(Path(folder) / "out"), Monitored("x", "max"), signals, Plan(0), {}, [])
        trainer = build_trainer(config, Path(folder), milestones)
        trainer.callbacks.insert(0, Times())
        optimizer = partial(torch.optim.AdamW, lr=2e-5, fused=True)
        steps = options.steps + WARM
        trainer.fit(MultiTaskLoop(model, datasets, ExampleMean, optimizer, linear_warmup, steps), datamodule)
    return Measured(options.batch_size * options.steps / (times[-1] - times[WARM - 1]), clock.memory())


MEASURES = {
    "ceiling": ceiling,
    "sentence-transformers": sentence_transformers,
    "s-t": sentence_transformers,
    "bare loop": bare_loop,
    "mtlrank": mtlrank,
    "mixture": mtlrank,
    "mtlrank, compiled": partial(mtlrank, compiled=True),
    "mixture, compiled": partial(mtlrank, compiled=True),
}


def _parts(options: argparse.Namespace, rows: list[Pair], mixed: bool, folder: Path) -> Any:
    """(datamodule, model, datasets) of mtlrank."""
    from mtlrank.datamodule.dataset import MTLDataset
    from mtlrank.datamodule.multitask import MTLDataModule
    from mtlrank.datamodule.sampler import RandomProportional, Sequential
    from mtlrank.model.body import MTLBody
    from mtlrank.model.head import Linear
    from mtlrank.model.head.pooler import CLSToken
    from mtlrank.model.multitask import MultiTaskModel

    parts = _shares(rows) if mixed else {"ranking": rows}
    datasets = {name: Pairs(name, part, options.body).prepared_in(folder / name) for name, part in parts.items()}
    size = options.batch_size
    datamodule = MTLDataModule(MTLDataset(datasets), RandomProportional, Sequential, Sequential, size, size)
    body = MTLBody(options.body)
    heads = {
        name: Linear(body.out_dim, body.num_layers, 1, partial(CLSToken, layers=[DEPTHS[name]])) for name in datasets
    }
    return datamodule, MultiTaskModel(body, heads), datasets


def _on(batches: Any, device: str) -> Iterator[Any]:
    import torch

    from mtlrank.loop.predict import to_device

    for batch in batches:
        yield batch._replace(tasks={name: to_device(part, torch.device(device)) for name, part in batch.tasks.items()})


def _shares(rows: list[Pair]) -> dict[str, list[Pair]]:
    return {name: rows[i :: len(DEPTHS)] for i, name in enumerate(DEPTHS)}


def _lengths(rows: list[Pair], body: str) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(body)
    texts = tokenizer([q for q, _, _ in rows], [p for _, p, _ in rows], truncation=True, max_length=MAX_LENGTH)
    return [len(ids) for ids in texts["input_ids"]]


if __name__ == "__main__":
    main()
