from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixeltune import files
from pixeltune.config import KEYS_NOT_HASHED
from pixeltune.errors import ConfigError, MissingPackageError, StoreError
from pixeltune.results import lock as locks
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.schema import TRIAL_SCHEMA
from pixeltune.results.store import SearchStore, find_searches, trial_name
from pixeltune.results.table_folder import StoreWarning
from tests.support.results import make_report, make_row, make_space, make_store

MANIFEST = SearchManifest.of(make_space(), "tiny")


@pytest.fixture
def store(tmp_path: Path) -> SearchStore:
    store = SearchStore(str(tmp_path), "tiny")
    store.open(MANIFEST)
    return store


def test_opening_again_gives_the_first_manifest(store: SearchStore) -> None:
    store.write_trial(make_row())
    assert store.open(replace(MANIFEST, created_at="later")) == MANIFEST
    assert store.manifest() == MANIFEST
    assert sorted(path.name for path in Path(store.folder).iterdir()) == ["search.json", "trials"]


def test_a_search_without_trials_begins_anew_with_other_settings(store: SearchStore) -> None:
    changed = SearchManifest.of(make_space().override({"model.layers": 12}), "tiny")
    kept = replace(changed, id=MANIFEST.id)
    assert store.open(changed) == kept
    assert store.manifest() == kept


