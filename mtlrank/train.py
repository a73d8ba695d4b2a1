"""Train one body with one head per dataset.

python -m mtlrank.train training.batch_size=32 loop.optimizer.lr=1e-4
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("train")

import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.distributed import DistBackendError

from mtlrank import evaluate, prepare, run_folder
from mtlrank.about import ABOUT, EVALUATION, METRICS, MODEL, REPORT, WEIGHTS, describe, read_about
from mtlrank.building.datamodule import build_datamodule, check_samplers
from mtlrank.building.dataset import check_tokenizers, has_split
from mtlrank.building.loop import build_loop, check_loop
from mtlrank.building.model import build_body, build_model, check_vocabulary, compile_body, with_start_fetched
from mtlrank.building.own_classes import code_of, own_code
from mtlrank.building.trainer import (
    LOGS,
    build_checkpoints,
    build_milestones,
    build_service,
    build_trainer,
    check_trainer,
    log_settings,
    no_validation,
    plan_steps,
)
from mtlrank.composing.selection import check_monitor, select_tasks
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.leaks import leaks_between, leaks_within, leave_out_leaks
from mtlrank.datamodule.multitask import MTLDataModule
from mtlrank.datamodule.sampler import check_once
from mtlrank.errors import ConfigError, DataError, ResourceError, one_line
from mtlrank.evaluation.judged_head import head_name
from mtlrank.evaluation.report import invented, print_table, write_report, write_validation_report
from mtlrank.loop.checkpoints import CHECKPOINTS, Checkpoints
from mtlrank.loop.logger import Service
from mtlrank.loop.milestones import Milestones
from mtlrank.loop.multitask import MultiTaskLoop
from mtlrank.loop.stopping import StopSignals
from mtlrank.made_from import MadeFrom, around_data, check_unchanged, fingerprints
from mtlrank.model.body.compilation import compile_errors
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import save_model
from mtlrank.processes import end_with_starter
from mtlrank.progress import say, warn
from mtlrank.storage import file_hash, fingerprint, join, read_json, sole_user, write_json
from mtlrank.trained_head import parts_of_model
from mtlrank.words import counted


def run(config: Config, prepared: Mapping[str, Path] | None = None) -> dict[str, float]:
    """Prepare what is missing, train, keep the best model, judge it. Returns the metrics by key.

    `prepared` holds folders by dataset key; without it, datasets are prepared in `data_dir`. A run that was stopped
    continues from its last checkpoint; one that is finished is not run again unless `force` is set.
    """
    config = _selected(config)
    output = run_folder.output_folder(config)
    end_with_starter()
    with sole_user(output) if rank_zero_only.rank == 0 else nullcontext():
        return _run(output, config, prepared)


def rehearse(config: Config) -> dict[str, PreparedDataset]:
    """Raise what `run` would raise before its first step, prepare what is missing, and return the datasets by key."""
    config = _selected(config)
    _check_settings(config)
    return _build(config, None).datasets


def objective(config: Config, metrics: Mapping[str, float]) -> float | None:
    """The metric that chose a run's weights; None on all processes but the first, which have no metrics."""
    if not metrics:
        return None
    config = select_tasks(config)
    return metrics.get(_chosen_by(run_folder.output_folder(config)))


def summary(folder: Path, metrics: Mapping[str, float]) -> dict[str, str | int | float]:
    """The key facts of a finished run, for a page that lists models."""
    config, description = read_json(folder / MODEL / "config.json"), read_about(folder)
    facts: dict[str, str | int | float] = {
        key: description[key] for key in ("mtlrank", "commit", "started", "seconds", "steps") if key in description
    }
    facts |= {"tasks": ", ".join(datasets_of(config)), "seed": config["seed"]}
    if (key := _chosen_by(folder)) in metrics:
        facts |= {"chosen by": key, "reached": metrics[key]}
    return facts


def _chosen_by(folder: Path) -> str:
    """The key of what chose a finished run's weights; empty if that is not known."""
    return str(read_about(folder).get("chosen by", ""))


def _selected(config: Config) -> Config:
    config = select_tasks(config)
    if config["prepare"]["shard"]:
        raise ConfigError(
            "prepare.shard is for `mtlrank prepare`: it prepares a part of each dataset. Train without it."
        )
    return config


