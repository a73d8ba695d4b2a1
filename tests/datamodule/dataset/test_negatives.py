"""Which documents are learnt from beside the relevant ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlrank.datamodule.dataset.negatives import GROUPINGS, Negatives
from mtlrank.errors import ConfigError
from mtlrank.task import PairwiseRelevance, Relevance
from tests.datamodule.dataset.rankings import groups, ranking, rows
from tests.tiny_collection import write


def negatives_of(grouping, *, num_negatives=5, max_negatives=None, groups_per_positive=1, seed=0):
    return Negatives(
        grouping=grouping,
        relevance_level=1,
        num_negatives=num_negatives,
        max_negatives=max_negatives,
        negative_ranks=(1, 100),
        judged_negatives=True,
        groups_per_positive=groups_per_positive,
        seed=seed,
    )


def test_pointwise_training_has_judged_documents_and_sampled_candidates(source):
    assert rows(ranking(source, num_negatives=1), "train") == [
        ("q1", "d1", 2),
        ("q1", "d2", 1),
        ("q1", "d5", 0),
        ("q2", "d3", 3),
        ("q2", "d4", 0),
    ]


def test_judged_negatives_can_be_left_out(source):
    assert ("q1", "d2", 1) not in rows(ranking(source, judged_negatives=False), "train")


def test_groups_hold_a_positive_and_its_negatives(source):
    dataset = ranking(source, PairwiseRelevance(["nDCG@10"], 2), num_negatives=1)
    groups = {}
    for record in dataset.records("train"):
        groups.setdefault(record.group, []).append(record.label)
    assert [labels[0] for labels in groups.values()] == [2, 3]
    assert all(len(labels) == 2 and labels[1] < 2 for labels in groups.values())


def test_listwise_groups_hold_all_of_a_query(source):
    dataset = ranking(source, PairwiseRelevance(["nDCG@10"], 2), grouping="listwise", num_negatives=5)
    first, second = groups(dataset)
    assert first[0] == ("d1", 2)
    assert sorted(first[1:]) == [("d2", 1), ("d5", 0)]
    assert second == [("d3", 3), ("d4", 0)]


def test_negatives_come_from_a_window_of_ranks_and_there_may_be_at_most_so_many(source):
    assert rows(ranking(source, num_negatives=9, negative_ranks=(1, 2), judged_negatives=False), "train") == [
        ("q1", "d1", 2),
        ("q2", "d3", 3),
        ("q2", "d4", 0),
    ]
    dataset = ranking(source, PairwiseRelevance(["nDCG@10"], 2), num_negatives=9, max_negatives=1)
    assert [len(group) for group in groups(dataset)] == [2, 2]


def test_at_most_so_many_negatives_a_query_whatever_the_number_of_relevant_documents(source):
    write(source["qrels"], ["q1 0 d1 2", "q1 0 d2 2", "q1 0 d3 2", "q1 0 d4 0", "q1 0 d5 0"])
    for grouping in ("pointwise", "pairwise", "listwise"):
        task = (Relevance if grouping == "pointwise" else PairwiseRelevance)(["AP"], 2)
        dataset = ranking(source, task, grouping=grouping, num_negatives=2, max_negatives=3)
        labels = [label for _, _, label in rows(dataset, "train")]
        assert 0 < sum(label < 2 for label in labels) <= 3


@pytest.mark.parametrize("grouping", ["pairwise", "listwise"])
def test_what_lacks_negatives_is_counted(source, grouping):
    write(source["qrels"], ["q1 0 d1 2", "q1 0 d2 2", "q2 0 d3 2"])
    write(source["run"], ["q1 Q0 d1 1 9 x", "q1 Q0 d5 2 8 x", "q2 Q0 d3 1 9 x"])
    lost = {"relevant documents without a negative": 1}
    for number, more in ((1, {}), (2, {"groups with fewer negatives than num_negatives": 2})):
        few = more if grouping == "pairwise" else {"groups with fewer negatives than num_negatives": 1}
        task = PairwiseRelevance(["nDCG@10"], 2)
        dataset = ranking(source, task, grouping=grouping, num_negatives=number)
        assert {d for group in groups(dataset) for d, _ in group} == {"d1", "d2", "d5"}
        assert dataset.reading.counts["train"] == lost | few
    dataset = ranking(source, task, grouping=grouping, num_negatives=2, max_negatives=1)
    list(groups(dataset))
    assert dataset.reading.counts["train"] == lost


def test_single_documents_that_lack_unjudged_ones_are_counted(source):
    write(source["qrels"], ["q1 0 d1 2", "q1 0 d2 2", "q2 0 d3 2"])
    write(source["run"], ["q1 Q0 d1 1 9 x", "q1 Q0 d5 2 8 x", "q2 Q0 d3 1 9 x", "q2 Q0 d4 2 8 x"])
    few = "queries with fewer unjudged documents than num_negatives asks for"
    for settings, expected in (({}, {few: 1}), ({"num_negatives": 2}, {few: 2}), ({"max_negatives": 1}, {})):
        dataset = ranking(source, Relevance(["AP"], 2), **{"num_negatives": 1, **settings})
        assert len(rows(dataset, "train")) == 5
        assert {key: times for key, times in dataset.reading.counts.get("train", {}).items() if times} == expected


def test_negatives_are_drawn_by_the_seed_and_the_query():
    def drawn(seed, query="q"):
        negatives = negatives_of("pairwise", seed=seed)
        return list(negatives.groups(query, {"p": 1}, [f"c{i}" for i in range(50)]))

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0) != drawn(0, "another")


@pytest.mark.parametrize("grouping", ["pairwise", "listwise"])
def test_a_positive_may_have_several_groups_each_with_other_negatives(source, grouping):
    negatives = negatives_of(grouping, groups_per_positive=3)
    found = list(negatives.groups("q", {"p": 1, "r": 1}, [f"c{i}" for i in range(50)]))
    positives = [tuple(d for d in group if d[0] != "c") for group in found]
    assert positives == ([("p",)] * 3 + [("r",)] * 3 if grouping == "pairwise" else [("p", "r")] * 3)
    drawn = [set(group) - {"p", "r"} for group in found]
    assert all(len(some) == 5 * len(positives[0]) for some in drawn)
    for of_one in (drawn[:3], drawn[-3:]):
        assert len(set.union(*of_one)) == 3 * len(of_one[0])
    few = list(negatives.groups("q", {"p": 1}, [f"c{i}" for i in range(7)]))  # they come again when there are no others
    assert [len(set(group)) for group in few] == [6, 6, 6]
    task = PairwiseRelevance(["nDCG@10"], 2)
    assert len(groups(ranking(source, task, num_negatives=1, grouping=grouping, groups_per_positive=3))) == 6


def test_single_documents_are_in_no_group_of_which_there_could_be_several(source):
    with pytest.raises(ConfigError, match=r"groups_per_positive is 2, but with grouping=pointwise there are no groups"):
        ranking(source, groups_per_positive=2)


@given(st.integers(1, 9), st.integers(0, 20), st.integers(1, 5), st.integers(0, 20), st.sampled_from(GROUPINGS))
def test_limits_of_negatives_lose_no_relevant_document(positives, others, num_negatives, most, grouping):
    judged = {f"p{i}": 1 for i in range(positives)} | {f"n{i}": 0 for i in range(others // 2)}
    candidates = [f"c{i}" for i in range(others - others // 2)]

    def groups(most):
        negatives = negatives_of(grouping, num_negatives=num_negatives, max_negatives=most)
        return list(negatives.groups("q", judged, candidates))

    found = groups(most)
    assert len({doc_id for group in found for doc_id in group if doc_id[0] != "p"}) <= most
    assert all(len(set(group)) == len(group) for group in found)
    if (most and others) or grouping == "pointwise":
        assert [d for group in found for d in group if d[0] == "p"] == [f"p{i}" for i in range(positives)]
    sizes = [len(group) for group in found]
    if grouping == "pairwise" and found:
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) <= len(found) + max(most, len(found))
    assert groups(positives * (num_negatives + others)) == groups(None)
