"""Which tasks of a composed config are used, with which heads and measures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mtlrank.checks import nearest
from mtlrank.composing.explain import key_of
from mtlrank.config import Config, datasets_of, measures_of
from mtlrank.errors import ConfigError

_MIXTURE = "mtlrank.datamodule.dataset.MTLDataset"
_BY_NAME = ("limits", "probabilities", "weights")  # settings of samplers and losses with a value per dataset name


def select_tasks(config: Config) -> Config:
    """The config with datasets and heads matched by key, and cut down to `tasks`. Nothing is read or built yet.

    Tasks come in the order of `tasks`: the first is the main one. A single dataset becomes a mixture of one, whose head
    is the one of its name or the default head. In a mixture, a head without a dataset or a dataset without a head is an
    error that lists both sides. Tasks may share a head (`of`), also one of a task that is not chosen.
    """
    dataset, model = config["datamodule"]["dataset"], config["model"]
    heads = model.get("heads") or {}
    if "datasets" not in dataset:
        missing = [key for key in ("_target_", "name", "task") if key not in dataset]
        if missing:
            raise ConfigError(
                f"The config of the dataset has no {', '.join(missing)}: see trec2019.yaml for an example."
            )
        datasets = {str(dataset["name"]): dataset}
    else:
        datasets = dataset["datasets"]
        _check_mixture(dataset)
    wanted = config.get("tasks") or list(dict.fromkeys([*datasets, *heads]))
    unknown = [key for key in wanted if key not in datasets and key not in heads]
    if unknown:
        hint = nearest(unknown[0], datasets)
        raise ConfigError(f"Unknown task {unknown[0]!r} in tasks.{hint} Datasets: {', '.join(datasets)}.")
    if "datasets" not in dataset:
        wanted = list(datasets)  # `tasks` chooses from a mixture, such as the experiment's, and does not apply here
        heads = {**heads, **{key: heads.get(key, model["default_head"]) for key in datasets}}
        dataset = {"_target_": _MIXTURE}
        config = {**config, "tasks": None}
    without_head = [key for key in wanted if key in datasets and key not in heads]
    without_dataset = [key for key in wanted if key in heads and key not in datasets]
    if without_head or without_dataset:
        raise _unmatched(datasets, heads, without_head, without_dataset)
    chosen = {key: datasets[key] for key in wanted if key in datasets}
    names = {key: str(each.get("name")) for key, each in datasets.items()}
    gone = set(names.values()).difference(names[key] for key in chosen)
    return {
        **config,
        "loop": _without(gone, config["loop"]),
        "datamodule": {**_without(gone, config["datamodule"]), "dataset": {**dataset, "datasets": chosen}},
        "model": {**{k: v for k, v in model.items() if k != "default_head"}, "heads": _chosen_heads(heads, chosen)},
    }


def _check_mixture(dataset: Config) -> None:
    """Refuse a setting of a mixture that is one of a dataset's: nothing would read it."""
    extra = [key for key in dataset if key not in ("_target_", "datasets")]
    if extra and dataset.get("_target_") == _MIXTURE:
        first = next(iter(dataset["datasets"]), "NAME")
        raise ConfigError(
            f"datamodule.dataset is a mixture, which has no setting {extra[0]!r}: set it of one of its datasets, as in "
            f"datamodule.dataset.datasets.{first}.{extra[0]}, or choose a single one with datamodule/dataset=..."
        )


def _unmatched(
    datasets: Iterable[str], heads: Iterable[str], without_head: Sequence[str], without_dataset: Sequence[str]
) -> ConfigError:
    """The error about datasets and heads of different keys; it tells only what is missing, and what there is."""
    missing, key = [], (*without_head, *without_dataset)[0]
    add = f"+datamodule/dataset@datamodule.dataset.datasets.{key}={key}"
    if without_dataset:
        missing.append(f"Heads without a dataset: {', '.join(without_dataset)}.")
    if without_head:
        missing.append(f"Datasets without a head: {', '.join(without_head)}.")
        add = f"+model/heads@model.heads.{key}=cls"
    return ConfigError(
        f"{' '.join(missing)} Datasets: {', '.join(datasets)}. Heads: {', '.join(heads)}. "
        f"Add what is missing, as in {add}, or choose with tasks=[...]."
    )


