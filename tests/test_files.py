from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from pixeltune import files
from pixeltune.errors import ConfigError, StoreError

PLACES = ("a path", "a file:// location", "object storage")
Remote = Callable[[str], tuple[fs.FileSystem, str]]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder on disk, or a bucket that a folder stands in for."""
    if request.param == "object storage":
        monkeypatch.setattr(files, "_remote", _bucket(tmp_path))
        return "s3://bucket/results"
    return str(tmp_path / "results") if request.param == "a path" else f"file://{tmp_path}/results"


def _bucket(folder: Path) -> Remote:
    """Object storage has no folders to be made beforehand, so this makes them."""

    def remote(location: str) -> tuple[fs.FileSystem, str]:
        path = folder / location.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(path)

    return remote


def test_a_file_is_written_replaced_listed_moved_and_removed(place: str) -> None:
    first = files.join(place, "trials", "00000-1.parquet")
    assert not files.exists(first)
    assert files.list_names(files.join(place, "trials")) == []
    files.write_whole(first, b"old")
    files.write_whole(first, b"new")
    files.write_whole(files.join(place, "trials", "00000-0.parquet"), b"")
    files.write_whole(files.join(place, "trials", "notes.txt"), b"")
    assert files.read_whole(first) == b"new"
    assert files.exists(first)
    assert files.list_names(files.join(place, "trials"), ".parquet") == ["00000-0.parquet", "00000-1.parquet"]
    assert len(files.list_names(files.join(place, "trials"))) == 3

    moved = files.join(place, "_corrupt", "00000-1.parquet")
    files.write_whole(moved, b"in the way")
    files.move(first, moved)
    assert not files.exists(first)
    assert files.read_whole(moved) == b"new"

    files.remove(moved)
    files.remove(moved)
    assert not files.exists(moved)
    files.remove(files.join(place, "trials"))
    assert not files.exists(files.join(place, "trials"))
    assert files.list_names(files.join(place, "trials")) == []


def test_what_is_not_there_cannot_be_read(place: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_whole(files.join(place, "nothing"))


def test_folders_are_not_listed_as_files(place: str) -> None:
    files.write_whole(files.join(place, "folder", "file"), b"")
    assert files.list_names(place) == []
    assert files.list_names(files.join(place, "folder")) == ["file"]


@pytest.mark.parametrize(
    ("location", "parts", "joined"),
    [
        ("results", ("a", "b"), "results/a/b"),
        ("results/", ("a",), "results/a"),
        ("s3://bucket/results", ("a",), "s3://bucket/results/a"),
        ("s3://bucket/results/?region=eu", ("a", "b"), "s3://bucket/results/a/b?region=eu"),
        ("what?/results", ("a",), "what?/results/a"),
        ("file:///tmp/what?", ("a",), "file:///tmp/what?/a"),
    ],
)
def test_join(location: str, parts: tuple[str, ...], joined: str) -> None:
    assert files.join(location, *parts) == joined


@given(st.lists(st.text("abc.-_", min_size=1), min_size=1, max_size=4))
def test_joining_at_once_or_by_steps_is_the_same(parts: list[str]) -> None:
    for location in ("results", "s3://bucket/results?region=eu"):
        step_by_step = location
        for part in parts:
            step_by_step = files.join(step_by_step, part)
        assert files.join(location, *parts) == step_by_step


@pytest.mark.parametrize(
    ("location", "answer"),
    [("results", False), ("/tmp/a:b", False), ("file:///tmp/a", False), ("s3://b/c", True), ("gs://b", True)],
)
def test_what_counts_as_object_storage(location: str, answer: bool) -> None:
    assert files.is_uri(location) is answer


def test_the_home_folder_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_whole("~/results/file", b"1")
    assert (tmp_path / "results" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "file"
    files.write_whole(str(target), b"old")

    def fail(_handle: int) -> None:
        raise error

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(type(error)):
        files.write_whole(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_ctrl_c_while_an_object_is_written_publishes_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow publishes what it has when a stream is closed, nothing included."""
    remote = _bucket(tmp_path)

    class Interrupted:
        def open_output_stream(self, path: str) -> object:
            stream = fs.LocalFileSystem().open_output_stream(path)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.05)
            return stream

    monkeypatch.setattr(files, "_remote", lambda location: (Interrupted(), remote(location)[1]))
    with pytest.raises(KeyboardInterrupt):
        files.write_whole("s3://bucket/row", b"whole")
    deadline = time.monotonic() + 10
    while (tmp_path / "bucket" / "row").read_bytes() != b"whole" and time.monotonic() < deadline:
        time.sleep(0.01)  # Ctrl-C may come while the thread starts, which then writes on by itself
    assert (tmp_path / "bucket" / "row").read_bytes() == b"whole"


