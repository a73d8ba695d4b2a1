"""Queries that one dataset learns from and another is judged on."""

import pytest

from mtlrank import train
from mtlrank.batch import Record
from mtlrank.composing.compose import compose_config
from mtlrank.datamodule.dataset import PreparedDataset, Shard
from mtlrank.datamodule.dataset.leaks import leaks_between, leaks_within, leave_out_leaks
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.storage import read_json
from mtlrank.task import Classification, Regression, Relevance


class Asked(PreparedDataset):
    """Two passages for each query of each split."""

    def __init__(self, name, task, lengths=None, **queries):
        super().__init__(name, task, Preprocessor("mtlrank-embedded/tiny-bert", **(lengths or {})))
        self.queries = queries

    def records(self, split):
        for number, query in enumerate(self.queries.get(split, ())):
            for label in (0, 1):
                yield Record(f"{split}{number}", f"d{label}", query, f"passage {label}", label)


def opened(folder, dataset, total=2):
    """Prepared in shards."""
    shards = [folder / dataset.name / str(number) for number in range(1, total + 1)]
    for number, shard in enumerate(shards, 1):
        dataset.prepare_shard(shard, Shard(number, total), Reading())
    dataset.merge(folder / dataset.name / "whole", shards)
    dataset.open(folder / dataset.name / "whole")
    return dataset


@pytest.fixture
def ranking(tmp_path):
    queries = {"train": ["the crow", "the fox"], "test": ["a stork", "an owl"]}
    return opened(tmp_path, Asked("ranking", Relevance(["RR"], 1), **queries))


@pytest.mark.parametrize(
    ("queries", "shared"),
    [
        (["a crane", "the fox"], None),  # what the ranking trains on is nobody's test
        (["an owl", "the fox"], "1 of the 2"),
        (["An  OWL", "a stork", "the crow"], "2 of the 2"),  # as the tokenizer reads it
    ],
)
def test_queries_that_another_dataset_is_judged_on_are_told(tmp_path, ranking, queries, shared):
    other = opened(tmp_path, Asked("other", Regression(["MSE"]), train=queries))
    told = list(leaks_between([ranking, other]))
    assert told == list(leaks_between([other, ranking]))
    sentence = f"other learns from {shared} queries that ranking is judged on (test): its measures do not hold for new"
    assert [line.startswith(sentence) for line in told] == ([True] if shared else [])


class Folded(Asked):
    """The same as a fold of its queries."""

    def describe(self):
        return {"folds": {"fold": 0, "of": 3}}


@pytest.fixture
def folded(tmp_path):
    queries = {"train": ["the crow", "the fox"], "val": ["a hen"], "test": ["a stork", "an owl"]}
    return opened(tmp_path, Folded("ranking", Relevance(["RR"], 1), **queries))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_nothing_learns_from_queries_of_the_folds_that_validate_and_test(tmp_path, folded, total):
    asked = ["An  OWL", "a crane", "the crow", "a hen", "a stork", "the fox", "a gull"]
    other = opened(tmp_path, Asked("other", Regression(["MSE"]), train=asked, test=["an owl"]), total)
    before = {sample: other.split("train").pairs()[sample] for sample in range(14)}
    (told,) = leave_out_leaks([other, folded])
    assert told == "other learns without the 6 samples whose query is in the fold of ranking that validates or tests"
    train = other.split("train")
    kept = [pairs for pairs in before.values() if pairs[0][0] not in ("train0", "train3", "train4")]
    assert (len(train), train.pairs()) == (8, kept)
    assert list(leaks_between([other, folded])) == list(leave_out_leaks([other, folded])) == []
    assert len(other.split("test")) == 2
    batch = train.collate(range(8))
    assert batch.labels.tolist() == [0, 1] * 4
    assert train.lengths().sum() == len(batch.input_ids)
    wanted = {pairs[0] for pairs in kept[2:5]} | {("train0", "d0")}
    assert [train.pairs()[sample][0] in wanted for sample in train.samples_about(wanted)] == [True] * 3


def test_queries_of_several_folded_rankings_are_left_out(tmp_path, folded):
    second = opened(
        tmp_path, Folded("second", Relevance(["RR"], 1), train=["the crow"], val=["a gull"], test=["a crane"])
    )
    other = opened(
        tmp_path, Asked("other", Regression(["MSE"]), train=["an owl", "a crane", "a hen", "a cat", "a gull"])
    )
    assert [line.partition(" samples")[0] for line in leave_out_leaks([folded, second, other])] == [
        "other learns without the 4",
        "other learns without the 4",
    ]
    assert {query_id for ((query_id, _),) in other.split("train").pairs()} == {"train3"}


def test_queries_are_the_same_whatever_a_dataset_keeps_of_them(tmp_path):
    """One keeps 16 tokens of a text, the other more, as it reads passages."""
    long, short = " ".join(["garden", "harbour"] * 20), {"max_length": 16, "max_query_length": 8}
    queries = {"train": ["the crow"], "val": ["a hen"], "test": [long]}
    judged = opened(tmp_path, Folded("ranking", Relevance(["RR"], 1), {**short, "max_passages": 4}, **queries))
    other = opened(tmp_path, Asked("other", Regression(["MSE"]), short, train=["a cat", long]))
    for datasets in ([judged, other], [other, judged]):
        (told,) = leaks_between(datasets)
        assert told.startswith("other learns from 1 of the 1 queries that ranking is judged on (test)")
    (told,) = leave_out_leaks([judged, other])
    assert told.startswith("other learns without the 2 samples")


