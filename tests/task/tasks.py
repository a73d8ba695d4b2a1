"""Every task, with labels, and a group to work out by hand."""

import math

import torch

from mtlrank.task import (
    Buckets,
    Classification,
    KLDistillation,
    LambdaLoss,
    ListMLE,
    ListNet,
    LocalizedContrastive,
    MarginMSE,
    Ordinal,
    PairwiseRelevance,
    RankNet,
    Regression,
    Relevance,
    RelevanceClasses,
    SpanClassification,
    SpanPairClassification,
    SpanRegression,
    Tagging,
)
from tests.batches import batch


def opened(task, **labels):
    task.learn_labels(labels)
    return task


TASKS = {
    "relevance": opened(Relevance(["nDCG@10"])),
    "classes of relevance": opened(RelevanceClasses(["nDCG@10"])),
    "pairwise": opened(PairwiseRelevance(["nDCG@10"])),
    "ranknet": opened(RankNet(["nDCG@10"])),
    "lambdarank": opened(LambdaLoss(["nDCG@10"])),
    "ndcg_loss2": opened(LambdaLoss(["nDCG@10"], scheme="ndcg_loss2")),
    "ndcg_loss2++": opened(LambdaLoss(["nDCG@10"], scheme="ndcg_loss2++", depth=2)),
    "listnet": opened(ListNet(["nDCG@10"])),
    "listmle": opened(ListMLE(["nDCG@10"])),
    "contrastive": opened(LocalizedContrastive(["nDCG@10"])),
    "margin mse": opened(MarginMSE(["nDCG@10"])),
    "kl": opened(KLDistillation(["nDCG@10"], temperature=2.0)),
    "ordinal": opened(Ordinal(["MSE"], [0, 1, 3])),
    "huber": opened(Regression(["MSE"], huber=0.5), mean=1.0, std=2.0),
    "regression": opened(Regression(["MSE"]), mean=1.0, std=2.0),
    "buckets": opened(Buckets(["Accuracy"], 4), edges=[0.5, 1.5]),
    "terms": opened(SpanRegression(["MSE"], 0, 1), mean=0.5, std=0.5),
    "spans": opened(SpanClassification(["Accuracy"]), classes=["A", "B", "C"]),
    "tags": opened(Tagging(["EntityF1"]), classes=["O", "B-A", "I-A"]),
    "weighted": opened(Classification(["Accuracy"], "balanced"), classes=["A", "B"], counts=[3, 1]),
    "span pairs": opened(SpanPairClassification(["Accuracy"]), classes=["A", "B"]),
}
ONE_GROUP = batch([1] * 3, [0, 2, 1], item_sample=[0, 0, 0])
SCORES = torch.tensor([[1.0], [2.0], [4.0]])


def one(task, scores=SCORES, data=ONE_GROUP):
    return task.loss(scores, data).item()


def softmax(*values):
    return [math.exp(value) / sum(map(math.exp, values)) for value in values]