def test_a_publication_is_made_to_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its name, and the name before the caller hears of it."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda path, target: (order.append("name"), replace(path, target))[1])
    files.write_whole(str(tmp_path / "row"), b"1")
    assert order == ["file", "name", "folder"]


@pytest.mark.parametrize(("code", "is_raised"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.ENOSPC, True)])
def test_a_folder_that_cannot_be_settled_is_no_failure_but_a_full_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_raised: bool
) -> None:
    """Some network disks refuse to sync a folder."""
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", refuse)
    if is_raised:
        with pytest.raises(OSError, match="No space"):
            files.write_whole(str(tmp_path / "row"), b"1")
    else:
        files.write_whole(str(tmp_path / "row"), b"1")
    assert (tmp_path / "row").read_bytes() == b"1"


def test_files_under_way_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(files.os, "fsync", lambda _handle: seen.append(files.list_names(str(tmp_path), ".parquet")))
    files.write_whole(str(tmp_path / "row.parquet"), b"1")
    assert seen == [[], ["row.parquet"]], "the file, and after its publication the folder"
    assert files.list_names(str(tmp_path), ".parquet") == ["row.parquet"]


def test_a_reader_meets_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target, contents = str(tmp_path / "file"), [bytes([value]) * 200_000 for value in range(4)]
    files.write_whole(target, contents[0])
    done = threading.Event()

    def write() -> None:
        for round_ in range(40):
            files.write_whole(target, contents[round_ % 4])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert files.read_whole(target) in contents
    finally:
        writer.join()
    assert files.list_names(str(tmp_path)) == ["file"]


