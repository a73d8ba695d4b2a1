"""The texts of the documents that the samples of a ranking name."""

from collections.abc import Iterable, Iterator

from mtlrank.batch import Record
from mtlrank.checks import choice
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection
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
        self, collection: Collection, samples: Iterable[list[Labelled]], size: int, *, whole: bool
    ) -> Iterator[Record]:
        """The records of samples of labelled documents, `size` samples at a time. A sample's number is its records' group.

        With `whole`, samples that lack the text of a document are left out.
        """
        numbered = enumerate(samples)
        for chunk in chunks(numbered, size):
            texts = self.of(collection, (pair[:2] for _, sample in chunk for pair in sample))
            for group, sample in chunk:
                if whole and any(doc_id not in texts for _, doc_id, _ in sample):
                    continue
                for query_id, doc_id, label in sample:
                    if doc_id in texts:
                        yield Record(query_id, doc_id, collection.queries[query_id], texts[doc_id], label, group=group)
