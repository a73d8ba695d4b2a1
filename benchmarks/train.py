"""Training: mtlrank, sentence-transformers and a loop written by hand, on the same pairs with the same body.

    python -m benchmarks.train --body /path/to/all-MiniLM-L6-v2
    python -m benchmarks.train --body bert-base-uncased --device cuda --batch-size 256
    python -m benchmarks.train --random --device cuda --batch-size 256                   # without a hub
    python -m benchmarks.train --random qwen3                                            # a small decoder
    python -m benchmarks.train --random deberta-v3

Each system runs in its own process, in turns. Speed is pairs per CPU-second of one thread, on a GPU per second of wall time
with bf16 in all systems; only "mtlrank, deterministic" uses torch's deterministic mode. Needs
`pip install 'mtlrank[annotate,bench]'`. The ceiling is the fastest possible use of Hugging Face's model: batches of equal
lengths, no attention dropout, nothing but the steps. The mixture has five tasks with heads at a third, .4, .4, half and the
full depth of the body, in equal shares.
--compile also measures mtlrank with training.compile=true. --profile only prints the time of each operation when mtlrank
learns from ranking pairs.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
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

WITHOUT = "s-t, no attention dropout"  # which mtlrank leaves out by default
SYSTEMS = ["ceiling", "sentence-transformers", WITHOUT, "bare loop", "mtlrank"]
MIXTURES = ["mixture: s-t", "mixture: bare loop", "mixture"]
DETERMINISTIC = "mtlrank, deterministic"
COMPILED = {"mtlrank": "mtlrank, compiled", "mixture": "mixture, compiled"}
DEPTHS = {"terms": 1 / 3, "entities": 0.4, "coreference": 0.4, "similarity": 0.5, "ranking": 1.0}
STEPS = {"cpu": 6, "cuda": 100}
WARM = {"cpu": 2, "cuda": 10}  # steps before the clock starts; kernels are compiled in the first two


class Laps:
    """Measures the time between the end of the warm-up steps and of all steps. Reading the clock waits for the device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.clock, self.warm = Clock(options.device), WARM[options.device]
        self.pairs, self.last = options.batch_size * options.steps, WARM[options.device] + options.steps
        self.done, self.began, self.ended = 0, 0.0, 0.0

    def step(self) -> None:
        """Count a step as done."""
        self.done += 1
        if self.done == self.warm:
            self.began = self.clock()
        if self.done == self.last:
            self.ended = self.clock()

    def measured(self, pairs: float | None = None) -> Measured:
        """The speed between the two readings, and the memory."""
        return Measured((pairs or self.pairs) / (self.ended - self.began), self.clock.memory())


def main() -> None:
    made = parser(__doc__ or "", [*SYSTEMS, *MIXTURES, DETERMINISTIC, *COMPILED.values()])
    made.add_argument("--steps", type=int, help="default: 6, on a GPU 100")
    made.add_argument("--part", choices=["ranking", "mixture"], help="only one of the two tables")
    made.add_argument("--compile", action="store_true", help="measure training.compile=true too")
    made.add_argument("--profile", action="store_true", help="only print where the time of mtlrank's steps goes")
    options = made.parse_args()
    options.steps = options.steps or STEPS[options.device]
    if options.system:
        import torch

        if options.device == "cpu":
            torch.set_num_threads(1)
        torch.manual_seed(0)
        rows = pairs(options.batch_size * (options.steps + WARM[options.device]))
        name = options.system.removeprefix("mixture: ")
        mixed = options.system.startswith("mixture")
        send(MEASURES[name](options, rows, mixed))
        return
    with body_of(options) as body:
        (_profile if options.profile else _report)(options, body)


def _profile(options: argparse.Namespace, body: str) -> None:
    """Print the operations that take most of the time, over all steps."""
    from torch.profiler import ProfilerActivity, profile

    options.body = body
    rows = pairs(options.batch_size * (options.steps + WARM[options.device]))
    is_gpu = options.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]) as found:
        mtlrank(options, rows, False, options.compile)
    order = "self_cuda_time_total" if is_gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60))


