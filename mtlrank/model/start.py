"""Starting a training with the weights of an earlier model: its body, and the heads that are of the same kind."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from mtlrank.about import WEIGHTS
from mtlrank.backbone import load_config, load_tokenizer
from mtlrank.checks import differing
from mtlrank.config import datasets_of
from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody
from mtlrank.model.body.family import is_causal
from mtlrank.model.head import MTLHead
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import BACKBONE, body_weights, read_model
from mtlrank.storage import MANIFEST, read_json
from mtlrank.task import Regression, Task

# Settings for training, of a family's own heads, of caches, of tokens that encoders do not look at, and of tables.
_NO_COMPUTATION = re.compile(
    "dropout|^_|^initializer_|^(classifier|summary|pooler|decoder|sparse)_|^(bos|eos|cls|sep|mask)_token_id$|^use_cache$|"
    "^tie_word_embeddings$|^deterministic_|^gradient_checkpointing$|^max_position_embeddings$|^add_cross_attention$|^is_causal$"
)

Labels = Mapping[str, Any]  # facts about a task's training labels, as the manifest of a prepared dataset has them


def start_body(folder: Path, body: MTLBody) -> None:
    """Load the body of a saved model. Raises `ConfigError` if it computes otherwise or if its tokenizer differs."""
    read_model(folder)  # checks the files
    where = folder / BACKBONE
    mine, theirs = body.config, load_config(str(where))

    def refusal(reason: str) -> ConfigError:
        return ConfigError(
            f"The body is {body.backbone!r}, but model.start_from has another one. {reason} Use model/body=trained, or "
            f"model.body.backbone={backbone_of(folder)}."
        )

    for key in ("model_type", "num_attention_heads"):  # the shapes of weights do not show them
        there, here = (getattr(config, key, None) for config in (theirs, mine))
        if there != here:
            raise refusal(f"{key} is {there} in model.start_from, {here} in this body.")
    if is_causal(mine) and not is_causal(theirs):  # the other way round is how decoders become bidirectional
        raise ConfigError(
            "In the body of model.start_from each token reads the whole text: set model.body.bidirectional=true."
        )
    weights = body_weights(folder)
    try:
        body.load_plain(weights)
    except ConfigError as error:
        raise refusal(str(error)) from error
    here, there = _computation(mine), _computation(theirs)
    if others := differing(here, {key: there.get(key, value) for key, value in here.items()}):
        values = "; ".join(f"{key} is {there[key]} in model.start_from, {here[key]} in this body" for key in others)
        raise refusal(f"{values}.")
    if wrong := differing(_tokenising(body.backbone), _tokenising(str(where))):
        raise refusal(f"Their tokenizers differ ({', '.join(wrong)}).")


def _tokenising(name: str) -> dict[str, Any]:
    """The parts of a tokenizer that decide the tokens of a text, without what comes around them."""
    tokenizer = load_tokenizer(name)
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    named = {key: parts[key] for key in ("normalizer", "pre_tokenizer", "model")}
    return {**named, "vocabulary": tokenizer.get_vocab()}


def _computation(config: Any) -> dict[str, Any]:
    """The values of a config that change what an encoder computes in evaluation and that shapes do not show."""
    from transformers import PretrainedConfig

    common = PretrainedConfig().to_dict()
    values = {key: value for key, value in config.to_dict().items() if key not in common}
    return {key: value for key, value in values.items() if not _NO_COMPUTATION.search(key)}


def start_heads(
    folder: Path, model: MultiTaskModel, tasks: Mapping[str, Task], labels: Mapping[str, Labels]
) -> tuple[list[str], list[str]]:
    """Load the heads of a saved model that have the same name and kind, and whose logits stand for the same.

    Returns the names of those that are loaded, and of those that begin anew. For a head that several tasks share, the
    name is that of the task whose settings it has. `tasks` and the facts about their `labels` are by dataset name.
    """
    config, saved_labels = read_model(folder)
    kinds, weights = read_json(folder / MANIFEST)["head_kinds"], load_file(folder / WEIGHTS)
    datasets = datasets_of(config)
    earlier = {node["name"]: saved_labels[key] | _levels(node["task"].get("levels")) for key, node in datasets.items()}
    own = [name for name in model.heads if name not in model.shared]
    taken, mine = list[str](), model.head_kinds()
    for name in own:
        if kinds.get(name) != mine[name]:
            continue
        head, prefix = model.head(name), f"heads.{name}."
        scale = scale_between(head, tasks[name], labels[name], earlier[name])
        theirs = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        if scale is not None and _shapes(theirs) == _shapes(head.state_dict()):
            head.load_state_dict(theirs)
            if scale != (1.0, 0.0):
                head.rescale(*scale)
            head.is_pretrained = True
            taken.append(name)
    return taken, [name for name in own if name not in taken]


def facts_of(labels: Labels, task: Task) -> Labels:
    """What the logits of a task's head stand for: the facts about its labels, and the levels of a scale."""
    return {**labels, **_levels(getattr(task, "levels", None))}


def scale_between(head: MTLHead, task: Task, labels: Labels, earlier: Labels) -> tuple[float, float] | None:
    """The factor and shift of logits that keep a head's scores, if it was trained on labels with the facts `earlier`.

    A head for numbers learns labels that are scaled to a mean of 0 and a variance of 1. None if its logits stand for
    something else now (other classes, buckets or levels), if it has no layer to rescale, or if a task of a user's own makes
    scores of them in its own way: then it must start anew.
    """
    if any(labels.get(key) != earlier.get(key) for key in ("classes", "edges", "levels")):
        return None
    if not isinstance(task, Regression):
        return 1.0, 0.0
    if "std" not in earlier:  # of a ranking that only had test sets
        return None
    std = labels["std"] or 1.0
    scale = (earlier["std"] or 1.0) / std, (earlier["mean"] - labels["mean"]) / std
    can_rescale = head.output_layer and type(task).scores is Regression.scores
    return scale if scale == (1.0, 0.0) or can_rescale else None


def _levels(levels: Any) -> dict[str, Any]:
    """Those of a scale. A task of a user's own may call something else so."""
    return {"levels": list(levels)} if isinstance(levels, list | tuple) else {}


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def backbone_of(folder: Path) -> str:
    """The backbone of a saved model: its name in training or, if that was a folder that is gone, the saved copy."""
    read_model(folder)
    name = str(read_json(folder / "config.json")["model"]["body"]["backbone"])
    is_gone = name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir()
    return str(folder / BACKBONE) if is_gone else name
