"""Records as sources give them, and batches as training steps receive them."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Span = tuple[int, int]


class Record(NamedTuple):
    """One labelled sequence as a source gives it, in plain text.

    `query` is None where a sequence is a single text. `spans` are (start, end) characters, end exclusive, of `text`, or of
    `query` if `spans_in` says so. `place` says where the record was read, as in `train.tsv:17`, for errors.
    `note` is a text between the two: BM25's score, of a dataset with `bm25_text`.
    Records that follow each other with the same `group` form one sample: a query with its group of documents, or, if
    their ids are equal too, one sequence with several labelled spans. None: a sample of its own.
    """

    query_id: str
    doc_id: str
    query: str | None
    text: str
    label: float | str
    spans: tuple[Span, ...] = ()
    group: int | None = None
    spans_in: Literal["text", "query"] = "text"
    place: str = ""
    note: str | None = None


class TaskBatch(NamedTuple):
    """A task's batch, packed: no padding anywhere.

    A *sample* is what a sampler drew and has one loss; it holds one or more *sequences*, and a sequence holds one or more
    *items*, each with a label and logits. Ranking: a sequence is an item. Spans: an item is a span (or a pair of spans).

    A document that is read in several *passages* is one item of several sequences. Then poolers give a vector for each
    passage, and the head makes the item's logits of those of its passages. Without passages, each item has one sequence.
    """

    input_ids: Tensor  # (tokens,) int64, the sequences one after another
    token_type_ids: Tensor  # (tokens,) int64
    second_starts: Tensor  # (sequences,) int64, where each sequence's second text starts; without one, its end
    cu_seqlens: Tensor  # (sequences + 1,) int32, where each sequence starts; the last is the number of tokens
    max_seqlen: int  # of the longest sequence; numbers like this are computed on the CPU, without waiting for the GPU
    max_items: int  # of the sample with the most
    num_span_tokens: int  # in all spans together
    labels: Tensor  # (items,) float32; a class index for classification
    spans: Tensor  # (items, spans per item, 2) int64: first and one past the last position in `input_ids`
    item_sequence: Tensor  # (items,) int64, the sequence of each item; with passages (passages,), of each passage
    item_sample: Tensor  # (items,) int64, the sample of each item, ascending
    sample_ids: Tensor  # (samples,) int64, the row of each sample in its split
    passage_item: Tensor | None = None  # (passages,) int64, the item of each passage, ascending; None: one each
    max_passages: int = 1  # of the item with the most

    @property
    def num_samples(self) -> int:
        """How many samples the batch holds."""
        return len(self.sample_ids)


def text_starts(cu_seqlens: Tensor, second_starts: Tensor) -> Tensor:
    """Like `cu_seqlens`, but by text: for each sequence the start of its first and its second text; last, the end.

    (2 * sequences + 1,). The second text of a sequence with one text is empty.
    """
    starts = torch.stack([cu_seqlens[:-1], second_starts.to(cu_seqlens)], dim=1)
    return torch.cat([starts.ravel(), cu_seqlens[-1:]])


def in_rows(values: Tensor, row: Tensor, shape: tuple[int, int], fill: float = 0.0) -> Tensor:
    """Values as a grid of `shape`, each in the next free cell of its `row` (ascending); other cells hold `fill`."""
    num_rows, width = shape
    counts = torch.zeros(num_rows, dtype=torch.long, device=values.device).index_add(0, row, torch.ones_like(row))
    place = torch.arange(len(values), device=values.device) - (counts.cumsum(0) - counts)[row]
    return values.new_full((num_rows * width,), fill).index_copy(0, row * width + place, values).view(shape)


class Step(NamedTuple):
    """The optimizer step that a batch is a part of; it has one batch of each process, unless batches are accumulated."""

    totals: dict[str, int]  # samples of each task, over all processes and accumulated batches
    batches: int = 1  # that each process accumulates
    place: int = 0  # of this batch among them


class Draw(NamedTuple):
    """The samples of a training step, as a sampler hands them to the dataset. As in `MTLBatch`, but not read yet."""

    pairs: list[tuple[int, int]]  # (dataset_idx, sample_idx) of this process's
    totals: dict[str, int]
    weight: float
    seed: int
    step: Step


class MTLBatch(NamedTuple):
    """The input of a training step: this process's share of the samples that all processes draw together."""

    tasks: dict[str, TaskBatch]  # the tasks that were drawn here, in config order
    totals: dict[str, int]  # samples of each task that all processes draw together
    # factor of the mean loss, 1 for equal batches: so all samples of a step, with max_tokens of an epoch, count alike
    weight: float
    seed: int  # of dropout, so that a batch gives the same result on any process, and when it is repeated
    step: Step
