"""Write the recordings that `tests/test_recorded.py` compares with: `uv run python -m tests.recorded.make [--results]`.

The texts and numbers are written again on every call; the results folder only with --results. It should be kept as it
is: it shows that newer code reads, resumes and extends what older code wrote.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from pixeltune.search.searcher import FixedTrials, OptunaSearcher
from pixeltune.search.trial import run_trial
from tests.recorded.recordings import HERE, RESULTS, numbers, searched_space, texts
from tests.support.toy_final import asked, final_state
from tests.support.toy_search import FACTS, ended, play, reported, toy_state


def write_results(folder: Path) -> None:
    """Write a search with every status and a final: one trial is trained, one is interrupted and has a checkpoint."""
    state = toy_state(folder, searched_space())
    searcher = OptunaSearcher(searched_space(), state)
    trained = searcher.next_plan()
    assert trained is not None
    state.start(trained, state.space.resources)
    for message in run_trial(trained.to_task(state.space, state.store, state.space.resources)):
        state.receive(trained.trial, message)
    state.finish(trained.trial)
    checksum = state.ended[trained.trial]["data_checksum"]
    for status in ("pruned", "diverged", "oom", "failed", "rejected", "finished"):
        plan = searcher.next_plan()
        assert plan is not None
        reason = None if status == "finished" else f"a reason for {status}"
        begun = {"facts": FACTS | {"data_checksum": checksum, "config_key": plan.config.key()}, "resumed": []}
        play(state, plan, begun, reported(100, 4.7), reported(400, 4.6), ended(status, reason))
    paused = searcher.next_plan()
    assert paused is not None
    state.start(paused, state.space.resources)
    for message in run_trial(paused.to_task(state.space, state.store, state.space.resources)):
        state.receive(paused.trial, message)
        if "report" in message:
            break
    state.finish(paused.trial, interruption="its launch was stopped")
    running = searcher.next_plan()
    assert running is not None
    state.start(running, state.space.resources)
    state.receive(running.trial, {"facts": FACTS | {"data_checksum": checksum}, "resumed": []})
    state.receive(running.trial, reported(100, 3.7))
    state.store.write_launch({"started_at": "2026-11-01T10:00:00+00:00", "budget": {"trials": 12}, "concurrent": 2})
    final, space = final_state(asked(folder, top=1, seeds=2))
    plans = FixedTrials(space, final)
    for _ in range(2):
        plan = plans.next_plan()
        assert plan is not None
        final.start(plan, final.space.resources)
        for message in run_trial(plan.to_task(final.space, final.store, final.space.resources)):
            final.receive(plan.trial, message)
        final.finish(plan.trial)


def main() -> None:
    """Write what is asked for."""
    if "--results" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            write_results(Path(folder) / "results")
            shutil.rmtree(RESULTS, ignore_errors=True)
            shutil.copytree(Path(folder) / "results", RESULTS)
    shutil.rmtree(HERE / "texts", ignore_errors=True)
    (HERE / "texts").mkdir()
    for name, text in texts().items():
        (HERE / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    (HERE / "numbers.json").write_text(json.dumps(numbers(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
