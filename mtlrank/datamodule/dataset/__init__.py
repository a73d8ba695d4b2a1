"""Datasets: sources of labelled records, and the prepared folders that are learnt from."""

from mtlrank.datamodule.dataset.bm25 import BM25Scores
from mtlrank.datamodule.dataset.mtl import MTLDataset
from mtlrank.datamodule.dataset.pairs import SentencePairs
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.dataset.ranking import IRDataset
from mtlrank.datamodule.dataset.spans import BIOSpans, SpanPairs

__all__ = ["BIOSpans", "BM25Scores", "IRDataset", "MTLDataset", "PreparedDataset", "SentencePairs", "SpanPairs"]
