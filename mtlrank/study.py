"""Several mixtures of tasks with several seeds, and the single tasks they are compared with: what did each mixture change?

python -m mtlrank.study tasks=[trec2019,msm_bm25] 'study.seeds=[1,2,3]'
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start_variants

    start_variants("study")

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank import train
from mtlrank.about import METRICS
from mtlrank.building.datamodule import build_datamodule, check_samplers
from mtlrank.building.dataset import has_split
from mtlrank.building.devices import num_processes
from mtlrank.building.loop import check_loop
from mtlrank.building.trainer import build_checkpoints
from mtlrank.checks import all_known
from mtlrank.comparing.comparison import Comparison
from mtlrank.comparing.folds import write_joined
from mtlrank.comparing.systems import read_system
from mtlrank.comparing.transfer import print_transfer, transfer, write_transfer
from mtlrank.composing.objects import parameters_of
from mtlrank.composing.selection import check_monitor, monitors, select_tasks
from mtlrank.config import Config, datasets_of, has_folds, measures_of
from mtlrank.datamodule.dataset.folds import number_of_folds
from mtlrank.datamodule.dataset.mtl import check_names
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.judged_head import JUDGED_RUN
from mtlrank.progress import say, time_left, warn
from mtlrank.run_folder import check_owner, run_identity
from mtlrank.shard import Shard
from mtlrank.storage import fingerprint, join, local_path, safe_name, writable_folder
from mtlrank.words import counted

_JOINED = "all-folds"  # the folder of the joined heads, beside those of the folds
Vary = Callable[[Mapping[str, Any]], Config]  # the config with some keys changed


class Run(NamedTuple):
    """One training run of a study."""

    mixture: tuple[str, ...]
    seed: int
    fold: int | None = None  # of a cross-validation

    @property
    def place(self) -> Path:
        """Its folder in that of the study."""
        name = "+".join(safe_name(task, "The dataset key") for task in self.mixture)
        name = name if len(name) < 200 else fingerprint(list(self.mixture))  # file names are at most 255 bytes long
        place = Path(name) / f"seed-{self.seed}"
        return place if self.fold is None else place / f"fold-{self.fold}"


def run(vary: Vary) -> list[Comparison]:
    """Train every mixture with every seed, finished runs excepted, and compare each head with its single task.

    `vary` gives the study's config with some keys changed: those that depend on the seed change with it. With
    `study.shard`, only that share of the runs is trained, and nothing is compared.
    """
    config = vary({})
    runs = plan(config)
    root = folder_of(config)
    shard = Shard.parse(config["study"]["shard"])
    mine = runs[shard.number - 1 :: shard.total]  # each shard gets short runs of single tasks and long ones of mixtures
    configs = {each: config_of(each, vary, root) for each in mine}  # all, before the first one starts
    writable_folder(root)
    _rehearse(configs, vary, root)
    for each in _with_progress(mine, root):
        with _keeping_others(root / each.place):
            train.run(configs[each])
        if not config["study"]["keep_checkpoints"]:
            build_checkpoints(configs[each], root / each.place).clear()
    if shard.total > 1:
        without = "study.shard and force" if config["force"] else "study.shard"
        say(
            f"trained {len(mine)} of the study's {counted(len(runs), 'run')} ({root}). When all shards have ended, the "
            f"same command without {without} compares them."
        )
        return []
    rows = conclude(config, runs, root)
    print(f"results: {root}   report: {root / 'transfer' / 'transfer.html'}")
    return rows


def folder_of(config: Config) -> Path:
    """The folder of a study. By default it is named after what its runs have in common: later ones go into the same one."""
    same = {k: v for k, v in run_identity(config).items() if k != "seed" and not k.startswith("study.")}
    return local_path(config["output_dir"] or Path("runs") / f"study-{fingerprint(same)}")


def plan(config: Config) -> list[Run]:
    """The runs of a study: single tasks first, as all mixtures are compared with them.

    Raises `ConfigError` for what cannot be trained or compared.
    """
    seeds = _checked(config)["seeds"]
    return [run for tasks in _mixtures(config) for seed in seeds for run in _runs(tasks, seed, config)]


def conclude(config: Config, runs: Sequence[Run], root: Path) -> list[Comparison]:
    """Compare the heads of finished runs, which lie in their places below `root`; the results go to `root/transfer`."""
    study = config["study"]
    for folder, folds in _folds_of(runs).items():
        write_joined(root / folder / _JOINED, [root / fold for fold in folds])
    places = [*root.glob(f"*/seed-*/{METRICS}"), *root.glob(f"*/seed-*/{_JOINED}/{JUDGED_RUN}")]
    others = sorted({path.relative_to(root).parts[1] for path in places} - {f"seed-{each.seed}" for each in runs})
    if others:
        say(f"finished, but not in the table: {', '.join(others)}. Add them to study.seeds to include them.")
    systems = {
        tasks: read_system("+".join(tasks), [root / each.place for each in runs if each.mixture == tasks])
        for tasks in dict.fromkeys(each.mixture for each in runs)
    }
    rows = transfer(systems, study["measures"], study["margin"], study["resamples"])
    write_transfer(root / "transfer", rows, systems, select_tasks(config))
    print_transfer(rows, systems)
    return rows


def _rehearse(configs: Mapping[Run, Config], vary: Vary, root: Path) -> None:
    """Check all runs, and prepare their data, before the first one starts."""
    for each, config in configs.items():
        with _keeping_others(root / each.place):
            check_owner(root / each.place, select_tasks(config), "output_dir")
    left = [each for each, config in configs.items() if config["force"] or not (root / each.place / METRICS).exists()]
    if not left:
        return
    say(f"checking {counted(len(left), 'run')}, and preparing what they learn from")
    tasks = tuple(dict.fromkeys(task for each in left for task in each.mixture))
    folds = [each.fold for each in left if each.fold is not None]
    datasets = train.rehearse(config_of(Run(tasks, left[0].seed, min(folds, default=None)), vary, root))
    for each in {each.mixture: each for each in left}.values():
        with _naming(each.mixture):
            config = select_tasks(configs[each])
            check_loop(config)
            check_samplers(config)
            built = build_datamodule(config, {key: datasets[key] for key in each.mixture})
            built.num_batches("train")  # raises an error if the sampler does not suit these datasets


@contextmanager
def _keeping_others(folder: Path) -> Iterator[None]:
    """Say how to replace one run: the setting that replaces a run would replace all those of a study."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if "force=true" not in str(error):
            raise
        raise type(error)(
            f"{error} (In a study, force=true would replace all runs: remove {folder} instead, and run the same command "
            "again.)"
        ) from error


