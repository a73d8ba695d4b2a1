"""Base of annotators that use a model of sentence-transformers."""

import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from mtlrank.annotate.annotator import Annotator
from mtlrank.errors import ConfigError, one_line
from mtlrank.storage import file_hash

_ANNOTATORS = {"SentenceTransformer": "sem_sim", "CrossEncoder": "cross_encoder"}  # by the class whose models they take


class PretrainedAnnotator(Annotator):
    """A model of sentence-transformers; code that comes with it is not run.

    `model` is a folder or a hub name, which may end in a branch, a tag or a commit, as in `name@main`.
    """

    kind: ClassVar[str]  # the class of sentence-transformers that loads the model

    def __init__(self, model: str, batch_size: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size

    def describe(self) -> dict[str, str]:
        weights = Path(self.model) / "model.safetensors"
        known = {"weights": file_hash(weights)} if weights.is_file() else {}
        return {"model": self.model, **known, "sentence-transformers": version("sentence-transformers")}

    @cached_property
    def _loaded(self) -> Any:
        try:
            import sentence_transformers
        except ImportError as error:
            raise ConfigError(
                f"The annotator {_ANNOTATORS[self.kind]} needs sentence-transformers: pip install 'mtlrank[annotate]'."
            ) from error
        name, _, revision = (self.model, "", "") if Path(self.model).is_dir() else self.model.partition("@")
        try:
            found = _kind_of(name, revision or None)
            if found in (None, self.kind):
                return getattr(sentence_transformers, self.kind)(name, revision=revision or None)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"sentence-transformers cannot load the model {self.model!r}: {one_line(error)}"
            ) from error
        use = f": use the annotator {_ANNOTATORS[found]} for it" if found in _ANNOTATORS else ""
        raise ConfigError(
            f"The annotator {_ANNOTATORS[self.kind]} expects a {self.kind} as its model, found "
            f"{self.model!r}, a {found}{use}."
        )


def _kind_of(name: str, revision: str | None) -> str | None:
    """The class that a model was made for: others load it too, without its head or with a head of random weights.

    None for a name without an owner, which stands for one of sentence-transformers' own models, of either class.
    """
    from sentence_transformers.util import load_file_path
    from transformers import AutoConfig

    if not Path(name).is_dir() and "/" not in name:
        return None
    saved = load_file_path(name, "config_sentence_transformers.json", revision=revision)
    kind: str | None = json.loads(Path(saved).read_text(encoding="utf-8")).get("model_type") if saved else None
    if kind or load_file_path(name, "modules.json", revision=revision):
        return kind or "SentenceTransformer"
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    return "CrossEncoder" if classifies else "SentenceTransformer"
