"""Results on object storage, of a server that speaks S3: as on a disk, and whatever it refuses, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pandas as pd
import pytest

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results import live_search, optuna_storage
from pixeltune.results import lock as locks
from pixeltune.results.compaction import compact
from pixeltune.results.dataframes import read_curves, read_results
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.optuna_storage import GalleryStore, ReadOnlyStorage
from pixeltune.results.stop_requests import (
    StopRequests,
    read_stop_requests,
    remove_stop_request,
    remove_stop_requests,
    request_stop,
)
from pixeltune.results.store import SearchStore, find_searches
from pixeltune.results.table_folder import StoreWarning
from tests.support import object_storage
from tests.support.noop import drive, noop_space
from tests.support.object_storage import (
    KEY,
    SECRET,
    S3Server,
    in_environment,
    objects,
    requests_at_once,
    s3_server,
    some,
)
from tests.support.results import make_report, make_row, make_space

MANIFEST = SearchManifest.of(make_space(), "tiny")
SPACE = noop_space(trials=4, images=500, every=100)


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server, in_environment(server):
        yield server


@pytest.fixture
def server(running: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A folder of its own for each test; nobody waits long."""
    monkeypatch.setattr(files, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.01)
    for name in objects(running):
        files.remove(f"s3://{running.bucket}/{name}")
    with requests_at_once():
        yield running
    running.heal()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A moment of silence is a failure."""
    monkeypatch.setattr(files, "_SILENT_SECONDS", 0.3)
    files._bucket.cache_clear()
    yield
    files._bucket.cache_clear()


@pytest.fixture(params=["endpoint in the URI", "endpoint in the environment"])
def place(server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "endpoint in the environment":
        return server.storage
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    return server.storage_with_endpoint


def test_files_are_written_replaced_listed_moved_and_removed(place: str, server: S3Server) -> None:
    first = files.join(place, "trials", "00000-1.parquet")
    assert not files.exists(first)
    assert files.list_names(files.join(place, "trials")) == []
    with pytest.raises(FileNotFoundError):
        files.read_whole(first)
    files.write_whole(first, b"old")
    files.write_whole(first, b"new")
    files.write_whole(files.join(place, "trials", "notes.txt"), b"")
    assert files.read_whole(first) == b"new"
    assert files.exists(first)
    assert files.exists(files.join(place, "trials"))
    assert files.list_names(files.join(place, "trials"), ".parquet") == ["00000-1.parquet"]
    moved = files.join(place, "_corrupt", "00000-1.parquet")
    files.write_whole(moved, b"in the way")
    files.move(first, moved)
    assert not files.exists(first)
    assert files.read_whole(moved) == b"new"
    files.remove(moved)
    files.remove(moved)
    files.remove(files.join(place, "trials"))
    assert files.list_names(files.join(place, "trials")) == []
    assert not any(objects(server).values()), "nothing but what marks a folder is left"


def test_a_large_file_is_whole_or_the_old_one(server: S3Server, impatient: None) -> None:
    """Arrow sends more than 10 MB in parts."""
    target, old, new = files.join(server.storage, "state.pt"), b"old" * 100, bytes(range(256)) * 100_000
    files.write_whole(target, old)
    server.fail(lambda _number, method, _path: "500" if method in ("PUT", "POST") else "")
    with pytest.raises(OSError, match="AWS Error"):
        files.write_whole(target, new)
    part = 0

    def second_part(_number: int, method: str, _path: str) -> str:
        nonlocal part
        part += method == "PUT"
        return "cut" if method == "PUT" and part > 1 else ""

    server.fail(second_part)
    with pytest.raises(OSError, match="AWS Error"):
        files.write_whole(target, new)
    server.heal()
    assert files.read_whole(target) == old
    files.write_whole(target, new)
    assert files.read_whole(target) == new


@pytest.mark.parametrize(
    ("seed", "requests"),
    [(0, 1), pytest.param(1, 3, marks=pytest.mark.slow), pytest.param(2, 3, marks=pytest.mark.slow)],
)
def test_a_server_that_fails_now_and_then_is_asked_again(server: S3Server, seed: int, requests: int) -> None:
    with requests_at_once(requests):
        _write_and_read_among_failures(server, seed)


def _write_and_read_among_failures(server: S3Server, seed: int) -> None:
    server.fail(some(seed, share=0.3, most=2))
    for number in range(10):
        location = files.join(server.storage, "folder", f"{number}.parquet")
        files.write_whole(location, b"old")
        files.write_whole(location, bytes([number]) * 1000)
        assert files.read_whole(location) == bytes([number]) * 1000
        assert files.exists(location)
    names = files.list_names(files.join(server.storage, "folder"), ".parquet")
    assert names == [f"{number}.parquet" for number in range(10)]
    files.remove(files.join(server.storage, "folder", "3.parquet"))
    server.heal()
    assert len(files.list_names(files.join(server.storage, "folder"), ".parquet")) == 9


def test_what_will_not_change_is_not_asked_again(server: S3Server) -> None:
    before = time.monotonic()
    with pytest.raises(StoreError, match=r"must be (readable|writable), but s3://no-such-bucket/r.*bucket") as caught:
        SearchStore("s3://no-such-bucket/r", "tiny").open(MANIFEST)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - before < 5
    assert len([path for _, path in server.requests if "no-such-bucket" in path]) < 10


def test_a_server_that_goes_on_failing_ends_in_one_line(server: S3Server, impatient: None) -> None:
    store = SearchStore(server.storage, "tiny")
    store.open(MANIFEST)
    store.write_trial(make_row())
    server.fail(lambda *_: "503")
    for work in (
        lambda: store.write_trial(make_row(1)),
        store.trials,
        store.holder,
        lambda: compact(store),
        lambda: read_results(server.storage),
        lambda: store.lock().__enter__(),
    ):
        with pytest.raises(StoreError, match=r"(readable|writable), but s3://") as caught:
            work()
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
    server.heal()
    assert len(store.trials()) == 1


def test_a_silent_server_does_not_hold_a_reader_for_ever(
    server: S3Server, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's own settings took 100 s for each of our tries."""
    files.write_whole(files.join(server.storage, "x"), b"1")
    monkeypatch.setattr(object_storage, "STALL_SECONDS", 1.5)
    server.fail(lambda *_: "stall")
    before = time.monotonic()
    with pytest.raises(OSError, match=r"[Tt]imeout"):
        files.read_whole(files.join(server.storage, "x"))
    assert time.monotonic() - before < 20
    assert 1 <= len(server.requests) <= 2 * files.TRIES


