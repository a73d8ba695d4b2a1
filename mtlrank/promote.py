"""Promote a trained model if it is not worse than the model in use.

mtlrank promote runs/my-run --registry gs://my-bucket/registry
"""

if __name__ == "__main__":  # `python -m mtlrank.promote` is `mtlrank promote`
    from mtlrank.entry import start_command

    start_command("promote")

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrank import evaluate
from mtlrank.about import EVALUATION, MODEL, is_unfinished, read_about
from mtlrank.comparing.systems import System, check_same_test_set, read_system
from mtlrank.composing.compose import pipeline_config
from mtlrank.config import Config, datasets_of, head_names
from mtlrank.datamodule.preprocessor import tokenizer_hash
from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import SUMMARY, head_folders, read_head
from mtlrank.evaluation.measures import is_lower_better
from mtlrank.model.saved import BACKBONE
from mtlrank.progress import say, warn
from mtlrank.registry import Registry, Source, model_name
from mtlrank.registry.decision import Decision, decide, parse_measures
from mtlrank.registry.entry import write_entry
from mtlrank.registry.history import Change, held_by
from mtlrank.registry.margin import check_margin
from mtlrank.storage import MANIFEST, is_complete, local_path, read_json, read_manifest
from mtlrank.words import interval

_TEXTS = ("template", "max_length", "max_query_length", "max_passages", "passage_stride")  # of a preprocessor
_BY_HAND = "Compare the models with `mtlrank evaluate` and `mtlrank compare`, then promote with --force and the reason."
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
    """Publish a model with its judged heads, and promote it if `decide` says so, or if it is the first one.

    Without `measures`, the main one of the model in use decides. A model is not promoted if it is worse than its baseline,
    lacks a head of the model in use, or was rolled back; nor is any other after a rollback, until one is promoted with
    `force`.

    If the model in use was judged on other topics or judgements, it is judged again on the datasets `prepared` (by key).
    `force` is a reason to promote the model without a comparison. `trained_in` is where others find the run that made the
    model, by default the folder around it.
    """
    source = _source(model.absolute().parent, trained_in)
    for head in heads:
        read_head(head)  # here, so that a message names this folder, and not the copy
    with tempfile.TemporaryDirectory() as scratch:
        entry = Path(scratch) / "entry"
        write_entry(entry, model, heads)
        candidate = read_system("new", [entry])
        parse_measures(measures, candidate)
        changes = registry.history()
        in_use, name = changes[-1].model if changes else None, model_name(entry)
        if not (measures or force):
            of_first = (
                (entry, "the new model") if in_use in (None, name) else (_intact(registry, in_use), "the model in use")
            )
            measures = [_main_measure(*of_first)]  # of the first model: later ones will be compared by it
        if not force:
            check_margin(margin, measures)
        registry.publish(entry)
        if in_use is not None and (name == in_use or (not force and registry.same_weights(name, in_use))):
            reason = f"{in_use} is in use already" + (f", with the same weights as {name}" if name != in_use else "")
            say(reason)
            return Decision(True, reason, model=name, source=source)
        if force:
            decision = Decision(True, f"promoted without a comparison: {force}")
        else:
            decision = _decide(registry, name, candidate, changes, measures, margin, prepared)
    if decision.promoted:
        registry.promote(name, decision.reason, changes, source)
    say(f"{name} is {'promoted' if decision.promoted else 'not promoted'}: {decision.reason}")
    return decision._replace(model=name, source=source)


def of_run(
    folder: Path,
    registry: Registry,
    measures: Sequence[str] = (),
    margin: float = 0.02,
    force: str = "",
    evaluations: Sequence[Path] = (),
    trained_in: str = "",
) -> Decision:
    """`run` for the folder of a finished training run, whose heads were judged in it or in the folders `evaluations`."""
    if missing := [str(each) for each in evaluations if not local_path(each).is_dir()]:
        raise DataError(
            f"There is no folder {missing[0]}: expected one in which heads were judged, copied to this machine."
        )
    folder = local_path(folder)
    if folder.name == MODEL and is_complete(folder):  # the model itself, as other commands take it
        folder = folder.parent
    if not is_complete(folder / MODEL):
        raise DataError(f"{folder} is not the folder of a finished run: there is no model in it.")
    if is_unfinished(folder):
        raise DataError(
            f"{folder} is not the folder of a finished run: a run has begun there that is not finished, and the model is "
            "that of the run before it. Run the command of the new one again, or wait for it."
        )
    heads = head_folders(evaluations or [folder / EVALUATION])
    return run(folder / MODEL, heads, registry, measures, margin, force=force, trained_in=trained_in)


def _when(rollback: Change) -> str:
    """When a rollback was made, and why."""
    return rollback.when + (f" ({rollback.note})" if rollback.note else "")


