"""The kind of each setting, checked in a composed config before anything is built."""

import re
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import Any

import yaml

from mtlrank.checks import ABOVE_ZERO, NOT_NEGATIVE, Kind, is_number, nearest, number, or_null, whole
from mtlrank.composing.tree import leaves, nodes
from mtlrank.config import SPLITS
from mtlrank.errors import ConfigError

INSTEAD = {  # keys that do not exist, and the one that is meant; users also write those of training at the root
    "training.lr": "loop.optimizer.lr",
    "training.learning_rate": "loop.optimizer.lr",
    "training.weight_decay": "loop.optimizer.weight_decay",
    "training.warmup": "loop.schedule.warmup",
    "training.seed": "seed",
    "training.max_length": "max_length",
    "training.num_epochs": "training.epochs",
    "training.num_train_epochs": "training.epochs",
    "training.grad_accum": "trainer.accumulate_grad_batches",
    "training.accumulate_grad_batches": "trainer.accumulate_grad_batches",
    "training.gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "training.precision": "trainer.precision",
    "training.devices": "trainer.devices",
    "datamodule.train_sampler.seed": "seed",
    "datamodule.train_sampler.batch_size": "training.batch_size",
    "datamodule.train_sampler.max_tokens": "training.max_tokens",
    "datamodule.train_sampler.length_window": "training.length_window",
    "datamodule.train_sampler.one_task": "training.one_task_per_batch",
    "training.limit_val_batches": "training.max_val_queries",
    "trainer.limit_val_batches": "training.max_val_queries",
    "trainer.val_check_interval": "training.val_checks_per_epoch",
    "trainer.check_val_every_n_epoch": "training.val_checks_per_epoch",
    "trainer.max_steps": "training.max_steps",
    "trainer.max_epochs": "training.epochs",
    "trainer.min_epochs": "training.patience, of which it would change the meaning",
    "trainer.min_steps": "training.patience, of which it would change the meaning",
    "trainer.max_time": "training.max_steps, or stop the command: it continues later",
}
CLOSED = ("prepare", "training", "study", "probe")  # groups whose only settings are those below


def check_settings(config: Any) -> None:
    """Raise `ConfigError` for the first setting that is of the wrong kind or that nothing reads."""
    for key, other in INSTEAD.items():
        if value_of(config, key) is not _ABSENT:
            raise ConfigError(f"There is no setting {key}: use {other}.")
    for key, kind in _SETTINGS.items():
        if (value := value_of(config, key)) is not _ABSENT:
            kind.check(key, value)
    for group in CLOSED:
        for key in (f"{group}.{name}" for name in config.get(group) or ()):
            if key not in _SETTINGS:
                inside = [known for known in _SETTINGS if known.startswith(f"{group}.")]
                raise ConfigError(f"There is no setting {key}.{nearest(key, inside)}")


def check_parts(config: Any) -> None:
    """Refuse the name of a config where its settings belong: `loop.loss=uncertainty` for `loop/loss=uncertainty`.

    The config's interpolations must not be resolved yet: some refer to settings of parts.
    """
    for key, group in _parts(config):
        value = value_of(config, key)
        if value is not _ABSENT and not isinstance(value, dict) and not str(value).startswith("${"):
            slashed = group if group.replace("/", ".") == key else f"{group}@{key}"
            raise ConfigError(
                f"{key} is {value!r}, expected settings. To choose another config, use a slash: {slashed}=..."
            )


def unread(config: Any, name: str) -> list[str]:
    """The keys at the root that neither the config called `name` defines nor an interpolation uses: nothing reads them.

    As in `check_parts`, interpolations must not be resolved yet: `${my_folder}` may refer to a user's own key.
    """
    words = {word for text in _texts(config) if "${" in text for word in re.findall(r"[\w-]+", text)}
    known = _root_keys(name)
    return [str(key) for key in config if key not in known and key not in words]


