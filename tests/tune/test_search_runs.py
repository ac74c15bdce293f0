"""Whole searches on a local Ray, one at a time: they end, answer, extend and refuse, in their own lines only."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import FrozenTrial

import pixeltune as pt
from pixeltune.cli import main
from pixeltune.results.optuna_storage import ReadOnlyStorage
from pixeltune.results.ranking import best_first
from pixeltune.results.repeats import merge_repeats
from tests.support.inbox import SECRET, Inbox
from tests.support.launching import files_of, launches, store_in, write_search

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_a_search_ends_answers_extends_and_refuses(tmp_path: Path) -> None:
    search = write_search(tmp_path, rungs="100, 200")
    with launches(tmp_path / "r") as launch:
        first = launch(search)
        assert first.wait() == 0, first.err
        assert first.err == ""
        _require_only_our_lines(first.out, trials=6)
        assert first.left_behind() == []
        assert first.temporary_folders() == []
        _require_complete(tmp_path / "r", trials=6)
        before = files_of(tmp_path / "r")

        again = launch(search, interpreter=("-X", "importtime"))
        assert again.wait() == 0
        assert "all 6 trials are done" in again.out
        imported = set(re.findall(r"^import time:.*\|\s+(\w+)$", again.err, flags=re.MULTILINE))
        assert "optuna" in imported
        assert not imported & {"ray", "torch", "pandas", "sklearn"}
        assert files_of(tmp_path / "r") == before

        for settings, difference in (
            ("model.layers=3", "model.layers: 3 here, 2 in the results"),
            ("seed=1", "seed: 1"),
        ):
            other = launch(search, "--set", settings)
            assert other.wait() == 2
            assert difference in other.err
            assert len(other.err.splitlines()) == 1
        spent = launch(search, "--trials", "9", "--set", "budget.images=100")
        assert spent.wait() == 0, "a budget may change"
        assert "the budget of 100 images is spent" in spent.out

        more = launch(search, "--trials", "8")
        assert more.wait() == 0, more.err
        assert "6 trials done before" in more.out
        _require_complete(tmp_path / "r", trials=8)
        after = files_of(tmp_path / "r")
        assert {name: after[name] for name in before} == before


def _require_complete(folder: Path, *, trials: int) -> None:
    rows = store_in(folder).attempts()
    assert [(row["number"], row["attempt"]) for row in rows] == [(number, 1) for number in range(trials)]
    assert {row["status"] for row in rows} <= {"finished", "pruned"}
    assert len({row["optim.lr"] for row in rows}) == trials
    for row in rows:
        curve = store_in(folder).curve(row["trial"])
        assert [point["images_seen"] for point in curve] == list(range(100, row["images_seen"] + 1, 100))
        assert row["valid_bits_per_dim"] == min(point["valid_bits_per_dim"] for point in curve)
        assert row["images_seen"] == (600 if row["status"] == "finished" else row["images_seen"])
        assert row["ray_version"]
    frame = pd.read_parquet(folder / "tiny" / "trials")
    assert len(frame) == trials
    kept = sorted(path.name for path in (folder / "tiny" / "checkpoints").glob("*/*"))
    assert kept == ["weights.safetensors"] * 2


def _require_only_our_lines(out: str, *, trials: int) -> None:
    lines = [line for line in out.splitlines() if not line.startswith("Running: ")]  # on a slow machine
    shapes = [
        r"Runs on this machine alone: no --address",
        r"tiny: tiny$",
        r"Order-0 baseline .* bits/dim on validation$",
        r"Starting Ray …$",
        r"\d+ trials? at a time, each 1 CPU$",
        *[r"\d{5} (finished|pruned  )   \d\.\d{4} .* images .* s  \d/6  "] * trials,
        r"Ended: all \d trials are done\.$",
        r"Trials: ",
    ]
    for line, shape in zip(lines, shapes, strict=False):
        assert re.match(shape, line), (line, shape)


OWN_CALLBACK = """
import time
from pathlib import Path

from ray.tune import Callback


