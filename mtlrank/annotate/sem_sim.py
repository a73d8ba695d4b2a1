"""Semantic similarity: the cosine of a bi-encoder's embeddings."""

from collections.abc import Iterator, Sequence

from mtlrank.annotate.annotator import Documents, Pair
from mtlrank.annotate.pretrained import PretrainedAnnotator
from mtlrank.batch import Record


class SemanticSimilarity(PretrainedAnnotator):
    """The cosine between query and passage by any bi-encoder of sentence-transformers; -1 to 1."""

    kind = "SentenceTransformer"

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.query, pair.text)))
        embedded = self._loaded.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        vector = dict(zip(texts, embedded, strict=True))
        for pair in pairs:
            yield Record(*pair, label=float(vector[pair.query] @ vector[pair.text]))
