"""TREC runs of other systems, judged like the rankings that they are compared with."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ir_measures import Qrel, ScoredDoc

from mtlrank.comparing.systems import System, as_system
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import HeadResults, evaluation_of, ranking_head
from mtlrank.evaluation.measures import ranking_values
from mtlrank.trec import read_qrels, read_run

QueryDoc = tuple[str, str]  # query_id, doc_id


class Topics(NamedTuple):
    """The test set of a ranking head, with its measures and judgements."""

    head: str
    split: str
    measures: tuple[str, ...]
    qrels: list[Qrel]
    candidates: set[QueryDoc]  # that the head re-ranked

    @property
    def query_ids(self) -> list[str]:
        """The judged queries, in order."""
        return sorted({qrel.query_id for qrel in self.qrels})


def read_topics(systems: Iterable[System]) -> list[Topics]:
    """The test sets of all rankings in the folders of systems, each with the measures of any system."""
    found: dict[str, Topics] = {}
    for system in systems:
        for head in (head for head in system.heads.values() if head.kind == "ranking"):
            topics = found.get(head.name) or _topics(
                head, [evaluation_of(folder) / head.name for folder in system.first_run]
            )
            found[head.name] = topics._replace(measures=tuple(dict.fromkeys([*topics.measures, *head.measures])))
    return list(found.values())


def judge_files(name: str, paths: Sequence[Path], topics: Sequence[Topics]) -> tuple[System, list[str]]:
    """A system from TREC runs, one for each seed, and remarks about them in sentences.

    A run is judged on each test set of which it ranks a judged document; queries that it lacks count as 0. Raises
    `DataError` if there is no such test set.
    """
    judged = [_judge(path, topics) for path in paths]
    notes = [f"{note}." for _, remarks in judged for note in remarks]
    return as_system(name, paths, [heads for heads, _ in judged]), notes


def _topics(head: HeadResults, folders: Sequence[Path]) -> Topics:
    if lacking := [folder for folder in folders if not (folder / "qrels.txt").is_file()]:
        raise DataError(
            f"{lacking[0]} has no qrels.txt to judge a run file by. Judge this head again with `mtlrank evaluate`, and "
            "name the folder that this writes."
        )
    runs, qrels = ([folder / file for folder in folders] for file in ("run.trec", "qrels.txt"))
    candidates = {(doc.query_id, doc.doc_id) for doc in read_run(*runs)}
    return Topics(head.name, head.split, head.measures, read_qrels(*qrels), candidates)


def _judge(path: Path, topics: Sequence[Topics]) -> tuple[list[HeadResults], list[str]]:
    run = _read(path)
    heads, notes, known = list[HeadResults](), list[str](), set[str]()
    for each in topics:
        query_ids = set(each.query_ids)
        mine = {pair: score for pair, score in run.items() if pair[0] in query_ids}
        if any((qrel.query_id, qrel.doc_id) in mine for qrel in each.qrels):
            heads.append(_head(each, mine))
            notes += _notes(path, each, mine)
            known |= query_ids
    if not heads:
        names = ", ".join(each.head for each in topics) or "no ranking"
        raise DataError(
            f"{path} ranks no judged document of the rankings of the other systems ({names}). Expected a TREC run of the "
            "same queries and documents."
        )
    if others := {query_id for query_id, _ in run} - known:
        notes.append(f"{path} also ranks queries that are not judged: {len(others):,} are left out")
    return heads, notes


def _head(topics: Topics, run: dict[QueryDoc, float]) -> HeadResults:
    query_ids = topics.query_ids
    docs = [ScoredDoc(*pair, score) for pair, score in run.items()]
    values = ranking_values(topics.measures, topics.qrels, docs)
    # Rounded as in the folder of a judged head: the same ranking has the same values.
    rounded = {m: np.array([[round(by_query[q], 6) for q in query_ids]]) for m, by_query in values.items()}
    return ranking_head(topics.head, topics.split, query_ids, rounded, first_stage={})


def _notes(path: Path, topics: Topics, run: dict[QueryDoc, float]) -> list[str]:
    notes, query_ids = [], topics.query_ids
    if lacking := len(set(query_ids) - {query_id for query_id, _ in run}):
        notes.append(f"{path} lacks {lacking:,} of {len(query_ids):,} queries of {topics.head}, which count as 0")
    if retrieved := len(run.keys() - topics.candidates):
        notes.append(
            f"{retrieved:,} of the {len(run):,} documents that {path} ranks for {topics.head} are not among the candidates "
            "that the heads re-rank: it retrieves differently, so a difference is not due to re-ranking alone"
        )
    return notes


def _read(path: Path) -> dict[QueryDoc, float]:
    """The score of each document that a run ranks."""
    reading = Reading(hint=False)
    collection = Collection({"run": str(path)}, reading)
    if not collection.is_ordered:
        raise DataError(
            f"{path} ranks nothing: all documents of a query have the same score. Write scores into the fifth column: "
            "documents are ordered by them, as by trec_eval, and not by the ranks in the fourth."
        )
    run: dict[QueryDoc, float] = {}
    for query_id, doc_id, score, place in collection.source.pair_values("run", reading):
        if (query_id, doc_id) in run:
            reading.reject(place, f"document {doc_id!r} is ranked twice for query {query_id!r}, expected once")
        run[query_id, doc_id] = score
    return run
