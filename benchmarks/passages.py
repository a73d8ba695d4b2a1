"""Passages as long as real ones and all different, made of sentences of the embedded collection."""

import random
from collections.abc import Iterable, Iterator

from mtlrank.batch import Record
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.task import Regression

TOKENIZER = "mtlrank-embedded/tiny-bert"


def passages(number: int, words: int, seed: int = 0) -> Iterator[str]:
    """`number` passages of `words` words each."""
    sentences = [text for _, text in Collection("mtlrank-embedded/train").docs]
    draw = random.Random(seed)
    for i in range(number):
        chosen = [str(i)]
        while len(chosen) < words:
            chosen += draw.choice(sentences).split()
        yield " ".join(chosen[:words])


class Passages(PreparedDataset):
    """One record per passage, with one of a thousand queries."""

    def __init__(self, texts: Iterable[str], tokenizer: str = TOKENIZER) -> None:
        super().__init__("passages", Regression(["MSE"]), Preprocessor(tokenizer))
        self.texts = texts

    def records(self, split: str) -> Iterable[Record]:
        if split == "train":
            for i, text in enumerate(self.texts):
                yield Record(f"q{i % 1000}", f"d{i}", f"what is the garden number {i % 1000} like", text, i % 7)