def test_a_store_reads_as_it_was_written_and_as_pandas_reads_it(place: str) -> None:
    store = SearchStore(place, "tiny")
    store.open(MANIFEST)
    for number in range(5):
        store.write_trial(make_row(number, status="finished" if number else "interrupted"))
        store.write_curve(f"{number:05d}", 1, [make_report(100), make_report(200)])
    assert store.open(MANIFEST) == MANIFEST
    assert [row["number"] for row in store.trials()] == list(range(5))
    assert len(store.curve("00003")) == 2
    assert [found.search for found in find_searches(place)] == ["tiny"]
    assert len(read_results(place)) == 5
    assert len(read_curves(store.folder)) == 10
    assert SearchStore.at(store.folder).folder == store.folder
    if "?" not in place:
        assert len(pd.read_parquet(store.trials_folder)) == 5


def test_what_cannot_be_read_is_set_aside(server: S3Server) -> None:
    store = SearchStore(server.storage, "tiny")
    store.open(MANIFEST)
    store.write_trial(make_row(0))
    files.write_whole(store.trial_files.path("00001-1.parquet"), b"half a file")
    with pytest.warns(StoreWarning, match="moved to s3://"):
        assert len(store.trials()) == 1
    assert objects(server)["results/tiny/_corrupt/trials/00001-1.parquet"] == b"half a file"


