"""BM25's scores as texts that stand between queries and passages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.annotate.bm25_settings import BM25Settings
from mtlrank.checks import is_number
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError

_LEAST = 32  # tokens that must be left for a passage


class BM25Text:
    """The BM25 score of a pair as a whole number from 0 to 100: `highest`, and all above it, is 100; fractions are cut off.

    A cross-encoder that reads it between query and passage need not find out anew how well their words match (Askari et
    al. 2023, "Injecting the BM25 Score as Text Improves BERT-Based Re-rankers"). `sources` are the collections of the
    dataset.
    """

    def __init__(
        self, dataset: str, highest: float, preprocessor: Preprocessor, sources: Iterable[str | Mapping[str, Any]] = ()
    ) -> None:
        if not is_number(highest) or not highest > 0:
            raise ConfigError(
                f"Dataset {dataset!r}: bm25_in_text is {highest!r}, expected null or the score that counts as 100, as 50."
            )
        if preprocessor.template is not None:
            raise ConfigError(
                f"Dataset {dataset!r}: bm25_in_text and template do not go together, as the template has no place for the "
                "score. Leave one of them out."
            )
        whole, query = preprocessor.lengths.max_length, preprocessor.lengths.max_query_length or 0
        if whole - query < _LEAST:
            raise ConfigError(
                f"Dataset {dataset!r}: with bm25_in_text, max_length must be at least {_LEAST} above max_query_length, "
                f"found {whole} and {query}."
            )
        settings = {BM25Settings.of(None if isinstance(source, str) else source.get("bm25")) for source in sources}
        if len(settings) > 1:
            found = "; ".join(sorted(map(str, settings)))
            raise ConfigError(
                f"Dataset {dataset!r}: with bm25_in_text, all splits need the same settings of BM25, as the scores of "
                f"others mean other things. Found: {found}."
            )
        self.highest = float(highest)
        self.settings = next(iter(settings), BM25Settings())

    def check(self, collection: Collection) -> None:
        """Refuse a collection in which BM25 has other settings: its scores mean other things."""
        if (there := collection.source.bm25_settings) != self.settings:
            wanted = ", ".join(f"{name}: {'null' if v is None else v}" for name, v in self.settings._asdict().items())
            raise ConfigError(
                f"The head was trained with BM25's scores by {self.settings}, and {collection.source.name} has {there}. "
                f"Set bm25={{{wanted}}}, in the source if there is one."
            )

    def describe(self) -> str:
        """How scores become texts, for the manifest."""
        return f"{self.highest:g} is 100; BM25, {self.settings}, bm25s index {BM25Index.FORMAT}"

    def of(self, score: float) -> str:
        """The text of a score."""
        return str(int(min(max(100 * score / self.highest, 0.0), 100.0)))

    def of_pairs(self, pairs: Sequence[tuple[str, str]], collection: Collection) -> list[str]:
        """The texts of (query_id, doc_id) pairs, in their order, by the BM25 index of their collection."""
        positions = collection.docs.positions(doc_id for _, doc_id in pairs)
        queries = [collection.queries[query_id] for query_id, _ in pairs]
        scores = collection.bm25.score_pairs(queries, [positions[doc_id] for _, doc_id in pairs])
        return [self.of(score) for score in scores.tolist()]
