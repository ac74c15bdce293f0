"""Where a search runs, and why, in one line. No Ray is started: raylets are processes that are called so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pixeltune.errors import SearchError
from pixeltune.tune import ray_address
from pixeltune.tune.ray_address import VARIABLE, raylets_of_this_user, resolve_address
from tests.support.cluster_files import filled_in, write

OURS = {"127.0.0.1:40001", "10.0.0.4:6379", "10.0.0.5:6379"}
Raylet = Callable[[str], object]


@pytest.fixture(autouse=True)
def a_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set, no `ray start` has left its note, and no Ray runs but those of the test."""
    monkeypatch.setattr(ray_address, "raylets_of_this_user", lambda: raylets_of_this_user() & OURS)
    for name in ("RAY_ADDRESS", VARIABLE, "RAY_JOB_CONFIG_JSON_ENV_VAR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raylet]:
    """Starts a process that looks as a raylet does; it waits for its standard input to end."""
    with contextlib.ExitStack() as cleanup:

        def start(address: str) -> None:
            words = [
                "/ray/core/src/ray/raylet/raylet",
                "-c",
                "import sys; sys.stdin.read()",
                f"--gcs-address={address}",
            ]
            process = subprocess.Popen(words, executable=sys.executable, stdin=subprocess.PIPE)
            cleanup.callback(process.communicate)
            end = time.monotonic() + 30
            while address not in raylets_of_this_user():  # a process has no command line for a moment yet
                assert time.monotonic() < end
                time.sleep(0.001)

        yield start


def _note(folder: Path, address: str) -> None:
    """As `ray start` leaves it."""
    (folder / "ray").mkdir(exist_ok=True)
    (folder / "ray" / "ray_current_cluster").write_text(address + "\n")


def test_on_a_laptop_it_is_the_laptop() -> None:
    place = resolve_address(None)
    assert place.address is None
    assert str(place) == "Runs on this machine alone: no --address, no RAY_ADDRESS, and it is no node of a cluster."


def test_the_address_wins_and_what_it_passes_over_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(resolve_address("10.0.0.1:6379")) == "Runs on the Ray cluster at 10.0.0.1:6379: --address says so."
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    place = resolve_address("10.0.0.1:6379")
    assert place.address == "10.0.0.1:6379"
    assert "RAY_ADDRESS=10.0.0.2:6379 is passed over" in str(place)
    assert resolve_address("local").address is None
    assert "RAY_ADDRESS=10.0.0.2:6379 is passed over" in str(resolve_address("local"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "passed over" not in str(resolve_address("10.0.0.1:6379"))


@pytest.mark.parametrize("given", [None, "auto"])
def test_the_environment_comes_next_and_is_what_auto_means_to_ray(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    place = resolve_address(given)
    assert place.address == "10.0.0.2:6379"
    assert "RAY_ADDRESS says so" in str(place)
    assert ("--address auto" in str(place)) == (given == "auto")


def test_a_job_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "tiny-1"}}))
    assert str(resolve_address(None)) == "Runs on the Ray cluster at 10.0.0.2:6379: it is the job tiny-1 there."


def test_the_address_of_a_dashboard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(SearchError, match=r"RAY_ADDRESS must be HOST:PORT.*is a dashboard's; unset it"):
        resolve_address(None)


def test_a_note_of_a_ray_that_is_gone_captures_nobody(tmp_path: Path) -> None:
    _note(tmp_path, "10.0.0.3:6379")
    assert resolve_address(None).address is None


def test_a_ray_that_nobody_started_for_others_captures_nobody(raylet: Raylet) -> None:
    """That of another search on this laptop, or of a notebook."""
    raylet("127.0.0.1:40001")
    assert "127.0.0.1:40001" in raylets_of_this_user()
    assert resolve_address(None).address is None


def test_a_note_that_belongs_to_another_user_captures_nobody(
    tmp_path: Path, raylet: Raylet, monkeypatch: pytest.MonkeyPatch
) -> None:
    raylet("127.0.0.1:40001")
    _note(tmp_path, "127.0.0.1:40001")
    assert resolve_address(None).address == "127.0.0.1:40001"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert resolve_address(None).address is None


def test_a_node_that_ray_start_made(tmp_path: Path, raylet: Raylet) -> None:
    raylet("127.0.0.1:40001")
    raylet("10.0.0.4:6379")
    _note(tmp_path, "10.0.0.4:6379")
    for given in (None, "auto"):
        place = resolve_address(given)
        assert (place.address, place.why) == ("10.0.0.4:6379", "this machine is a node of it, by `ray start`")


def test_the_head_of_ray_up(tmp_path: Path, raylet: Raylet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(write(tmp_path, filled_in("gpu"))))
    with pytest.raises(SearchError, match="must have one Ray, but none runs here; `ray up` starts it"):
        resolve_address(None)
    raylet("10.0.0.4:6379")
    place = resolve_address(None)
    assert (place.address, place.why) == ("10.0.0.4:6379", f"this machine is its head, as {VARIABLE} says")
    raylet("10.0.0.5:6379")
    with pytest.raises(SearchError, match=r"10\.0\.0\.4:6379, 10\.0\.0\.5:6379 run here"):
        resolve_address(None)
    assert resolve_address("local").address is None


def test_a_variable_whose_file_is_gone_captures_nobody(
    tmp_path: Path, raylet: Raylet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.yaml"))
    raylet("10.0.0.4:6379")
    assert resolve_address(None).address is None
