"""Rankings of the tiny collection."""

from mtlrank.datamodule.dataset import IRDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.task import KLDistillation, Relevance

TINY = Preprocessor("mtlrank-embedded/tiny-bert")


def ranking(source, task=None, **kwargs):
    return IRDataset("x", task or Relevance(["nDCG@10"], 2), TINY, source, **kwargs)


def rows(dataset, split):
    return [(r.query_id, r.doc_id, r.label) for r in dataset.records(split)]


def groups(dataset):
    found = {}
    for record in dataset.records("train"):
        found.setdefault(record.group, []).append((record.doc_id, record.label))
    return list(found.values())


def distilled(source, **kwargs):
    return ranking(source, KLDistillation(["nDCG@10"], 2), **{"num_negatives": 1, **kwargs})
