"""Tasks: a head's output size, loss per sample, scores and measures.

A task learns its labels from the prepared data (`learn_labels`), so that no config has to repeat them.
"""

from mtlrank.task.classification import Buckets, Classification, SpanClassification, SpanPairClassification, Tagging
from mtlrank.task.distillation import KLDistillation, MarginMSE
from mtlrank.task.groupwise import LambdaLoss, ListMLE, ListNet, LocalizedContrastive, PairwiseRelevance, RankNet
from mtlrank.task.regression import Ordinal, Regression, SpanRegression
from mtlrank.task.relevance import Relevance, RelevanceClasses
from mtlrank.task.task import Task, by_sample

__all__ = [
    "Buckets",
    "Classification",
    "KLDistillation",
    "LambdaLoss",
    "ListMLE",
    "ListNet",
    "LocalizedContrastive",
    "MarginMSE",
    "Ordinal",
    "PairwiseRelevance",
    "RankNet",
    "Regression",
    "Relevance",
    "RelevanceClasses",
    "SpanClassification",
    "SpanPairClassification",
    "SpanRegression",
    "Tagging",
    "Task",
    "by_sample",
]
