"""BM25's scores as texts that stand between queries and passages."""

from collections.abc import Sequence

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.checks import is_number
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError

_LEAST = 32  # tokens that must be left for a passage


class BM25Text:
    """The BM25 score of a pair as a whole number from 0 to 100: `highest`, and all above it, is 100; fractions are cut off.

    A cross-encoder that reads it between query and passage need not find out anew how well their words match (Askari et
    al. 2023, "Injecting the BM25 Score as Text Improves BERT-Based Re-rankers").
    """

    def __init__(self, dataset: str, highest: float, preprocessor: Preprocessor) -> None:
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
        self.highest = float(highest)

    def describe(self) -> str:
        """How scores become texts, for the manifest."""
        return f"{self.highest:g} is 100; BM25 by bm25s index {BM25Index.FORMAT}"

    def of(self, score: float) -> str:
        """The text of a score."""
        return str(int(100 * min(max(score / self.highest, 0.0), 1.0)))

    def of_pairs(self, pairs: Sequence[tuple[str, str]], collection: Collection) -> list[str]:
        """The texts of (query_id, doc_id) pairs, in their order, by the BM25 index of their collection."""
        positions = collection.docs.positions(doc_id for _, doc_id in pairs)
        queries = [collection.queries[query_id] for query_id, _ in pairs]
        scores = collection.bm25.score_pairs(queries, [positions[doc_id] for _, doc_id in pairs])
        return [self.of(score) for score in scores.tolist()]