class _Inputs(NamedTuple):
    """The data of a run, and the model that learns from it."""

    datasets: dict[str, PreparedDataset]
    leaks: list[str]  # sentences for the report
    datamodule: MTLDataModule
    model: MultiTaskModel
    made_from: MadeFrom


class _Training(NamedTuple):
    """A training that is ready to start."""

    trainer: pl.Trainer
    loop: MultiTaskLoop
    milestones: Milestones
    service: Service | None
    checkpoint: str | None  # to continue from
    started: float  # when the run started, as `time.time` counts


def _run(output: Path, config: Config, prepared: Mapping[str, Path] | None) -> dict[str, float]:
    """The run of one process, in a folder that no other run uses."""
    started = time.time()
    if not config["force"] and run_folder.holds(output, config):
        return _metrics_of_finished(output, config, prepared)
    _check_settings(config)
    pl.seed_everything(config["seed"], verbose=False)
    checkpoints = build_checkpoints(config, output)
    run_folder.check_owner(checkpoints.folder, config, "training.checkpoint_dir")
    inputs = _build(config, prepared)
    with StopSignals(forced=config["force"]) as signals:
        training = _build_training(config, output, inputs, checkpoints, signals, started)
        is_first = training.trainer.is_global_zero  # it writes what the other processes read
        description = _begin(config, output, training) if is_first else {}
        _fit(training.trainer, training.loop, inputs.datamodule, training.checkpoint)
        if is_first:  # the others have nothing left to do
            signals.raise_noted()
    if not is_first:
        return {}
    with signals.told():
        return _conclude(config, output, inputs, training, description)


def _build_training(
    config: Config, output: Path, inputs: _Inputs, checkpoints: Checkpoints, signals: StopSignals, started: float
) -> _Training:
    """All that trains the model. Raises `ConfigError` for a run that cannot continue from its checkpoints."""
    weights = inputs.made_from.weights
    milestones = build_milestones(config, checkpoints, inputs.datasets, inputs.model, signals, started, weights)
    service = build_service(config)
    trainer = build_trainer(config, output, milestones, service)
    steps = plan_steps(config, inputs.datamodule, trainer)
    loop = build_loop(config, inputs.model, inputs.datasets, total_steps=steps)
    checkpoint = None if config["force"] else milestones.resume_from(loop)
    if (output / METRICS).exists() and not config["force"] and not checkpoints.all("step"):
        raise ConfigError(
            f"{output} is finished, and its checkpoints are gone: it cannot go on. force=true starts over."
        )
    return _Training(trainer, loop, milestones, service, checkpoint, started)


def _begin(config: Config, output: Path, training: _Training) -> dict[str, str]:
    """Make the folders this run's and say what is trained; returns the run's description."""
    settings = run_folder.run_identity(config)
    if training.service:
        training.service.open(output, settings, anew=config["force"])
    description = describe(training.started)  # now, as the code may change while it runs
    _open(output, training.milestones.checkpoints, config, description)
    log_settings(training.trainer, settings, training.milestones.monitored.key)
    say(_announcement(config, output, training))
    return description


def _conclude(
    config: Config,
    output: Path,
    inputs: _Inputs,
    training: _Training,
    description: Mapping[str, str],
) -> dict[str, float]:
    """Save the best weights and judge them; returns the metrics by key."""
    metrics = training.milestones.restore_best(training.loop)
    kept = training.milestones.chosen()
    say(f"kept the weights of {kept}")
    _save(output / MODEL, inputs.model, inputs.datasets, config)
    seconds = round(training.milestones.seconds())
    learnt = {"steps": training.trainer.global_step, "samples": training.loop.examples.total()}
    result = {"seconds": seconds, **learnt, "weights": kept, "chosen by": training.milestones.monitored.key}
    leaks = {"leaks": " ".join(inputs.leaks)} if inputs.leaks else {}
    write_json(output / ABOUT, {**description, **result, **leaks}, sort_keys=False)
    inputs.made_from.save(output)
    service = training.service
    if config["test"]:
        judged = _judge(config, output, inputs)
        metrics |= judged
        if service:
            service.log_metrics(judged, training.loop.global_step)
    else:  # those of an earlier model are not this one's
        run_folder.empty(output / EVALUATION)
    if service:
        service.close()
    write_json(output / METRICS, metrics)  # last: a run with metrics is finished, also if printing fails
    if heads := _judged_heads(output, inputs.datasets) if config["test"] else []:
        print_table(heads)
        if note := invented(datasets_of(config).values()):
            print(note)
    else:
        _report_validation(output, metrics, inputs.datasets)
    print(f"results: {output}   report: {output / REPORT / 'report.html'}")
    return metrics