def _report(options: argparse.Namespace, body: str) -> None:
    alone, mixture = SYSTEMS, MIXTURES
    if options.device == "cuda":
        alone = [*alone, DETERMINISTIC]
    if options.compile:
        alone, mixture = [*alone, COMPILED["mtlrank"]], [*mixture, COMPILED["mixture"]]
    systems = {"ranking": alone, "mixture": mixture}.get(options.part, [*alone, *mixture])
    found = compare(
        "benchmarks.train", systems, options.repetitions, words(options, body=body), options.device == "cuda"
    )
    if "mtlrank" in found:
        table("Training on ranking pairs", {name: found[name] for name in alone}, "sentence-transformers")
        ours = found["mtlrank"].pairs_per_second
        print(f"{'share of the ceiling':>26}: {ours / found['ceiling'].pairs_per_second:>10.2f}")
        print(f"{'cost of the framework':>26}: {1 - ours / found['bare loop'].pairs_per_second:>10.1%}")
        if options.device == "cuda":
            lengths = _lengths(pairs(5_000), body)
            limit = options.peak / (3 * flops_per_pair(body, lengths))
            print(f"{'share of the limit':>26}: {ours / limit:>10.1%} of {limit:,.0f} pairs/s")
            print(f"{'mean length':>26}: {sum(lengths) / len(lengths):>10.1f} tokens")
    if "mixture" in found:
        table("Training on five tasks", {name: found[name] for name in mixture}, "mixture: s-t")
        cost = 1 - found["mixture"].pairs_per_second / found["mixture: bare loop"].pairs_per_second
        print(f"{'cost of the framework':>26}: {cost:>10.1%}")
    for name, compiled in COMPILED.items():
        if compiled in found:
            ratio = found[compiled].pairs_per_second / found[name].pairs_per_second
            print(f"{name + ', gain by compiling':>26}: {ratio:>10.2f} x")


# -- systems: each returns pairs per second over all steps after the warm-up ---------------------------------------