def unread_of_collection(config: Any, files: Iterable[str], own: str) -> tuple[list[str], list[str]]:
    """(keys below `collection` that nothing reads, those that interpolations in the config and in `files` refer to).

    `${collection.test}` also reads `collection.test.run`. `own` is the text of the user's own collections: keys that are
    written there are not reported, as they may hold a YAML anchor.
    """
    if not config.get("collection"):
        return [], []
    texts = [*_texts(config), *files]
    found = [key for text in texts for key in re.findall(r"\$\{\s*(?:[\w.]+:\s*)?['\"]?([\w.-]+)", text)]
    read = {key.rstrip(".") for key in found if key.split(".")[0] == "collection"} | {"collection.name"}
    near = {word for key in found if key.startswith(".") for word in key.split(".")}  # as in ${..folder}/docs.tsv
    near |= set(re.findall(r"([\w-]+)['\"]?\s*:", own))
    unread = [
        key
        for key, _ in nodes(config["collection"], "collection.")
        if near.isdisjoint(key.split(".")[1:])
        and not any(f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.") for other in read)
    ]
    return unread, sorted(read)


def _layers(words: str, *names: str) -> Kind:
    return Kind(lambda v: v in names or type(v) is int or (type(v) is float and 0 <= v <= 1), words)


def _list(fits: Callable[[Any], bool], words: str) -> Kind:
    return Kind(lambda v: isinstance(v, list) and all(fits(item) for item in v), words)


def _is_devices(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(item) is int and item >= 0 for item in value)
    return value == "auto" or (type(value) is int and (value >= 1 or value == -1))


def _is_names(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
    return is_list and len(set(value)) == len(value)


_ABSENT = object()  # a key that is not in the config, not even as null

_FLAG = Kind(lambda v: isinstance(v, bool), "true or false")
_PATH = Kind(lambda v: v is None or isinstance(v, str), "a path")
_NAMES = Kind(lambda v: v is None or _is_names(v), "null or a list of at least one name, each once, as in [a,b]")
_GROUP = Kind(lambda v: isinstance(v, dict), "a group of settings")
_SHARE = number(lambda v: 0 <= v < 1, "a number from 0 to below 1")
_SHARD = or_null(Kind(lambda v: isinstance(v, str) and bool(v), "i/n, as in 3/8"))
_TEXT = Kind(lambda v: isinstance(v, str), "text")

_SETTINGS: dict[str, Kind] = {
    "seed": Kind(lambda v: type(v) is int and 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "tasks": _NAMES,
    "measures": _NAMES,
    "max_length": whole(1),
    "max_query_length": whole(1),
    "template": or_null(_TEXT._replace(words="a text with {query} and {text}")),
    "data_dir": _TEXT._replace(words="a path"),
    "output_dir": _PATH,
    "force": _FLAG,
    "test": _FLAG,
    "prepare": _GROUP,
    "prepare.on_bad_row": Kind(lambda v: v in ("stop", "quarantine"), "stop or quarantine"),
    "prepare.max_bad_rows": whole(0),
    "prepare.num_shards": whole(1),
    "prepare.num_workers": whole(1),
    "prepare.shard": _SHARD,
    "training": _GROUP,
    "training.batch_size": whole(1),
    "training.eval_batch_size": whole(1),
    "training.epochs": whole(0),
    "training.max_steps": or_null(whole(1)),
    "training.val_checks_per_epoch": whole(1),
    "training.patience": or_null(whole(0)),
    "training.max_tokens": or_null(whole(1)),
    "training.length_window": whole(0),
    "training.one_task_per_batch": _FLAG,
    "training.compile": _FLAG,
    "training.max_val_queries": or_null(whole(1)),
    "training.checkpoint_steps": or_null(whole(1)),
    "training.checkpoint_minutes": or_null(NOT_NEGATIVE),
    "training.checkpoint_dir": _PATH,
    "training.max_bad_steps": whole(0),
    "training.accept_changes": _list(
        lambda v: v in ("data", "tokenizer", "heads", "body", "epochs"),
        "a list of some of data, tokenizer, heads, body, epochs",
    ),
    "training.monitor": Kind(
        lambda v: v is None or isinstance(v, str) or _is_names(v),
        "null, a metric, as in val/trec2019/nDCG@10, or a list of some, each once",
    ),
    "datamodule": _GROUP,
    "datamodule.dataset": _GROUP,
    "datamodule.dataset.datasets": _GROUP,
    "datamodule.num_workers": whole(0),
    "model": _GROUP,
    "model.heads": _GROUP,
    "model.start_from": _PATH,
    "model.body.activation_checkpointing": _FLAG,
    "model.body.attention_dropout": or_null(_SHARE),
    "model.body.dropout": or_null(_SHARE),
    "model.body.frozen_layers": _layers("a number of layers, a share of the depth from 0.0 to 1.0, or all", "all"),
    "model.body.separate_layers": _layers("a number of layers, a share of the depth from 0.0 to 1.0, or all", "all"),
    "model.body.lora": or_null(
        _GROUP._replace(words="settings, as in {rank: 8, alpha: 16, dropout: 0.0, targets: [query, value]}")
    ),
    "model.body.lora.rank": whole(1),
    "model.body.lora.alpha": ABOVE_ZERO,
    "model.body.lora.dropout": _SHARE,
    "model.body.lora.targets": _NAMES,
    "loop": _GROUP,
    "loop.layer_decay": number(lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "loop.head_lr": or_null(ABOVE_ZERO),
    "loop.optimizer.lr": ABOVE_ZERO,
    "loop.schedule.warmup": _SHARE._replace(words="a share of the steps, from 0 to below 1"),
    "loop.schedule.floor": number(lambda v: 0 <= v <= 1, "a share of the peak rate, from 0 to 1"),
    "loop.diagnose_every_n_steps": whole(0),
    "trainer": _GROUP,
    "trainer.devices": Kind(_is_devices, "a number of devices, a list of their numbers as in [0], -1 or auto"),
    "trainer.accelerator": Kind(lambda v: v in ("auto", "cpu", "gpu", "cuda", "mps"), "auto, cpu, gpu, cuda or mps"),
    "trainer.num_nodes": whole(1),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.log_every_n_steps": whole(1),
    "trainer.deterministic": Kind(lambda v: isinstance(v, bool) or v == "warn", "true, false or warn"),
    "trainer.gradient_clip_val": or_null(ABOVE_ZERO)._replace(words="a finite number above 0, or null for none"),
    "trainer.limit_train_batches": Kind(
        lambda v: v is None or (type(v) is int and v >= 1) or (type(v) is float and 0 < v <= 1),
        "null, a whole number of at least 1, or a share from 0.0 to 1.0",
    ),
    "trainer.callbacks": or_null(
        _list(
            lambda v: isinstance(v, dict) and "_target_" in v,
            "a list of Lightning callbacks, as in [{_target_: my_parts.MyCallback}]",
        )
    ),
    "trainer.precision": Kind(
        lambda v: v in ("32-true", "bf16-mixed", "16-mixed"),
        "32-true, bf16-mixed or 16-mixed",
    ),
    # evaluate, rank, predict, export, study and probe
    "model_dir": _PATH,
    "trust_model": _FLAG,
    "on": or_null(_GROUP._replace(words="test sets by name, as in {scifact: beir/scifact/test}")),
    "relevance_level": or_null(whole(1)),
    "num_candidates": or_null(whole(1)),
    "head": or_null(_TEXT._replace(words="the name of a head")),
    "batch_size": whole(1),
    "input": _PATH,
    "output": _TEXT._replace(words="the name of a file"),
    "ir_dataset": _PATH,
    "queries": _PATH,
    "docs": _PATH,
    "run": _PATH,
    "top_k": or_null(whole(1)),
    "keep": or_null(whole(1)),
    "tag": or_null(Kind(lambda v: isinstance(v, str) and v.split() == [v], "one word without blanks, as in my-run")),
    "shard": _SHARD,
    "compile": _FLAG,
    "depth": or_null(whole(1)),
    "study": _GROUP,
    "study.seeds": _list(lambda v: type(v) is int and 0 <= v < 2**32, "a list of different seeds, as in [1,2,3]"),
    "study.mixtures": or_null(
        Kind(
            lambda v: isinstance(v, list) and bool(v) and all(_is_names(item) for item in v),
            "lists of tasks, each once, as in [[trec2019,msm_bm25]]",
        )
    ),
    "study.heads": _NAMES,
    "study.measures": _NAMES,
    "study.margin": ABOVE_ZERO,
    "study.resamples": whole(1),
    "study.keep_checkpoints": _FLAG,
    "study.shard": _SHARD,
    "probe": _GROUP,
    "probe.layers": Kind(
        lambda v: v is None or (isinstance(v, list) and bool(v) and all(type(x) is int and x >= 0 for x in v)),
        "null or a list of layers, as in [0,3,6]",
    ),
    "probe.split": or_null(_TEXT._replace(words="the name of a split, as in test")),
    "probe.portions": _list(is_number, "a list of shares in per cent, as in [1,10,100]"),
    "probe.pooler": Kind(
        lambda v: v in (None, "average", "cls_token", "last_token"), "null, average, cls_token or last_token"
    ),
    "probe.max_train": whole(1),
    "probe.max_test": whole(1),
    "probe.epochs": whole(1),
    "probe.batch_size": whole(1),
    "probe.hidden_dim": whole(0),
    "probe.patience": whole(0),
    "probe.lr": ABOVE_ZERO,
    "probe.max_memory_gb": ABOVE_ZERO,
    "probe.margin": _SHARE._replace(words="a share, from 0 to below 1"),
    "probe.control": _FLAG,
}


def _root_keys(name: str) -> set[str]:
    """The keys at the root of the config called `name`: its own, its groups, and those of configs in its defaults."""
    config = yaml.safe_load(files("mtlrank.conf").joinpath(f"{name}.yaml").read_text())
    groups = {group for line in config["defaults"] if isinstance(line, dict) for group in line}
    extended = [line for line in config["defaults"] if isinstance(line, str) and line != "_self_"]
    return {*config, *groups}.union(*map(_root_keys, extended))


def _texts(config: Any) -> list[str]:
    return [value for _, value in leaves(config) if isinstance(value, str)]


def _parts(config: Any) -> Iterator[tuple[str, str]]:
    """(key, config group) of every part that is chosen from a config group."""
    yield "model.body", "model/body"
    for part in ("loss", "optimizer", "schedule"):
        yield f"loop.{part}", f"loop/{part}"
    for split in SPLITS:
        yield f"datamodule.{split}_sampler", "datamodule/sampler"
    for place in ("model.default_head", *(f"model.heads.{key}" for key in _keys_of(config, "model.heads"))):
        yield place, "model/heads"
        yield f"{place}.pooler", "model/heads/pooler"
    mixture = "datamodule.dataset"
    for place in (mixture, *(f"{mixture}.datasets.{key}" for key in _keys_of(config, f"{mixture}.datasets"))):
        yield place, "datamodule/dataset"
        yield f"{place}.task", "task"
        yield f"{place}.preprocessor", "datamodule/preprocessor"


def _keys_of(config: Any, key: str) -> list[str]:
    node = value_of(config, key)
    return list(node) if isinstance(node, dict) else []


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key; `_ABSENT` if there is none."""
    for part in key.split("."):
        config = config.get(part, _ABSENT) if isinstance(config, dict) else _ABSENT
    return config