def _check_settings(config: Config) -> None:
    """Refuse mistakes that show before anything is read or loaded."""
    datasets = datasets_of(config)
    if not any(has_split(node, "val") for node in datasets.values()):
        raise no_validation(datasets)
    check_monitor(config)
    check_loop(config)
    check_samplers(config)
    check_trainer(config)


def _build(config: Config, prepared: Mapping[str, Path] | None) -> _Inputs:
    """Data and model of a run. Mistakes that show without data are found before any is prepared."""
    config = with_start_fetched(config)
    made_from = around_data(config)  # first, as files may change from now on
    body = build_body(config)
    check_vocabulary(body)
    if config["training"]["compile"]:
        compile_body(config, body)
    datasets = prepare.run(config, prepared)
    check_tokenizers(config, datasets)
    for left_out in leave_out_leaks(list(datasets.values())):
        warn(left_out)
    leaks = list(leaks_between(list(datasets.values()))) if rank_zero_only.rank == 0 else []
    for leak in leaks:
        warn(leak)
    # Not said here: `prepare` has said them.
    leaks += [f"{dataset.name}: {leak}." for dataset in datasets.values() if (leak := leaks_within(dataset))]
    datamodule = build_datamodule(config, datasets)
    check_once("test", datamodule.samplers["test"])  # now, not after the training
    model = build_model(config, body, datasets)
    made_from.check_weights(config)
    return _Inputs(datasets, leaks, datamodule, model, made_from.read(datasets))


def _open(output: Path, checkpoints: Checkpoints, config: Config, description: Mapping[str, str]) -> None:
    """Claim the folders for this run. Not before training begins: an earlier error leaves a finished run as it is."""
    run_folder.check_replaceable(output)
    (output / METRICS).unlink(missing_ok=True)
    checkpoints.take()  # first, so that an earlier process that is still alive stops writing
    if config["force"]:
        checkpoints.clear()
        for logs in LOGS:
            run_folder.empty(output / logs)
    for folder in (output, checkpoints.folder):
        run_folder.claim(folder, config)
    write_json(output / ABOUT, description, sort_keys=False)


def _announcement(config: Config, output: Path, training: _Training) -> str:
    """A line that says what is trained, for how many steps, and into which folder."""
    trainer, loop = training.trainer, training.loop
    weights = [(weight.numel(), weight.requires_grad) for weight in loop.parameters()]
    learn, total = sum(number for number, learns in weights if learns), sum(number for number, _ in weights)
    heads = counted(len(loop.model.heads) - len(loop.model.shared), "head")
    of = f"{total:,} parameters of {loop.model.body.describe()} with {heads}"
    processes, device = trainer.world_size, trainer.strategy.root_device.type
    where = f"on {device if processes == 1 else f'{processes} processes of {device}'} in {trainer.precision}"
    rest = f"into {output}; {training.milestones.monitored.key} chooses the weights"
    if not loop.total_steps:
        return f"training nothing: {of} {where}, {rest}"
    batches, max_tokens = processes * trainer.accumulate_grad_batches, config["training"]["max_tokens"]
    size = counted(config["training"]["batch_size"] * batches, "sample")
    if max_tokens is not None:
        size = f"at most {counted(max_tokens * batches, 'token')}"
    return f"training {learn:,} of {of} {where}, {counted(loop.total_steps, 'step')} of {size}, {rest}"


def _save(folder: Path, model: MultiTaskModel, datasets: Mapping[str, PreparedDataset], config: Config) -> None:
    """Write the model with all that is needed to use it."""
    tokenizer = next(iter(datasets.values())).preprocessor.load().tokenizer
    labels = {key: dataset.manifest["labels"] for key, dataset in datasets.items()}
    sources = {key: dataset.manifest["source"] for key, dataset in datasets.items()}
    own = own_code(parts_of_model(config))
    save_model(folder, model, tokenizer, run_folder.without_places(config), labels, sources, own)


