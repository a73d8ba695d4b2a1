"""Judge the heads of a trained model.

python -m mtlrank.evaluate model_dir=runs/my-run/model
python -m mtlrank.evaluate model_dir=runs/my-run/model head=trec2019 'on={scifact: beir/scifact/test}' relevance_level=1
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("evaluate")

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank import prepare
from mtlrank.about import DATA, EVALUATION, MODEL, RUN, WEIGHTS
from mtlrank.building.dataset import build_dataset, prepared_folder
from mtlrank.building.model import build_saved_model
from mtlrank.composing.objects import build_object
from mtlrank.composing.selection import select_tasks, with_measures
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import MTLDataset, PreparedDataset
from mtlrank.datamodule.loader import MTLLoader
from mtlrank.datamodule.sampler import LongestFirst, MTLSampler, check_once
from mtlrank.errors import ConfigError, UserError
from mtlrank.evaluation.judged_head import JUDGED_RUN, SUMMARY, head_folders, head_name
from mtlrank.evaluation.measures import at_level
from mtlrank.evaluation.report import invented, print_table
from mtlrank.evaluation.results import warn_of_levels, write_head
from mtlrank.inference.scoring import evaluation_device, evaluation_precision, score_split
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import load_weights
from mtlrank.model.start import backbone_of
from mtlrank.progress import warn
from mtlrank.registry import model_folder
from mtlrank.run_folder import run_identity
from mtlrank.storage import file_hash, is_complete, local_path, read_json, unchanged, writable_folder, write_json
from mtlrank.trained_head import choose_head, read_trained
from mtlrank.words import listed


class Scoring(NamedTuple):
    """How a model scores a split. `precision` is the trainer's: a body that trained in half precision on a GPU also scores
    so on one.
    """

    batch_size: int
    precision: str = "32-true"
    sampler: Callable[..., MTLSampler] = LongestFirst


def run(config: Config, prepared: Mapping[str, Path] | None = None) -> dict[str, float]:
    """Judge heads of a saved model and write a folder each; returns the metrics by key.

    `prepared` holds folders by dataset key; without it, datasets are found (or prepared) in `data_dir`. `on` in the config
    names collections that a ranking head is judged on in place of its own dataset's.
    """
    _check_on(config)
    model_dir, split = model_folder(config["model_dir"]), config["split"]
    with unchanged(model_dir):  # all is read at once, as preparing may take hours
        saved, labels = read_trained(model_dir, trust=config["trust_model"])
        output = _output_folder(config, model_dir)
        model = build_saved_model(saved, labels)
        load_weights(model_dir, model)
        identity, weights = _identity(config, model_dir), file_hash(model_dir / WEIGHTS)
        tokenizer = backbone_of(model_dir) if config["on"] else ""
    datasets = _datasets_to_judge(config, saved, model_dir.parent, tokenizer, prepared)
    _check_split(config, datasets)
    own = {node["name"]: labels[key] for key, node in datasets_of(saved).items()}
    for dataset in datasets.values():
        _read_as_learnt(dataset, own[dataset.name])
    sampler = build_object(saved["datamodule"]["test_sampler"])
    scoring = Scoring(config["batch_size"], str(saved["trainer"]["precision"]), sampler)
    folders = [output / head_name(dataset.name, each) for dataset in datasets.values() for each in dataset.sets(split)]
    _check_output(writable_folder(output), identity, weights, folders, split)
    write_json(output / JUDGED_RUN, identity)  # so that reports need not read the model
    metrics = judge_all(model, datasets, output, scoring, weights, split)
    print_table(folders)
    judged = [] if config["on"] else [datasets_of(saved)[key] for key in datasets]
    if note := invented(judged):
        print(note)
    print(f"results: {output}")
    return metrics


def _output_folder(config: Config, model_dir: Path) -> Path:
    """The folder of the results, proven writable before any work."""
    given = Path(config["model_dir"])
    if not config["output_dir"] and model_dir not in (given, given / MODEL):
        raise ConfigError(
            f"{config['model_dir']} is not a local model folder: choose a folder for the results with output_dir=..."
        )
    output = local_path(config["output_dir"] or _beside(model_dir, config["split"]))
    writable_folder(output if output.exists() else output.resolve().parent)
    return output


def _datasets_to_judge(
    config: Config, saved: Config, run: Path, tokenizer: str, prepared: Mapping[str, Path] | None
) -> dict[str, PreparedDataset]:
    """The datasets of the chosen tasks, or one for each collection of `on`, prepared and opened."""
    chosen = {**saved, "tasks": config["tasks"], "data_dir": config["data_dir"]}
    if config["on"]:
        return _prepare_elsewhere(config, chosen, tokenizer)
    chosen = with_measures(select_tasks(chosen), config["measures"])
    return prepare.run(chosen, prepared or _folders(chosen, run))


def _check_split(config: Config, datasets: Mapping[str, PreparedDataset]) -> None:
    """Refuse a split on which measures have no meaning, and one that a chosen task, or every task, lacks."""
    split = config["split"]
    for dataset in datasets.values():
        dataset.require_measures(split)
    missing = [dataset for dataset in datasets.values() if not dataset.sets(split)]
    if missing and (config["tasks"] or len(missing) == len(datasets)):
        missing[0].split(split)  # raises an error that lists the splits there are


def _read_as_learnt(dataset: PreparedDataset, labels: Mapping[str, Any]) -> None:
    """Let a task read the model's outputs by the labels that the model learnt, whatever training data are there now.

    Raises `ConfigError` if the data have other classes.
    """
    if dataset.is_ranking:
        return
    theirs, here = labels.get("classes", []), dataset.manifest["labels"].get("classes", [])
    if theirs != here:
        raise ConfigError(
            f"{dataset.name}: the model learnt the classes {listed(theirs, 10)}, and the training data that are there now "
            f"have {listed(here, 10)}: expected the same. Judge it on the data that it was trained on, or train again."
        )
    dataset.manifest = {**dataset.manifest, "labels": labels}  # of baselines too
    dataset.task.learn_labels(dict(labels))


def _identity(config: Config, model_dir: Path) -> dict[str, Any]:
    """What identifies the results: the run that trained the model, and settings that change its rankings."""
    trained = read_json(model_dir / "config.json")  # as written: `read_trained` replaces the body
    identity = {**run_identity(trained), "tasks": list(datasets_of(trained))}
    settings = {name: config[name] for name in ("max_passages", "num_candidates") if config[name] is not None}
    return identity | {f"evaluation.{name}": value for name, value in settings.items()}


def _beside(model_dir: Path, split: str) -> Path:
    """The folder of results beside a model: its own, as several exported models may lie in one folder."""
    name = model_dir.absolute().name
    return model_dir.parent / "-".join([EVALUATION, *([] if name == MODEL else [name]), split])


def _folders(config: Config, run: Path) -> dict[str, str]:
    """The folder of each dataset in `data_dir`: of its sources as they are or, if they are missing, as the run used it.

    Warns of data that are not the run's.
    """
    learnt = read_json(run / DATA) if (run / DATA).is_file() else {}
    folders = {}
    for key, node in datasets_of(config).items():
        folders[key] = prepared_folder(config, key)
        kept = prepared_folder(config, key, learnt[key]) if key in learnt else folders[key]
        if kept == folders[key]:
            continue
        if is_complete(kept) and not is_complete(folders[key]) and not _has_sources(node):
            warn(f"{key}: its sources are not here, so it is judged as it was prepared for training")
            folders[key] = kept
        else:
            warn(f"{key}: what it is made from has changed since the run was trained, so it is judged on other data")
    return folders


def _has_sources(dataset: Config) -> bool:
    """Whether a dataset can be prepared here."""
    built = build_dataset(dataset)
    try:
        built.check_sources()
        built.preprocessor.load()
    except UserError:
        return False
    return True


def _prepare_elsewhere(config: Config, saved: Config, tokenizer: str) -> dict[str, PreparedDataset]:
    """For each collection of `on`, by name: the dataset of a ranking head with that test set only, prepared."""
    key, dataset = choose_head(saved, config["head"])
    if not dataset.is_ranking:
        raise ConfigError(f"{dataset.name} is not judged as a ranking, so it cannot be judged on other collections.")
    mixture = saved["datamodule"]["dataset"]
    node = mixture["datasets"][key]
    task = {**node["task"], "measures": config["measures"] or list(dataset.task.measures)}
    if level := config["relevance_level"]:
        at = [at_level(measure, level) for measure in dataset.task.measures]
        task |= {"relevance_level": level, "measures": config["measures"] or at}
    same = {name: config[name] or node.get(name) for name in ("num_candidates", "missing_texts")}
    same["bm25_in_text"] = node.get("bm25_in_text")
    preprocessor = {**node["preprocessor"], "tokenizer": tokenizer, "train_passages": 1}
    if config["max_passages"] is not None:
        preprocessor["max_passages"] = config["max_passages"]
    node = {
        "_target_": "mtlrank.datamodule.dataset.IRDataset",
        "name": node["name"],
        "task": task,
        "preprocessor": preprocessor,
        "train": None,
        # Nothing is learnt, but the value must suit the task.
        "learn_from": "run" if dataset.task.distils else "judged",
        **{name: value for name, value in same.items() if value is not None},
    }
    datasets = {}
    for name, source in config["on"].items():
        tested = {**mixture, "datasets": {key: {**node, "more_tests": {name: source}}}}
        datamodule = {**saved["datamodule"], "dataset": tested}
        if dataset.bm25_text:
            dataset.bm25_text.check(Collection(source))
        datasets[name] = prepare.run({**saved, "tasks": [key], "datamodule": datamodule})[key]
    return datasets


def _check_output(output: Path, identity: Mapping[str, Any], weights: str, judged: Sequence[Path], split: str) -> None:
    """Refuse a folder of another run's results or of another split's, where results of other weights would stay beside the
    new ones, and the folders of a run and of a model.
    """
    if (output / RUN).exists() or (output / WEIGHTS).exists():
        raise ConfigError(f"{output} is the folder of a run or of a model. Choose another output_dir.")
    if (output / JUDGED_RUN).exists() and read_json(output / JUDGED_RUN) != identity:
        raise ConfigError(
            f"{output} holds the results of another run, of this one before it was trained further, or with other "
            "max_passages or num_candidates. Remove it, or choose another output_dir."
        )
    for folder in head_folders([output]):
        if (other := read_json(folder / SUMMARY)["split"].partition("@")[0]) != split:
            raise ConfigError(f"{output} holds results of the split {other}, not {split}. Choose another output_dir.")
        if folder not in judged and read_json(folder / SUMMARY)["weights"] != weights:
            raise ConfigError(
                f"{folder} is a result of other weights, and would stay beside the new ones. Remove it, or choose another "
                "output_dir."
            )


def _check_on(config: Config) -> None:
    """Refuse settings that would have no effect, and test sets that are no collections."""
    if not config["on"]:
        for name in ("head", "relevance_level", "num_candidates", "max_passages", "missing_texts"):
            if config[name] is not None:
                raise ConfigError(f"{name} is {config[name]!r}, but it belongs to on={{name: collection}}.")
        return
    for name, source in config["on"].items():
        if not isinstance(source, str | Mapping):
            raise ConfigError(
                f"on.{name} is {source!r}, expected an id of ir_datasets or files, as in beir/scifact/test."
            )
    if config["tasks"] is not None:
        raise ConfigError(f"tasks is {config['tasks']!r}, but on judges one head: choose it with head=...")
    if config["split"] != "test":
        raise ConfigError(f"split is {config['split']!r}, but what on names are test sets. Leave split out.")


def judge_all(
    model: MultiTaskModel,
    datasets: Mapping[str, PreparedDataset],
    output: Path,
    scoring: Scoring,
    weights: str,
    split: str = "test",
) -> dict[str, float]:
    """Judge each head on its own dataset; a folder per head and test set. Returns the metrics by key.

    `weights` is the hash of the model's weights, which is noted beside the results.
    """
    check_once("test", scoring.sampler)
    model.to(evaluation_device())
    metrics = {}
    for dataset in datasets.values():
        if not dataset.sets(split):
            warn(f"{dataset.name} has no {split} split and is not judged")
            continue
        warn_of_levels(dataset)
        for each in dataset.sets(split):
            values = _judge(model, dataset, output / head_name(dataset.name, each), scoring, each, weights)
            metrics.update({f"{each}/{dataset.name}/{measure}": value for measure, value in values.items()})
    return metrics


def _judge(
    model: MultiTaskModel, dataset: PreparedDataset, folder: Path, scoring: Scoring, split: str, weights: str
) -> dict[str, float]:
    """Judge one head and write its folder; returns the measures' values."""
    data = MTLDataset({dataset.name: dataset}).split(split)
    loader = MTLLoader(data, scoring.sampler(data.sizes, scoring.batch_size, lengths=data.lengths))
    context = evaluation_precision(scoring.precision)
    predictions = score_split(model, {dataset.name: dataset}, split, loader, context)[dataset.name]
    measured = predictions.judge()
    write_head(folder, dataset, predictions, measured, weights)
    return measured.values
