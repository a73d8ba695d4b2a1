"""Semantic similarity: the cosine of a bi-encoder's embeddings."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlrank.annotate.annotator import Annotator, Documents, Pair
from mtlrank.annotate.versions import version_of
from mtlrank.batch import Record
from mtlrank.errors import ConfigError
from mtlrank.storage import file_hash


class SemanticSimilarity(Annotator):
    """The cosine between query and passage by any model of sentence-transformers; -1 to 1.

    `model` is a folder or a hub name, which may end in a branch, a tag or a commit, as in `name@main`.
    """

    def __init__(self, model: str, batch_size: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.query, pair.text)))
        embedded = self._encoder.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        vector = dict(zip(texts, embedded, strict=True))
        for pair in pairs:
            yield Record(*pair, label=float(vector[pair.query] @ vector[pair.text]))

    def describe(self) -> dict[str, str]:
        weights = Path(self.model) / "model.safetensors"
        known = {"weights": file_hash(weights)} if weights.is_file() else {}
        return {"model": self.model, **known, "sentence-transformers": version_of("sentence-transformers")}

    @cached_property
    def _encoder(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                "The annotator sem_sim needs sentence-transformers: pip install 'mtlrank[annotate]'."
            ) from error
        name, _, revision = (self.model, "", "") if Path(self.model).is_dir() else self.model.partition("@")
        try:
            return SentenceTransformer(name, revision=revision or None)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"sentence-transformers cannot load the model {self.model!r}: {reason}") from error
