"""Equally many records of each class, whatever their number."""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator

from mtlrank.batch import Record


def balanced(records: Iterable[Record], seed: int) -> Iterator[Record]:
    """As many records of each label as the rarest one has, drawn by `seed`, in the order that they came in.

    Labels are counted first, so records wait in a temporary file: labelling them twice might take hours.
    """
    counts = Counter[str]()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        for record in records:
            counts[str(record.label)] += 1
            file.write(json.dumps(record) + "\n")
        rarest = min(counts.values(), default=0)
        drawn = {label: set(random.Random(f"{seed} {label}").sample(range(n), rarest)) for label, n in counts.items()}
        seen = Counter[str]()
        file.seek(0)
        for line in file:
            values = Record(*json.loads(line))
            label = str(values.label)
            seen[label] += 1
            if seen[label] - 1 in drawn[label]:
                yield values._replace(spans=tuple((start, end) for start, end in values.spans))
