import errno
import fcntl
import multiprocessing
import os
import pwd
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mtlrank.errors import DataError, StorageError
from mtlrank.storage import (
    fingerprint,
    home,
    locked,
    manifest,
    new_file,
    new_folder,
    read_json,
    read_manifest,
    safe_name,
    writable_folder,
    write_bytes,
    write_json,
    write_lines,
    write_manifest,
    write_text,
    writing,
)
from mtlrank.storage.local import unfinished


def test_new_folder_appears_whole(tmp_path):
    with new_folder(tmp_path / "x") as part:
        (part / "a").write_text("1")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x" / "a").read_text() == "1"


def test_all_of_a_new_folder_is_on_the_disk_before_it_appears(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync

    def noted(handle):
        fsync(handle)
        synced.add((os.fstat(handle).st_ino, (tmp_path / "x").exists()))

    monkeypatch.setattr(os, "fsync", noted)
    with new_folder(tmp_path / "x") as part:
        (part / "a" / "b").mkdir(parents=True)
        for name in ("c", "a/d", "a/b/e"):
            (part / name).touch()
    paths = [tmp_path / "x", *(tmp_path / "x").rglob("*")]
    assert len(paths) == 6
    assert {(path.stat().st_ino, False) for path in paths} <= synced


def test_a_failed_new_folder_leaves_the_old_one(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with pytest.raises(RuntimeError, match="stop"), new_folder(tmp_path / "x") as part:
        (part / "new").touch()
        raise RuntimeError("stop")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("renames", [1, 2])
def test_killed_between_two_renames_the_old_folder_is_there_again(tmp_path, renames):
    """Or the new one, if it was in place; a next attempt that fails costs nothing."""
    with new_folder(tmp_path / "x") as part:
        (part / "old").touch()

    def replace_and_die():
        rename, done = Path.rename, []

        def killed(path, target):
            moved = rename(path, target)
            done.append(path)
            if len(done) == renames:
                os._exit(1)
            return moved

        Path.rename = killed
        with new_folder(tmp_path / "x") as part:
            (part / "new").touch()

    process = multiprocessing.get_context("fork").Process(target=replace_and_die)
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(RuntimeError, match="stop"), new_folder(tmp_path / "x"):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert [path.name for path in (tmp_path / "x").iterdir()] == [["old", "new"][renames - 1]]


@pytest.mark.parametrize("contents", ["aaa", "abc"])
def test_processes_that_make_the_same_folder_do_not_disturb_each_other(tmp_path, contents, monkeypatch):
    monkeypatch.setattr(manifest, "sync", lambda path: None)  # a disk would make them wait for each other
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(contents))

    def make(content):
        for number in range(100):
            barrier.wait(10)
            with new_folder(tmp_path / f"{number}") as part:
                (part / "x").write_text(content)
                write_manifest(part, {})

    processes = [context.Process(target=make, args=(content,)) for content in contents]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(100)))
    assert all(read_manifest(path) for path in tmp_path.iterdir())


def test_a_lock_where_the_file_system_has_none_is_no_error(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_bytes(tmp_path / "x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_what_a_link_names_is_replaced_and_the_link_stays(tmp_path):
    """As users link a folder to where there is room."""
    for folder in ("big", "small"):
        (tmp_path / folder).mkdir()
    for name in ("folder", "file", "new_folder", "new_file"):
        (tmp_path / "small" / name).symlink_to(f"../big/{name}")
    (tmp_path / "big" / "folder").mkdir()
    (tmp_path / "big" / "folder" / "old").touch()
    (tmp_path / "big" / "file").touch()
    for prefix in ("", "new_"):
        with new_folder(tmp_path / "small" / f"{prefix}folder") as part:
            (part / "new").touch()
        write_text(tmp_path / "small" / f"{prefix}file", "new")
        assert [path.name for path in (tmp_path / "big" / f"{prefix}folder").iterdir()] == ["new"]
        assert (tmp_path / "big" / f"{prefix}file").read_text() == "new"
    assert len(list((tmp_path / "big").iterdir())) == 4
    assert len(list((tmp_path / "small").iterdir())) == 4
    assert all(path.is_symlink() for path in (tmp_path / "small").iterdir())


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "a").write_text("1")
    write_manifest(tmp_path, {})
    (tmp_path / "a").unlink()
    with pytest.raises(DataError, match="a is missing"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_broken_json_file_is_named(tmp_path, text):
    write_text(tmp_path / "broken.json", text)
    with pytest.raises(DataError, match="broken.json is not valid JSON"):
        read_json(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DataError, match="list.json is damaged: expected a JSON object"):
        read_json(tmp_path / "list.json")


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_lines_appear_whole_or_not_at_all(tmp_path):
    def lines(fail):
        yield "one\n"
        if fail:
            raise RuntimeError
        yield "two\n"

    with pytest.raises(RuntimeError):
        write_lines(tmp_path / "x.txt", lines(fail=True))
    assert list(tmp_path.iterdir()) == []
    write_lines(tmp_path / "x.txt", lines(fail=False))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one\ntwo\n"]


def test_two_writers_of_a_file_do_not_disturb_each_other_or_anybodys_files(tmp_path):
    (tmp_path / "x.part").write_text("the user's")

    def lines():
        yield "one\n"
        write_lines(tmp_path / "x", ["another's\n"])
        assert (tmp_path / "x").read_text() == "another's\n"
        write_text(tmp_path / "x", "a third's\n")
        yield "two\n"

    write_lines(tmp_path / "x", lines())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "one\ntwo\n", "x.part": "the user's"}


def test_a_link_to_nothing_is_no_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match="link' is a link to what does not exist: expected a folder"):
        writable_folder(tmp_path / "link")


