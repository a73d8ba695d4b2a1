"""The texts of the documents that the samples of a ranking name."""

from collections.abc import Iterable, Iterator
from itertools import repeat

from mtlrank.batch import Record
from mtlrank.checks import choice
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.errors import DataError

Labelled = tuple[str, str, float]  # query_id, doc_id, label


class Texts:
    """Documents by id: one without a text is an error (`stop`), or left out and counted (`skip`).

    `setting` is the setting that the error suggests.
    """

    def __init__(self, dataset: str, missing: str, setting: str) -> None:
        self.dataset = dataset
        self.missing = choice(("stop", "skip")).check("missing_texts", missing)
        self.setting = setting
        self._has_found = False  # a text, for any sample so far

    def of(self, collection: Collection, pairs: Iterable[tuple[str, ...]]) -> dict[str, str]:
        """doc_id to text of the documents in (query_id, doc_id) pairs."""
        asked = list(dict.fromkeys(pairs))
        asked_by = {doc_id: query_id for query_id, doc_id in asked}
        texts = collection.docs.texts(asked_by)
        missing = [doc_id for doc_id in asked_by if doc_id not in texts]
        self._has_found |= bool(texts)
        if self.missing == "stop" and len(missing) > 1 and not self._has_found:
            raise DataError(
                f"{self.dataset}: none of {len(missing):,} documents, such as {missing[0]!r}, has a text in "
                f"{collection.source.name}. Give the documents that the run and the judgements were made for."
            )
        if missing and self.missing == "stop":
            first = f"document {missing[0]!r} of query {asked_by[missing[0]]!r}"
            raise DataError(
                f"{self.dataset}: {first} has no text, or a blank one, in {collection.source.name}. {self.setting} leaves "
                "such documents out."
            )
        collection.reading.count("documents without a text", sum(doc_id not in texts for _, doc_id in asked))
        return texts

    def records(
        self,
        collection: Collection,
        samples: Iterable[list[Labelled]],
        size: int,
        *,
        whole: bool,
        bm25_text: BM25Text | None = None,
    ) -> Iterator[Record]:
        """The records of samples of labelled documents, `size` samples at a time. A sample's number is its records' group.

        With `whole`, samples that lack the text of a document are left out. `bm25_text` makes the records' notes.
        """
        numbered = enumerate(samples)
        for chunk in chunks(numbered, size):
            texts = self.of(collection, (pair[:2] for _, sample in chunk for pair in sample))
            kept = [
                (group, *labelled)
                for group, sample in chunk
                if not whole or all(doc_id in texts for _, doc_id, _ in sample)
                for labelled in sample
                if labelled[1] in texts
            ]
            pairs = [(query_id, doc_id) for _, query_id, doc_id, _ in kept]
            notes = bm25_text.of_pairs(pairs, collection) if bm25_text else repeat(None)
            for (group, query_id, doc_id, label), note in zip(kept, notes, strict=False):
                query, text = collection.queries[query_id], texts[doc_id]
                yield Record(query_id, doc_id, query, text, label, group=group, note=note)