def test_one_launch_holds_a_search_and_a_dead_ones_lease_passes(
    place: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SearchStore(place, "tiny")
    with store.lock():
        assert store.holder()["pid"]
        with pytest.raises(StoreError, match="one launch must work on a search at a time"), store.lock():
            pass
    assert store.holder() is None
    left = store.lock()
    left.__enter__()  # a launch that is killed never gives it back
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    with store.lock():
        pass


def test_a_lease_outlives_refusals_in_between(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.05)
    store = SearchStore(server.storage, "tiny")
    with store.lock():
        server.fail(some(1, share=0.6, most=3))
        time.sleep(1)
        server.heal()
        with pytest.raises(StoreError, match="one launch"), store.lock():
            pass
    assert store.holder() is None


def test_a_compaction_merges_and_reads_as_before(place: str) -> None:
    store = SearchStore(place, "tiny")
    store.open(MANIFEST)
    for number in range(12):
        store.write_trial(make_row(number))
        store.write_curve(f"{number:05d}", 1, [make_report(100), make_report(200)])
    store.write_trial(make_row(12, status="running"))
    before = store.attempts(), store.curves()
    done = compact(store)
    assert (done.merged, done.written, done.left) == (24, 2, 3)
    assert (store.attempts(), store.curves()) == before
    assert len(store.curve("00007")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_compaction_among_failures_loses_and_doubles_nothing(server: S3Server, seed: int) -> None:
    """Some are asked again; where the server stays away, the next compaction goes on."""
    store = SearchStore(server.storage, "tiny")
    store.open(MANIFEST)
    for number in range(12):
        store.write_trial(make_row(number))
        store.write_curve(f"{number:05d}", 1, [make_report(100)])
    before = store.attempts(), store.curves()
    for round_ in range(3):
        gone_from = 20 + 37 * round_ + 5 * seed
        faults = some(seed, share=0.15, most=2)
        server.fail(lambda *request, n=gone_from, faults=faults: "503" if request[0] > n else faults(*request))
        with pytest.raises(StoreError, match="s3://"):
            compact(store)
        server.heal()
        assert (store.attempts(), store.curves()) == before
    server.fail(some(seed, share=0.15, most=2))
    compact(store)
    server.heal()
    assert (store.attempts(), store.curves()) == before
    assert len(pd.read_parquet(store.trials_folder)) == 12
    assert [name for name in store.trial_files.names() if not name.startswith("compacted")] == []


def test_a_search_runs_among_failures_and_is_whole(server: S3Server) -> None:
    server.fail(some(5, share=0.1, most=2))
    drive(SPACE, server.storage)
    server.heal()
    _require_whole(SearchStore(server.storage, "noop"))


@pytest.mark.parametrize("gone_from", [10, 40, pytest.param(70, marks=pytest.mark.slow)])
def test_a_search_that_lost_its_storage_goes_on_where_it_was(
    server: S3Server, gone_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail(lambda number, *_: "503" if number > gone_from else "")
    with pytest.raises((StoreError, OSError), match=r"s3://|AWS Error"):  # the no-op trial's own words are Arrow's
        drive(SPACE, server.storage)
    server.heal()
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    drive(SPACE, server.storage)
    _require_whole(SearchStore(server.storage, "noop"))


def _require_whole(store: SearchStore) -> None:
    rows = store.trials()
    assert [row["number"] for row in rows] == list(range(SPACE.budget.trials))
    assert {row["status"] for row in rows} <= {"finished", "pruned"}
    for row in rows:
        assert [point["images_seen"] for point in store.curve(row["trial"])] == list(
            range(100, row["images_seen"] + 1, 100)
        )


@pytest.mark.parametrize(
    "location",
    [
        f"s3://{KEY}:{SECRET}@bucket/results",
        f"s3://{KEY}@bucket/results",
        f"s3://bucket/results?secret_key={SECRET}",
        f"s3://bucket/results?region=us-east-1&session_token={SECRET}",
        f"gs://user:{SECRET}@bucket/results",
    ],
)
def test_a_location_with_secrets_in_it_is_refused_without_saying_them(location: str) -> None:
    for use in (
        lambda: SearchStore(location, "tiny"),
        lambda: SearchStore.at(location + "/tiny" if "?" not in location else location),
        lambda: find_searches(location),
        lambda: files.write_whole(location, b""),
        lambda: files.read_whole(location),
        lambda: read_results(location),
    ):
        with pytest.raises(StoreError, match=r"must be named without secrets.*AWS_SECRET_ACCESS_KEY") as caught:
            use()
        assert SECRET not in str(caught.value)
        assert KEY not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_locations_without_secrets_are_not_refused() -> None:
    files.require_no_secrets("s3://bucket/r?region=x&endpoint_override=http%3A%2F%2F127.0.0.1")
    files.require_no_secrets("gs://anonymous@bucket/r")
    files.require_no_secrets("/a/folder/with:colons@and?token=x")


def test_no_secret_stands_in_what_is_stored(server: S3Server) -> None:
    drive(SPACE, server.storage)
    compact(SearchStore(server.storage, "noop"))
    stored = objects(server)
    assert len(stored) > 3
    assert not [name for name, content in stored.items() if SECRET.encode() in content or KEY.encode() in content]


def test_stop_requests_are_objects_until_they_are_removed(place: str) -> None:
    folder = files.join(place, "tiny")
    assert read_stop_requests(folder) == StopRequests()
    remove_stop_requests(folder)
    request_stop(folder, ["00001", "00002"])
    request_stop(folder)
    assert read_stop_requests(folder) == StopRequests(True, frozenset({"00001", "00002"}))
    remove_stop_request(folder, "00001")
    assert read_stop_requests(folder) == StopRequests(True, frozenset({"00002"}))
    remove_stop_requests(folder)
    assert read_stop_requests(folder) == StopRequests()


@pytest.mark.filterwarnings("ignore:left out .*later")  # an empty folder remains of a search that was removed
def test_a_search_is_watched_while_it_grows(place: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (live_search, optuna_storage):
        monkeypatch.setattr(module, "_SECONDS", {True: -1.0})
    store = SearchStore(place, "tiny")
    store.open(MANIFEST)
    store.write_trial(make_row(0, status="running"))
    storage = ReadOnlyStorage(place)
    study = storage.get_study_id_from_name("tiny")
    assert [trial.state.name for trial in storage.get_all_trials(study)] == ["RUNNING"]
    store.write_trial(make_row(0, valid_bits_per_dim=2.0))
    store.write_curve("00000", 1, [make_report(1600, 2.5), make_report(3200, 2.0)])
    store.write_trial(make_row(1, status="running"))
    files.write_whole(store.gallery("00000"), b"picture")
    SearchStore(place, "later").open(MANIFEST)
    before = objects(server)
    first, second = storage.get_all_trials(study)
    assert (first.values, first.intermediate_values, second.state.name) == ([2.0], {1600: 2.5, 3200: 2.0}, "RUNNING")
    assert {each.study_name for each in storage.get_all_studies()} == {"tiny", "later"}
    [artifact] = [key.partition(":")[2] for key in first.system_attrs if key.startswith("artifacts:")]
    assert GalleryStore(storage).open_reader(artifact).read() == b"picture"
    assert objects(server) == before
