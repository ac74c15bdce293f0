"""A whole final on a local Ray: killed in the middle, gone on with, answered again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pixeltune.results.dataframes import read_images
from pixeltune.results.store import SearchStore
from tests.support.launching import files_of, launches, store_in, write_search

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_a_final_survives_its_launcher_and_reads_the_test_set_once_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=2000, trials=2)
    final = SearchStore(str(folder), "tiny-final")
    images = Path(final.images_folder)
    with launches(folder) as launch:
        assert launch(search).wait() == 0
        before = files_of(folder / "tiny")
        words = ("--top", "2", "--seeds", "2")
        run = launch(search, *words, verb=("final", "tiny"))
        run.wait_until(lambda: any(images.glob("0*.parquet")))  # complete ones; others have a name of their own
        run.kill()
        run.left_behind(30)
        kept = {path.name: path.stat().st_mtime_ns for path in images.glob("0*.parquet")}
        done = {row["trial"] for row in final.trials() if row["status"] == "finished"}

        again = launch(search, *words, verb=("final", "tiny"))
        assert again.wait() == 0, again.err
        assert again.err == ""
        assert again.left_behind() == []
        answer = launch(search, *words, verb=("final", "tiny"), interpreter=("-X", "importtime"))
        assert answer.wait() == 0
        assert "ray.tune" not in answer.err, "it is answered from Parquet"
        assert answer.out.splitlines()[-5:] == again.out.splitlines()[-5:]
        other = launch(search, "--top", "1", "--seeds", "2", verb=("final", "tiny"))
        assert other.wait() == 2
        assert "--top: 1 here, 2 in the results" in other.err
        assert len(other.err.splitlines()) == 1
    assert files_of(folder / "tiny") == before
    _require_four_runs(final, done)
    assert {name: (images / name).stat().st_mtime_ns for name in kept} == kept, "what was read is not read again"
    assert "4 finished" in again.out
    assert "lowest mean" in again.out


def _require_four_runs(final: SearchStore, done: set[str]) -> None:
    rows = final.trials()
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert len({(row["from_trial"], row["seed"]) for row in rows}) == 4
    assert {row["attempt"] for row in rows if row["trial"] in done} <= {1}
    frame = read_images(final.folder)
    for row in rows:
        nats = frame[frame["trial"] == row["trial"]]["nats"]
        assert math.fsum(nats) / len(nats) == row["test_nats"]
        assert Path(final.checkpoint(row["trial"]), "weights.safetensors").is_file()
    assert not list(Path(final.checkpoints).rglob("state.pt"))


def test_several_workers_read_the_test_set_together(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    search = write_search(tmp_path, trials=1)
    with launches(folder) as launch:
        assert launch(search).wait() == 0
        run = launch(search, "--top", "1", "--seeds", "1", "--workers", "2", verb=("final", "tiny"))
        assert run.wait(400) == 0, run.err
        assert run.err == ""
    final = SearchStore(str(folder), "tiny-final")
    (row,) = final.trials()
    assert (row["status"], row["workers"]) == ("finished", 2)
    nats = read_images(final.folder)["nats"]
    assert len(nats) == 360
    assert math.fsum(nats) / len(nats) == row["test_nats"]
    assert store_in(folder).trials()[0]["workers"] == 1
