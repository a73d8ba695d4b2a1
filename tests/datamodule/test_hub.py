"""Files on the hub: what a URI names, what is asked for and when, and how it is told that a file cannot be had."""

import gzip
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _http

from mtlrank.building.dataset import build_dataset, prepared_folder
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule import hub
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset.conll2012 import CoNLLCoreference
from mtlrank.datamodule.lines import read_lines
from mtlrank.datamodule.named_files import locate, name_of
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.storage import write_text
from mtlrank.task import Classification
from tests.datamodule.dataset.labelled import TINY, sentences

URI = "hf://datasets/my-team/my-data/pairs/train.tsv"
PAIRS = "1\ta\tb\n"


def test_a_uri_is_taken_apart():
    assert hub.parse(URI) == ("my-team/my-data", None, "pairs/train.tsv")
    assert hub.parse("hf://datasets/a/b@main/x.jsonl.gz") == ("a/b", "main", "x.jsonl.gz")
    assert hub.parse("hf://datasets/a/b@refs/convert/parquet/c/0000.parquet") == (
        *("a/b", "refs/convert/parquet", "c/0000.parquet"),
    )
    assert hub.parse("hf://datasets/a/b@dev%2Fnew/c/x.tsv") == ("a/b", "dev/new", "c/x.tsv")
    assert not hub.is_uri("/data/hf:/x.tsv")


@pytest.mark.parametrize(
    "uri",
    [
        "hf://datasets/a/b",
        "hf://datasets/a/b/",
        "hf://datasets/a",
        "hf://a/b/x.tsv",
        "hf://models/a/b/x.tsv",
        "hf://datasets/a/b@/x.tsv",
        "hf://datasets/a/b@main",
        "hf://datasets/a/b/*.parquet",
        "hf://datasets/a/b/../../x.tsv",
        "hf://datasets/a/b@..%2F..%2Fx/y.tsv",
        "hf://datasets/a/b//etc/passwd",
        "hf://datasets/a/b/..\\x.tsv",
        "hf://datasets/../b/x.tsv",
        "hf://datasets/a--b/c/x.tsv",
    ],
)
def test_what_names_no_file_is_refused_before_anything_is_asked(served, uri):
    with pytest.raises(
        ConfigError, match=r"Expected one file on the Hugging Face hub as hf://|names no dataset"
    ) as found:
        locate(uri, "input")
    assert repr(uri) in str(found.value)
    assert not served.asked


def test_a_file_is_downloaded_once_and_asked_for_once(served, capsys):
    served.commit({"pairs/train.tsv": PAIRS})
    path = locate(URI, "input")
    assert path.read_text() == PAIRS
    assert locate(URI, "input") == path
    assert served.asked == ["HEAD", "GET"]
    assert capsys.readouterr().err == f"fetch {URI}\n"
    hub.fetch.cache_clear()  # as in another process
    assert locate(URI, "input") == path
    assert served.asked == ["HEAD", "GET", "HEAD"]
    assert not capsys.readouterr().err


def test_a_branch_moves_and_a_commit_does_not(served):
    first = served.commit({"pairs/train.tsv": PAIRS})
    pinned = URI.replace("my-data", f"my-data@{first}")
    assert locate(pinned, "input").read_text() == PAIRS
    served.commit({"pairs/train.tsv": "2\tc\td\n"})
    asked = len(served.asked)
    hub.fetch.cache_clear()
    assert locate(pinned, "input").read_text() == PAIRS
    assert len(served.asked) == asked  # not even asked for
    assert locate(URI, "input").read_text() == "2\tc\td\n"


def test_a_branch_with_a_slash_is_found(served):
    served.commit({"x.tsv": PAIRS}, branch="refs/convert/parquet")
    assert locate("hf://datasets/my-team/my-data@refs/convert/parquet/x.tsv", "input").read_text() == PAIRS


