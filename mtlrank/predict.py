"""Use a head of any kind of a trained model: classes, numbers and scores of texts, of pairs of texts and of spans.

python -m mtlrank.predict model_dir=runs/my-run/model head=msm_ner input=texts.jsonl output=predictions.jsonl
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("predict")

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mtlrank.config import Config
from mtlrank.datamodule.named_files import locate_input
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.inference.answers import answers
from mtlrank.inference.questions import Question, questions_of_files
from mtlrank.inference.scorer import CHUNK, Scorer
from mtlrank.model.body.compilation import compile_errors
from mtlrank.progress import Progress, say
from mtlrank.registry import model_folder
from mtlrank.shard import Shard
from mtlrank.storage import local_path, writable_folder, write_lines
from mtlrank.storage.output import check_output
from mtlrank.trained_head import check_predicts, load_head
from mtlrank.words import counted


def run(config: Config) -> int:
    """Write a prediction for each line of the input; returns the number of lines.

    Equal batches give equal numbers to the bit, so within one chunk they are those of `evaluate`.
    """
    output = local_path(config["output"])
    shard = Shard.parse(config["shard"])
    if output.suffix in (".tsv", ".csv", ".run", ".parquet"):
        raise ConfigError(f"output is {str(output)!r}, but predictions are JSON Lines: end its name in .jsonl.")
    check_output(output, {"input": config["input"]}, shard)
    writable_folder(output.resolve().parent)  # through links
    head = load_head(model_folder(config["model_dir"]), config["head"], trust=config["trust_model"], kinds="any")
    check_predicts(head)
    scorer = head.scorer(config["batch_size"], is_compiled=config["compile"])
    reading = Reading(hint=False)
    reading.progress = Progress(f"predict {head.name}/predictions", "lines")
    with tempfile.TemporaryDirectory() as folder, compile_errors("compile"):
        paths = locate_input(config["input"], Path(folder), "texts")
        questions = questions_of_files(paths, reading, head.form, CHUNK, shard)
        write_lines(output, _lines(questions, scorer, reading, may_be_none=shard.total > 1))
    number = reading.progress.done
    say("; ".join([f"predicted {counted(number, 'line')} with {head.name}", *reading.notes()]) + f" ({output})")
    return number


def _lines(chunks: Iterable[list[Question]], scorer: Scorer, reading: Reading, *, may_be_none: bool) -> Iterator[str]:
    """The lines of the output."""
    for rows in answers(chunks, scorer, reading):
        yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        reading.progress.advance(len(rows))
    if not reading.progress.done and not may_be_none:
        raise DataError("There is nothing to predict: the input has no lines.")
