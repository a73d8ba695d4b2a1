"""Quality and cost of reading long documents in passages (MaxP), with a trained ranking head.

    python -m benchmarks.long_documents runs/my-run

Each candidate passage of a collection is hidden among five unjudged ones. Prints nDCG@10 of these documents by the number
of passages that they are read in, and that of the passage alone, with the time relative to one passage: the usual way,
which cuts a document to its beginning.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from ir_measures import Qrel, ScoredDoc

import mtlrank
from mtlrank.datamodule.collection import Collection
from mtlrank.evaluation import measures
from mtlrank.words import counted

MEASURE = "nDCG@10"
OTHERS = 5  # unjudged passages in a document
FILLERS = 50_000  # unjudged passages to draw from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a finished run")
    parser.add_argument("--head", help="which of its heads ranks")
    parser.add_argument("--collection", default="msmarco-passage/trec-dl-2019/judged", help="an id of ir_datasets")
    parser.add_argument("--candidates", type=int, default=40, help="of a query, by BM25")
    parser.add_argument("--queries", type=int, help="that are used; all without it")
    parser.add_argument("--passages", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    collection = Collection({"id": options.collection, "run": "bm25"})
    query_ids = list(islice(collection.qrels, options.queries))
    qrels = [Qrel(q, d, grade) for q in query_ids for d, grade in collection.qrels[q].items()]
    asked = [
        (doc.query_id, doc.doc_id)
        for docs in collection.candidates(query_ids, options.candidates).values()
        for doc in docs
    ]
    texts = collection.docs.texts({doc_id for _, doc_id in asked})
    queries = [collection.queries[query_id] for query_id, _ in asked]
    alone = [texts[doc_id] for _, doc_id in asked]
    hidden = list(documents(alone, fillers(collection)))

    def judged(passages: int, read: Sequence[str]) -> tuple[float, float]:
        """(measure, CPU-seconds) of texts that are read in up to `passages` passages."""
        scorer = mtlrank.load(options.model, options.head, max_passages=passages)
        started = time.process_time()
        scores = scorer.score(zip(queries, read, strict=True))
        seconds = time.process_time() - started
        run = [ScoredDoc(q, d, score) for (q, d), score in zip(asked, scores.tolist(), strict=True)]
        return measures.means(measures.ranking_values([MEASURE], qrels, run))[MEASURE], seconds

    print(
        f"{len(hidden):,} documents of {len(query_ids)} queries; the passage alone: {MEASURE} {judged(1, alone)[0]:.4f}"
    )
    judged(1, hidden)  # warm-up
    first, usual = judged(1, hidden)
    for passages in options.passages:
        value, seconds = (first, usual) if passages == 1 else judged(passages, hidden)
        speed = f"{len(hidden) / seconds:,.0f} documents per CPU-second, {seconds / usual:.2f} x the time of one"
        print(f"in {counted(passages, 'passage')}: {MEASURE} {value:.4f} ({value - first:+.4f}), {speed}", flush=True)


def fillers(collection: Collection) -> list[str]:
    """Passages without any judgement."""
    judged = {doc_id for grades in collection.qrels.values() for doc_id in grades}
    return list(islice((text for doc_id, text in collection.docs if doc_id not in judged), FILLERS))


def documents(passages: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Each passage at a random place among others."""
    draw = random.Random(0)
    for passage in passages:
        parts = draw.sample(others, OTHERS)
        parts.insert(draw.randrange(OTHERS + 1), passage)
        yield " ".join(parts)


if __name__ == "__main__":
    main()