def test_other_rankings_and_texts_without_a_query_stay_as_they_are(tmp_path, folded, ranking):
    other = opened(tmp_path, Asked("other", Regression(["MSE"]), train=["an owl"]))
    assert list(leave_out_leaks([ranking, other])) == []
    alone = opened(tmp_path, Alone("alone", Regression(["MSE"]), train=["an owl"]))
    assert list(leave_out_leaks([folded, alone])) == []


class Alone(Asked):
    """The queries as texts by themselves."""

    def records(self, split):
        return [record._replace(query=None, text=record.query) for record in super().records(split)]


def test_nothing_to_learn_from_is_an_error(tmp_path, folded):
    other = opened(tmp_path, Asked("other", Regression(["MSE"]), train=["an owl"]))
    with pytest.raises(DataError, match="other learns only from queries that ranking is judged on. Give it others"):
        list(leave_out_leaks([folded, other]))


def test_first_texts_of_what_is_no_ranking_are_no_queries(tmp_path, ranking):
    pairs = opened(tmp_path, Asked("pairs", Regression(["MSE"]), train=["a cat"], test=["the fox", "a cat"]))
    assert list(leaks_between([ranking, pairs])) == []


@pytest.mark.parametrize("total", [1, 2, 3])
def test_texts_of_other_splits_that_training_holds_are_counted(tmp_path, total):
    splits = {"train": ["a cat", "a dog", "a dog"], "val": ["a CAT", "A  dog", "a cat"], "test": ["the fox", "a cat"]}
    pairs = opened(tmp_path, Asked("pairs", Regression(["MSE"]), **splits), total)
    assert leaks_within(pairs).endswith("in train too, and may be known by heart: 2 of 4 in test, 6 of 6 in val")
    counts = {split: list(found.values()) for split, found in pairs.manifest["counts"].items() if found}
    assert counts == {"val": [6], "test": [2]}


def test_half_a_pair_and_a_pair_in_another_order_are_other_texts(tmp_path):
    splits = {"train": ["passage 1"], "val": ["passage 0", "passage 2"]}
    pairs = opened(tmp_path, Asked("pairs", Regression(["MSE"]), **splits))
    assert leaks_within(pairs) == ""
    assert not any(pairs.manifest["counts"].values())


def test_sentences_without_roles_are_the_same_pair_in_any_order(tmp_path):
    splits = {"train": ["passage 1"], "val": ["passage 0", "passage 2"]}
    sentences = Asked("pairs", Regression(["MSE"]), {"max_query_length": None}, **splits)
    assert leaks_within(opened(tmp_path, sentences)).endswith("by heart: 1 of 4 in val")


def test_texts_that_another_dataset_with_labels_of_the_kind_is_judged_on_are_told(tmp_path, ranking):
    here = opened(
        tmp_path, Asked("here", Regression(["MSE"]), train=["a cat"], val=["an ox"], test=["the fox", "a cow"])
    )
    there = opened(tmp_path, Asked("there", Regression(["MSE"]), train=["a cow", "an ox", "a fly"]))
    classes = opened(tmp_path, Asked("classes", Classification(["Accuracy"]), train=["a cow", "an ox"]))
    told = list(leaks_between([here, there, classes, ranking]))
    assert told == [
        f"there learns from 2 of the {number} texts that here is judged on ({split}), which may be known by heart. Give "
        "one of them other texts."
        for number, split in ((2, "val"), (4, "test"))
    ]
    assert list(leaks_between([here])) == list(leaks_between([there, classes])) == []


def test_sentences_are_found_among_pairs_with_roles(tmp_path):
    no_roles = {"max_query_length": None}
    here = opened(tmp_path, Asked("here", Regression(["MSE"]), no_roles, train=["a cat"], test=["the fox", "a cow"]))
    there = opened(tmp_path, Asked("there", Regression(["MSE"]), train=["a cow", "the fox"]))
    assert [line[:38] for line in leaks_between([here, there])] == ["there learns from 4 of the 4 texts tha"]


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_training_tells_it_and_notes_it(tmp_path, data_dir, home, capsys):
    auxiliary = {"train": "mtlrank-embedded/test", "val": "null", "test": "null"}
    words = [f"datamodule.dataset.datasets.msm_bm25.{split}={source}" for split, source in auxiliary.items()]
    words += [
        "datamodule.dataset.datasets.msm_sem_sim.train=mtlrank-embedded/sem_sim/val.tsv",
        "tasks=[trec2019,msm_bm25,msm_sem_sim]",
        "debug=limit",
        "test=false",
        f"output_dir={tmp_path}",
        f"data_dir={data_dir}",
    ]
    train.run(compose_config(words, trusted=True))
    sentence = "msm_bm25 learns from 100 of the 100 queries that trec2019 is judged on (test)"
    within = "texts that are in train too, and may be known by heart: 3 of 600 in test, 295 of 295 in val"
    told, noted = capsys.readouterr().err, read_json(tmp_path / "about.json")["leaks"]
    assert f"mtlrank: {sentence}" in told
    assert f"samples; warning: {within} (" in told
    assert sentence in noted
    assert f"msm_sem_sim: {within}." in noted