@contextmanager
def _naming(mixture: tuple[str, ...]) -> Iterator[None]:
    """Name the mixture in an error: some mistakes show only with a subset of the tasks."""
    try:
        yield
    except ConfigError as error:
        which = "single-task run of" if len(mixture) == 1 else "run of the mixture"
        hint = " study.heads chooses the tasks that have one." if len(mixture) == 1 else ""
        raise ConfigError(f"{error} (In the {which} {', '.join(mixture)}.{hint})") from error


def _runs(tasks: tuple[str, ...], seed: int, config: Config) -> list[Run]:
    """The runs of a mixture with a seed: one, or one for each fold."""
    folds = range(_num_folds(config, tasks))
    return [Run(tasks, seed, fold) for fold in folds] if folds else [Run(tasks, seed)]


def _folds_of(runs: Iterable[Run]) -> dict[Path, list[Path]]:
    """The places of the folds of each mixture and seed, by the folder that they have in common."""
    found: dict[Path, list[Path]] = {}
    for each in runs:
        if each.fold is not None:
            found.setdefault(each.place.parent, []).append(each.place)
    return found


def _num_folds(config: Config, tasks: tuple[str, ...]) -> int:
    """How many folds the tasks of a mixture are divided into; 0 if none is."""
    datasets = _datasets(config)
    folded = {key: datasets[key] for key in tasks if has_folds(datasets[key])}
    if other := [key for key, each in folded.items() if "folds" not in parameters_of(str(each["_target_"]))]:
        raise ConfigError(f"{other[0]} has folds, but only rankings of the class IRDataset take them. Leave them out.")
    numbers = {key: number_of_folds(each["name"], each["folds"]) for key, each in folded.items()}
    if given := [key for key, each in folded.items() if each.get("fold") is not None]:
        raise ConfigError(
            f"fold is {folded[given[0]]['fold']!r} in {given[0]}, but a study runs all folds: leave it out."
        )
    if len(set(numbers.values())) > 1:
        found = ", ".join(f"{key} {number}" for key, number in numbers.items())
        raise ConfigError(f"Tasks of one mixture have different numbers of folds ({found}): expected the same.")
    return next(iter(numbers.values()), 0)


def config_of(each: Run, vary: Vary, root: Path) -> Config:
    """A run's own config: its tasks and seed, and a folder for its checkpoints alone."""
    changes: dict[str, Any] = {"tasks": list(each.mixture), "seed": each.seed, "output_dir": str(root / each.place)}
    training = vary({})["training"]
    if training["checkpoint_dir"]:
        changes["training.checkpoint_dir"] = join(training["checkpoint_dir"], *each.place.parts)
    config = vary(changes)
    names = {dataset["name"] for dataset in _datasets(config).values()}
    mine = [key for key in monitors(config) if any(f"/{name}/" in key for name in names)]
    config["training"]["monitor"] = mine[0] if len(mine) == 1 else mine or None  # other heads are not in this run
    for dataset in datasets_of(config).values():
        if has_folds(dataset):
            dataset["fold"] = each.fold
    return {key: value for key, value in config.items() if key != "study"}


def _datasets(config: Config) -> dict[str, Any]:
    datasets: dict[str, Any] = datasets_of(select_tasks(config))
    return datasets


