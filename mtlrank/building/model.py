"""Builds a body and its heads, after checks that they fit their tasks."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtlrank.backbone import load_tokenizer
from mtlrank.building.dataset import build_dataset, check_length
from mtlrank.building.devices import own_device
from mtlrank.composing.objects import build_object
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError, UserError
from mtlrank.model.body import MTLBody
from mtlrank.model.head import MTLHead, Pooler
from mtlrank.model.head.head import Published
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import read_model
from mtlrank.model.start import facts_of, start_body, start_heads
from mtlrank.own_parts import instance_of
from mtlrank.progress import say, warn
from mtlrank.registry import model_folder, saved_weights
from mtlrank.storage import file_hash, fingerprint
from mtlrank.task import Classification, Task
from mtlrank.words import counted

_PUBLISHED = ("*.safetensors", "pytorch_model*.bin")  # weights in a folder of Hugging Face's
_CHOOSE = (
    " Choose another head (`model/heads@model.heads.{0}=...`, or with a + before it) or pooler "
    "(`model/heads/pooler@model.heads.{0}.pooler=...`)."
)


def build_body(config: Config) -> MTLBody:
    """The body, after checking it and every head as far as that is possible without data."""
    start = _start_from(config)
    built = build_object({**config["model"]["body"], **({"pretrained": False} if start else {})})
    body = instance_of("model.body", built, MTLBody)
    if start:
        start_body(start, body)
    owners = _owners(config)
    heads = {key: _build_head(config, body, owner, output_dim=1) for key, owner in owners.items()}
    nodes = datasets_of(config)
    tasks = {
        key: instance_of(f"The task of {key!r}", build_object(dataset["task"]), Task, "measures")
        for key, dataset in nodes.items()
    }
    _check_shared(config, tasks)
    for key, dataset in nodes.items():
        check_length(key, dataset, body.backbone, body.max_length)
        _check_spans(key, heads[key].pooler, tasks[key])
        _check_reads(key, heads[key].pooler, body)
        if tasks[key].kind != "classification":  # whose number is known from the data only
            _check_outputs(key, heads[key], tasks[key])
    return body


def check_vocabulary(body: MTLBody) -> None:
    """Refuse a tokenizer with tokens that the body has no embeddings of."""
    rows = getattr(body.encoder.get_input_embeddings(), "num_embeddings", None)
    largest = max(load_tokenizer(body.backbone).get_vocab().values())
    if rows is not None and largest >= rows:
        raise ConfigError(
            f"The tokenizer of {body.backbone!r} numbers its tokens up to {largest:,}, but the body has embeddings of "
            f"{rows:,} only: after `add_tokens`, save it with model.resize_token_embeddings({largest + 1})."
        )


def compile_body(config: Config, body: MTLBody) -> None:
    """Compile the layers of the body for the device of this process."""
    body.compile_layers(own_device(config["trainer"]))
    say("the layers of the body are compiled when they are first used: the first steps take longer")


def build_model(config: Config, body: MTLBody, datasets: Mapping[str, PreparedDataset]) -> MultiTaskModel:
    """Body and heads; sizes come from the body and the opened datasets."""
    owners = _owners(config)
    _check_shared(config, {key: dataset.task for key, dataset in datasets.items()})
    built = {
        key: _build_head(config, body, key, datasets[key].task.output_dim) for key in datasets if owners[key] == key
    }
    for key, dataset in datasets.items():
        _check_outputs(key, built[owners[key]], dataset.task)
        _check_pairs(key, built[owners[key]].pooler, dataset)
    heads = {dataset.name: built.get(key, datasets[owners[key]].name) for key, dataset in datasets.items()}
    rest = {k: v for k, v in config["model"].items() if k not in ("body", "heads", "start_from")}
    model = instance_of("model", build_object(rest, body=body, heads=heads), MultiTaskModel)
    if start := _start_from(config):
        tasks = {dataset.name: dataset.task for dataset in datasets.values()}
        labels = {dataset.name: facts_of(dataset.manifest["labels"], dataset.task) for dataset in datasets.values()}
        taken, new = start_heads(start, model, tasks, labels)
        say(
            f"starting from {config['model']['start_from']}: its body, its heads {', '.join(taken) or 'none'}; "
            f"new heads: {', '.join(new) or 'none'}"
        )
        warn_of_templates(start, [dataset for dataset in datasets.values() if dataset.name in taken])
    elif config["model"]["body"].get("pretrained", True):
        for key, dataset in datasets.items():
            head = model.head(dataset.name)
            if head.published:
                _check_classes(key, head.published, dataset.task)
                if dataset.name not in model.shared:
                    head.load_published()
                    say(f"the head {dataset.name} starts as the classifier of {head.published.backbone}")
    return model


def warn_of_templates(start: Path, datasets: Iterable[PreparedDataset]) -> None:
    """Say where texts of a dataset stand in another template than those that a saved model has learnt from it."""
    nodes = datasets_of(read_model(start)[0]).values()
    learnt = {node["name"]: node["preprocessor"].get("template") for node in nodes}
    for dataset in datasets:
        there, here = learnt.get(dataset.name), dataset.preprocessor.template
        if dataset.name in learnt and there != here:
            warn(f"{dataset.name}: the model has learnt texts in the template {there!r}, and template is {here!r} now")


def build_saved_model(config: Config, labels: Mapping[str, Any]) -> MultiTaskModel:
    """The model of a saved config, before its weights are loaded. No data is needed."""
    datasets = {key: build_dataset(node) for key, node in datasets_of(config).items()}
    for key, dataset in datasets.items():
        dataset.task.learn_labels(labels[key])
    return build_model(config, build_body(config), datasets)


def with_start_fetched(config: Config) -> Config:
    """The config with `model.start_from` as the local folder of that model, whatever its registry has in use later."""
    start = _start_from(config)
    return {**config, "model": {**config["model"], "start_from": str(start)}} if start else config


def _start_from(config: Config) -> Path | None:
    """The local folder of the trained model to start from, if any."""
    path = config["model"].get("start_from")
    return model_folder(path) if path else None


def starting_weights(config: Config) -> dict[str, str]:
    """The hash of the weights that a model begins with, by the setting that names their folder: `model_dir` of a probe.

    Those of the Hugging Face hub have none: their commit can be named.
    """
    body = config["model"]["body"]
    try:
        if probed := config.get("model_dir"):
            return {"model_dir": sha256} if (sha256 := saved_weights(probed)) else {}
        if start := config["model"].get("start_from"):
            return {"model.start_from": sha256} if (sha256 := saved_weights(start)) else {}
        backbone = Path(str(body["backbone"])).expanduser()
        if body.get("pretrained", True) and backbone.is_dir():
            files = [file for pattern in _PUBLISHED for file in sorted(backbone.glob(pattern))]
            return {"model.body.backbone": fingerprint([file_hash(file) for file in files])}
    except (UserError, OSError, KeyError):
        pass  # they are gone, or no weights: a run that begins is refused when the body is built
    return {}


def _owners(config: Config) -> dict[str, str]:
    """For each task, the task under whose key its head is configured (another one if they share a head)."""
    return {
        key: head["of"] if isinstance(head, dict) and "of" in head else key
        for key, head in config["model"]["heads"].items()
    }


def _build_head(config: Config, body: MTLBody, key: str, output_dim: int) -> MTLHead:
    node = config["model"]["heads"][key]
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"model.heads.{key} is {node!r}, expected settings of a head, as in model/heads.")
    try:
        built = build_object(node)(body_dim=body.out_dim, num_layers=body.num_layers, output_dim=output_dim)
    except (ConfigError, TypeError, ValueError) as error:  # the latter two: wrong arguments
        raise ConfigError(f"Head {key!r}: {error}") from error
    head = instance_of(f"model.heads.{key}", built, MTLHead)
    if head.published and head.published.backbone != body.backbone:
        raise ConfigError(
            f"Head {key!r} starts with weights of {head.published.backbone!r}, but the body is {body.backbone!r}: expected "
            "the same backbone, as without the head's own setting."
        )
    return head


def _check_outputs(key: str, head: MTLHead, task: Task) -> None:
    """Refuse a task with another number of outputs than a head's pretrained weights have."""
    if head.published is None or (number := head.published.num_labels) == task.output_dim:
        return
    suitable = {1: "relevance", 2: "relevance_classes"}.get(number, f"classes, with {number} classes")
    raise ConfigError(
        f"Head {key!r}: the classifier that it starts from has {number} outputs, and its task "
        f"{type(task).__name__} has {task.output_dim}. Choose the task {suitable}, or another head, such as cls."
    )


