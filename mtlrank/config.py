"""A composed config: plain dicts and lists, as they are printed by `--cfg job` and saved with a model."""

from typing import Any

Config = dict[str, Any]
SPLITS = ("train", "val", "test")  # besides further test sets, `test@name`


def datasets_of(config: Config) -> dict[str, Config]:
    """The configs of the chosen datasets by key, the main one first; a single dataset is a mixture of one by then."""
    datasets: dict[str, Config] = config["datamodule"]["dataset"]["datasets"]
    return datasets


def head_names(config: Config) -> list[str]:
    """The names of the chosen datasets, which are those of their heads, the main one first."""
    return [str(dataset["name"]) for dataset in datasets_of(config).values()]


def measures_of(dataset: Config) -> list[str] | None:
    """The measures that a dataset's config names, the main one first; None if only its task's class knows them."""
    measures: list[str] | None = dataset["task"].get("measures")
    return measures


def with_num_shards(config: Config, number: int) -> Config:
    """The config, with the datasets prepared in so many shards."""
    return {**config, "prepare": {**config["prepare"], "num_shards": number}}


def has_folds(dataset: Config) -> bool:
    """Whether a dataset is cross-validated by its config: then it has a val and a test split, made of folds of train."""
    return dataset.get("folds") is not None


def judged_sets(dataset: Config) -> list[str]:
    """The test sets of a dataset by its config, the main one first; `test` is assumed where the config has no such key."""
    has_own = has_folds(dataset) or dataset.get("test", "") is not None
    return [*(["test"] if has_own else []), *(f"test@{name}" for name in dataset.get("more_tests") or ())]