def _mixtures(config: Config) -> list[tuple[str, ...]]:
    """The tasks of each run: single tasks first, as all mixtures are compared with them."""
    study, datasets = config["study"], _datasets(config)
    if len(datasets) == 1 and not study["mixtures"]:
        raise ConfigError(_alone(config, next(iter(datasets))))
    several = _several(study["mixtures"], list(datasets))
    mixed = {key for mixture in several for key in mixture}
    compared = _compared(study["heads"], mixed, datasets)
    for what, left_out in (
        ("trained with others, but not compared", [key for key in datasets if key in mixed and key not in compared]),
        ("in no mixture, so not trained", [key for key in datasets if key not in mixed]),
    ):
        if left_out:
            warn(f"{what}: {', '.join(left_out)}")
    return [*((key,) for key in compared), *several]


def _alone(config: Config, task: str) -> str:
    """Why one task is no study, and which commands train its seeds and folds and compare them."""
    place = (
        f"datamodule.dataset.datasets.{task}" if "datasets" in config["datamodule"]["dataset"] else "datamodule.dataset"
    )
    values = {"seed": config["study"]["seeds"], f"++{place}.fold": range(_num_folds(config, (task,)))}
    words = " ".join(f"{key}={','.join(map(str, each))}" for key, each in values.items() if each)
    return (
        "A study compares mixtures of several tasks with single ones: expected at least two tasks, found "
        f"{task}. Add some with tasks=[...], or train it by itself, `mtlrank train -m ... {words}` with the other settings "
        "of this command, and name the folders of these runs to `mtlrank compare`."
    )


def _several(given: Sequence[Sequence[str]] | None, known: list[str]) -> list[tuple[str, ...]]:
    """The mixtures of several tasks, by default one of all; each once, with its tasks in the order of the config."""
    wanted = given or [known]
    all_known("study.mixtures", (task for mixture in wanted for task in mixture), known, "tasks")
    ordered = [tuple(key for key in known if key in mixture) for mixture in wanted]
    several = list(dict.fromkeys(mixture for mixture in ordered if len(mixture) > 1))
    if not several:
        raise ConfigError(
            f"study.mixtures is {given}: expected one of several tasks, as in [[trec2019,msm_bm25]]. Each task is "
            "also trained by itself, without being named."
        )
    return several


def _compared(heads: Sequence[str] | None, mixed: Collection[str], datasets: Mapping[str, Any]) -> list[str]:
    """The tasks of mixtures that are also trained by themselves: `heads`, by default all that can be compared."""
    judged = [key for key, dataset in datasets.items() if _is_judged(dataset)]
    folded = [key for key in judged if has_folds(datasets[key])]
    judged = folded or judged  # all models of a cross-validation are judged on the test sets of the others
    compared = [key for key in judged if key in mixed and key in (heads or judged)]
    if not compared:
        raise ConfigError(
            f"study.heads is {heads}: expected tasks of the mixtures that have "
            f"{'folds' if folded else 'a val and a test split'}. These have: {', '.join(judged)}."
        )
    return compared


def _is_judged(dataset: Config) -> bool:
    """Whether a task can be learnt by itself and compared: not if it says that it has no val or no test split."""
    return has_split(dataset, "val") and has_split(dataset, "test")


def _with_progress(runs: Sequence[Run], root: Path) -> Iterator[Run]:
    """Yield the runs one by one, each with a line of progress."""
    spent = list[float]()
    for number, each in enumerate(runs, 1):
        what = f"run {number}/{len(runs)}: {', '.join(each.mixture)}, seed {each.seed}"
        if each.fold is not None:
            what += f", fold {each.fold}"
        if spent:
            left = sum(spent) / len(spent) * (len(runs) - number + 1)
            what += f", {time_left(left)} in all"
        say(what)
        finished, started = (root / each.place / METRICS).exists(), time.monotonic()
        yield each
        if not finished:
            spent.append(time.monotonic() - started)


def _checked(config: Config) -> dict[str, Any]:
    study: dict[str, Any] = config["study"]
    if num_processes(config["trainer"]) > 1:
        raise ConfigError(
            "Each run of a study has one device: leave out trainer.devices and trainer.num_nodes. Several devices train a "
            "share of the runs each, with study.shard=1/4 to study.shard=4/4."
        )
    if not config["test"]:
        raise ConfigError("A study compares test results: leave out test=false.")
    seeds = study["seeds"]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"study.seeds is {seeds!r}, expected a list of different seeds, as in [1,2,3].")
    selected = select_tasks(config)
    datasets = datasets_of(selected)
    check_names(dataset["name"] for dataset in datasets.values())  # here, as no run of a single task would notice
    all_known("study.heads", study["heads"] or [], datasets, "heads")
    check_monitor(selected)
    check_loop(selected)
    check_samplers(selected)
    named = [measures_of(dataset) for key, dataset in datasets.items() if key in (study["heads"] or datasets)]
    if None not in named:
        measures = [measure for each in named for measure in each or ()]
        all_known("study.measures", study["measures"] or [], measures, "measures")
    return study