def _below_baseline(entry: Path, measures: Sequence[str]) -> str:
    """Why a model is worse than its baseline by one of these measures; empty if none shows that.

    It is, if the 95 % interval of the difference, which `mtlrank evaluate` has noted, is on the wrong side of 0.
    """
    for each in measures:
        head, _, measure = each.partition("/")
        judged = read_json(entry / EVALUATION / head / SUMMARY)
        low, high = judged["intervals"][measure]["gain"] or (0, 0)
        if low > 0 if is_lower_better(measure) else high < 0:
            value, baseline = (judged[key][measure] for key in ("values", "baseline"))
            return (
                f"it is worse than its baseline: {each} {value:.4f}, {judged['baseline_name']} "
                f"{baseline:.4f}, 95 % interval of the difference {interval(low, high)}: {_FORCE}"
            )
    return ""


def _source(run: Path, trained_in: str) -> Source:
    """Where a model came from, as far as its run has recorded it."""
    recorded = read_about(run)
    commit, version = (str(recorded.get(key, "unknown")) for key in ("commit", "mtlrank"))
    return Source(trained_in or str(run), commit, version)


def _main_measure(entry: Path, whose: str) -> str:
    """The first measure of the first task of a model in a registry: what decides by default."""
    main = _heads(entry)[0]
    file = entry / EVALUATION / main / SUMMARY
    if not file.is_file():
        raise DataError(f"{main}, the first task of {whose}, was not judged. Judge it, or name other measures.")
    return f"{main}/{read_json(file)['primary']}"


def _heads(entry: Path) -> list[str]:
    """The names of a model's heads, the main one first."""
    return head_names(read_json(entry / MODEL / "config.json"))


def _decide(
    registry: Registry,
    name: str,
    candidate: System,
    changes: Sequence[Change],
    measures: Sequence[str],
    margin: float,
    prepared: Mapping[str, Path] | None,
) -> Decision:
    """What the registry's history, the baseline and the model in use say of a published model."""
    if rejected := registry.rejection(name, changes):
        return Decision(False, f"it was rolled back at {_when(rejected)}: {_FORCE}")
    if held := held_by(changes):
        return Decision(False, f"after the rollback at {_when(held)}, no model is compared: {_FORCE}")
    if not changes:
        worse = _below_baseline(candidate.folders[0], measures)
        return Decision(not worse, worse or "the first model: there was none to compare with")
    return _compare(_intact(registry, changes[-1].model), candidate, measures, margin, prepared)


def _intact(registry: Registry, model: str) -> Path:
    """A local copy of a model in use. Raises `DataError` if it was damaged: its evaluation decides what replaces it."""
    try:
        folder = registry.fetch(model)
        read_manifest(folder)  # of a local registry, nothing is fetched and compared
    except DataError as error:
        raise DataError(
            f"The model in use is damaged, so nothing can be compared with it: {error} Promoting the run that {model} came "
            "from again repairs it."
        ) from error
    return folder


def _compare(
    rival: Path, candidate: System, measures: Sequence[str], margin: float, prepared: Mapping[str, Path] | None
) -> Decision:
    """Refuse a model that lacks a head of the model in use, `rival`: others rank with it. Else compare the two."""
    if lacking := [name for name in _heads(rival) if name not in _heads(candidate.folders[0])]:
        return Decision(
            False,
            f"it has no head {', '.join(lacking)}, which the model in use has: train with that task too. {_FORCE}",
        )
    parse_measures(measures, candidate)
    decision = decide(_judged_alike(rival, candidate, measures, prepared), candidate, measures, margin)
    worse = _below_baseline(candidate.folders[0], measures) if decision.promoted else ""
    return decision._replace(promoted=False, reason=worse) if worse else decision


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
    deciding = {name.partition("@")[0] for name in names}  # others may have test data that this model cannot judge
    datasets, new = (datasets_of(read_json(each / MODEL / "config.json")) for each in (folder, candidate.folders[0]))
    keys = [key for key, node in datasets.items() if key in prepared and node["name"] in deciding]
    _check_tokenizer(folder / MODEL, {key: prepared[key] for key in keys})
    for key in keys:
        _check_texts(key, datasets[key], new.get(key, {}))
    with tempfile.TemporaryDirectory() as again:
        settings = {"model_dir": str(folder / MODEL), "tasks": keys, "output_dir": str(Path(again) / EVALUATION)}
        evaluate.run(pipeline_config(settings, [], name="evaluate"), prepared)
        return read_system("in use", [again])


def _check_texts(key: str, ours: Config, theirs: Config) -> None:
    """Refuse prepared data in which a model would read other parts of texts, or texts that are joined in another way."""
    parts = {
        "bm25_in_text": (ours.get("bm25_in_text"), theirs.get("bm25_in_text")),
        **{name: (ours.get("preprocessor", {}).get(name), theirs.get("preprocessor", {}).get(name)) for name in _TEXTS},
    }
    for name, (mine, other) in parts.items():
        if mine != other:
            raise DataError(
                f"The model in use cannot be judged on {key} as it was prepared: {name} was {mine!r} and is {other!r} now. "
                f"{_BY_HAND}"
            )


def _check_tokenizer(model: Path, prepared: Mapping[str, Path]) -> None:
    sha256 = tokenizer_hash(str(model / BACKBONE))
    for key, folder in prepared.items():
        if read_json(folder / MANIFEST)["tokenizer"]["sha256"] != sha256:
            raise DataError(
                f"The model in use cannot be judged on {key} as it was prepared: its tokenizer differs. {_BY_HAND}"
            )
