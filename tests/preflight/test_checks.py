"""What the doctor says of faked nodes: every verdict of every check. No Ray is started."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pixeltune import files
from pixeltune.errors import SearchError
from pixeltune.preflight import checks
from pixeltune.preflight.checks import Check, CheckResult, NodeFacts, require_passed
from pixeltune.results.compaction import compact
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from pixeltune.space import Resources
from pixeltune.tune.ray_session import HEAD, limit_to_capacity
from tests.support.toy_search import toy_config, toy_space

VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0", "pixeltune": "0.1"}
HERE = NodeFacts("head", VERSIONS, data="abc")
TOGETHER = Resources(workers=2)
GB = 10**9


@pytest.mark.parametrize(
    ("check", "verdict", "words"),
    [
        (
            checks.check_room([{"CPU": 2.0}], Resources()),
            "ok",
            "2 trials at a time, each 1 × (1 CPUs, 0 GPUs)",
        ),
        (checks.check_room([{"CPU": 2.0}], Resources(workers=3)), "fail", "there is room for 2"),
        (checks.check_room([{"CPU": 2.0}], Resources(gpus=0.5)), "warn", "no GPU, though 0.5 a worker are asked for"),
        (
            checks.check_drivers([{HEAD: 1.0, "memory": 5e9}], TOGETHER),
            "ok",
            "memory for 2 trials at a time",
        ),
        (checks.check_drivers([{HEAD: 1.0, "memory": 1.5e9}], TOGETHER), "warn", "memory for none"),
        (checks.check_drivers([{HEAD: 1.0, "memory": 0.5e9}], TOGETHER), "fail", "memory for none"),
        (checks.check_drivers([{HEAD: 1.0}], TOGETHER), "skipped", "does not tell"),
        (checks.check_drivers([{HEAD: 1.0, "memory": 0.5e9}], Resources()), "skipped", "one worker have none"),
        (checks.check_state_api(Resources(), None), "skipped", "only trials of several workers"),
        (checks.check_state_api(TOGETHER, None), "ok", "not asked"),
        (checks.check_state_api(TOGETHER, ""), "ok", "it answers"),
        (checks.check_state_api(TOGETHER, "refused"), "fail", "it does not answer (refused)"),
        (checks.check_disk("r", 2 * GB, 10 * GB), "ok", "10.0 GB free, checkpoints take at most 2.0 GB"),
        (checks.check_disk("r", 2 * GB, 3 * GB), "warn", "3.0 GB free"),
        (checks.check_disk("r", 2 * GB, 1 * GB), "fail", "1.0 GB free"),
        (checks.check_disk("s3://r", 2 * GB, None), "skipped", "does not tell"),
        (checks.check_here(VERSIONS), "ok", "torch 2.15.0"),
        (checks.check_here(VERSIONS | {"torch": None}), "fail", "torch missing"),
        (checks.check_own_data("mnist", HERE), "ok", "mnist (abc)"),
        (checks.check_own_data("mnist", replace(HERE, data=None, data_error="no file")), "fail", "no file"),
        (
            checks.check_own_data("mnist", replace(HERE, data=None, data_download="is not in /d; a search will")),
            "warn",
            "mnist is not in /d; a search will",
        ),
    ],
)
def test_verdicts(check: Check, verdict: str, words: str) -> None:
    assert (check.verdict, words in check.found) == (verdict, True), check
    assert bool(check.advice) == (verdict in ("warn", "fail"))


def test_what_ray_default_brings_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_DASHBOARD", ("aiohttp", "no_such_package"))
    check = checks.check_state_api(TOGETHER, "")
    assert (check.verdict, check.found) == (CheckResult.FAIL, "its packages are missing: no_such_package")
    assert "ray[default]" in check.advice


def test_storage_is_written_replaced_and_read(tmp_path: Path) -> None:
    assert checks.check_storage(str(tmp_path)).verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    check = checks.check_storage(str(tmp_path / "file"))
    assert (check.verdict, "is not writable (" in check.found) == ("fail", True)
    assert checks.check_storage("nonsense://bucket").verdict == "fail"


def test_storage_that_is_slow_or_gives_back_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_SLOW_WRITE_SECONDS", 0.0)
        assert checks.check_storage(str(tmp_path)).verdict == "warn"
    monkeypatch.setattr(files, "read_whole", lambda _location: b"first")
    check = checks.check_storage(str(tmp_path))
    assert (check.verdict, "gives back an older file" in check.found) == ("fail", True)


def test_damaged_results_are_found_and_nothing_is_moved(tmp_path: Path) -> None:
    store = SearchStore(str(tmp_path), "tiny")
    assert checks.check_results(store).verdict == "skipped"
    store.open(SearchManifest.of(toy_space(), "tiny"))
    now = datetime(2026, 11, 30, tzinfo=UTC)
    for number in range(3):
        row = {"trial": f"{number:05d}", "attempt": 1, "number": number, "status": "finished", "started_at": now}
        store.write_trial(toy_config().flat() | row)
    check = checks.check_results(store)
    assert (check.verdict, check.found, check.advice) == ("ok", "3 files, none damaged", "")
    victim = Path(store.trials_folder, "00001-1.parquet")
    victim.write_bytes(victim.read_bytes().replace(b"pixeltune.table", b"pixeltune.fable"))
    check = checks.check_results(store)
    assert (check.verdict, check.found) == ("warn", f"1 files are damaged (0 in {store.folder}/_corrupt)")
    assert "put copies of them back" in check.advice
    assert victim.exists()
    with pytest.warns(StoreWarning):
        compact(store)
    assert checks.check_results(store).verdict == "warn", "what was set aside stays in mind"
    merged = Path(store.trials_folder, "compacted-00001.parquet")
    merged.write_bytes(merged.read_bytes()[:-1])
    with pytest.warns(StoreWarning):
        store.trials()
    assert checks.check_results(store).verdict == "fail", "a launch would be refused"


def test_the_facts_of_this_machine(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    facts = checks.node_facts(mark=str(mark), data={"data": {"name": "digits"}, "model": {"family": "gated"}})
    assert mark.read_bytes()
    assert facts.versions["torch"]
    assert facts.data_error
    assert facts.storage_error == ""
    assert facts.free_memory is None or facts.free_memory > 0
    assert checks.node_facts(mark=str(mark / "below")).storage_error
    assert checks.local_node()["CPU"] >= 1
    assert (checks.free_disk(str(tmp_path / "not" / "there")) or 0) > 0
    assert checks.free_disk("s3://bucket/x") is None


def test_a_search_starts_with_its_warnings_and_not_with_a_failure() -> None:
    fine, warning = Check("a", "x"), Check("b", "y is slow", CheckResult.WARN, "wait")
    assert require_passed([fine, warning]) == ["b: y is slow; wait."]
    with pytest.raises(SearchError, match=r"^c: z is broken; mend it$"):
        require_passed([warning, Check("c", "z is broken", CheckResult.FAIL, "mend it")])


@pytest.mark.parametrize(
    ("memory", "workers", "concurrent"), [(100e9, 2, 4), (5e9, 2, 2), (1e9, 2, 1), (1e9, 1, 8), (None, 2, 4)]
)
def test_drivers_of_trials_of_several_workers_count_in_the_heads_memory(
    memory: float | None, workers: int, concurrent: int
) -> None:
    head = {"CPU": 4.0, HEAD: 1.0} | ({} if memory is None else {"memory": memory})
    said: list[str] = []
    assert limit_to_capacity([head, {"CPU": 4.0}], Resources(workers=workers), said.append)[1] == concurrent
    assert bool(said) == (concurrent < 8 // workers)
    if said:
        assert f"The head has memory for {concurrent} trials of several workers at a time" in said[0]
