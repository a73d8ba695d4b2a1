"""Several files on the hub by a name with `*`: which they are, of which commit, and what is known without a connection."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, constants
from huggingface_hub.utils import _http

from mtlrank.datamodule import hub
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.named_files import locate, locate_all
from mtlrank.errors import ConfigError, DataError, StorageError
from tests.datamodule.dataset.labelled import sentences
from tests.datamodule.test_hub import PAIRS, folder_of

PATTERN = "hf://datasets/my-team/my-data/pairs/train-*.tsv"
THREE = {f"pairs/train-{i}-of-3.tsv": f"{i}\tc\td\n" for i in range(3)}


@pytest.fixture
def parts(served, tmp_path, monkeypatch):
    """A hub with data in three files, and nothing that was asked before."""
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))
    served.commit(THREE | {"pairs/test.tsv": PAIRS, "pairs/train-more/x.tsv": PAIRS, "train-9.tsv": PAIRS})
    hub.fetch_all.cache_clear()
    yield served
    hub.fetch_all.cache_clear()


def texts(uri=PATTERN):
    return [path.read_text() for path in locate_all(uri, "input")]


def again(pattern=PATTERN):
    """As another process reads them."""
    hub.fetch_all.cache_clear()
    return texts(pattern)


def test_all_files_that_match_are_read_in_the_order_of_their_names(parts, capsys):
    assert texts() == list(THREE.values())
    assert [path.name for path in locate_all(PATTERN, "input")] == [Path(name).name for name in THREE]
    assert parts.asked == ["revision", "tree", *["HEAD", "GET"] * 3]
    commit = parts.branches["my-team/my-data", "main"]
    told = [f"fetch hf://datasets/my-team/my-data@{commit}/{name}" for name in THREE]
    assert capsys.readouterr().err.splitlines() == told
    assert texts("hf://datasets/my-team/my-data/*.tsv") == [PAIRS]  # of the root, where no folder is before the name
    assert [record.place for record in sentences(PATTERN).records("train")] == [
        f"pairs/train-{i}-of-3.tsv:1" for i in range(3)
    ]


def test_a_folder_of_several_pages_is_read_whole(parts):
    parts.page = 2
    assert texts() == list(THREE.values())
    assert parts.asked.count("tree") == 3


def test_files_of_one_pattern_are_of_one_commit(parts):
    """Also if the branch moves before they are listed."""
    first = parts.branches["my-team/my-data", "main"]
    listed = HfApi.list_repo_tree

    def moved(*args, **kwargs):
        parts.commit({"pairs/train-0-of-3.tsv": "9\tx\ty\n", "pairs/train-3-of-3.tsv": PAIRS})
        return listed(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfApi, "list_repo_tree", moved)
        assert texts() == list(THREE.values())
    assert texts() == list(THREE.values())  # all of a process reads the same
    assert again() == ["9\tx\ty\n", *list(THREE.values())[1:], PAIRS]
    assert texts(PATTERN.replace("my-data", f"my-data@{first}")) == list(THREE.values())


def test_of_a_commit_nothing_is_asked_twice(parts):
    pinned = PATTERN.replace("my-data", f"my-data@{parts.branches['my-team/my-data', 'main']}")
    assert texts(pinned) == list(THREE.values())
    asked = len(parts.asked)
    assert again(pinned) == list(THREE.values())
    assert again(pinned.replace("train", "test").replace("-*", "*")) == [PAIRS]  # of the same folder
    assert parts.asked[asked:] == ["HEAD", "GET"]


def test_a_branch_with_a_slash_may_have_several_files(parts):
    parts.commit(THREE, branch="refs/convert/parquet")
    assert texts(PATTERN.replace("my-data", "my-data@refs/convert/parquet")) == list(THREE.values())


def test_offline_takes_all_files_that_the_hub_told_or_says_that_it_was_not_asked(parts, monkeypatch):
    assert texts() == list(THREE.values())
    locate("hf://datasets/my-team/my-data/pairs/test.tsv", "input")
    hub.fetch.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(parts.asked)
    assert again() == list(THREE.values())
    with pytest.raises(StorageError, match=r"train-9.*\.tsv is not known on this machine .* HF_HUB_OFFLINE is set"):
        texts("hf://datasets/my-team/my-data/train-9*.tsv")
    assert len(parts.asked) == asked


def test_offline_a_part_of_the_files_is_not_taken_for_all(parts, monkeypatch):
    """The cache may hold some that were named one by one."""
    locate("hf://datasets/my-team/my-data/pairs/train-0-of-3.tsv", "input")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="is not known on this machine"):
        texts()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="interrupted"):
        patch.setattr(hub, "_fetch", interrupted)
        texts()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match=r"train-1-of-3\.tsv is not in the hub's cache .* HF_HUB_OFFLINE is set"):
        texts()


def interrupted(*_):
    raise StorageError("interrupted")


def test_without_a_connection_the_last_known_files_are_taken_and_it_is_said(parts, monkeypatch, capsys):
    assert texts() == list(THREE.values())
    parts.shutdown()
    parts.server_close()
    close_session()
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    assert again() == list(THREE.values())
    assert "the hub cannot be reached, so the files are those of " in capsys.readouterr().err
    with pytest.raises(StorageError, match=r"Cannot fetch hf://.*/other/\*\.tsv: ConnectError: "):
        texts("hf://datasets/my-team/my-data/other/*.tsv")


def test_where_nothing_can_be_kept_files_are_read_all_the_same(parts, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "file"))
    assert texts() == list(THREE.values())


@pytest.mark.parametrize(
    ("uri", "error", "complaint"),
    [
        (
            *("hf://datasets/my-team/my-data/pairs/x-*.tsv", DataError),
            r"matches no file\. The folder 'pairs' of 'my-team/my-data' holds test\.tsv, train-0-of-3\.tsv, .*-2-of-3",
        ),
        (
            "hf://datasets/my-team/my-data/*.csv",
            DataError,
            r"matches no file\. The root of 'my-team/my-data' holds train-9",
        ),
        ("hf://datasets/my-team/my-data/no/x-*.tsv", DataError, r"has no file 'no/x-\*\.tsv' in revision 'main'\."),
        ("hf://datasets/my-team/my-data@v9/pairs/*", DataError, r"'my-team/my-data' has no revision 'v9'\."),
        ("hf://datasets/my-team/other/x-*.tsv", DataError, "'my-team/other' is not on the hub, or it is private"),
        (
            "hf://datasets/my-team/my-data/p*/x-*.tsv",
            ConfigError,
            r"A \* may stand in the name of the file, not of a folder",
        ),
        (
            "hf://datasets/my-team/my-data/p*/x.tsv",
            ConfigError,
            r"A \* may stand in the name of the file, not of a folder",
        ),
        ("hf://datasets/my-team/my-*/x.tsv", ConfigError, "Expected one file on the Hugging Face hub"),
    ],
)
def test_what_matches_nothing_on_the_hub_is_told_in_a_line(parts, uri, error, complaint):
    with pytest.raises(error, match=complaint) as found:
        locate_all(uri, "input")
    assert "\n" not in str(found.value)


def test_prepared_folders_notice_that_a_file_on_the_hub_was_added(parts):
    before = folder_of(PATTERN)
    parts.commit({"pairs/test.tsv": "other"})
    hub.fetch_all.cache_clear()
    assert folder_of(PATTERN) == before  # another commit, the same content
    parts.commit({"pairs/train-3-of-3.tsv": PAIRS})
    hub.fetch_all.cache_clear()
    assert folder_of(PATTERN) != before


def test_a_collection_of_several_files_is_read_from_the_hub(parts):
    parts.commit({f"docs/d-{i}.jsonl": f'{{"_id": "d{i}", "text": "text {i}"}}\n' for i in range(3)})
    source = {"docs": "hf://datasets/my-team/my-data/docs/d-*.jsonl"}
    collection = Collection(source)
    assert list(collection.docs) == [(f"d{i}", f"text {i}") for i in range(3)]
    assert [part["file"] for part in collection.source.describe()["docs"]["parts"]] == [
        f"d-{i}.jsonl" for i in range(3)
    ]
    assert collection.docs.folder.name.startswith("d-0.jsonl-")
