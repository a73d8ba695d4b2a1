"""Small batches made by hand."""

import torch

from mtlrank.batch import TaskBatch


def batch(lengths, labels=None, spans=None, item_sequence=None, item_sample=None, vocabulary=50, second=None):
    """A packed batch of random tokens: one item in each sequence and one sequence in each sample, unless said otherwise.

    `second` holds the lengths of second texts; without it, sequences are single texts.
    """
    ends = torch.tensor([0, *lengths]).cumsum(0)
    total = int(ends[-1])
    item_sequence = list(range(len(lengths))) if item_sequence is None else item_sequence
    item_sample = item_sequence if item_sample is None else item_sample
    count = len(item_sequence)
    spans = torch.zeros(count, 0, 2, dtype=torch.long) if spans is None else torch.tensor(spans)
    return TaskBatch(
        input_ids=torch.randint(5, vocabulary, (total,)),
        token_type_ids=torch.zeros(total, dtype=torch.long),
        second_starts=ends[1:] - torch.tensor(second or [0] * len(lengths)),
        cu_seqlens=ends.int(),
        max_seqlen=max(lengths),
        max_items=max(item_sample.count(sample) for sample in item_sample),
        num_span_tokens=int((spans[..., 1] - spans[..., 0]).sum()),
        labels=torch.zeros(count) if labels is None else torch.tensor(labels, dtype=torch.float32),
        spans=spans,
        item_sequence=torch.tensor(item_sequence),
        item_sample=torch.tensor(item_sample),
        sample_ids=torch.arange(max(item_sample) + 1),
    )
