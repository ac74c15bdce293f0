"""Damage to results files: what the digest in each finds, and what readers do with files of earlier versions."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixeltune import digest, files
from pixeltune.errors import StoreError
from pixeltune.results import parquet_io as row_files
from pixeltune.results.compaction import compact
from pixeltune.results.dataframes import read_curves, read_results
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import TableFile, UnreadableError, decode, encode
from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, TRIAL_SCHEMA
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from tests.support.damage import Target, cuts, flips, is_same, table_targets
from tests.support.results import make_report, make_row

PLACES = 120
FILES = (
    "row",
    "curve",
    "compacted rows",
    "compacted curves",
    "nats of a final",
    "warm start",
    "search.json",
    "launch.json",
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in table_targets(tmp_path_factory.mktemp("flips"), trials=3)}


def test_every_file_of_a_search_is_damaged_in_its_turn(targets: dict[str, Target]) -> None:
    assert tuple(targets) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_or_a_cut_is_found(targets: dict[str, Target], name: str) -> None:
    target, chance = targets[name], random.Random(name)
    whole = target.path.read_bytes()
    mark = whole.rfind(digest.PLACEHOLDER.encode()[:17])
    around = range(8 * (mark - 12), 8 * min(mark + 90, len(whole)))  # the digest itself, its name, and what follows
    places = {*chance.sample(range(8 * len(whole)), PLACES), *chance.sample(around, 40)}
    lengths = {0, 1, len(whole) - 1, *chance.sample(range(len(whole)), 12)}
    counts = target.count([*flips(whole, sorted(places)), *cuts(whole, sorted(lengths))])
    assert counts == Counter(detected=len(places) + len(lengths))


OPENED: dict[str, Callable[[bytes], object]] = {
    "row": lambda content: TableFile(content, TRIAL_SCHEMA),
    "curve": lambda content: TableFile(content, CURVE_SCHEMA),
    "compacted rows": lambda content: TableFile(content, TRIAL_SCHEMA),
    "compacted curves": lambda content: TableFile(content, CURVE_SCHEMA),
    "nats of a final": lambda content: TableFile(content, IMAGE_SCHEMA),
    "warm start": lambda content: TableFile(content, TRIAL_SCHEMA),
    "search.json": SearchManifest.from_json,
    "launch.json": digest.open_json,
}
"""What each reader does first with the bytes."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_and_every_cut_is_found(targets: dict[str, Target], name: str) -> None:
    whole = targets[name].path.read_bytes()
    OPENED[name](whole)
    for damaged in itertools.chain(flips(whole, range(8 * len(whole))), cuts(whole, range(len(whole)))):
        with pytest.raises((UnreadableError, StoreError, ValueError)):
            OPENED[name](damaged)


def without_digest(content: bytes) -> bytes:
    """The same table as earlier versions wrote it."""
    file = pq.ParquetFile(pa.BufferReader(content))
    metadata = {key: value for key, value in file.metadata.metadata.items() if key != digest.KEY.encode()}
    sink = pa.BufferOutputStream()
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False, "compression": "none"}
    with pq.ParquetWriter(sink, file.schema_arrow, **options) as writer:
        writer.write_table(file.read())
        writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(("name", "schema"), [("row", TRIAL_SCHEMA), ("curve", CURVE_SCHEMA)])
def test_a_file_without_a_digest_is_read_and_its_damage_raises_nothing_foreign(
    targets: dict[str, Target], name: str, schema: pa.Schema
) -> None:
    """It also shows that the measure sees what it counts: without a digest damage changes what is read."""
    target, chance = targets[name], random.Random(name)
    whole, expected = target.path.read_bytes(), target.read()
    old = without_digest(whole)
    places = chance.sample(range(8 * len(old)), 100)
    target.path.write_bytes(old)
    try:
        assert is_same(target.read(), expected)
        counts = target.count(flips(old, places[:20]))
    finally:
        target.path.write_bytes(whole)
    assert counts["foreign"] == 0
    rows, silent = decode(old, schema), 0
    for damaged in flips(old, places):
        with contextlib.suppress(UnreadableError):
            silent += decode(damaged, schema) != rows
    assert silent > 0


@pytest.mark.parametrize(
    ("schema", "row", "damage"),
    [
        (TRIAL_SCHEMA, make_row(reason="caf\u00e9"), lambda old: old.replace("caf\u00e9".encode(), b"caf\xff\xff")),
        (TRIAL_SCHEMA, make_row(), lambda old: old.replace(b"finished", b"finishee")),
        (CURVE_SCHEMA, make_report(3, 0.375), lambda old: old.replace(_double(0.375), _double(float("nan")))),
        (CURVE_SCHEMA, make_report(3, 0.375), lambda old: old.replace(_double(0.375), _double(float("-inf")))),
    ],
    ids=["no UTF-8", "no status", "NaN", "infinite"],
)
def test_values_that_are_written_nowhere_are_damage(
    schema: pa.Schema, row: dict[str, Any], damage: Callable[[bytes], bytes]
) -> None:
    old = without_digest(encode([{"schema_version": 1, "search": "x", "trial": "00000", "attempt": 1, **row}], schema))
    assert len(decode(old, schema)) == 1
    assert damage(old) != old
    with pytest.raises(UnreadableError):
        decode(damage(old), schema)