def _metrics_of_finished(output: Path, config: Config, prepared: Mapping[str, Path] | None) -> dict[str, float]:
    """The metrics of a finished run, which is not run again."""
    finished = output / METRICS
    try:
        values: dict[str, float] = read_json(finished)
    except DataError as error:
        raise DataError(f"{finished} is damaged. force=true starts the run over.") from error
    check_unchanged(output, config, prepared)
    is_judged = (output / EVALUATION).exists() or not config["test"]
    hint = "" if is_judged else f" No test split was judged: mtlrank evaluate model_dir={output / 'model'}"
    say(f"already finished: {output}. force=true runs it again.{hint}")
    return values


def run_step(config: Config, checkpoints: str, prepared: Mapping[str, Path]) -> dict[str, float]:
    """`run` as a step of the pipeline, whose output folder is handed to the steps after it.

    Checkpoints lie in a folder below `checkpoints` that is named by the run's settings, data and code. So a step that is
    retried on another machine continues, and one of another image starts over. Without `checkpoints`, they lie in the run's
    folder until it is finished: they have several times the model's size, and later steps would have to fetch them.
    """
    if checkpoints:
        same = {
            "run": run_folder.run_identity(config),
            "data": fingerprints(config, prepared),
            "code": code_of(config),
        }
        name = fingerprint(same)
        config = {**config, "training": {**config["training"], "checkpoint_dir": join(checkpoints, name)}}
    metrics = run(config, prepared)
    if rank_zero_only.rank == 0:
        shutil.rmtree(Path(config["output_dir"]) / CHECKPOINTS, ignore_errors=True)
    return metrics


def _fit(trainer: pl.Trainer, loop: MultiTaskLoop, datamodule: MTLDataModule, checkpoint: str | None) -> None:
    """Train from the beginning or from a checkpoint. Lack of memory and lost processes raise a `ResourceError`."""
    try:
        with compile_errors("training.compile"):
            trainer.fit(loop, datamodule, ckpt_path=checkpoint, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"The GPU ran out of memory in step {loop.global_step + 1}: {one_line(error)} Lower "
            "training.batch_size or training.max_tokens (and raise trainer.accumulate_grad_batches), "
            "training.eval_batch_size if it was validating, or set trainer.precision=bf16-mixed or "
            "model.body.activation_checkpointing=true (without training.compile)."
        ) from error
    except RuntimeError as error:
        if not (isinstance(error, DistBackendError) or "gloo" in str(error)):
            raise
        raise ResourceError(
            f"Another of the {trainer.world_size} processes ended: its message says why. Without a message, it was killed, "
            "perhaps for lack of memory. The same command continues from the last checkpoint."
        ) from error


def _judge(config: Config, output: Path, inputs: _Inputs) -> dict[str, float]:
    """Judge each head on its test split and report."""
    for replaced in (EVALUATION, REPORT):  # of a run that this one replaces
        run_folder.empty(output / replaced)
    batch_size, precision = config["training"]["eval_batch_size"], str(config["trainer"]["precision"])
    scoring = evaluate.Scoring(batch_size, precision, inputs.datamodule.samplers["test"])
    weights = file_hash(output / MODEL / WEIGHTS)
    metrics = evaluate.judge_all(inputs.model, inputs.datasets, output / EVALUATION, scoring, weights)
    if heads := _judged_heads(output, inputs.datasets):
        write_report(output / REPORT, output, heads)
    return metrics


def _report_validation(output: Path, metrics: Mapping[str, float], datasets: Mapping[str, PreparedDataset]) -> None:
    """Report on a run that judged no test set."""
    run_folder.empty(output / REPORT)
    measures = {dataset.name: dataset.task.measures[0] for dataset in datasets.values()}
    write_validation_report(output / REPORT, output, metrics, measures)


def _judged_heads(output: Path, datasets: Mapping[str, PreparedDataset]) -> list[Path]:
    """The folders of a run's heads, a head on each of its test sets."""
    sets = [(dataset.name, split) for dataset in datasets.values() for split in dataset.sets("test")]
    return [output / EVALUATION / head_name(name, split) for name, split in sets]
