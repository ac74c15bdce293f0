"""`pixeltune status` and `pixeltune doctor` as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from pixeltune.config import TrialConfig
from pixeltune.format import duration
from pixeltune.results.search_status import SearchStatus, read_status
from pixeltune.results.store import SearchStore
from pixeltune.space import Asha, SearchSpace
from tests.support.commands import command, done, refused
from tests.support.results import make_store

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONFIG = TrialConfig.build(
    {
        "data": {"name": "digits"},
        "model": {"family": "gated", "layers": 2, "channels": 8},
        "likelihood": {"name": "categorical"},
        "train": {"images": 400, "batch_size": 50, "report_every": 100},
    }
)
SPACE = SearchSpace(base=CONFIG, vary={"optim.lr": FloatDistribution(1e-4, 1e-1)}, scheduler=Asha((100, 200)))
BUDGET = {"trials": 8, "images": 2000, "gpu_hours": 10.0, "hours": 2.0}


def a_search(folder: Path | str = "results") -> SearchStore:
    """Three ended trials, and two that run: one an hour behind, one that has just begun. Begun an hour ago."""
    store = make_store(folder, "toy", SPACE, baseline_bits_per_dim=3.0)
    store.write_launch({"started_at": (NOW - timedelta(hours=1)).isoformat(), "budget": BUDGET})
    row(store, 0, "finished", minutes=(60, 40), valid_bits_per_dim=2.5, valid_nats=100.0)
    row(store, 1, "failed", minutes=(60, 20), reason="no report in 700 s")
    row(store, 2, "pruned", minutes=(40, 20), valid_bits_per_dim=2.75, valid_nats=110.0)
    row(store, 3, "running", minutes=(20, None))
    row(store, 4, "running", minutes=(1, None))
    curve(store, 0, 400, after=60)
    curve(store, 2, 100, after=40)
    curve(store, 3, 300, after=20)
    return store


def row(store: SearchStore, number: int, status: str, *, minutes: tuple[float, float | None], **columns: Any) -> None:
    began, ended = minutes
    store.write_trial(
        {
            **CONFIG.flat(),
            "trial": f"{number:05d}",
            "attempt": 1,
            "number": number,
            "status": status,
            "started_at": NOW - timedelta(minutes=began),
            "finished_at": None if ended is None else NOW - timedelta(minutes=ended),
            "workers": 1,
            "gpus_per_worker": 0.5,
            "gpu_seconds": 0.0 if ended is None else 30 * (began - ended),
            **columns,
        }
    )


def curve(store: SearchStore, number: int, images: int, *, after: float) -> None:
    points = [
        {
            "images_seen": seen,
            "reported_at": NOW - timedelta(minutes=after - seen / 100),
            "valid_bits_per_dim": 3 - seen / 500,
            "valid_nats": 120.0,
            "images_per_second": 1.5,
        }
        for seen in range(100, images + 1, 100)
    ]
    store.write_curve(f"{number:05d}", 1, points)


def status_of(store: SearchStore) -> SearchStatus:
    with store.lock():
        return read_status(store, now=NOW)


def test_how_a_search_stands() -> None:
    status = status_of(a_search())
    assert status.launcher is not None
    assert status.launcher["pid"] == os.getpid()
    late, starting = status.running
    assert (late.trial, late.images_seen, late.images, late.rung) == ("00003", 300, 400, 200)
    assert (late.silent_seconds, late.running_seconds, late.late) == (17 * 60, 20 * 60, True)
    assert (starting.images_seen, starting.rung, starting.bits_per_dim, starting.late) == (0, None, None, False)
    assert status.counts == {"failed": 1, "finished": 1, "pruned": 1}
    assert status.failures == {"failed: no report in 700 s": 1}
    assert status.best is not None
    assert (status.best["trial"], status.best["valid_bits_per_dim"]) == ("00003", 2.4), "a running trial may be it"
    gpu_minutes = 0.5 * (20 + 40 + 20 + 20 + 1)
    assert status.left == pytest.approx(
        {"trials": 5, "images": 2000 - 800, "gpu_hours": 10 - gpu_minutes / 60, "hours": 1.0}
    )
    assert status.eta_seconds is not None
    assert 300 < status.eta_seconds < 600, (
        "the images are used up first: 1,200 at about 1.4 a second, two trials at once"
    )


def test_a_final_while_it_runs() -> None:
    """Its reports have no validation, and it stops where its trial was best."""
    store = make_store("results", "toy-final", SPACE)
    row(store, 0, "running", minutes=(20, None), **{"train.stop_after": 300})
    points = [{"images_seen": seen, "reported_at": NOW, "train_bits_per_dim": 2.0} for seen in (100, 200)]
    store.write_curve("00000", 1, points)
    status = read_status(store, now=NOW)
    (running,) = status.running
    assert (running.images_seen, running.images, running.bits_per_dim, status.best) == (200, 300, None, None)
    assert "200 / 300" in done("status", "toy-final")


def test_gpu_hours_of_a_running_trial_are_counted_once() -> None:
    """Its row was written some seconds into the attempt, and holds what had passed until then."""
    store = a_search()
    row(store, 1, "interrupted", minutes=(60, 20), gpu_seconds=600.0)
    row(store, 1, "running", minutes=(10, None), attempt=2, gpu_seconds=645.0)
    gpu_minutes = 0.5 * (20 + 20 + 20 + 1) + (10 + 0.5 * 10)
    assert status_of(store).left["gpu_hours"] == pytest.approx(10 - gpu_minutes / 60)


HOLDS = """
import time
from pixeltune.results.store import SearchStore
with SearchStore("results", "toy").lock():
    print("held", flush=True)
    time.sleep(1000)