def ceiling(options: argparse.Namespace, rows: list[Pair], mixed: bool) -> Measured:
    """Hugging Face's model in a loop of five lines, on batches of equal lengths."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.body)
    settings = {"num_labels": 1, **_no_attention_dropout(options.body)}
    model = AutoModelForSequenceClassification.from_pretrained(options.body, **settings).train()
    many = pairs(50 * options.batch_size, seed=1)
    lengths = _lengths(many, options.body)
    by_length = sorted(range(len(many)), key=lambda i: lengths[i])
    starts = [50 * (2 * i + 1) // (2 * options.steps) * options.batch_size for i in range(options.steps)]
    prepared, tokens = [], 0
    # A GPU meets each shape once.
    warm = starts if options.device == "cuda" else [starts[len(starts) // 2]] * WARM["cpu"]
    for start in warm + starts:
        chosen = by_length[start : start + options.batch_size]
        queries, passages, relevant = zip(*(many[i] for i in chosen), strict=True)
        texts = tokenizer(queries, passages, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
        prepared.append((texts, torch.tensor(relevant, dtype=torch.float32)))
        tokens += sum(lengths[i] for i in chosen) if len(prepared) > len(warm) else 0
    take_turn(options)
    model.to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    prepared = [(texts.to(options.device), labels.to(options.device)) for texts, labels in prepared]
    laps = Laps(options)
    laps.warm, laps.last = len(warm), len(prepared)
    for texts, labels in prepared:
        with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
            logits = model(**texts).logits
        binary_cross_entropy_with_logits(logits.squeeze(-1).float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        laps.step()
    return laps.measured(tokens / (sum(lengths) / len(lengths)))


def sentence_transformers(
    options: argparse.Namespace, rows: list[Pair], mixed: bool, has_attention_dropout: bool = True
) -> Measured:
    """CrossEncoderTrainer as its documentation shows it; mixed: its multi-dataset training."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback

    laps = Laps(options)

    class Times(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            laps.step()

    parts = _shares(rows) if mixed else {"rank": rows}
    data = {
        name: Dataset.from_dict({"query": q, "passage": p, "label": [float(label) for label in labels]})
        for name, (q, p, labels) in ((name, zip(*part, strict=True)) for name, part in parts.items())
    }
    take_turn(options)
    config = {} if has_attention_dropout else _no_attention_dropout(options.body)
    settings = {"num_labels": 1, "device": options.device, "max_length": MAX_LENGTH, "config_kwargs": config}
    model = CrossEncoder(options.body, **settings)
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
            dataloader_num_workers=4 if options.device == "cuda" else 0,
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
    return laps.measured()


def bare_loop(options: argparse.Namespace, rows: list[Pair], mixed: bool) -> Measured:
    """mtlrank's data, model and losses without Lightning, logs and checkpoints."""
    import torch

    laps = Laps(options)
    with tempfile.TemporaryDirectory() as folder:
        datamodule, model, datasets = _parts(options, rows, mixed, Path(folder))
        take_turn(options)
        model.to(options.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
        for batch in _on(datamodule.train_dataloader(), options.device):
            with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
                logits = model(batch.tasks)
            losses = [datasets[name].task.loss(logits[name], part) for name, part in batch.tasks.items()]
            torch.cat(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            laps.step()
    return laps.measured()


def mtlrank(
    options: argparse.Namespace, rows: list[Pair], mixed: bool, compiled: bool = False, deterministic: bool = False
) -> Measured:
    """The whole program, as `python -m mtlrank.train` builds it."""
    import pytorch_lightning as pl
    import torch

    from mtlrank.building.trainer import build_trainer
    from mtlrank.composing.compose import compose_config
    from mtlrank.loop.checkpoints import Checkpoints
    from mtlrank.loop.loss import ExampleMean
    from mtlrank.loop.milestones import Milestones, Monitored, Plan
    from mtlrank.loop.multitask import MultiTaskLoop
    from mtlrank.loop.schedule import linear_warmup
    from mtlrank.loop.stopping import StopSignals

    laps = Laps(options)

    class Times(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            laps.step()

    accelerator, precision = {"cpu": ("cpu", "32-true"), "cuda": ("gpu", "bf16-mixed")}[options.device]
    overrides = [
        f"trainer.accelerator={accelerator}",
        f"trainer.precision={precision}",
        f"trainer.deterministic={deterministic}",
    ]
    config = compose_config([*overrides, "training.epochs=1"], trusted=True)
    with tempfile.TemporaryDirectory() as folder, StopSignals() as signals:
        datamodule, model, datasets = _parts(options, rows, mixed, Path(folder))
        take_turn(options)
        if compiled:
            model.body.compile_layers(torch.device(options.device))
        milestones = Milestones(Checkpoints(Path(folder) / "out"), Monitored(("x",), "AP"), signals, Plan(0), {}, [])
        trainer = build_trainer(config, Path(folder), milestones)
        trainer.callbacks.insert(0, Times())
        optimizer = partial(torch.optim.AdamW, lr=2e-5, fused=True)
        steps = laps.last
        trainer.fit(MultiTaskLoop(model, datasets, ExampleMean, optimizer, linear_warmup, steps), datamodule)
    return laps.measured()


MEASURES: dict[str, Callable[..., Measured]] = {
    "ceiling": ceiling,
    "sentence-transformers": sentence_transformers,
    "s-t": sentence_transformers,
    WITHOUT: partial(sentence_transformers, has_attention_dropout=False),
    "bare loop": bare_loop,
    "mtlrank": mtlrank,
    "mixture": mtlrank,
    DETERMINISTIC: partial(mtlrank, deterministic=True),
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
    from mtlrank.model.head.pooler import CLSToken, LastToken
    from mtlrank.model.multitask import MultiTaskModel

    parts = _shares(rows) if mixed else {"ranking": rows}
    datasets = {name: Pairs(name, part, options.body).prepared_in(folder / name) for name, part in parts.items()}
    size = options.batch_size
    datamodule = MTLDataModule(MTLDataset(datasets), RandomProportional, Sequential, Sequential, size, size)
    body = MTLBody(options.body)
    pooler = LastToken if body.is_causal else CLSToken
    heads = {
        name: Linear(body.out_dim, body.num_layers, 1, partial(pooler, layers=[DEPTHS[name]])) for name in datasets
    }
    return datamodule, MultiTaskModel(body, heads), datasets


def _no_attention_dropout(body: str) -> dict[str, float]:
    """The setting of a body's config that leaves out attention dropout."""
    from transformers import AutoConfig

    names = ("attention_probs_dropout_prob", "attention_dropout")
    return {name: 0.0 for name in names if hasattr(AutoConfig.from_pretrained(body), name)}


def _on(batches: Any, device: str) -> Iterator[Any]:
    import torch

    from mtlrank.inference.scoring import to_device

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
