"""Files of attempts merged into large ones: nothing lost or doubled, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results import compaction
from pixeltune.results.compaction import compact
from pixeltune.results.dataframes import read_curves, read_results
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import encode
from pixeltune.results.schema import CURVE_SCHEMA, TABLE_KEY, TRIAL_SCHEMA, VERSION_KEY
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from tests.support.results import NOW, make_report, make_row, make_space

MANIFEST = SearchManifest.of(make_space(), "tiny")
NOT_ENDED = ["00004-1.parquet", "00005-1.parquet"]


@pytest.fixture
def store(tmp_path: Path) -> SearchStore:
    return filled(tmp_path)


def filled(folder: Path) -> SearchStore:
    """Six trials: 2 was interrupted and resumed, 4 was interrupted, and 5 runs."""
    store = SearchStore(str(folder), "tiny")
    store.open(MANIFEST)
    for number, attempt, status in [
        (0, 1, "finished"),
        (1, 1, "pruned"),
        (2, 1, "interrupted"),
        (2, 2, "finished"),
        (3, 1, "failed"),
        (4, 1, "interrupted"),
        (5, 1, "running"),
    ]:
        write(store, number, attempt, status)
    return store


def write(store: SearchStore, number: int, attempt: int = 1, status: str = "finished", reports: int = 3) -> None:
    started = NOW + timedelta(minutes=number, seconds=attempt)
    store.write_trial(make_row(number, attempt, status, started_at=started, valid_nats=number + attempt / 8))
    first = 200 * attempt  # a resumed attempt reports again what the one before had
    curve = [make_report(first + 100 * place, number + 1 / attempt) for place in range(reports)]
    store.write_curve(f"{number:05d}", attempt, curve)


def content(store: SearchStore) -> tuple[Any, ...]:
    """All that can be asked of a store."""
    trials = sorted({row["trial"] for row in store.attempts()})
    return store.attempts(), store.trials(), store.curves(), {trial: store.curve(trial) for trial in trials}


def raw(store: SearchStore) -> list[tuple[str, int]]:
    """The attempts that pandas finds in the plain folder, each as often as it is there."""
    frame = pd.read_parquet(store.trials_folder)
    return sorted(zip(frame["trial"], frame["attempt"], strict=True))


def attempts(store: SearchStore) -> list[tuple[str, int]]:
    return [(row["trial"], row["attempt"]) for row in store.attempts()]


def test_ended_trials_are_merged_and_everything_reads_as_before(store: SearchStore) -> None:
    before = content(store), read_results(store.folder, "all"), read_curves(store.folder, "all")
    done = compact(store)
    assert (done.merged, done.written) == (10, 2)
    for table in (store.trial_files, store.curve_files):
        assert table.names() == ["00004-1.parquet", "00005-1.parquet", "compacted-00001.parquet"]
    assert content(store) == before[0]
    pd.testing.assert_frame_equal(read_results(store.folder, "all"), before[1])
    pd.testing.assert_frame_equal(read_curves(store.folder, "all"), before[2])
    assert raw(store) == attempts(store)


def test_the_plain_folder_reads_with_the_same_columns_and_types(store: SearchStore) -> None:
    before = pd.read_parquet(store.trials_folder).sort_values(["trial", "attempt"], ignore_index=True)
    compact(store)
    after = pd.read_parquet(store.trials_folder).sort_values(["trial", "attempt"], ignore_index=True)
    pd.testing.assert_frame_equal(after, before)


def test_nothing_to_merge_writes_nothing(store: SearchStore) -> None:
    compact(store)
    before = {path: path.stat().st_mtime_ns for path in Path(store.folder).rglob("*.parquet")}
    assert (compact(store).merged, compact(store).written) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in Path(store.folder).rglob("*.parquet")} == before


def test_what_comes_later_joins_a_file_that_is_far_from_full(store: SearchStore) -> None:
    compact(store)
    for number in range(6, 12):
        write(store, number)
    write(store, 4, 2)
    before = content(store)
    compact(store)
    assert store.trial_files.names() == ["00005-1.parquet", "compacted-00002.parquet"]
    assert content(store) == before
    assert raw(store) == attempts(store)


def test_many_rows_become_several_files_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FULL_BYTES", 6_000)
    monkeypatch.setattr(compaction, "_BLOCK", 5)
    store = SearchStore(str(tmp_path), "tiny")
    store.open(MANIFEST)
    for number in range(42):
        write(store, number)
    before = content(store)
    compact(store)
    names = store.trial_files.names()
    assert len(names) > 3
    assert content(store) == before
    assert raw(store) == attempts(store)
    assert store.curve("00041") == before[3]["00041"]
    full = {name: store.trial_files.content(name) for name in names[:-1]}
    write(store, 42)
    compact(store)
    assert {name: store.trial_files.content(name) for name in full} == full, "full files are not written again"
    assert len(store.trials()) == 43


def test_a_file_of_its_own_counts_before_a_merged_row_until_both_are_merged(store: SearchStore) -> None:
    """As `final` does, which goes on with a trial that had failed, and takes back what its checkpoint lacks."""
    compact(store)
    store.write_curve("00003", 1, [make_report(200, 3.25)])
    write(store, 3, 2, "running", reports=0)
    store.write_curve("00001", 1, [])
    assert [(row["images_seen"], row["valid_bits_per_dim"]) for row in store.curve("00003")] == [(200, 3.25)]
    assert store.curve("00001") == []
    compact(store)
    assert "00003-1.parquet" in store.curve_files.names(), "its trial has not ended"
    write(store, 3, 2)
    before = content(store)
    compact(store)
    assert [name for name in store.curve_files.names() if "compacted" not in name] == NOT_ENDED
    assert content(store) == before
    assert pd.read_parquet(store.curves_folder).duplicated(["trial", "attempt", "images_seen"]).sum() == 0


def test_of_two_merged_files_the_later_counts_and_the_other_goes(store: SearchStore) -> None:
    """What a kill leaves between publishing a file and removing the one that it holds."""
    compact(store)
    old = Path(store.trials_folder, "compacted-00001.parquet")
    first = old.read_bytes()
    write(store, 6)
    compact(store)
    before = content(store)
    old.write_bytes(first)
    assert content(store) == before
    assert len(raw(store)) > len(attempts(store))
    compact(store)
    assert not old.exists()
    assert content(store) == before
    assert raw(store) == attempts(store)


def test_the_later_of_two_merged_files_counts_where_they_meet_in_one_trial(tmp_path: Path) -> None:
    store = SearchStore(str(tmp_path), "tiny")
    store.open(MANIFEST)
    write(store, 3)
    compact(store)
    old = Path(store.trials_folder, "compacted-00001.parquet")
    first = old.read_bytes()
    for number in (3, 4):
        write(store, number, status="failed")
    compact(store)
    before = content(store)
    old.write_bytes(first)
    assert [row["status"] for row in store.trials()] == ["failed", "failed"]
    assert content(store) == before


def other_version(row: dict[str, Any], metadata: dict[bytes, bytes], drop: tuple[str, ...] = (), **more: Any) -> bytes:
    """A row as another version of pixeltune would have written it."""
    table = pq.read_table(pa.BufferReader(encode([row], TRIAL_SCHEMA))).drop_columns(list(drop))
    for name, value in more.items():
        table = table.append_column(name, pa.array([value]))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(sink.getvalue())


OURS = {VERSION_KEY: b"1", TABLE_KEY: b"trials"}


def test_older_files_are_merged_and_newer_ones_keep_their_columns(store: SearchStore) -> None:
    row = make_row(7, search="tiny", schema_version=1)
    older = other_version(row, OURS, ("traceback", "gpu_name"))
    extended = other_version(row | {"trial": "00008", "number": 8}, OURS, from_tomorrow=1)
    newer = other_version(row | {"trial": "00009", "number": 9}, {**OURS, VERSION_KEY: b"2"}, from_tomorrow=1)
    folder = Path(store.trials_folder)
    for name, bytes_ in (("00007-1", older), ("00008-1", extended), ("00009-1", newer)):
        (folder / f"{name}.parquet").write_bytes(bytes_)
    with pytest.warns(StoreWarning, match=r"left out 00009-1.*schema version 2.*take a newer one; still there"):
        compact(store)
    assert not (folder / "00007-1.parquet").exists()
    assert (folder / "00008-1.parquet").read_bytes() == extended
    assert (folder / "00009-1.parquet").read_bytes() == newer
    with pytest.warns(StoreWarning, match="still there"):
        assert [row["number"] for row in store.trials()] == [0, 1, 2, 3, 4, 5, 7, 8]
    assert not Path(store.folder, "_corrupt").exists()


def test_a_launch_does_not_go_on_beside_files_of_a_newer_version(store: SearchStore) -> None:
    """It would not know of that trial, and might give its number again."""
    newer = other_version(make_row(9, search="tiny", schema_version=2), {**OURS, VERSION_KEY: b"2"})
    Path(store.trials_folder, "00009-1.parquet").write_bytes(newer)
    with pytest.raises(StoreError, match=r"go on with what it knows.*00009-1.*take a newer one"):
        store.open(MANIFEST)


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_what_cannot_be_read_is_set_aside_and_the_rest_merged(store: SearchStore, damage: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    for folder in (store.trials_folder, store.curves_folder):
        victim = Path(folder, "00001-1.parquet")
        victim.write_bytes(victim.read_bytes()[:-9] if damage == "cut" else bytes(sink.getvalue()))
    with pytest.warns(StoreWarning, match=r"left out 00001-1\.parquet.*moved to"):
        compact(store)
    assert [row["number"] for row in store.trials()] == [0, 2, 3, 4, 5]
    assert sorted(path.parent.name for path in Path(store.folder, "_corrupt").rglob("*.parquet")) == ["trials"]
    with pytest.warns(StoreWarning, match=r"00001-1\.parquet.*curves.*moved to"):
        assert [row["trial"] for row in store.curves() if row["attempt"] == 1] == ["00000"] * 3 + ["00002"] * 2 + [
            trial for trial in ("00003", "00004", "00005") for _ in range(3)
        ]


def test_a_merged_file_that_names_trials_by_a_path_is_merged_with_no_other(store: SearchStore) -> None:
    foreign = Path(store.curves_folder, "compacted-00007.parquet")
    rows = store.curves()
    foreign.write_bytes(encode([rows[0] | {"trial": "../x"}], CURVE_SCHEMA))
    with pytest.warns(StoreWarning, match="otherwise than by letters and digits"):
        compact(store)
    assert Path(store.folder, "_corrupt", "curves", foreign.name).exists()
    assert store.curves() == rows


def test_a_merged_file_that_is_damaged_costs_its_own_rows_alone_and_is_missed_at_every_reading(
    store: SearchStore,
) -> None:
    compact(store)
    write(store, 6)
    merged = Path(store.trials_folder, "compacted-00001.parquet")
    whole = merged.read_bytes()
    merged.write_bytes(whole[:-9])
    with pytest.warns(StoreWarning, match=r"with the many attempts in it.*moved to .*put a copy of it back"):
        compact(store)
    aside = Path(store.folder, "_corrupt", "trials", merged.name)
    assert aside.exists()
    for _ in range(2):
        with pytest.warns(StoreWarning, match=r"left out compacted-00001.*it was damaged; in .*_corrupt/trials since"):
            assert [row["number"] for row in store.trials()] == [4, 5, 6]
    with pytest.warns(StoreWarning):
        compact(store)
    assert merged.name not in store.trial_files.names(), "its name stays free for a copy"
    merged.write_bytes(whole)
    assert [row["number"] for row in store.trials()] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("table", ["trials", "curves"])
@pytest.mark.parametrize("is_found_before", [True, False])
def test_a_launch_does_not_train_again_what_a_damaged_merged_file_held(
    store: SearchStore, table: str, is_found_before: bool
) -> None:
    compact(store)
    merged = Path(store.folder, table, "compacted-00001.parquet")
    whole = merged.read_bytes()
    merged.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    if is_found_before:
        with pytest.warns(StoreWarning):
            store.attempts(), store.curves()
    with pytest.raises(StoreError, match=r"must know all its attempts.*compacted-00001.*put a copy.*or remove it"):
        store.open(MANIFEST)
    for way_out in ("copy", "removed"):
        if way_out == "copy":
            merged.write_bytes(whole)
        else:
            merged.unlink()
            Path(store.folder, "_corrupt", table, merged.name).unlink(missing_ok=True)
        assert store.open(MANIFEST) == MANIFEST


def test_a_merged_file_that_reads_otherwise_than_written_removes_nothing(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write_whole = content(store), files.write_whole
    monkeypatch.setattr(files, "write_whole", lambda location, bytes_: write_whole(location, bytes_[:-1]))
    with pytest.raises(StoreError, match="must read as it was written"):
        compact(store)
    assert {"00000-1.parquet", "00003-1.parquet"} <= set(store.trial_files.names())
    assert "compacted-00001.parquet" not in store.trial_files.names()
    assert content(store) == before


class Moment:
    """Dies by SIGKILL before the operation of this number among those that change the disk."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        def asked(real: Callable[..., object]) -> Callable[..., object]:
            def run(*args: object, **kwargs: object) -> object:
                self()
                return real(*args, **kwargs)

            return run

        patch.setattr(files.os, "fsync", asked(os.fsync))
        patch.setattr(Path, "replace", asked(Path.replace))
        patch.setattr(Path, "unlink", asked(Path.unlink))


