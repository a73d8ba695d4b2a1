"""Datasets of small labelled files."""

import json

from mtlrank.datamodule.dataset import GAP, CoNLLCoreference, SentencePairs, SpanPairs
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.task import Regression, SpanPairClassification

TINY = Preprocessor("mtlrank-embedded/tiny-bert")


def sentences(path, **kwargs):
    return SentencePairs("x", Regression(["MSE"]), TINY, str(path), **kwargs)


def read(dataset, split="train"):
    return list(dataset.records(split))


def gap_file(path, **changes):
    row = {"ID": "t-1", "Text": "Ann told Mia that she won.", "Pronoun": "she", "Pronoun-offset": "18"}
    row |= {"A": "Ann", "A-offset": "0", "A-coref": "TRUE", "B": "Mia", "B-offset": "9", "B-coref": "FALSE", **changes}
    path.write_text("\t".join([*GAP.COLUMNS, "URL"]) + "\n" + "\t".join([*row.values(), "http"]) + "\n")
    return GAP("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


def span_pairs(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SpanPairs("x", SpanPairClassification(["Accuracy"]), TINY, str(path))


CONLL = """#begin document (b); part 0
b 0 0 Ann - - - - - - - - (1)
b 0 1 met - - - - - - - - -
b 0 2 old - - - - - - - - (2
b 0 3 Mia - - - - - - - - 2)

b 0 0 She - - - - - - - - (1)
b 0 1 left - - - - - - - - -

#end document
"""


def coreference(path, **kwargs):
    return CoNLLCoreference("x", SpanPairClassification(["Accuracy"]), TINY, str(path), **kwargs)
