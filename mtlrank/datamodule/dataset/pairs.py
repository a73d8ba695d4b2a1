"""Pairs of sentences with a score, such as semantic similarity."""

from collections.abc import Iterable

from mtlrank.batch import Record
from mtlrank.datamodule.dataset.files import lines
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import DataError
from mtlrank.task import Task


class SentencePairs(PreparedDataset):
    """Tab-separated files with a score and two sentences; columns count from 0 and quotes mean nothing.

    The defaults are `score, sentence, sentence`; STS-B's own layout is `score_column=4, columns=[5, 6]`.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | None = None,
        test: str | None = None,
        score_column: int = 0,
        columns: tuple[int, int] = (1, 2),
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.files = {"train": train, "val": val, "test": test}
        self.score_column = score_column
        self.columns = tuple(columns)

    def records(self, split: str) -> Iterable[Record]:  # noqa: D102
        needed = max(self.score_column, *self.columns) + 1
        for number, (place, line) in enumerate(lines(self.files, split)):
            cells = line.split("\t")
            if len(cells) < needed:
                raise DataError(f"{place}: expected {needed} tab-separated columns, found {len(cells)}")
            first, second = (cells[column] for column in self.columns)
            yield Record(f"{split}-a{number}", f"{split}-b{number}", first, second, cells[self.score_column])