def _check_classes(key: str, published: Published, task: Task) -> None:
    """Refuse classes in another order than the published outputs of a head; warn if their names differ."""
    if not isinstance(task, Classification) or not published.classes:
        return
    ours, theirs = ([name.casefold() for name in names] for names in (task.classes, published.classes))
    outputs = f"the outputs of {published.backbone} {', '.join(published.classes)}"
    orders = f"the classes are {', '.join(task.classes)}, and {outputs}"
    if sorted(ours) != sorted(theirs):
        warn(f"head {key}: {orders}, assumed to be in the same order")
    elif ours != theirs:
        raise ConfigError(
            f"Head {key!r}: {orders}, in another order. Rename the classes in the data so that they are in this one "
            "alphabetically, or choose another head, such as cls."
        )


def _check_shared(config: Config, tasks: Mapping[str, Task]) -> None:
    """Refuse a shared head whose tasks (by key) have different outputs."""
    owners = _owners(config)
    for key, owner in owners.items():
        if key != owner and (here := _outputs(tasks[key])) != (there := _outputs(tasks[owner])):
            raise ConfigError(
                f"{key!r} and {owner!r} share a head, but their outputs differ: {here} and {there}. Give one of them "
                f"its own, as in model/heads@model.heads.{key}=cls."
            )


