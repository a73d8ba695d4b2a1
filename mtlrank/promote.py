"""Promote a trained model if it is not worse than the model in use.

mtlrank promote runs/my-run --registry gs://my-bucket/registry
"""

if __name__ == "__main__":  # `python -m mtlrank.promote` is `mtlrank promote`
    from mtlrank.entry import start_command

    start_command("promote")

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrank import evaluate
from mtlrank.composing.compose import pipeline_config
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.judged_head import head_folders
from mtlrank.evaluation.systems import System, check_same_test_set, read_system
from mtlrank.model.saved import BACKBONE
from mtlrank.progress import say, warn
from mtlrank.registry import EVALUATION, MODEL, Registry, Source
from mtlrank.registry.decision import Decision, decide, parse_measures
from mtlrank.registry.entry import write_entry
from mtlrank.run_folder import about
from mtlrank.storage import MANIFEST, local_path, read_json

_FORCE = "`mtlrank promote ... --force REASON` promotes it all the same"


def run(
    model: Path,
    heads: Sequence[Path],
    registry: Registry,
    measures: Sequence[str],
    margin: float = 0.02,
    prepared: Mapping[str, Path] | None = None,
    force: str = "",
    trained_in: str = "",
) -> Decision:
    """Publish a model with its judged heads, and promote it if `decide` says so. The first model is always promoted.

    Without `measures`, the main one of the model in use decides. A model that lacks a head of the model in use, or that
    was rolled back, is not promoted.

    If the model in use was judged on other topics or judgements, it is judged again on the datasets `prepared` (by key).
    `force` is a reason to promote the model without a comparison. `trained_in` is where others find the run that made the
    model, by default the folder around it.
    """
    if not 0 <= margin < math.inf:
        raise ConfigError(
            f"The margin is {margin}, expected a finite number that is at least 0, in the measures' own unit."
        )
    source = _source(model.absolute().parent, trained_in)
    with tempfile.TemporaryDirectory() as scratch:
        entry = Path(scratch) / "entry"
        write_entry(entry, model, heads)
        candidate = read_system("new", [entry])
        parse_measures(measures, candidate)
        changes = registry.history()
        in_use = changes[-1].model if changes else None
        if not (measures or force or in_use):
            _main_measure(entry, "the new model")  # later ones will be compared by it
        name = registry.publish(entry)
        if in_use is not None and (name == in_use or (not force and registry.same_weights(name, in_use))):
            reason = f"{in_use} is in use already" + (f", with the same weights as {name}" if name != in_use else "")
            say(reason)
            return Decision(True, reason, model=name, source=source)
        if force:
            decision = Decision(True, f"promoted without a comparison: {force}")
        elif in_use is None:
            decision = Decision(True, "the first model: there was none to compare with")
        elif rejected := registry.rejection(name, changes):
            why = f" ({rejected.note})" if rejected.note else ""
            decision = Decision(False, f"it was rolled back at {rejected.when}{why}: {_FORCE}")
        else:
            decision = _decide(registry.fetch(in_use), candidate, measures, margin, prepared)
    if decision.promoted:
        registry.promote(name, decision.reason, changes, source)
    say(f"{name} is {'promoted' if decision.promoted else 'not promoted'}: {decision.reason}")
    return decision._replace(model=name, source=source)


def run_folder(
    folder: Path, registry: Registry, measures: Sequence[str] = (), margin: float = 0.02, force: str = ""
) -> Decision:
    """`run` for the folder of a finished training run."""
    model, heads = local_path(folder) / MODEL, head_folders([folder / EVALUATION])
    return run(model, heads, registry, measures, margin, force=force)


def _source(run: Path, trained_in: str) -> Source:
    """Where a model came from, as far as its run has recorded it."""
    recorded = about(run)
    commit, version = (str(recorded.get(key, "unknown")) for key in ("commit", "mtlrank"))
    return Source(trained_in or str(run), commit, version)


def _main_measure(entry: Path, whose: str) -> str:
    """The first measure of the first task of a model in a registry: what decides by default."""
    main = _heads(entry)[0]
    file = entry / EVALUATION / main / "metrics.json"
    if not file.is_file():
        raise DataError(f"{main}, the first task of {whose}, was not judged. Judge it, or name other measures.")
    return f"{main}/{read_json(file)['primary']}"


def _heads(entry: Path) -> list[str]:
    """The names of a model's heads, the main one first."""
    datasets = read_json(entry / MODEL / "config.json")["datamodule"]["dataset"]["datasets"]
    return [str(dataset["name"]) for dataset in datasets.values()]


def _decide(
    rival: Path, candidate: System, measures: Sequence[str], margin: float, prepared: Mapping[str, Path] | None
) -> Decision:
    """Refuse a model that lacks a head of the model in use, `rival`: others rank with it. Else compare the two."""
    if lacking := [name for name in _heads(rival) if name not in _heads(candidate.folders[0])]:
        return Decision(
            False,
            f"it has no head {', '.join(lacking)}, which the model in use has: train with that task too. {_FORCE}",
        )
    measures = measures or [_main_measure(rival, "the model in use")]
    parse_measures(measures, candidate)
    return decide(_judged_alike(rival, candidate, measures, prepared), candidate, measures, margin)


def _judged_alike(
    folder: Path, candidate: System, measures: Sequence[str], prepared: Mapping[str, Path] | None
) -> System:
    """The model in use, judged on the candidate's test sets."""
    rival = read_system("in use", [folder])
    names = {measure.partition("/")[0] for measure in measures}
    try:
        for name in names & rival.heads.keys() & candidate.heads.keys():
            check_same_test_set(rival.heads[name], candidate.heads[name], "the model in use", "the new one")
        return rival
    except DataError as error:
        if prepared is None:
            raise
        warn(f"judging the model in use again: {error}")
    _check_tokenizer(folder / MODEL, prepared)
    keys = [
        key for key in read_json(folder / MODEL / "config.json")["datamodule"]["dataset"]["datasets"] if key in prepared
    ]
    with tempfile.TemporaryDirectory() as again:
        settings = {"model_dir": str(folder / MODEL), "tasks": keys, "output_dir": str(Path(again) / EVALUATION)}
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