def check_typed_tasks(config: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse `tasks=` on a command line that chooses a single dataset, unless it is that one.

    `tasks` of an experiment are those of its mixture, and do not apply to a single dataset.
    """
    dataset = OmegaConf.select(config, "datamodule.dataset")
    if dataset is None or "datasets" in dataset or "tasks" not in map(key_of, overrides):
        return
    name, wanted = OmegaConf.select(dataset, "name"), config.tasks
    if wanted is not None and list(wanted) != [name]:
        raise ConfigError(
            f"tasks=[{','.join(map(str, wanted))}] chooses from a mixture, but datamodule/dataset is a single one, {name}. "
            "To train on it alone, leave tasks out. To learn it beside others, add it to their mixture: "
            f"+datamodule/dataset@datamodule.dataset.datasets.{name}={name} +model/heads@model.heads.{name}=cls"
        )


def _chosen_heads(heads: Mapping[str, Any], chosen: Iterable[str]) -> dict[str, Any]:
    """The heads of the chosen tasks.

    A shared head is configured under one task. If that task is not chosen, the first chosen one takes its settings.
    """
    chosen = list(chosen)
    owners = {key: _owner(heads, key) for key in chosen}
    first = {owner: key for key, owner in reversed(owners.items())} | {owner: owner for owner in chosen}
    return {key: heads[owner] if first[owner] == key else {"of": first[owner]} for key, owner in owners.items()}


def _owner(heads: Mapping[str, Any], key: str) -> str:
    """The task under whose key a task's head is configured: itself, unless it shares the head of another one."""
    passed = [key]
    while isinstance(head := heads[passed[-1]], dict) and "of" in head:
        place, other = f"model.heads.{passed[-1]}", str(head["of"])
        if other not in heads:
            raise ConfigError(f"{place}.of is {other!r}, expected a task with a head.{nearest(other, heads)}")
        if other in passed:
            raise ConfigError(
                f"{place}.of is {other!r}, which leads back to it: one of {', '.join(passed)} needs its own head."
            )
        passed.append(other)
    return passed[-1]


def monitors(config: Config) -> list[str]:
    """The metrics that choose the checkpoint by their mean; none if the config leaves it to the tasks."""
    monitor: str | list[str] | None = config["training"]["monitor"]
    return [monitor] if isinstance(monitor, str) else monitor or []


def check_monitor(config: Config) -> None:
    """Refuse a monitored metric that no validation computes, if all tasks' configs name their measures."""
    named = [(each["name"], measures_of(each)) for each in datasets_of(config).values()]
    if all(measures is not None for _, measures in named):
        known = [f"val/{name}/{measure}" for name, measures in named for measure in measures or ()]
        require_monitors(monitors(config), known)


def require_monitors(monitored: Sequence[str], keys: Collection[str]) -> None:
    """Raise `ConfigError` for a monitored metric that validation does not compute, and for an error among several."""
    from mtlrank.evaluation.measures import is_lower_better  # here, as most configs need no measures

    for key in monitored:
        if key not in keys:
            raise ConfigError(f"training.monitor is {key!r}.{nearest(key, keys)} Expected one of {', '.join(keys)}.")
        if len(monitored) > 1 and is_lower_better(key.rpartition("/")[2]):
            raise ConfigError(
                f"training.monitor has {key!r} among others, an error, and a mean needs measures of which more is better: "
                "expected another measure of that head, such as R2 or Spearman."
            )


def _without(names: set[str], node: Config) -> Config:
    """A group of settings whose tables by dataset (limits, probabilities, weights) have no entries for some names."""

    def pruned(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            inner: pruned(inner, child) for inner, child in value.items() if key not in _BY_NAME or inner not in names
        }

    return {key: pruned(key, value) for key, value in node.items()}


def with_measures(config: Config, names: Sequence[str] | None) -> Config:
    """The config with the measures of every dataset replaced by `names`; unchanged if there are none."""
    if not names:
        return config
    mixture = config["datamodule"]["dataset"]
    changed = {
        key: {**dataset, "task": {**dataset["task"], "measures": list(names)}}
        for key, dataset in mixture["datasets"].items()
    }
    return {**config, "datamodule": {**config["datamodule"], "dataset": {**mixture, "datasets": changed}}}