def test_another_home_is_proposed_where_this_one_cannot_be_written(monkeypatch):
    monkeypatch.setenv("MTLRANK_HOME", "/proc/home")
    with pytest.raises(StorageError, match="Choose another one by MTLRANK_HOME"):
        writable_folder(home() / "collections")
    with pytest.raises(StorageError, match="Choose another one, or fix"):
        writable_folder("/proc/nowhere")


def _hold(name, folder, seconds, events):
    with locked(folder), events.open("ab", buffering=0) as file:  # a queue would not keep the order of processes
        file.write(f"{name} in\n".encode())
        time.sleep(seconds)
        file.write(f"{name} out\n".encode())
        folder.rmdir()  # from here on, another process can make and lock it


def test_a_lock_holds_also_if_its_folder_is_removed_and_made_again(tmp_path):
    """The second one waits for a folder that the first removes; the third makes it anew."""
    context = multiprocessing.get_context("fork")
    events, folder = tmp_path / "events", tmp_path / "locked"
    processes = [context.Process(target=_hold, args=(name, folder, 0.3, events)) for name in "abc"]
    for process in processes:
        process.start()
        time.sleep(0.1)
    for process in processes:
        process.join(30)
    happened = [line.split() for line in events.read_text().splitlines()]
    assert [what for _, what in happened] == ["in", "out"] * 3
    assert all(first[0] == second[0] for first, second in zip(happened[::2], happened[1::2], strict=True))


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_an_error_says_what_was_written_and_leaves_nothing(tmp_path, make):
    with (
        pytest.raises(OSError, match="No space left") as raised,
        make(tmp_path / "x"),
        open("/dev/full", "wb", 0) as full,
    ):
        full.write(b"1")
    assert raised.value.__notes__ == [f"while writing {tmp_path / 'x'}"]
    assert not list(tmp_path.iterdir())


def test_the_innermost_of_what_is_written_is_noted(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised, writing(tmp_path / "out"), writing(tmp_path / "in"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.__notes__ == [f"while writing {tmp_path / 'in'}"]


def left_by_a_killed_process(path, host=None, numbers=None):
    """A file, or a folder if the name has no ending, that a process was filling when it was killed.

    `host` is another machine, `numbers` the processes of a container that is called like this machine.
    """

    def fill():
        if host:
            socket.gethostname = lambda: host
        if numbers:
            os.readlink = lambda link: numbers
        part = unfinished(path)
        part.mkdir() if not path.suffix else part.touch()
        os._exit(1)

    there = set(path.parent.iterdir())
    child = multiprocessing.get_context("fork").Process(target=fill)
    child.start()
    child.join()
    (left,) = set(path.parent.iterdir()) - there
    return left


@pytest.mark.parametrize("name", ["x.tsv", "x"])
def test_what_a_killed_process_has_left_is_removed_by_the_next_that_writes_there(name, tmp_path):
    def write():
        if path.suffix:
            write_text(path, "whole")
        else:
            with new_folder(path) as part:
                (part / "whole").touch()

    path = tmp_path / name
    others = {path, tmp_path / f".{name}.notes", tmp_path / f".{name}.y.01234567-1.0123456789abcdef"}
    for each in others - {path}:
        each.touch()
    left_by_a_killed_process(path)
    elsewhere = {left_by_a_killed_process(path, "another"), left_by_a_killed_process(path, numbers="pid:[1]")}
    write()
    assert set(tmp_path.iterdir()) == others | elsewhere  # their processes may be alive
    for each in elsewhere:
        os.utime(each, (0, 0))
    write()
    assert set(tmp_path.iterdir()) == others


def test_files_may_be_read_by_whom_other_new_files_may_be_read(tmp_path):
    (tmp_path / "usual").touch()
    write_text(tmp_path / "x", "text")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_a_new_folder_may_be_used_by_whom_the_umask_says_whoever_wrote_its_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "usual").mkdir()
        (tmp_path / "usual" / "file").touch()
        with new_folder(tmp_path / "x") as part:
            (part / "inner").mkdir()
            save_file({"weight": torch.ones(1)}, part / "inner" / "model.safetensors")
    finally:
        os.umask(before)
    folder, file = (path.stat().st_mode for path in (tmp_path / "usual", tmp_path / "usual" / "file"))
    found = {path.name: path.stat().st_mode for path in (tmp_path / "x").rglob("*")}
    assert {"x": (tmp_path / "x").stat().st_mode, **found} == {"x": folder, "inner": folder, "model.safetensors": file}


@pytest.mark.parametrize("name", ["../evil", "a/b", "a.b", "", "a b", "-a", "x" * 64])
def test_unsafe_names_are_refused(name):
    with pytest.raises(StorageError, match="cannot be used as a name"):
        safe_name(name, "The dataset name")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file' is a file: expected a folder"):
        writable_folder(tmp_path / "file")
    with pytest.raises(StorageError, match="Cannot write to the folder"):
        writable_folder(tmp_path / "file" / "out")


def test_where_there_is_no_home_folder_a_variable_names_one(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a user id that the machine does not know, as in containers
    assert home() == Path(os.environ["MTLRANK_HOME"])
    monkeypatch.delenv("MTLRANK_HOME")
    with pytest.raises(StorageError, match="set MTLRANK_HOME"):
        home()


def test_a_url_is_refused():
    with pytest.raises(StorageError, match="is a URL"):
        writable_folder("https://example.org/x")


def test_fingerprint_knows_values_not_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