def _double(value: float) -> bytes:
    return bytes(pa.array([value], pa.float64()).buffers()[1])[:8]


@pytest.fixture
def store(tmp_path: Path) -> SearchStore:
    store = SearchStore(str(tmp_path), "tiny")
    for number in range(3):
        store.write_trial(make_row(number, reason="kept"))
        store.write_curve(f"{number:05d}", 1, [make_report(100)])
    return store


def _flip(path: Path, position: int = 999) -> None:
    path.write_bytes(next(flips(path.read_bytes(), [position])))


def test_plain_parquet_readers_see_the_same_table(store: SearchStore) -> None:
    frame = pd.read_parquet(store.trials_folder)
    assert list(frame.columns) == TRIAL_SCHEMA.names
    assert set(frame["reason"]) == {"kept"}


def test_text_like_a_digest_is_text(store: SearchStore) -> None:
    for reason in (digest.PLACEHOLDER, digest.PLACEHOLDER.replace("0", "a"), digest.PLACEHOLDER[:20]):
        store.write_trial(make_row(7, reason=reason))
        assert store.trials()[-1]["reason"] == reason


def test_a_row_written_again_while_its_damaged_state_is_read_is_kept(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader must not move away what a launch has put in place since."""
    victim = Path(store.trials_folder, "00001-1.parquet")
    whole, read = victim.read_bytes(), files.read_whole
    _flip(victim)

    def read_and_replace(location: str) -> bytes:
        content = read(location)
        if location.endswith(victim.name):
            victim.write_bytes(whole)
        return content

    monkeypatch.setattr(files, "read_whole", read_and_replace)
    assert [row["number"] for row in store.trials()] == [0, 1, 2]
    assert victim.read_bytes() == whole


def test_damage_on_a_storage_that_can_only_be_read_is_left_out_each_time(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(store)
    store.write_trial(make_row(3))
    _flip(Path(store.trials_folder, "compacted-00001.parquet"))

    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "move", refuse)
    for _ in range(2):
        with pytest.warns(StoreWarning, match=r"compacted-00001.*SHA-256.*still there, since .*Permission denied"):
            assert list(read_results(store.folder)["number"]) == [3]
        assert len(read_curves(store.folder)) == 3


def test_a_lack_of_memory_is_no_damage(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound file must stay where it is."""

    def short(*_arguments: object, **_options: object) -> None:
        raise MemoryError("malloc of size 64 failed")

    monkeypatch.setattr(row_files.pq, "ParquetFile", short)
    with pytest.raises(MemoryError):
        store.trials()
    assert len(store.trial_files.names()) == 3


def test_a_damaged_warm_start_is_one_line(store: SearchStore) -> None:
    store.write_warm_start([make_row(0, search="other", schema_version=1)])
    assert len(store.warm_start()) == 1
    _flip(Path(store.folder, "warm_start.parquet"))
    with pytest.raises(StoreError, match=r"warm start must be readable.*put a copy of it back"):
        store.warm_start()


def test_compaction_gives_a_digest_and_says_how_many_files_had_none(store: SearchStore) -> None:
    for name in ("00000-1", "00002-1"):
        path = Path(store.trials_folder, f"{name}.parquet")
        path.write_bytes(without_digest(path.read_bytes()))
    health = store.trial_files.health()
    assert (health.files, health.without_digest, health.damaged, health.quarantined) == (3, 2, 0, 0)
    before = store.attempts()
    done = compact(store)
    assert (done.merged, done.without_digest) == (6, 2)
    merged = TableFile(Path(store.trials_folder, "compacted-00001.parquet").read_bytes(), TRIAL_SCHEMA)
    assert merged.is_sealed
    assert store.attempts() == before
    assert store.trial_files.health().without_digest == 0


def test_compaction_writes_a_merged_file_of_an_earlier_version_again(store: SearchStore) -> None:
    compact(store)
    merged = Path(store.trials_folder, "compacted-00001.parquet")
    merged.write_bytes(without_digest(merged.read_bytes()))
    before = store.attempts()
    done = compact(store)
    assert (done.merged, done.written, done.without_digest) == (1, 1, 1)
    assert store.trial_files.names() == ["compacted-00002.parquet"]
    assert store.attempts() == before
    assert compact(store).merged == 0


def test_compaction_that_writes_other_rows_removes_nothing(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest would match: what is compared are the rows."""
    from pixeltune.results import compaction

    encode_table, before = compaction.encode_table, store.attempts()
    monkeypatch.setattr(compaction, "encode_table", lambda rows, schema: encode_table(rows.slice(1), schema))
    with pytest.raises(StoreError, match="must read as it was written"):
        compact(store)
    assert store.attempts() == before
    assert len(store.trial_files.names()) == 3