def test_a_place_names_the_repository_of_a_file_at_its_root(served):
    served.commit({"train.tsv": PAIRS, "pairs/train.tsv": PAIRS})
    path = locate("hf://datasets/my-team/my-data/train.tsv", "input")
    assert [line.place for line in read_lines(path, Reading())] == ["my-data/train.tsv:1"]
    assert name_of(locate(URI, "input")) == "pairs/train.tsv"
    assert name_of(Path("/data/snapshots/2026/train.tsv")) == "2026/train.tsv"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("hf://datasets/my-team/other/x.tsv", r"'my-team/other' is not on the hub, or it is private\. .* HF_TOKEN"),
        ("hf://datasets/my-team/my-data@v9/x.tsv", r"'my-team/my-data' has no revision 'v9'\. .*/commits/main lists"),
        ("hf://datasets/my-team/my-data/x.tsv", r"has no file 'x\.tsv' in revision 'main'\. .*/tree/main lists"),
        ("hf://datasets/my-team/secret/x.tsv", r"'my-team/secret' is gated\. Ask for access on http.*/my-team/secret "),
    ],
)
def test_what_the_hub_refuses_is_told_in_a_line(served, uri, complaint):
    served.commit({"pairs/train.tsv": PAIRS})
    served.commit({"x.tsv": PAIRS}, repository="my-team/secret")
    served.gated.add("my-team/secret")
    with pytest.raises(DataError, match=complaint) as found:
        locate(uri, "input")
    assert "\n" not in str(found.value)