def ends_killed(store: SearchStore, number: int) -> bool:
    """Compact in a process of its own; whether it died at the moment of this number rather than come to its end."""
    pid = os.fork()
    if pid == 0:
        with pytest.MonkeyPatch.context() as patch:
            Moment(number).watch(patch)
            compact(store)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def copied(store: SearchStore, folder: Path) -> SearchStore:
    shutil.copytree(store.folder, folder / store.search)
    return SearchStore(str(folder), store.search)


def operations(store: SearchStore) -> int:
    """How many a whole compaction takes."""
    moment = Moment(-1)
    with pytest.MonkeyPatch.context() as patch:
        moment.watch(patch)
        compact(store)
    return moment.seen


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a compaction with several files, merged files that are merged again, and attempts that stand twice."""
    monkeypatch.setattr(compaction, "FULL_BYTES", 20_000)
    monkeypatch.setattr(compaction, "_BLOCK", 3)
    before_it = filled(tmp_path / "before")
    compact(before_it)
    for later in range(6, 20):
        write(before_it, later)
    before_it.write_curve("00003", 1, [make_report(200, 3.25)])
    before = content(before_it)
    last = operations(copied(before_it, tmp_path / "whole"))
    assert last > 30
    for number in range(last, 0, -every):
        store = copied(before_it, tmp_path / str(number))
        assert ends_killed(store, number)
        assert content(store) == before, f"after a kill at operation {number}"
        assert not ends_killed(store, -1)
        assert content(store) == before, f"after a kill at operation {number}, and another compaction"
        assert raw(store) == attempts(store)
        assert not list(Path(store.folder).rglob(".part-*"))
        assert {*NOT_ENDED} < set(store.trial_files.names())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_killed_again_and_again_it_comes_to_its_end(seed: int, tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = content(store)
    numbers = [(seed + 2) * step % 7 + 1 for step in range(8)]
    kills = sum(ends_killed(store, number) for number in numbers)
    assert kills > 2
    assert not ends_killed(store, -1)
    assert content(store) == before
    assert raw(store) == attempts(store)


def test_a_reader_beside_it_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_BLOCK", 2)
    monkeypatch.setattr(compaction, "FULL_BYTES", 3000)
    store = filled(tmp_path)
    for number in range(6, 36):
        write(store, number, reports=1)
    expected = attempts(store)
    done = threading.Event()

    def merge() -> None:
        try:
            compact(store)
        finally:
            done.set()

    merger = threading.Thread(target=merge)
    merger.start()
    reads = 0
    try:
        while not done.is_set():
            assert attempts(store) == expected
            reads += 1
    finally:
        merger.join()
    assert reads > 1
    assert attempts(store) == expected


def test_a_trial_cannot_be_called_as_merged_files_are(store: SearchStore) -> None:
    with pytest.raises(StoreError, match="`trial` must"):
        store.write_trial(make_row() | {"trial": "compacted"})


def test_curves_lost_between_two_tables_are_merged_the_next_time(store: SearchStore) -> None:
    """Killed after the rows and before the curves: the rows of the merged file say which trials have ended."""
    before = content(store)
    compaction._compact(store.trial_files, compaction._ended(store))
    compact(store)
    assert store.curve_files.names() == ["00004-1.parquet", "00005-1.parquet", "compacted-00001.parquet"]
    assert content(store) == before


def test_a_curve_without_a_row_is_left_where_it_is(store: SearchStore) -> None:
    store.write_curve("00033", 1, [make_report(100)])
    compact(store)
    assert "00033-1.parquet" in store.curve_files.names()
    assert CURVE_SCHEMA.names == list(store.curve("00033")[0])
