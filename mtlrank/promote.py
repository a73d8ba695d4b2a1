"""Promote a trained model if it is not worse than the model in use.

mtlrank promote runs/my-run --registry gs://my-bucket/registry
"""

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrank import evaluate
from mtlrank.compose import pipeline_config
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.judged import head_folders
from mtlrank.evaluation.systems import System, check_same_test_set, read_system
from mtlrank.model.saved import BACKBONE
from mtlrank.registry import EVALUATION, MODEL, Registry
from mtlrank.registry.decision import Decision, decide, parse_measures
from mtlrank.registry.entry import write_entry
from mtlrank.storage import MANIFEST, local_path, read_json


def run(
    model: Path,
    heads: Sequence[Path],
    registry: Registry,
    measures: Sequence[str],
    margin: float = 0.02,
    prepared: Mapping[str, Path] | None = None,
    force: str = "",
) -> Decision:
    """Publish a model with its judged heads, and promote it if `decide` says so. The first model is always promoted.

    If the model in use was judged on other topics or judgements, it is judged again on the datasets `prepared` (by key).
    `force` is a reason to promote the model without a comparison.
    """
    if not measures:
        raise ConfigError("No measures are given: expected at least one, as in trec2019/nDCG@10.")
    if not 0 <= margin < math.inf:
        raise ConfigError(
            f"The margin is {margin}, expected a finite number that is at least 0, in the measures' own unit."
        )
    with tempfile.TemporaryDirectory() as scratch:
        entry = Path(scratch) / "entry"
        write_entry(entry, model, heads)
        candidate = read_system("new", [entry])
        parse_measures(measures, candidate)
        name = registry.publish(entry)
        read = registry.history()
        changes, _ = read
        in_use = changes[-1].model if changes else None
        if in_use == name:
            print(f"{name} is in use already", file=sys.stderr)
            return Decision(True, f"{name} is in use already")
        if force:
            decision = Decision(True, f"promoted without a comparison: {force}")
        elif in_use is None:
            decision = Decision(True, "the first model: there was none to compare with")
        else:
            rivals = _judged_alike(registry.fetch(in_use), candidate, measures, prepared, Path(scratch))
            decision = decide(rivals, candidate, measures, margin)
    if decision.promoted:
        registry.promote(name, decision.reason, read)
    print(f"{name} is {'promoted' if decision.promoted else 'not promoted'}: {decision.reason}", file=sys.stderr)
    return decision


def run_folder(
    folder: Path, registry: Registry, measures: Sequence[str] = (), margin: float = 0.02, force: str = ""
) -> Decision:
    """The same for the folder of a finished training run."""
    model, heads = local_path(folder) / MODEL, head_folders([folder / EVALUATION])
    return run(model, heads, registry, measures or [main_measure(model, heads)], margin, force=force)


def main_measure(model: Path, heads: Sequence[Path]) -> str:
    """The first measure of a model's first task: what decides by default."""
    datasets = read_json(model / "config.json")["datamodule"]["dataset"]["datasets"]
    main = next(iter(datasets.values()))["name"]
    found = [head for head in heads if head.name == main]
    if not found:
        raise DataError(f"{main}, the first task of {model}, was not judged. Judge it, or name other measures.")
    return f"{main}/{read_json(found[0] / 'metrics.json')['primary']}"


def _judged_alike(
    folder: Path, candidate: System, measures: Sequence[str], prepared: Mapping[str, Path] | None, scratch: Path
) -> System:
    """The model in use, judged on what the candidate was judged on."""
    rival = read_system("in use", [folder])
    names = {measure.partition("/")[0] for measure in measures}
    try:
        for name in names & rival.heads.keys() & candidate.heads.keys():
            check_same_test_set(rival.heads[name], candidate.heads[name], "the model in use", "the new one")
        return rival
    except DataError as error:
        if prepared is None:
            raise
        print(f"judging the model in use again: {error}", file=sys.stderr)
    _check_tokenizer(folder / MODEL, prepared)
    again = scratch / "again"
    keys = [
        key for key in read_json(folder / MODEL / "config.json")["datamodule"]["dataset"]["datasets"] if key in prepared
    ]
    settings = {"model_dir": str(folder / MODEL), "tasks": keys, "output_dir": str(again / EVALUATION)}
    evaluate.run(pipeline_config(settings, [], name="evaluate"), prepared)
    return read_system("in use", [again])


def _check_tokenizer(model: Path, prepared: Mapping[str, Path]) -> None:
    sha256 = Preprocessor(str(model / BACKBONE)).load().identity()["sha256"]
    for key, folder in prepared.items():
        if read_json(folder / MANIFEST)["tokenizer"]["sha256"] != sha256:
            raise DataError(
                f"The model in use cannot be judged on {key} as it was prepared: its tokenizer differs. Compare the "
                "models with `mtlrank evaluate` and `mtlrank compare`, then promote with --force and the reason."
            )
