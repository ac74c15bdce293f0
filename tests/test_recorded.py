"""What a change of the code's layout must leave as it is: texts of commands, files, and the numbers in them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from pixeltune.results.schema import Status
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.trial import run_trial
from tests.recorded.recordings import HERE, RESULTS, numbers, results_copy, searched_space, texts
from tests.support.toy_search import toy_state


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return texts()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse writes help in another form in each version")
def test_commands_print_what_they_did(now: dict[str, str]) -> None:
    recorded = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "texts").iterdir()}
    assert now.keys() == recorded.keys()
    assert now == recorded


def test_files_and_numbers_are_the_same() -> None:
    recorded: dict[str, Any] = json.loads((HERE / "numbers.json").read_text(encoding="utf-8"))
    found = numbers()
    assert found.keys() == recorded.keys()
    for part, value in recorded.items():
        assert found[part] == value, part


def test_every_status_of_their_time_is_in_the_stored_results() -> None:
    with results_copy() as folder:
        state = toy_state(folder, searched_space())
        statuses = {row["status"] for row in state.store.trials()}
    newer = {"stopped"}  # these results were written before it was there, and are kept as they are
    assert statuses | {"running"} | newer == {str(status) for status in Status}


def test_a_stored_search_is_resumed_and_extended() -> None:
    """The interrupted trial goes on from its checkpoint, and then new ones are proposed, always the same."""
    with results_copy() as folder:
        state = toy_state(folder, searched_space())
        searcher = OptunaSearcher(searched_space(), state, waiting=state.plans_to_resume())
        plans = []
        for _ in range(3):
            plan = searcher.next_plan()
            assert plan is not None
            state.start(plan, state.space.resources)
            plans.append(plan)
        assert [(plan.trial, plan.attempt) for plan in plans] == [("00007", 2), ("00008", 2), ("00009", 1)]
        assert plans[-1].suggestion == pytest.approx(json.loads((HERE / "proposal.json").read_text("utf-8")))
        messages = list(run_trial(plans[0].to_task(state.space, state.store, state.space.resources)))
        for message in messages:
            state.receive("00007", message)
        row = state.finish("00007")
    assert [report["images_seen"] for report in messages[0]["resumed"]] == [100]
    assert (row["status"], row["images_seen"], row["attempt"]) == ("finished", 400, 2)


def test_the_results_are_small() -> None:
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 2_000_000