"""


def test_nobody_works_on_it_when_its_launcher_has_died() -> None:
    store = a_search()
    code = (
        f"import time\nfrom pixeltune.results.store import SearchStore\nwith SearchStore({store.folder[:-4]!r}, 'toy')"
    )
    code += ".lock():\n    print('held', flush=True)\n    time.sleep(1000)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        holder = read_status(store).launcher
        assert holder is not None
        assert holder["pid"] == process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status = read_status(store, now=NOW)
    assert status.launcher is None
    assert status.eta_seconds is None
    assert "hours" not in status.left


def test_looking_takes_the_lock_from_nobody() -> None:
    store = a_search()
    for _ in range(20):
        assert read_status(store).launcher is None
        with store.lock():
            assert read_status(store).launcher is not None


def test_the_verb_says_it_in_lines() -> None:
    store = a_search()
    with store.lock():
        said = done("status", "toy")
    assert f"toy: running, process {os.getpid()} on " in said
    assert "Trials: 1 failed, 1 finished, 1 pruned, 2 running" in said
    assert "Best: 2.4000 bits/dim (00003), 20.0% below the baseline 3.0000" in said
    assert "Budget left: 5 trials, 1,200 images" in said
    assert "300 / 400   200    2.4000" in said
    assert "no report for" in said
    assert "starting" in said
    assert "1 × failed: no report in 700 s" in said
    assert "left behind" in done("status", "toy")
    assert "not running; run the same command again to resume the unfinished trials" in done("status", "toy")


def test_the_verb_as_json() -> None:
    a_search()
    told = json.loads(done("status", "toy", "--json"))
    assert told["launcher"] is None
    assert told["best"]["trial"] == "00003"
    assert [trial["trial"] for trial in told["running"]] == ["00003", "00004"]
    assert told["left"]["trials"] == 5


def test_a_search_that_is_not_there() -> None:
    assert "results/none/search.json does not exist" in refused("status", "none")


@pytest.mark.parametrize(("seconds", "words"), [(7, "0:07"), (750.4, "12:30"), (10931, "3:02:11")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_doctor_of_this_machine() -> None:
    said = done("doctor", "--search", "digits_quick")
    where, head, row = said.split("\n")[:3]
    assert where.startswith("A search would run on this machine alone: no --address, no RAY_ADDRESS")
    assert head.split() == ["node", "versions", "data", "clock"], "nothing is asked of GPU, storage and address"
    for check in ("versions here", "room for a trial", "storage", "free disk"):
        assert f"\n{check} " in said
    assert "digits" in row
    assert not Path("results").exists() or list(Path("results").iterdir()) == []


def test_the_doctor_looks_where_a_search_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "a Ray cluster must answer" in refused("doctor", "--search", "digits_quick")
    assert "this machine alone: --address says so" in done("doctor", "--address", "local")


def test_the_doctor_finds_what_would_fail() -> None:
    Path("results").touch()
    result = command("doctor", "--search", "digits_quick", "--set", "resources.workers=50")
    assert result.code == 1
    assert "there is room for" in " ".join(result.out.split())
    assert "fail" in result.out


def test_what_is_left_of_target_patience_and_dollars() -> None:
    store = a_search()
    budget = {"trials": 8, "target": 2.4, "patience": 3, "min_delta": 0.0, "dollars": 20.0}
    store.write_launch({"started_at": NOW.isoformat(), "budget": budget})
    row(store, 0, "finished", minutes=(60, 40), valid_bits_per_dim=2.5, dollars_per_hour=3.0, dollars=1.0)
    row(store, 5, "finished", minutes=(30, 10), valid_bits_per_dim=2.6, dollars_per_hour=3.0, dollars=1.5)
    text = done("status", "toy")
    assert "Target: valid_bits_per_dim at most 2.4, not reached\n" in text
    assert "Cost: $2.50\n" in text
    assert "Budget left: 4 trials, $17.50, 2 trials without an improvement\n" in text
    store.write_launch({"budget": budget | {"target": 2.5}, "ended": "the target is reached"})
    row(store, 3, "finished", minutes=(20, 1), valid_bits_per_dim=2.5)
    row(store, 4, "stopped", minutes=(1, 0), valid_bits_per_dim=2.1)
    text = done("status", "toy")
    assert "toy: not running; ended: the target is reached\n" in text
    assert "Trials: 1 failed, 3 finished, 1 pruned, 1 stopped\n" in text
    assert "Target: valid_bits_per_dim at most 2.5, reached by trial 00000\n" in text
    plain = json.loads(done("status", "toy", "--json"))
    assert plain["target"] == {"metric": "valid_bits_per_dim", "value": 2.5, "reached_by": "00000"}
    assert (plain["dollars"], plain["ended"]) == (2.5, "the target is reached")
