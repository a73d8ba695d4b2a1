import os

import pytest

from mtlrank.building.dataset import prepared_folder
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import DataError


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


def test_a_folder_in_place_of_a_file_of_folds_is_told_before_it_is_hashed(tmp_path):
    words = ["tasks=[trec2019]", f"+datamodule.dataset.datasets.trec2019.folds={tmp_path}"]
    with pytest.raises(DataError, match="is a folder, expected a file"):
        prepared_folder(composed(*words), "trec2019")


def test_prepared_folders_notice_that_a_file_has_changed(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_text("1\ta\tb\n")
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={file}"]
    before = prepared_folder(composed(*words), "msm_sem_sim")
    assert before == prepared_folder(composed(*words), "msm_sem_sim")
    os.utime(file, (0, 0))
    assert before == prepared_folder(composed(*words), "msm_sem_sim")  # what counts is the content, on any machine
    file.write_text("1\ta\tb\n2\tc\td\n")
    assert before != prepared_folder(composed(*words), "msm_sem_sim")


def test_prepared_folders_notice_that_a_file_of_a_folder_has_changed(tmp_path, monkeypatch):
    """Also if the folder's path is a word, which could be any setting."""
    (tmp_path / "b" / "qrels").mkdir(parents=True)
    (tmp_path / "b" / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    monkeypatch.chdir(tmp_path)
    words = ["datamodule/dataset=trec2019", "datamodule.dataset.train={beir: b, split: test}"]
    before = prepared_folder(composed(*words), "trec2019")
    (tmp_path / "b" / "qrels" / "test.tsv").write_text("q1\td1\t0\n")
    assert before != prepared_folder(composed(*words), "trec2019")
    found = prepared_folder(composed(*words), "trec2019")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "big").write_text("not of the dataset: split is a word")
    assert found == prepared_folder(composed(*words), "trec2019")


def test_prepared_folders_do_not_take_words_for_folders(tmp_path, monkeypatch):
    """Of tasks, formats and first stages, whatever the current folder holds."""
    monkeypatch.chdir(tmp_path)
    bm25 = "{stopwords: german, stemmer: porter}"
    test = f"collection.test={{id: mtlrank-embedded/test, run: bm25, bm25: {bm25}}}"
    ranking = composed("tasks=[trec2019,msm_bm25]", test)
    pairs = composed("datamodule/dataset=msm_sem_sim")
    columns = ["datamodule.dataset.positives=pos", "datamodule.dataset.negatives=[neg]"]
    rows = composed("datamodule/dataset=query_passages", "datamodule.dataset.train=x.jsonl", *columns)
    cases = [(ranking, "trec2019"), (ranking, "msm_bm25"), (pairs, "msm_sem_sim"), (rows, "query_passages")]
    before = [prepared_folder(*case) for case in cases]
    for name in (
        "ranking",
        "regression",
        "bm25",
        "tsv",
        "judged",
        "annotator",
        "german",
        "porter",
        "query",
        "pos",
        "neg",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert before == [prepared_folder(*case) for case in cases]


def test_prepared_folders_notice_other_weights_of_an_annotator_but_not_beside_a_tokenizer(tmp_path):
    """Though a retrained model has as many bytes."""
    for name in ("teacher", "body"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"one")
    words = ["datamodule/dataset=annotated_sem_sim", f"datamodule.dataset.annotator.model={tmp_path}/teacher"]
    config = composed(*words, f"datamodule.dataset.preprocessor.tokenizer={tmp_path}/body")
    before = prepared_folder(config, "annotated_sem_sim")
    (tmp_path / "body" / "model.safetensors").write_bytes(b"two")
    assert before == prepared_folder(config, "annotated_sem_sim")
    (tmp_path / "teacher" / "model.safetensors").write_bytes(b"two")
    assert before != prepared_folder(config, "annotated_sem_sim")


def test_prepared_folders_notice_that_a_class_of_ones_own_has_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "changing_data.py"
    code.write_text("from mtlrank.datamodule.dataset import SentencePairs\n\n\nclass Mine(SentencePairs):\n    pass\n")
    words = ["datamodule/dataset=msm_sem_sim", "datamodule.dataset._target_=changing_data.Mine"]
    config = composed(*words)
    before = prepared_folder(config, "msm_sem_sim")
    assert before == prepared_folder(config, "msm_sem_sim")
    code.write_text(code.read_text() + "\n    # another way to read\n")
    assert before != prepared_folder(config, "msm_sem_sim")


def test_prepared_folders_tell_apart_what_is_made_differently():
    def folder(*overrides):
        return prepared_folder(composed(*overrides), "msm_bm25")

    usual = folder()
    assert usual == folder("training.epochs=9", "datamodule.dataset.datasets.msm_bm25.name=other")
    assert usual != folder("datamodule.dataset.datasets.msm_bm25.per_query=9")
    assert usual != folder("model.body.backbone=other")
    assert usual != folder(f'template="{"a prompt, " * 99}{{query}} {{text}}"')  # too long for a name of a file
    stemmed = "collection.test={id: mtlrank-embedded/test, bm25: {stemmer: porter}}"
    assert len({usual, folder(stemmed), folder(stemmed, "collection.test.bm25.stemmer=english")}) == 3