def _outputs(task: Task) -> str:
    """The outputs of a task's head as text, with the classes if these are known."""
    what = counted(task.output_dim, "score") if task.kind != "classification" else "classes"
    if classes := getattr(task, "classes", None):
        what = f"the classes {', '.join(classes)}"
    return f"{what} of {counted(task.num_spans, 'span')}" if task.num_spans else what


def _check_spans(key: str, pooler: Pooler, task: Task) -> None:
    """Refuse a head that pools another number of spans than its task labels."""
    pooled, labelled = (
        counted(number, "span") if number else "no spans" for number in (pooler.num_spans, task.num_spans)
    )
    if pooled != labelled:
        raise ConfigError(
            f"Head {key!r} pools {pooled} with {type(pooler).__name__}, but its task {type(task).__name__} labels "
            f"{labelled} per item.{_CHOOSE.format(key)}"
        )


def _check_reads(key: str, pooler: Pooler, body: MTLBody) -> None:
    """Refuse a head on the first token of a decoder, which reads no other: all its scores would be the same."""
    if body.is_causal and pooler.only == "first":
        raise ConfigError(
            f"Head {key!r} reads the first token with {type(pooler).__name__}, but {body.backbone} is a decoder, in which "
            f"the first token reads no other: take the last one, "
            f"model/heads/pooler@model.heads.{key}.pooler=last_token."
        )


def _check_pairs(key: str, pooler: Pooler, dataset: PreparedDataset) -> None:
    """Refuse a head that compares two texts where there is one."""
    if pooler.needs_pairs and not dataset.has_pairs:
        raise ConfigError(
            f"Head {key!r} pools with {type(pooler).__name__}, which compares two texts, but its dataset has single "
            f"texts.{_CHOOSE.format(key)}"
        )