class Slow(Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "images_seen" in result:
            with Path(trial.local_path, "seen.txt").open("a") as seen:
                print(result["images_seen"], file=seen)
        if result.get("images_seen") == 600:
            time.sleep(3)
"""


def test_two_workers_train_a_trial_together(tmp_path: Path) -> None:
    """Also after a stop by ASHA: the workers' placement group must be free again for the next trial.

    Tune takes the last message of a trial long after Train has ended, for a callback of the search's own is slow.
    """
    search = write_search(tmp_path, trials=3, rungs="100, 200", lowest_lr=1e-5)
    (tmp_path / "slow_callback.py").write_text(OWN_CALLBACK)
    own = search.read_text().replace("keep=2,", "keep=2, callbacks=(Slow(),),")
    search.write_text(f"from slow_callback import Slow\n{own}")
    with launches(tmp_path / "r") as launch:
        run = launch(search, "--set", "resources.workers=2", "--max-concurrent", "1")
        assert run.wait() == 0, run.err
        assert run.err == ""
        assert run.left_behind() == []
    rows = store_in(tmp_path / "r").attempts()
    assert [(row["number"], row["attempt"], row["workers"]) for row in rows] == [(0, 1, 2), (1, 1, 2), (2, 1, 2)]
    statuses = [row["status"] for row in rows]
    assert statuses[0] == "finished"
    assert statuses[1] == "pruned"
    assert not (tmp_path / "r" / "tiny" / ".scratch").exists()
    for row in rows:
        seen = (tmp_path / "r" / "tiny" / "callbacks" / row["trial"] / "seen.txt").read_text().split()
        assert [int(images) for images in seen] == list(range(100, row["images_seen"] + 1, 100))


def test_what_can_never_run_is_refused_before_any_trial(tmp_path: Path) -> None:
    search = write_search(tmp_path)
    with launches(tmp_path / "r") as launch:
        for options, words in (
            (("--address", "127.0.0.1:1"), "must answer at 127.0.0.1:1, but none does"),
            (("--set", "resources.workers=64"), "`train.batch_size` must divide by the 64 workers, but got 50"),
            (("--set", "resources.workers=50"), "a trial must fit the cluster, but it needs 50 workers of 1 CPUs each"),
        ):
            run = launch(search, *options)
            assert run.wait() == 2
            assert words in run.err
            assert len(run.err.splitlines()) == 1
            assert run.left_behind() == []
    assert store_in(tmp_path / "r").attempts() == []


def test_another_shell_stops_a_trial_and_then_the_launch(tmp_path: Path) -> None:
    """The trial ends for good; the launch ends as by Ctrl-C, and the same command goes on."""
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=40_000, every=1000, trials=4)

    def statuses() -> dict[str, str]:
        rows = store_in(folder).trials() if (folder / "tiny" / "trials").exists() else []
        return {row["trial"]: row["status"] for row in rows}

    with launches(folder) as launch:
        run = launch(search)
        run.wait_until(lambda: statuses().get("00000") == "running" and bool(store_in(folder).curve("00000")))
        assert main(["stop", "tiny", "0", "--storage", str(folder)]) == 0
        run.wait_until(lambda: statuses().get("00000") == "stopped")
        run.wait_until(lambda: "running" in statuses().values())
        assert main(["stop", "tiny", "--storage", str(folder)]) == 0
        assert run.wait() == 130, run.err
        assert "Stopping, as another shell requests" in run.out
        before = {row["trial"]: row for row in store_in(folder).trials() if row["status"] != "interrupted"}
        assert before["00000"]["status"] == "stopped"
        again = launch(search, "--set", "budget.trials=2")
        assert again.wait() == 0, again.err
        after = {row["trial"]: row for row in store_in(folder).trials() if row["status"] != "interrupted"}
        assert before.items() <= after.items(), "what had ended stays as it was"
        assert len(after) == max(2, len(before)), "one more may have begun, and ended, in place of the stopped trial"
        assert {row["status"] for trial, row in after.items() if trial not in before} <= {"finished"}


def test_a_started_search_is_watched_extended_and_trained_further(tmp_path: Path) -> None:
    folder, search = tmp_path / "r", write_search(tmp_path, images=20_000, every=1000, trials=1)
    with launches(folder) as launch:
        run = launch(search, "--keep-states", "1")
        run.wait_until(lambda: (folder / "tiny" / "search.json").exists())
        studies = ReadOnlyStorage(folder)  # as `pixeltune dashboard` reads it

        def shown() -> list[FrozenTrial]:
            return [trial for study in studies.get_all_studies() for trial in studies.get_all_trials(study._study_id)]

        run.wait_until(lambda: any(trial.intermediate_values for trial in shown()))
        assert run.wait() == 0, run.err
        (alone,) = store_in(folder).trials()

        search.write_text(search.read_text().replace("IntDistribution(4, 8)", "IntDistribution(4, 16)"))
        refused = launch(search, "--trials", "2")
        assert refused.wait() == 2
        assert "with --extend to go on with the changed space" in refused.err
        files = files_of(folder)
        vary = "model.layers", "IntDistribution(1, 3)"
        search.write_text(search.read_text().replace("vary={", f'vary={{"{vary[0]}": {vary[1]}, '))
        wider = launch(search, "--keep-states", "1", "--trials", "3", "--extend")
        assert wider.wait() == 0, wider.err
        assert "Space: version 2 from now on: model.layers 2 → 1…3; model.channels 4…8 → 4…16." in wider.out
        rows = store_in(folder).trials()
        assert rows[0] == alone
        assert [(row["status"], row["space_version"]) for row in rows] == [
            ("finished", version) for version in (1, 2, 2)
        ]
        kept = {name: content for name, content in files.items() if "/trials/" in name or "/curves/" in name}
        assert kept.items() <= files_of(folder).items()

        assert main(["continue", "tiny", "--top", "1", "--images", "30000", "--storage", str(folder)]) == 0
        (further,) = [row for row in store_in(folder).trials() if row["continues_attempt"] is not None]
        assert (further["status"], further["attempt"], further["images_seen"]) == ("finished", 2, 30_000)
        again = launch(search, "--keep-states", "1", "--trials", "3", "--extend")
        assert again.wait() == 0, again.err
        assert "all 3 trials are done" in again.out


@pytest.mark.needs("apprise", "tensorboard")
def test_a_search_is_tracked_and_sends_a_message(tmp_path: Path, inbox: Inbox) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, search = tmp_path / "r", write_search(tmp_path, trials=2)
    with launches(folder) as launch:
        run = launch(search, "--track", "tensorboard", "--notify", inbox.url, "--set", "budget.target=99")
        assert run.wait() == 0, run.err
        assert SECRET not in run.out + run.err
    title, text = inbox.only()
    assert title == "pixeltune: tiny reached its target"
    assert "Why: trial 0000" in text
    for row in store_in(folder).trials():
        events = EventAccumulator(str(folder / "tiny" / "tensorboard" / row["trial"])).Reload()
        points = [(point.step, point.value) for point in events.Scalars("valid_bits_per_dim")]
        curve = store_in(folder).curve(row["trial"])
        assert points == [(point["images_seen"], pytest.approx(point["valid_bits_per_dim"])) for point in curve]
    assert SECRET.encode() not in b"".join(files_of(folder).values())


def test_the_best_configuration_is_trained_with_more_seeds(tmp_path: Path) -> None:
    folder, search = tmp_path / "r", write_search(tmp_path, trials=5)
    with launches(folder) as launch:
        run = launch(search, "--repeats", "2")
        assert run.wait() == 0, run.err
        assert run.err == ""
    rows = store_in(folder).trials()
    assert [row["status"] for row in rows] == ["finished"] * 5
    first = {row["trial"]: row for row in rows if row["repeat_of"] is None}
    repeats = [row for row in rows if row["repeat_of"] is not None]
    assert {row["repeats"] for row in rows} == {2}
    for row in repeats:
        original = first[row["repeat_of"]]
        assert row["seed"] == original["seed"] + 1
        assert row["optim.lr"] == original["optim.lr"]
        assert row["valid_bits_per_dim"] != original["valid_bits_per_dim"]
    table = pt.read_results(folder)
    best = best_first(merge_repeats(rows), "valid_bits_per_dim")[0]
    assert best["trial"] in {row["repeat_of"] for row in repeats}, "none is the best with one seed"
    assert len(table) == 5
    assert f"{best['valid_bits_per_dim']:.4f} ± {best['valid_bits_per_dim_error']:.4f}" in run.out
