"""Entities and mentions of passages, by spaCy pipelines."""

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from mtlrank.annotate.annotator import Annotator, Documents, Pair
from mtlrank.annotate.mentions import mention_pairs
from mtlrank.batch import Record, Span
from mtlrank.errors import ConfigError, one_line
from mtlrank.tags import OUTSIDE


class SpacyAnnotator(Annotator):
    """Base of annotators that use a spaCy pipeline, an installed package or a folder."""

    reads_query = False

    def __init__(self, pipeline: str, batch_size: int = 64) -> None:
        self.pipeline = pipeline
        self.batch_size = batch_size

    def describe(self) -> dict[str, str]:
        meta = self._nlp.meta
        model = f"{meta.get('lang')}_{meta.get('name')} {meta.get('version')}"
        return {"model": model, "pipeline": self.pipeline, "spacy": version("spacy")}

    def parsed(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Pair, Any]]:
        """(number, pair, spaCy's document) of each passage."""
        documents = self._nlp.pipe((pair.text for pair in pairs), batch_size=self.batch_size)
        for number, (pair, document) in enumerate(zip(pairs, documents, strict=True)):
            yield number, pair, document

    @cached_property
    def _nlp(self) -> Any:
        try:
            import spacy
        except ImportError as error:
            raise ConfigError("The annotators ner and coref need spaCy: pip install 'mtlrank[annotate]'.") from error
        try:
            return spacy.load(self.pipeline)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"spaCy cannot load the pipeline {self.pipeline!r}: {one_line(error)} To install one that spaCy offers: "
                f"python -m spacy download {self.pipeline}"
            ) from error


class NamedEntities(SpacyAnnotator):
    """The types of a passage's entities or, with `tags`, the BIO tags of all its words, by which entities are found."""

    def __init__(self, pipeline: str, batch_size: int = 64, tags: bool = False) -> None:
        super().__init__(pipeline, batch_size)
        self.tags = tags

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        for number, pair, document in self.parsed(pairs):
            labelled = _tagged_words(document) if self.tags else _entities(document)
            for span, label in labelled:
                yield Record("-", pair.doc_id, None, pair.text, label, (span,), number)


def _entities(document: Any) -> Iterator[tuple[Span, str]]:
    for entity in document.ents:
        yield (entity.start_char, entity.end_char), entity.label_


def _tagged_words(document: Any) -> Iterator[tuple[Span, str]]:
    tags = dict[int, str]()
    for entity in document.ents:
        words = (token for token in entity if not token.is_space)
        tags |= {word.i: f"{'I' if place else 'B'}-{entity.label_}" for place, word in enumerate(words)}
    for word in document:
        if not word.is_space:
            yield (word.idx, word.idx + len(word)), tags.get(word.i, OUTSIDE)


class Coreference(SpacyAnnotator):
    """Whether two mentions mean the same: neighbours of a cluster, and equally many pairs across clusters.

    Clusters are what the pipeline leaves in `doc.spans` under keys that begin with `clusters` (as spacy-experimental does),
    or in `doc._.coref_clusters` as lists of character offsets (as fastcoref does).
    """

    def __init__(self, pipeline: str, batch_size: int = 64, clusters: str = "coref_clusters", seed: int = 0) -> None:
        super().__init__(pipeline, batch_size)
        self.clusters = clusters
        self.seed = seed

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        for number, pair, document in self.parsed(pairs):
            draw = random.Random(f"{self.seed} {pair.doc_id}")
            for first, second, label in mention_pairs(self._clusters_of(document), draw):
                yield Record("-", pair.doc_id, None, pair.text, label, (first, second), number)

    def _clusters_of(self, document: Any) -> list[list[Span]]:
        if document.has_extension("coref_clusters"):
            return [[(start, end) for start, end in cluster] for cluster in document._.coref_clusters or []]
        groups = (group for key, group in sorted(document.spans.items()) if key.startswith(self.clusters))
        return [[(mention.start_char, mention.end_char) for mention in group] for group in groups]