def test_nothing_below_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files.remove(str(tmp_path / "file" / "below"))
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("number", [5, 32])
def test_a_file_that_another_process_has_open_on_windows_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only Windows sets `winerror`; there `PermissionError` also means that a reader has the file open."""
    monkeypatch.setattr(files, "_FIRST_WAIT_SECONDS", 0.0)
    replace, refusals = Path.replace, iter([number, number])

    def refuse_twice(self: Path, target: Path) -> Path:
        for winerror in refusals:
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = winerror  # type: ignore[attr-defined]
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_twice)
    files.write_whole(str(tmp_path / "a"), b"new")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"new"]


def test_a_file_uri_of_windows_names_its_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.local_path("file:///tmp/results") == Path("/tmp/results")
    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    assert files.local_path("file:///C:/results") == Path("C:/results")
    assert files.local_path("/results") == Path("/results")


def test_locations_are_named_with_slashes(tmp_path: Path) -> None:
    assert files.absolute(str(tmp_path)) == tmp_path.resolve().as_posix()


# --- What a location must not be --------------------------------------------------------------------------------------

MISTAKEN = {
    "s3:/bucket/results": "must have the form s3://BUCKET/FOLDER, but got s3:/…; see its slashes and its name",
    "s3:bucket": "must have the form s3://BUCKET/FOLDER, but got s3:…",
    "S3://bucket/results": "must have the form s3://BUCKET/FOLDER, but got S3://…",
    "s3://": "must have the form s3://BUCKET/FOLDER, but got s3://;",
    "s3:///bucket": "must have the form s3://BUCKET/FOLDER, but got s3:///…",
    r"s3:\bucket": r"must have the form s3://BUCKET/FOLDER, but got s3:\…",
    "gs:/bucket": "must have the form gs://BUCKET/FOLDER",
    "hdfs:/host/results": "must have the form hdfs://BUCKET/FOLDER",
    "file:/tmp/results": "must have the form file:///FOLDER, but got file:/…",
    "file:results": "must have the form file:///FOLDER",
    "file://host/results": "must have the form file:///FOLDER, but got file://…",
    "azure://results": "must begin with one of s3://, gs://",
    "s3//bucket/results": "must have the form s3://BUCKET/FOLDER, but got s3//…; see its colon",
    "gs;//bucket": "must have the form gs://BUCKET/FOLDER, but got gs;//…; see its colon",
    " s3://bucket/results": "must begin with s3:// or the like and have no blanks",
    "s3://bucket/my results": "must begin with s3:// or the like and have no blanks",
    "./s3://bucket": "must begin with s3:// or the like and have no blanks",
    "foo:/results": "but got foo:/…; write ./foo:… for a folder",
    r"C:\results": r"must be of this machine, but got C:\…, a drive of Windows",
    "C:/results": "must be of this machine, but got C:/…, a drive of Windows",
    "": "must be a path, or a URI such as s3://BUCKET/FOLDER, but got ''",
    "  ": "must be a path, or a URI",
    "a\0b": "must be a path, or a URI",
}


@pytest.mark.parametrize("location", MISTAKEN)
@pytest.mark.parametrize("operation", [files.require_location, files.exists, files.read_whole, files.list_names])
def test_a_mistaken_location_is_refused_before_it_becomes_a_folder(
    location: str, operation: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_IS_WINDOWS", False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        operation(location)
    assert MISTAKEN[location] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mistaken_location_is_not_shown_with_its_keys() -> None:
    with pytest.raises(StoreError) as caught:
        files.require_location("s3:/AKIAKEY:hunter2@bucket")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("location", [r"C:\results", "C:/results", "C:results"])
def test_a_drive_is_a_path_on_windows(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    assert files.require_location(location) == location
    assert not files.is_uri(location)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("file:///tmp/a%20b", "/tmp/a b"),
        ("file:///tmp/caf%C3%A9", "/tmp/café"),
        ("file:///tmp/100%", "/tmp/100%"),
        ("a:b", "a:b"),
        ("./s3:/b", "s3:/b"),
        ("results/", "results"),
        ("50%20", "50%20"),
    ],
)
def test_a_path_is_what_it_says(location: str, path: str) -> None:
    assert files.local_path(location) == Path(path)


@pytest.mark.parametrize("location", ["s3://bucket/r/", "gs://b/r", "hdfs:///r", "hdfs://h:80/r", "s3://b/r?region=eu"])
def test_object_storage_is_taken_as_it_is_written(location: str) -> None:
    assert files.require_location(location) == location


def test_a_path_object_is_taken_wherever_text_is(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "file"
    files.write_whole(place, b"1")
    assert files.read_whole(place) == b"1"
    assert files.exists(place)
    assert files.list_names(place.parent) == ["file"]
    assert files.list_folders(tmp_path) == ["folder"]
    assert files.join(tmp_path, "a") == f"{tmp_path}/a"
    files.move(place, tmp_path / "other")
    files.remove(tmp_path / "other")
    assert files.absolute(tmp_path) == tmp_path.resolve().as_posix()
    with pytest.raises(StoreError, match="drops a slash"):
        files.exists(Path("s3://bucket/results"))


def test_without_a_home_folder_a_path_with_a_tilde_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user without an entry in /etc/passwd, where HOME is not set."""

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    for location in ("~/results", "~nobody_of_that_name/results"):
        with pytest.raises(ConfigError, match="set HOME to a folder of yours"):
            files.local_path(location)
