"""Searches that are stopped, killed, crashed or left without a disk: nothing is lost, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Launch, curve_of, ends, files_of, launches, store_in, write_search

pytestmark = pytest.mark.slow


def _has_finished_and_live_trials(folder: Path) -> bool:
    statuses = ends(folder)
    live = [trial for (trial, _), status in statuses.items() if status == "running"]
    return "finished" in statuses.values() and any(len(curve_of(folder, trial)) >= 2 for trial in live)


def _wait_for_the_middle(run: Launch, folder: Path) -> None:
    run.wait_until(lambda: (folder / "tiny" / "search.json").exists() and _has_finished_and_live_trials(folder))


def _require_all_once(folder: Path, trials: int) -> None:
    last = {row["trial"]: row["status"] for row in store_in(folder).trials()}
    assert last == {f"{number:05d}": "finished" for number in range(trials)}
    for trial in last:
        attempts = [row["attempt"] for row in store_in(folder).attempts() if row["trial"] == trial]
        assert attempts == list(range(1, len(attempts) + 1))
        points = [(point["attempt"], point["images_seen"]) for point in curve_of(folder, trial)]
        assert [images for _, images in points] == list(range(1000, 16001, 1000)), "no report is lost"
        assert points == sorted(points), "images seen never go back across attempts"


def test_a_killed_search_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=16_000, every=1000, trials=5)
    with launches(folder) as launch:
        run = launch(search)
        _wait_for_the_middle(run, folder)
        run.kill()
        assert run.left_behind(seconds=150) == []  # Ray's agents first try to tell the dead head of it
        before, statuses = files_of(folder), ends(folder)
        decided = {trial for (trial, _), status in statuses.items() if status == "finished"}
        cut = {trial for (trial, _), status in statuses.items() if status == "running"}
        seen = {
            trial: max(point["images_seen"] for point in curve_of(folder, trial) or [{"images_seen": 0}])
            for trial in cut
        }

        again = launch(search)
        assert again.wait() == 0, again.err
        assert again.err == ""
        assert f"{len(decided)} trials done before" in again.out
    _require_all_once(folder, 5)
    after = files_of(folder)
    for name, content in before.items():
        if name.rpartition("/")[2].partition("-")[0] in decided:
            assert after[name] == content
    for trial in cut:
        assert (ends(folder)[trial, 1], ends(folder)[trial, 2]) == ("interrupted", "finished")
        anew = [point["images_seen"] for point in curve_of(folder, trial) if point["attempt"] == 2]
        assert anew == list(range(seen[trial] + 1000, 16001, 1000)), "it went on from its checkpoint"


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Once to the launcher alone, as `kill -INT` does; once to its whole group, as a terminal does."""
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=16_000, every=1000, trials=4)
    with launches(folder) as launch:
        run = launch(search)
        _wait_for_the_middle(run, folder)
        second = launch(search)
        assert second.wait() == 2, "two launches at once"
        assert f"process {run.process.pid}" in second.err
        assert len(second.err.splitlines()) == 1
        run.process.send_signal(signal.SIGINT)
        _require_stopped(run, folder)

        run = launch(search)
        run.wait_until(lambda: "running" in ends(folder).values())
        run.signal_group(signal.SIGINT)
        _require_stopped(run, folder)

        run = launch(search)
        assert run.wait() == 0, run.err
    _require_all_once(folder, 4)
    assert Counter(ends(folder).values())["interrupted"] >= 2


def _require_stopped(run: Launch, folder: Path) -> None:
    assert run.wait(60) == 130
    assert run.err == ""
    assert "Stopping: running trials keep their last checkpoint." in run.out
    assert "Ended: interrupted." in run.out
    assert f"To go on: python launch.py --search {run.folder / 'tiny.py'} --storage {folder}" in run.out
    assert "Traceback" not in run.out
    assert run.left_behind() == []
    assert run.temporary_folders() == []
    assert "running" not in ends(folder).values()
    assert "interrupted" in ends(folder).values()


MODULE = """
import os, sys
from pathlib import Path

from pixeltune.data.readers import digits

FAILING_CALLS = 5


def images(config):
    for call in range(FAILING_CALLS if "default_worker" in sys.argv[0] else 0):
        try:
            os.close(os.open(Path(__file__).with_name(f"call-{call}"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if call == 0:
            os._exit(1)
        raise ValueError("these images\\nare not for reading")
    return digits.read(config)
"""


def test_trials_that_crash_are_tried_again_and_the_search_goes_on(tmp_path: Path) -> None:
    """The first five attempts crash, one by the death of its process; no trial is tried more than twice."""
    folder = tmp_path / "r"
    (tmp_path / "mymod.py").write_text(MODULE)
    search = write_search(tmp_path, trials=4)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    with launches(folder) as launch:
        run = launch(search)
        assert run.wait() == 0, run.err
        assert run.err == ""
        assert run.left_behind() == []
    attempts = store_in(folder).attempts()
    failed = [row for row in attempts if row["status"] == "failed"]
    assert len(failed) == 5
    assert sum("died" in row["reason"] for row in failed) == 1
    raised = [row for row in failed if "ValueError: these images are not for reading" in row["reason"]]
    assert len(raised) == 4
    assert all("\n" not in row["reason"] for row in failed)
    assert all("mymod.py" in row["traceback"] for row in raised)
    tries = Counter(row["trial"] for row in attempts)
    assert set(tries.values()) <= {1, 2}
    last = {row["trial"]: row["status"] for row in store_in(folder).trials()}
    assert len(last) == 4
    for trial, status in last.items():
        crashes = sum(row["trial"] == trial for row in failed)
        assert (status, tries[trial]) == (("failed", 2) if crashes == 2 else ("finished", crashes + 1))
    assert "raylet" not in run.out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("to mount a small disk takes root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_search_in_one_line_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    search = write_search(tmp_path, images=4000, every=100, trials=12)
    with launches(small_disk) as launch:
        run = launch(search)
        assert run.wait() == 2
        assert len(run.err.splitlines()) == 1, run.err
        assert "must be writable" in run.err
        assert "No space left on device" in run.err
        assert "take another --storage" in run.err
        assert run.left_behind() == []
        before = {key: status for key, status in ends(small_disk).items() if status == "finished"}
        assert "failed" not in ends(small_disk).values()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        again = launch(search)
        assert again.wait() == 0, again.err
    assert before.items() <= ends(small_disk).items()
    assert {row["status"] for row in store_in(small_disk).trials()} == {"finished"}
    assert len(store_in(small_disk).trials()) == 12


def test_results_that_cannot_be_written_end_the_search_in_one_line(tmp_path: Path) -> None:
    """The error comes up inside one of Tune's hooks, which would take it for the trial's."""
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=4000, every=100, trials=30)
    with launches(folder) as launch:
        run = launch(search)
        run.wait_until(lambda: (folder / "tiny" / "trials").exists() and "finished" in ends(folder).values())
        (folder / "tiny" / "trials").rename(folder / "tiny" / "away")
        (folder / "tiny" / "trials").touch()
        assert run.wait(60) == 2
        assert len(run.err.splitlines()) == 1, run.err
        assert "results must be writable" in run.err
        assert run.left_behind() == []
        assert run.temporary_folders() == []
