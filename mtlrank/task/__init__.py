"""What a head is trained and judged on: output size, loss per sample, scores, measures.

A task is told about its labels once the data is there (`learn_labels`), so that no config repeats what data can say.
"""

from mtlrank.task.classification import Buckets, Classification, SpanClassification, SpanPairClassification
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
    "Task",
    "by_sample",
]