def test_a_token_opens_what_is_gated(served, monkeypatch):
    served.commit({"x.tsv": PAIRS}, repository="my-team/secret")
    served.gated.add("my-team/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert locate("hf://datasets/my-team/secret/x.tsv", "input").read_text() == PAIRS


def test_offline_takes_what_is_there_and_says_what_is_not(served, monkeypatch):
    served.commit({"pairs/train.tsv": PAIRS})
    path = locate(URI, "input")
    hub.fetch.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(served.asked)
    assert locate(URI, "input") == path
    with pytest.raises(StorageError, match=r"other\.tsv is not in the hub's cache \(.*\) and HF_HUB_OFFLINE is set\."):
        locate(URI.replace("train", "other"), "input")
    assert len(served.asked) == asked


def test_without_a_connection_the_cache_is_used_or_a_line_says_so(served, monkeypatch):
    served.commit({"pairs/train.tsv": PAIRS})
    path = locate(URI, "input")
    hub.fetch.cache_clear()
    served.shutdown()
    served.server_close()
    close_session()  # and what is still open
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # it waits between several attempts
    assert locate(URI, "input") == path
    with pytest.raises(
        StorageError, match=r"other\.tsv is not in the hub's cache .* cannot be reached: ConnectError: "
    ):
        locate(URI.replace("train", "other"), "input")


def test_a_server_that_is_no_hub_is_told(served):
    served.commit({"pairs/train.tsv": PAIRS})
    served.is_hub = False
    with pytest.raises(StorageError, match="cannot be reached: FileMetadataError: .* HF_ENDPOINT"):
        locate(URI, "input")


def test_a_command_ends_in_a_line(served, tmp_path):
    """Also in a process of its own, as the environment says where the hub is."""
    (tmp_path / "model").mkdir()
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={URI}", f"data_dir={tmp_path}"]
    environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mtlrank.prepare", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == DataError.exit_code
    assert done.stderr.splitlines()[-1].startswith("mtlrank: The dataset 'my-team/my-data' is not on the hub")
    assert "Traceback" not in done.stderr


# -- as the files of datasets and collections ------------------------------------------------------------------------


def folder_of(uri):
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={uri}"]
    return prepared_folder(select_tasks(compose_config(words, trusted=True)), "msm_sem_sim")


def test_prepared_folders_notice_that_a_file_on_the_hub_has_changed(served):
    commit = served.commit({"pairs/train.tsv": PAIRS})
    pinned = URI.replace("my-data", f"my-data@{commit}")
    before, pinned_before = folder_of(URI), folder_of(pinned)
    served.commit({"pairs/other.tsv": PAIRS})
    hub.fetch.cache_clear()
    assert folder_of(URI) == before  # another commit, the same content
    served.commit({"pairs/train.tsv": "2\tc\td\n"})
    hub.fetch.cache_clear()
    assert folder_of(URI) != before
    assert folder_of(pinned) == pinned_before


def test_prepared_folders_do_not_depend_on_where_the_cache_lies(served, tmp_path, monkeypatch):
    served.commit({"pairs/train.tsv": PAIRS})
    before = folder_of(URI)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    hub.fetch.cache_clear()
    assert folder_of(URI) == before
    assert (tmp_path / "elsewhere").is_dir()


def test_a_uri_that_names_nothing_is_left_to_what_reads_it(served, tmp_path, monkeypatch):
    """A class of somebody's own may read a pattern; and the current folder is not taken in its place."""
    monkeypatch.chdir(tmp_path)
    before = folder_of("hf://datasets/my-team/my-data/*.tsv"), folder_of(URI)
    (tmp_path / "x").write_text("something")
    assert before == (folder_of("hf://datasets/my-team/my-data/*.tsv"), folder_of(URI))


def test_the_manifest_names_the_uri_and_the_hash(served):
    served.commit({"pairs/train.tsv": PAIRS, "docs.tsv": "d1\tone\n", "a.conll": "#begin document x\n#end document\n"})
    told = {"file": URI, "sha256": sha256(PAIRS.encode()).hexdigest()}
    assert sentences(URI).describe() == {"train": told}
    docs = "hf://datasets/my-team/my-data/docs.tsv"
    assert Collection({"docs": docs}).source.describe() == {
        "docs": {"file": docs, "sha256": sha256(b"d1\tone\n").hexdigest()}
    }
    conll = "hf://datasets/my-team/my-data/a.conll"
    coreference = CoNLLCoreference("x", Classification(["Accuracy"]), TINY, conll)
    coreference.check_sources()
    assert coreference.describe()["train"]["file"] == conll


def test_a_collection_is_read_from_the_hub(served):
    """In BEIR's layout: documents in one repository, judgements with a header in another."""
    docs = '{"_id": "d1", "title": "One", "text": "a first"}\n{"_id": "d2", "title": "", "text": "b"}\n'
    served.commit(
        {"corpus.jsonl": docs, "queries.jsonl": '{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "x"}\n'}
    )
    served.commit({"test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n"}, repository="my-team/my-data-qrels")
    root = "hf://datasets/my-team/my-data"
    source = {"docs": f"{root}/corpus.jsonl", "queries": f"{root}/queries.jsonl", "qrels": f"{root}-qrels/test.tsv"}
    collection = Collection(source)
    assert list(collection.docs) == [("d1", "One a first"), ("d2", "b")]
    assert collection.qrels == {"q1": {"d1": 1}}
    assert Collection(source).docs.path == collection.docs.path
    assert collection.docs.folder.name.startswith("corpus.jsonl-")
    served.commit({"corpus.jsonl": docs.replace("first", "1st")})
    hub.fetch.cache_clear()
    assert list(Collection(source).docs) == [("d1", "One a 1st"), ("d2", "b")]


def test_a_repository_is_no_beir_folder():
    with pytest.raises(
        ConfigError, match=r"Expected a folder on this machine as beir, found 'hf://.* docs, queries and"
    ):
        Collection({"beir": "hf://datasets/BeIR/scifact"})


def test_a_pipeline_may_name_a_file_on_the_hub():
    """As an id of ir_datasets: it is data."""
    words = ["datamodule/dataset=msm_sem_sim", f"datamodule.dataset.train={URI}"]
    assert compose_config(words, trusted=False)["datamodule"]["dataset"]["train"] == URI


def test_the_examples_of_the_page_are_read(served, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    examples = [
        text for text in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "_target_" in text
    ]
    examples = {yaml.safe_load(text)["name"]: text for text in examples if "hf://" in text}
    assert list(examples) == ["all_nli", "scifact", "conll2003"]
    for name, text in examples.items():
        write_text(tmp_path / "datamodule" / "dataset" / f"{name}.yaml", text)
        for uri in re.findall(r"hf://\S+", text):
            file = hub.parse(uri.replace("*", "0000"))
            rows = '{"_id": "1", "text": "words"}\n' if ".jsonl" in uri else "query-id\tcorpus-id\tscore\n1\t1\t1\n"
            packed = gzip.compress(rows.encode()) if uri.endswith(".gz") else rows
            commit = served.commit({file.path: packed}, repository=file.repository)
            if file.revision:
                served.branches[file.repository, file.revision] = commit
        words = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=finetune", f"datamodule/dataset={name}"]
        config = select_tasks(compose_config(words, trusted=True))
        build_dataset(config["datamodule"]["dataset"]["datasets"][name]).check_sources()
