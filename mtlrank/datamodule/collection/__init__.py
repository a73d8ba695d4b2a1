"""Collections of queries, documents, judgements and first-stage candidates."""

from mtlrank.datamodule.collection.collection import Collection
from mtlrank.datamodule.collection.ranking import RankedDoc, RankedDocs

__all__ = ["Collection", "RankedDoc", "RankedDocs"]
