"""Quality: a cross-encoder trained by mtlrank and one by sentence-transformers, on the same pairs with the same settings.

    python -m benchmarks.quality --body /path/to/all-MiniLM-L6-v2 --queries 20
    python -m benchmarks.quality --body bert-base-uncased --device cuda

Both learn from judged passages of TREC DL 2021 and BM25 negatives, one by one (binary cross-entropy), and re-rank BM25's
top 100 of TREC DL 2019. `mtlrank compare` compares them over seeds. With several epochs, mtlrank keeps the weights that
are best in validation, sentence-transformers the last ones. mtlrank runs with its defaults, and with the attention
dropout that BERT was trained with. What is finished in `--output` is not done again. Needs `pip install
'mtlrank[annotate,bench]'` and what `experiment=trec2019` needs.
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mtlrank import compare, train
from mtlrank.building.dataset import build_dataset
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.config import Config, datasets_of
from mtlrank.storage import write_text
from mtlrank.trec import run_line

KEY = "datamodule.dataset.datasets.trec2019"
TASK = ["experiment=trec2019", "tasks=[trec2019]", f"task@{KEY}.task=relevance", "model/heads@model.heads.trec2019=cls"]
OURS = {"mtlrank": [], "attention-dropout": ["model.body.attention_dropout=0.1"]}
MAX_LENGTH = 256  # tokens


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--body", required=True, help="folder or hub name of a BERT")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--queries", type=int, help="training queries; default: all")
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--lr", type=float, default=5e-5)
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    made.add_argument("--output", type=Path, help="folder that keeps data and runs; default: none is kept")
    options = made.parse_args()
    with nullcontext(options.output) if options.output else tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in options.seeds:
            for name, words in OURS.items():
                output = Path(folder) / f"{name}-{seed}"
                train.run(_config(options, Path(folder), f"output_dir={output}", f"seed={seed}", *words))
                runs.append(f"{name}={output}")
            run = Path(folder) / f"sentence-transformers-{seed}.run"
            if not run.exists():
                write_text(run, _sentence_transformers(options, _config(options, Path(folder)), seed))
            runs.append(f"sentence-transformers={run}")
        compare.run(runs, ["sentence-transformers"], measures=["nDCG@10"])


def _config(options: argparse.Namespace, folder: Path, *words: str) -> Config:
    accelerator, precision = {"cpu": ("cpu", "32-true"), "cuda": ("gpu", "bf16-mixed")}[options.device]
    settings = [
        f"model.body.backbone={options.body}",
        f"data_dir={folder / 'data'}",
        f"max_length={MAX_LENGTH}",
        f"training={{batch_size: {options.batch_size}, epochs: {options.epochs}, val_checks_per_epoch: 1, patience: null}}",
        f"loop.optimizer.lr={options.lr}",
        f"trainer.accelerator={accelerator}",
        f"trainer.precision={precision}",
    ]
    few = [f"+{KEY}.max_queries={options.queries}"] if options.queries else []
    return select_tasks(compose_config([*TASK, *settings, *few, *words], trusted=True))


def _sentence_transformers(options: argparse.Namespace, config: Config, seed: int) -> str:
    """Train with CrossEncoderTrainer as its documentation shows it; returns the ranking of the test as a TREC run."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    dataset: Any = build_dataset(datasets_of(config)["trec2019"])
    level, learnt = dataset.task.relevance_level, list(dataset.records("train"))
    data = {
        "query": [record.query for record in learnt],
        "passage": [record.text for record in learnt],
        "label": [float(record.label >= level) for record in learnt],
    }
    model = CrossEncoder(options.body, num_labels=1, device=options.device, max_length=MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=options.epochs,
            learning_rate=options.lr,
            weight_decay=config["loop"]["optimizer"]["weight_decay"],
            warmup_ratio=config["loop"]["schedule"]["warmup"],
            seed=seed,
            save_strategy="no",
            report_to="none",
            use_cpu=options.device == "cpu",
            bf16=options.device == "cuda",
        )
        loss = BinaryCrossEntropyLoss(model)
        CrossEncoderTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(data), loss=loss).train()
    asked = list(dataset.records("test"))
    scores = model.predict([(record.query, record.text) for record in asked], batch_size=128, show_progress_bar=False)
    lines = zip(asked, scores.tolist(), strict=True)
    return "".join(run_line(record.query_id, record.doc_id, 0, score, tag="s-t") for record, score in lines)


if __name__ == "__main__":
    main()
