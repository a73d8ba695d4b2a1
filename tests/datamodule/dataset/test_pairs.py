import json

import pytest

from mtlrank.datamodule.dataset import LabelledAnswers, Shard
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import PairwiseRelevance, Relevance
from tests.datamodule.dataset.labelled import TINY, read, sentences


def test_an_answer_is_no_grade(tmp_path):
    with pytest.raises(ConfigError, match=r"column of their own, found 'label' twice in \['qtext', 'label', 'label'\]"):
        LabelledAnswers("x", Relevance(["AP"]), TINY, str(tmp_path / "x"), columns=("qtext", "label", "label"))


def test_an_answer_with_two_grades_is_named(tmp_path):
    (tmp_path / "x").write_text("who\t1\tme\nwho\t0\tme\n")
    answers = LabelledAnswers("x", Relevance(["AP"]), TINY, str(tmp_path / "x"), format="tsv", columns=(0, 1, 2))
    with pytest.raises(DataError, match="x:2: expected one grade for an answer, found 1 and 0"):
        read(answers)


def answers(path, task=None, **kwargs):
    return LabelledAnswers("x", task or Relevance(["AP"]), TINY, str(path), **kwargs)


def test_labelled_answers_are_a_ranking(tmp_path):
    (tmp_path / "x.csv").write_text(
        "qtext,label,atext\r\nwho,1,Ann did\r\nwho,0,a garden\r\nwho,0,a garden\r\nwhy,1,so\r\n"
    )
    dataset = answers(tmp_path / "x.csv")
    rows = [(r.query_id, r.doc_id, r.label, r.group) for r in read(dataset)]
    assert rows == [
        ("train-q0", "train-a0", "1", None),
        ("train-q0", "train-a1", "0", None),
        ("train-q1", "train-a2", "1", None),
    ]
    assert dataset.reading.counts == {"train": {"answers given twice": 1}}
    dataset.write_judgements("train", tmp_path)
    assert (tmp_path / "qrels.txt").read_text().splitlines()[0] == "train-q0 0 train-a0 1"
    assert len((tmp_path / "candidates.run").read_text().splitlines()) == 3
    grouped = answers(tmp_path / "x.csv", PairwiseRelevance(["AP"]))
    assert [record.group for record in read(grouped)] == [0, 0, 1]


def test_answers_without_words_have_a_first_stage_that_ranks_none_higher(tmp_path):
    (tmp_path / "x.csv").write_text("qtext,label,atext\nhow many,1,4\nhow many,0,6\nhow many,0,2\n")
    answers(tmp_path / "x.csv").write_judgements("train", tmp_path)
    assert {line.split()[4] for line in (tmp_path / "candidates.run").read_text().splitlines()} == {"0"}


@pytest.mark.parametrize("total", [1, 2])
def test_answers_that_are_set_aside_are_not_judged(tmp_path, total):
    rows = ["who,1,Ann did", "who,0,a garden", " ,1,blank", "who,1, ", "why,0,so", "why,good,many", "why,1,\u200d"]
    (tmp_path / "x.csv").write_text("\n".join(["qtext,label,atext", *rows]) + "\n")
    (tmp_path / "learnt.csv").write_text("qtext,label,atext\nwhere,1,here\n")
    judged, ranked = [], []
    for number in range(1, total + 1):
        folder = tmp_path / f"{number}"
        reading = Reading("quarantine")
        answers(tmp_path / "learnt.csv", test=str(tmp_path / "x.csv")).prepare_shard(
            folder, Shard(number, total), reading
        )
        assert not [*(folder / "train").glob("*.txt"), *(folder / "train").glob("*.run")]
        judged += [line.split() for line in (folder / "test" / "qrels.txt").read_text().splitlines()]
        ranked += [line.split() for line in (folder / "test" / "candidates.run").read_text().splitlines()]
    assert sorted((q, d) for q, _, d, _ in judged) == sorted((q, d) for q, _, d, *_ in ranked)
    kept = {"test-q0": ["test-a0", "test-a1"], "test-q2": ["test-a4"]}
    assert {q: sorted(d for p, _, d, _ in judged if p == q) for q, *_ in judged} == kept


def test_a_question_in_two_splits_is_an_error_or_is_dropped(tmp_path):
    files = {name: tmp_path / f"{name}.csv" for name in ("train", "test")}
    for name, question in (("train", "Who ?"), ("test", "who ?")):
        files[name].write_text(f"qtext,label,atext\n{question},1,Ann\nwhy,1,so\n".replace("why", name))
    with pytest.raises(DataError, match="1 training queries are also asked in another split"):
        read(answers(files["train"], test=str(files["test"])))
    kept = read(answers(files["train"], test=str(files["test"]), leaked_queries="drop"))
    assert [record.query for record in kept] == ["train"]


def test_numbers_are_no_sentences(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"s": 1, "a": 5, "b": "text"}) + "\n")
    with pytest.raises(DataError, match="x.jsonl:1: expected text, found 5 and 'text'"):
        read(sentences(tmp_path / "x.jsonl", format="jsonl", score_column="s", columns=("a", "b")))


def test_numbers_are_no_questions(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"qtext": NaN, "label": 1, "atext": "text"}\n')
    with pytest.raises(DataError, match="x.jsonl:1: expected a question and an answer as text, found nan and 'text'"):
        read(answers(tmp_path / "x.jsonl"))


def test_the_first_stage_of_labelled_answers_does_not_depend_on_shards(tmp_path):
    rows = [f"question {q} harbour,{int(a == 0)},answer {a} harbour {q}" for q in range(9) for a in range(4)]
    (tmp_path / "x.csv").write_text("qtext,label,atext\n" + "\n".join(rows) + "\n")

    def run(total):
        lines = []
        for number in range(1, total + 1):
            folder = tmp_path / f"{number} of {total}"
            folder.mkdir()
            dataset = answers(tmp_path / "x.csv")
            dataset.shard = Shard(number, total)
            dataset.write_judgements("train", folder)
            lines += (folder / "candidates.run").read_text().splitlines()
        return sorted(lines)

    assert run(1) == run(3)
    assert {int(line.split()[3]) for line in run(2)} == {1, 2, 3, 4}


@pytest.mark.parametrize("header", ["label\tsentence1\tsentence2", "Gold Label\tPremise\tHypothesis", "class\ttext"])
def test_a_header_is_no_class(tmp_path, header):
    (tmp_path / "x.tsv").write_text(f"{header}\na\tone\ttwo\n")
    columns = list(range(1, header.count("\t") + 1))
    dataset = sentences(tmp_path / "x.tsv", columns=columns)
    found = header.replace("\t", ", ")
    with pytest.raises(DataError, match=rf"x.tsv:1: expected a label and a text, found a header \({found}\): remove"):
        read(dataset)
    (tmp_path / "x.tsv").write_text("question\twho\twhy\nclass\tone\ttwo\n")  # words that names of classes may have
    assert [record.label for record in read(sentences(tmp_path / "x.tsv"))] == ["question", "class"]