def test_a_changed_setting_is_refused_with_the_difference_and_the_ways_out(store: SearchStore) -> None:
    store.write_trial(make_row())
    changed = SearchManifest.of(make_space().override({"model.layers": 12, "model.channels": 64}), "tiny")
    with pytest.raises(StoreError) as caught:
        store.open(changed)
    for words in ("model.layers: 12 here, 20 in the results", "model.channels: 64 here", "another name or --storage"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 1}', b'{"schema_version": 99}']
)
def test_a_damaged_or_newer_manifest_is_one_line(store: SearchStore, content: bytes) -> None:
    Path(store.folder, "search.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"search\.json must") as caught:
        store.open(MANIFEST)
    assert "\n" not in str(caught.value)


def test_a_manifest_cut_at_any_byte_is_refused(store: SearchStore) -> None:
    whole = Path(store.folder, "search.json").read_bytes()
    for length in range(0, len(whole) - 2, 23):
        Path(store.folder, "search.json").write_bytes(whole[:length])
        with pytest.raises(StoreError):
            store.manifest()


def test_results_without_a_manifest_are_not_taken_over(store: SearchStore) -> None:
    store.write_trial(make_row())
    Path(store.folder, "search.json").unlink()
    with pytest.raises(StoreError, match=r"must have its search\.json"):
        store.open(MANIFEST)


def test_the_results_of_another_search_are_refused(store: SearchStore) -> None:
    store.write_trial(make_row())
    with pytest.raises(StoreError, match="search: other here, tiny in the results"):
        store.open(replace(MANIFEST, search="other"))


@pytest.mark.parametrize("name", ["", ".hidden", "_x", "a/b", "..", "a b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="search name"):
        SearchStore(str(tmp_path), name)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    store = SearchStore(str(tmp_path / "results"), "tiny")
    with pytest.raises(StoreError, match="must be writable"):
        store.open(MANIFEST)
    with pytest.raises(StoreError, match="must be writable"), store.lock():
        pass


WRITES = {
    "first open": lambda store: store.open(MANIFEST),
    "trial": lambda store: store.write_trial(make_row()),
    "curve": lambda store: store.write_curve("00000", 1, [make_report(100)]),
}


def full_disk(code: int) -> Callable[[str, bytes], None]:
    def write_whole(location: str, content: bytes) -> None:
        raise OSError(code, os.strerror(code))

    return write_whole


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("what", WRITES)
def test_a_full_or_read_only_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    monkeypatch.setattr(files, "write_whole", full_disk(code))
    with pytest.raises(StoreError, match=f"{os.strerror(code)}.*--storage") as caught:
        WRITES[what](SearchStore(str(tmp_path), "tiny"))
    assert "\n" not in str(caught.value)


def test_a_disk_that_has_filled_shows_when_a_search_is_opened_again(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_whole", full_disk(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        store.open(MANIFEST)


def test_the_latest_attempt_counts_and_trials_come_by_number(store: SearchStore) -> None:
    for number, attempt, status in [(10, 1, "finished"), (2, 1, "interrupted"), (2, 2, "finished"), (2, 10, "pruned")]:
        store.write_trial(make_row(number, attempt, status))
    assert [(row["number"], row["attempt"], row["status"]) for row in store.trials()] == [
        (2, 10, "pruned"),
        (10, 1, "finished"),
    ]
    assert [row["attempt"] for row in store.attempts()] == [1, 2, 10, 1]


def test_a_row_written_again_replaces_its_earlier_state(store: SearchStore) -> None:
    store.write_trial(make_row(status="running"))
    store.write_trial(make_row(status="finished", valid_nats=3.0))
    [row] = store.trials()
    assert (row["status"], row["valid_nats"], row["search"], row["schema_version"]) == ("finished", 3.0, "tiny", 1)


def test_a_resumed_attempt_continues_the_curve_and_wins_where_both_reported(store: SearchStore) -> None:
    store.write_curve("00003", 1, [make_report(100, 3.0), make_report(200, 2.5), make_report(300, 9.0)])
    store.write_curve("00003", 2, [make_report(300, 2.2), make_report(400, 2.1)])
    store.write_curve("00004", 1, [make_report(100, 7.0)])
    assert [(row["images_seen"], row["valid_bits_per_dim"]) for row in store.curve("00003")] == [
        (100, 3.0),
        (200, 2.5),
        (300, 2.2),
        (400, 2.1),
    ]
    assert [row["trial"] for row in store.curves()] == ["00003"] * 4 + ["00004"]


def test_no_results_are_empty_lists(store: SearchStore) -> None:
    assert (store.trials(), store.attempts(), store.curves(), store.curve("00000")) == ([], [], [], [])


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_what_cannot_be_read_is_set_aside_and_the_rest_is_read(store: SearchStore, damage: str) -> None:
    for number in range(3):
        store.write_trial(make_row(number))
        store.write_curve(trial_name(number), 1, [make_report(100)])
    for folder in (store.trials_folder, store.curves_folder):
        victim = Path(folder, "00001-1.parquet")
        content = {"cut": victim.read_bytes()[:-9], "empty": b"", "text": b"hello"}[damage]
        victim.write_bytes(content)
    with pytest.warns(StoreWarning, match=r"left out 00001-1\.parquet") as caught:
        assert [row["number"] for row in store.trials()] == [0, 2]
    assert len(caught) == 1
    with pytest.warns(StoreWarning):
        assert [row["trial"] for row in store.curves()] == ["00000", "00002"]
    assert Path(store.folder, "_corrupt", "curves", "00001-1.parquet").read_bytes() == content
    assert Path(store.folder, "_corrupt", "trials", "00001-1.parquet").exists()
    assert [row["number"] for row in store.trials()] == [0, 2]


@pytest.mark.parametrize("name", ["00001-2.parquet", "00001-1 (1).parquet", "00004-1.parquet"])
def test_a_copy_of_an_attempts_file_does_not_count(store: SearchStore, name: str) -> None:
    for number in range(2):
        store.write_trial(make_row(number))
    copy = Path(store.trials_folder, name)
    copy.write_bytes(Path(store.trials_folder, "00001-1.parquet").read_bytes())
    with pytest.warns(StoreWarning, match=r"it holds what 00001-1\.parquet should"):
        assert [(row["trial"], row["attempt"]) for row in store.attempts()] == [("00000", 1), ("00001", 1)]
    assert Path(store.folder, "_corrupt", "trials", name).exists()


def test_what_cannot_be_set_aside_is_left_out_all_the_same(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_trial(make_row(0))
    Path(store.trials_folder, "00001-1.parquet").write_bytes(b"")

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "move", refuse)
    with pytest.warns(StoreWarning, match="still there"):
        assert len(store.trials()) == 1


def test_a_file_that_the_system_does_not_give_is_an_error_and_stays(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_trial(make_row(0))

    def refuse(location: str) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_whole", refuse)
        with pytest.raises(StoreError, match="must be readable"):
            store.trials()
    assert len(store.trials()) == 1


def test_pandas_reads_the_plain_folder(store: SearchStore) -> None:
    for number in range(3):
        store.write_trial(make_row(number))
    Path(store.trials_folder, ".part-0123-00009-1.parquet").write_bytes(b"half")
    frame = pd.read_parquet(store.trials_folder)
    assert list(frame.columns) == TRIAL_SCHEMA.names
    assert sorted(frame["number"]) == [0, 1, 2]
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    assert pd.read_parquet(store.trials_folder, columns=["model.layers"]).shape == (3, 1)


@pytest.mark.parametrize(("trial", "attempt"), [("../x", 1), ("", 1), (7, 1), ("00001", 0), ("00001", "1")])
def test_a_name_that_is_no_file_is_refused(store: SearchStore, trial: Any, attempt: Any) -> None:
    with pytest.raises(StoreError, match=r"`trial` must|`attempt` must"):
        store.write_trial(make_row() | {"trial": trial, "attempt": attempt})


def test_a_row_of_another_search_is_refused(store: SearchStore) -> None:
    with pytest.raises(StoreError, match="`search` must be tiny"):
        store.write_trial(make_row(search="other"))


def test_places_below_the_storage_also_for_object_storage() -> None:
    store = SearchStore("s3://bucket/results?region=us-east-1", "tiny")
    assert store.trials_folder == "s3://bucket/results/tiny/trials?region=us-east-1"
    assert store.checkpoint("00007") == "s3://bucket/results/tiny/checkpoints/00007?region=us-east-1"
    assert SearchStore.at(store.folder).folder == store.folder


def test_searches_are_found_in_a_storage_and_by_their_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_store(tmp_path, name)
    (tmp_path / "unrelated").mkdir()
    assert [found.search for found in find_searches(str(tmp_path))] == ["a", "b"]
    assert [found.folder for found in find_searches(str(tmp_path / "a"))] == [str(tmp_path / "a")]
    for nowhere in ("unrelated", "missing"):
        with pytest.raises(StoreError, match="storage of some"):
            find_searches(str(tmp_path / nowhere))


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_process_is_refused_by_the_name_of_the_first(store: SearchStore) -> None:
    code = """
        import sys
        from pixeltune.results.lock import lock_folder
        with lock_folder(sys.argv[1]):
            print("held")
    """
    with store.lock():
        refused = run_python(code, store.folder)
    assert f"process {os.getpid()} on " in refused.stderr
    assert "StoreError: one launch must work on a search at a time" in refused.stderr
    assert run_python(code, store.folder).stdout == "held\n"


def test_a_refused_launch_leaves_no_folder(tmp_path: Path) -> None:
    """Nor does it remove one that was there, or one in which something was written."""
    new, old, begun = (SearchStore(str(tmp_path), name) for name in ("new", "old", "begun"))
    Path(old.folder).mkdir()

    def refuse(store: SearchStore) -> None:
        with store.lock():
            if store is begun:
                store.write_launch({"budget": {}})
            raise ConfigError("refused")

    for store in (new, old, begun):
        with pytest.raises(ConfigError):
            refuse(store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "old"]


def test_a_lock_whose_file_was_removed_meanwhile_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SearchStore(str(tmp_path), "s")
    take = locks._try_again

    def late(descriptor: int) -> bool:
        Path(store.folder, ".lock").unlink()
        return take(descriptor)

    monkeypatch.setattr(locks, "_try_again", late)
    with pytest.raises(StoreError, match=r"must stay, but .* was removed meanwhile"), store.lock():
        raise AssertionError("two launches would hold it")


def test_a_killed_holder_leaves_no_lock(store: SearchStore) -> None:
    code = """
        import os, signal, sys
        from pixeltune.results.lock import lock_folder
        with lock_folder(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, store.folder).returncode == -9
    with store.lock():
        pass


@pytest.mark.parametrize("system", ["linux", "windows"])
def test_the_holder_is_named_while_it_holds_and_looking_creates_nothing(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """Windows is imitated: no fcntl, and no process but the holder reads the first byte of the lock."""
    folder = Path(store.folder)
    before = sorted(folder.rglob("*"))
    assert locks.holder_of(store.folder) is None
    assert sorted(folder.rglob("*")) == before
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    with store.lock():
        if system == "windows":
            monkeypatch.setitem(sys.modules, "fcntl", None)
            monkeypatch.setattr(os, "read", _refuse_the_first_byte)
        assert locks.holder_of(store.folder) == holder
        with pytest.raises(StoreError, match=f"process {holder['pid']} on {holder['host']} holds"), store.lock():
            pass
    assert locks.holder_of(store.folder) is None
    with store.lock():
        assert locks.holder_of(store.folder) == holder


def _refuse_the_first_byte(descriptor: int, count: int, read: Callable[[int, int], bytes] = os.read) -> bytes:
    if os.lseek(descriptor, 0, os.SEEK_CUR) == 0:
        raise PermissionError(errno.EACCES, "Permission denied")
    return read(descriptor, count)


def test_a_lock_of_an_earlier_version_names_its_holder_and_is_overwritten(store: SearchStore) -> None:
    """Earlier versions wrote the name from the first byte on; they read what this one writes, as JSON allows spaces."""
    fcntl = pytest.importorskip("fcntl")
    lock = Path(store.folder, ".lock")
    lock.write_text(json.dumps({"pid": 4242, "host": "head", "note": "x" * 300}), encoding="utf-8")
    with lock.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        holder = locks.holder_of(store.folder)
        assert holder is not None
        assert (holder["pid"], holder["host"]) == (4242, "head")
        with pytest.raises(StoreError, match="process 4242 on head holds"), store.lock():
            pass
    with store.lock():
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_lock_needs_a_filelock_that_locks_descriptors(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingPackageError, match=r"a lock needs filelock 3.30 or newer.*pip install"), store.lock():
        pass
    assert locks.holder_of(store.folder) is None, "reading needs no filelock"


def test_a_lease_is_refused_to_a_second_holder_and_taken_over_when_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object-storage lock, on a folder: it needs nothing but whole reads and writes."""
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    folder = str(tmp_path)
    with locks._lease(folder), pytest.raises(StoreError, match=f"process {os.getpid()} on"), locks._lease(folder):
        pass
    assert not (tmp_path / ".lock").exists()
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    with locks._lease(folder), locks._lease(folder):
        pass


def test_a_lease_is_refreshed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.01)
    refreshed = threading.Event()
    write = files.write_whole
    writes: list[str] = []

    def counting(location: str, content: bytes) -> None:
        write(location, content)
        writes.append(location)
        if len(writes) > 2:
            refreshed.set()

    monkeypatch.setattr(files, "write_whole", counting)
    with locks._lease(str(tmp_path)):
        assert refreshed.wait(10)


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_lease_is_dated_by_the_storage_and_not_by_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Two launches on machines whose clocks differ would write over each other's rows."""
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    lease = tmp_path / ".lock"
    with locks._lease(str(tmp_path)):
        monkeypatch.setattr(locks.time, "time", lambda now=time.time: now() + ahead)
        with pytest.raises(StoreError, match="one launch must work"), locks._lease(str(tmp_path)):
            pass
    lease.write_text(json.dumps({"pid": 1, "host": "gone", "refreshed_at": time.time() + ahead}))
    os.utime(lease, times=(0.0, 0.0))
    with locks._lease(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_launch_whose_lease_was_taken_over_writes_no_more(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a sleep of its machine: the other launch has the same trials under way."""
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.01)
    other = json.dumps({"pid": 1, "host": "other", "token": "other"})
    with locks._lease(store.folder):
        store.write_trial(make_row(0))
        deadline = time.monotonic() + 10
        while store.folder not in locks._LOST and time.monotonic() < deadline:
            Path(store.folder, ".lock").write_text(other)  # again, should a refresh have come between
            time.sleep(0.01)
        with pytest.raises(StoreError, match="another took over"):
            store.write_trial(make_row(1))
        with pytest.raises(StoreError, match="another took over"):
            store.write_curve("00000", 1, [make_report(100)])
    assert Path(store.folder, ".lock").read_text() == other
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    with locks._lease(store.folder):
        store.write_trial(make_row(1))
    assert len(store.trials()) == 2


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"refreshed_at": "x"}', b'{"refreshed_at": null}'])
def test_a_damaged_lease_is_held_while_it_is_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    lease = tmp_path / ".lock"
    lease.write_bytes(content)
    with pytest.raises(StoreError, match="another process holds"), locks._lease(str(tmp_path)):
        pass
    os.utime(lease, times=(0.0, 0.0))
    with locks._lease(str(tmp_path)):
        pass


def test_reading_a_finished_search_loads_nothing_heavy(store: SearchStore) -> None:
    store.write_trial(make_row())
    store.write_curve("00000", 1, [make_report(100)])
    code = """
        import sys
        from pixeltune.results.store import SearchStore
        from pixeltune.published.nearest import comparison_lines
        from pixeltune.results.ranking import leaderboard
        store = SearchStore.at(sys.argv[1])
        store.manifest(), leaderboard(store.trials()), store.curves(), comparison_lines(store.trials()[0])
        print([name for name in ("pandas", "torch", "ray") if name in sys.modules])
    """
    result = run_python(code, store.folder)
    assert result.stdout == "[]\n", result.stderr


def test_the_manifest_leaves_out_where_the_data_lies() -> None:
    assert not set(MANIFEST.base) & set(KEYS_NOT_HASHED)
