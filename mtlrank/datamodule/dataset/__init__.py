"""Datasets: sources of labelled records, and the prepared folders that are learnt from."""

from mtlrank.datamodule.dataset.annotated import AnnotatedPairs
from mtlrank.datamodule.dataset.conll2012 import CoNLLCoreference
from mtlrank.datamodule.dataset.mtl import MTLDataset
from mtlrank.datamodule.dataset.pairs import LabelledAnswers, SentencePairs
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.dataset.query_passages import QueryPassages
from mtlrank.datamodule.dataset.ranking import IRDataset
from mtlrank.datamodule.dataset.spans import GAP, BIOSpans, SpanPairs
from mtlrank.shard import Shard

__all__ = [
    "GAP",
    "AnnotatedPairs",
    "BIOSpans",
    "CoNLLCoreference",
    "IRDataset",
    "LabelledAnswers",
    "MTLDataset",
    "PreparedDataset",
    "QueryPassages",
    "SentencePairs",
    "Shard",
    "SpanPairs",
]
