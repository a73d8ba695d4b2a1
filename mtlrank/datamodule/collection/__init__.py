"""Collections of queries, documents, judgements and first-stage candidates."""

from mtlrank.datamodule.collection.collection import Collection
from mtlrank.datamodule.collection.ranking import RankedDoc, RankedDocs
from mtlrank.datamodule.collection.store import DocStore

__all__ = ["Collection", "DocStore", "RankedDoc", "RankedDocs"]
