"""Score pairs, or re-rank a run, with a head of a trained model.

python -m mtlrank.rank model_dir=runs/my-run/model head=trec2019 input=pairs.tsv output=run.trec
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("rank")

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mtlrank.annotate.bm25_settings import BM25Settings
from mtlrank.checks import choice
from mtlrank.config import Config
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.datamodule.named_files import locate_input
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.inference.candidates import Candidate, pairs_of_files, pairs_of_run, pairs_retrieved
from mtlrank.inference.pair_store import PairStore
from mtlrank.inference.scorer import CHUNK
from mtlrank.inference.scoring import one_late
from mtlrank.model.body.compilation import compile_errors
from mtlrank.progress import Progress, say
from mtlrank.registry import model_folder
from mtlrank.shard import Shard
from mtlrank.storage import local_path, writable_folder, write_lines
from mtlrank.storage.output import check_output
from mtlrank.trained_head import load_head
from mtlrank.trec import run_line
from mtlrank.words import counted

FORMATS = ("run", "tsv", "jsonl")
_SOURCES = ("ir_dataset", "queries", "docs", "run")
_DEPTH = 100  # documents that BM25 retrieves for a query


def run(config: Config) -> int:
    """Score the pairs that the config names and write one file; returns the number of pairs.

    Equal batches give equal scores to the bit, so candidates of one chunk are ranked exactly as `evaluate` ranks them.
    """
    layout, output = _format(config), local_path(config["output"])
    shard = Shard.parse(config["shard"])
    _check_sources(config)
    check_output(output, {name: config[name] for name in ("input", *_SOURCES[1:])}, shard)
    writable_folder(output.resolve().parent)  # through links
    head = load_head(model_folder(config["model_dir"]), config["head"], trust=config["trust_model"])
    scorer = head.scorer(config["batch_size"], max_passages=config["max_passages"], is_compiled=config["compile"])
    reading = Reading(hint=False)
    reading.progress = Progress(f"rank {head.name}/scores", "pairs")
    with tempfile.TemporaryDirectory() as folder, closing(PairStore(Path(folder) / "pairs.sqlite")) as store:
        number = 0
        with compile_errors("compile"):
            for scored in one_late(
                map(scorer.submit, _chunks(config, shard, reading, store, Path(folder), head.dataset.bm25_text))
            ):
                store.put((pair.number for pair in scored.pairs), scored.scores().tolist())
                number += len(scored.pairs)
                reading.progress.advance(len(scored.pairs))
        if not number and shard.total == 1:
            raise DataError("There is nothing to score: the input has no pairs of a query and a document.")
        write_lines(output, _lines(store, layout, config, config["tag"] or f"mtlrank-{head.name}"))
    say("; ".join([f"ranked {counted(number, 'pair')} with {head.name}", *reading.notes()]) + f" ({output})")
    return number


def _chunks(
    config: Config, shard: Shard, reading: Reading, store: PairStore, folder: Path, bm25_text: BM25Text | None
) -> Iterator[list[Candidate]]:
    """The pairs of a shard to score, from the source that the config names."""
    if config["input"]:
        paths = locate_input(config["input"], folder, "pairs")
        return pairs_of_files(paths, reading, store, CHUNK, shard.holds, bm25_text)
    parts = {"id" if part == "ir_dataset" else part: config[part] for part in _SOURCES if config[part]}
    parts["bm25"] = config["bm25"]
    collection = Collection(parts, reading, shard.holds)
    for part in ("queries", "docs"):
        if not collection.source.has(part):
            raise ConfigError(f"There are no {part}: give a file with {part}=... or an id with ir_dataset=...")
    if bm25_text:
        bm25_text.check(collection)
    if collection.source.has("run"):
        if collection.source.bm25_settings != BM25Settings() and not bm25_text:
            raise ConfigError(
                f"bm25 is {config['bm25']}, but the run of {collection.source.name} is re-ranked. Set run=bm25, so that "
                "BM25 retrieves, or leave bm25 out."
            )
        if config["depth"] is not None:
            raise ConfigError(
                f"depth is {config['depth']}, but the run of {collection.source.name} is re-ranked. Set "
                f"top_k={config['depth']} for its first documents, or run=bm25, so that BM25 retrieves."
            )
        may_be_of_others = config["run"] or config["queries"]  # a user's own run often has the queries of all splits
        return pairs_of_run(
            collection,
            store,
            CHUNK,
            config["top_k"],
            config["missing_texts"],
            missing_queries="skip" if may_be_of_others else "stop",
            bm25_text=bm25_text,
        )
    if (top := config["top_k"]) is not None:
        raise ConfigError(f"top_k is {top}, but there is no run to re-rank: BM25 retrieves. Set depth={top} instead.")
    return pairs_retrieved(collection, store, CHUNK, config["depth"] or _DEPTH, config["missing_texts"], bm25_text)


def _lines(store: PairStore, layout: str, config: Config, tag: str) -> Iterator[str]:
    if layout == "run":
        rest_from = config["top_k"] if config["rest"] == "keep" else None
        yield from (run_line(*doc, tag=tag) for doc in store.ranking(config["keep"], rest_from))
        return
    for query_id, doc_id, score in store.in_order():
        if layout == "tsv":
            yield f"{query_id}\t{doc_id}\t{score:.9g}\n"
        else:
            row = {"query_id": query_id, "doc_id": doc_id, "score": float(f"{score:.9g}")}
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _format(config: Config) -> str:
    """The layout of the output."""
    wanted = config["format"]
    if wanted is None:
        ending = Path(config["output"]).suffix.removeprefix(".")
        if ending in ("json", "csv", "parquet"):
            raise ConfigError(
                f"output is {config['output']!r}: choose its format, one of {', '.join(FORMATS)} (format=jsonl)."
            )
        wanted = ending if ending in FORMATS else "run"
    choice(FORMATS).check("format", wanted)
    if config["keep"] is not None and wanted != "run":
        raise ConfigError(
            f"keep is for rankings, but format={wanted} writes every pair. Leave keep out, or use format=run."
        )
    if config["tag"] is not None and wanted != "run":
        raise ConfigError(f"tag is for TREC runs, but format={wanted} has none. Leave tag out, or use format=run.")
    choice(("drop", "keep")).check("rest", config["rest"])
    if config["rest"] == "keep" and (config["top_k"] is None or wanted != "run"):
        raise ConfigError(
            "rest=keep is for a TREC run (format=run) whose first documents are re-ranked: set top_k, or leave rest out."
        )
    return str(wanted)


def _check_sources(config: Config) -> None:
    """Refuse a config with neither pairs nor a collection, or with both."""
    given = [name for name in _SOURCES if config[name]]
    if config["input"] and given:
        raise ConfigError(f"input has pairs with their texts: leave out either input or {', '.join(given)}.")
    if not config["input"] and not given:
        raise ConfigError("There is nothing to score: give input=..., or queries=... and docs=..., or ir_dataset=...")
    if BM25Settings.of(config["bm25"]) != BM25Settings() and config["input"]:
        raise ConfigError(f"bm25 is {config['bm25']}, but input has pairs: BM25 retrieves none. Leave bm25 out.")
    if config["input"] and config["top_k"] is not None:
        raise ConfigError(f"top_k is {config['top_k']}, but all pairs of input are scored. Leave top_k out.")
    if config["input"] and config["depth"] is not None:
        raise ConfigError(f"depth is {config['depth']}, but input has pairs: BM25 retrieves none. Leave depth out.")
    choice(("stop", "skip")).check("missing_texts", config["missing_texts"])
