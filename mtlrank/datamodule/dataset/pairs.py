"""Texts and pairs of texts with a score or a class, such as semantic similarity, and questions with labelled answers."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from mtlrank.batch import Record
from mtlrank.datamodule.dataset.files import Column, FileDataset, checked_distinct, columns_of
from mtlrank.datamodule.dataset.leaks import LeakedQueries
from mtlrank.datamodule.lines import is_header_of_labels
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.task import Task


class SentencePairs(FileDataset):
    """Rows with a score or a class and two sentences, as TSV, CSV, JSON Lines or Parquet (see `read_columns`).

    The format is that of the file's ending (else TSV), or `format`. The defaults are `score, sentence, sentence`; STS-B's
    own layout is `score_column=4, columns=[5, 6], format=tsv`. With a single column, as in `columns=[1]`, each row has one
    text.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | None = None,
        test: str | None = None,
        score_column: Column = 0,
        columns: Sequence[Column] = (1, 2),
        format: str | None = None,
    ) -> None:
        super().__init__(name, task, preprocessor, train, val, test)
        is_single = isinstance(columns, list | tuple) and len(columns) == 1
        texts = columns_of(columns, 1 if is_single else 2, "the two sentences, or one of a text")
        self.columns = checked_distinct((score_column, *texts))
        self.text_keys = _names(texts) or (("text",) if is_single else ("query", "text"))
        self.format = format

    def records(self, split: str) -> Iterable[Record]:
        tables = self.tables(split, self.columns, self.format)
        rows = chain.from_iterable(map(enumerate, tables))  # each file may have a header
        for number, (row, (place, (score, *texts))) in enumerate(rows):
            if not all(isinstance(text, str) for text in texts):
                self.reading.reject(place, f"expected text, found {' and '.join(map(repr, texts))}")
            elif row == 0 and is_header_of_labels(str(score), texts):
                found = ", ".join([str(score), *texts])
                self.reading.reject(
                    place,
                    f"expected a label and a text, found a header ({found}): remove it, or name a CSV's columns",
                    found,
                )
            elif len(texts) == 1:
                yield Record("-", f"{split}-{number}", None, texts[0], score, place=place)
            else:
                first, second = texts
                yield Record(f"{split}-a{number}", f"{split}-b{number}", first, second, score, place=place)


class LabelledAnswers(FileDataset):
    """Rows with a question, a grade and an answer, such as TrecQA; rows of one question follow each other.

    Files are as those of `SentencePairs`. A ranking: every answer of a question is a candidate. The first stage that it is
    compared with is BM25 among the answers of the split, which are held in memory for that.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | None = None,
        test: str | None = None,
        columns: Sequence[Column] = ("qtext", "label", "atext"),
        format: str | None = None,
        leaked_queries: str = "stop",
    ) -> None:
        super().__init__(name, task, preprocessor, train, val, test)
        self.leaked = LeakedQueries(name, leaked_queries)
        self.columns = columns_of(columns, 3, "question, grade and answer")
        self.text_keys = _names(self.columns[::2]) or ("query", "text")
        self.format = format

    def records(self, split: str) -> Iterable[Record]:
        answers, seen = dict[str, int](), dict[tuple[int, int], str]()
        yielded = set[tuple[int, int]]()
        queries = {query: number for number, query in enumerate(dict.fromkeys(self._queries(split)))}
        wanted = set(queries)
        if split == "train":
            elsewhere = chain(self._queries("val"), self._queries("test"))
            mine = {query: query for query, number in queries.items() if self.shard.holds(f"{split}-q{number}")}
            wanted = set(self.leaked.without(mine, elsewhere, self.reading))
        for place, (query, grade, answer) in self.rows(split, self.columns, self.format):
            if not (isinstance(query, str) and isinstance(answer, str)):
                self.reading.reject(place, f"expected a question and an answer as text, found {query!r} and {answer!r}")
                continue
            pair = queries[query], answers.setdefault(answer, len(answers))
            if seen.setdefault(pair, str(grade)) != str(grade):
                self.reading.reject(place, f"expected one grade for an answer, found {seen[pair]} and {grade}", answer)
            elif pair in yielded:
                if self.shard.holds(f"{split}-q{pair[0]}"):
                    self.reading.count("answers given twice")
            elif query in wanted:
                group = pair[0] if self.task.grouped else None
                names = f"{split}-q{pair[0]}", f"{split}-a{pair[1]}"
                yield Record(*names, query, answer, grade, group=group, place=place)
            yielded.add(pair)

    def _queries(self, split: str) -> Iterator[str]:
        rows = self.rows(split, self.columns, self.format)
        return (query for _, (query, *_) in rows if isinstance(query, str))


def _names(columns: Sequence[Column]) -> tuple[str, ...]:
    """The columns if all are names, else none."""
    names = tuple(column for column in columns if isinstance(column, str))
    return names if len(names) == len(columns) else ()
