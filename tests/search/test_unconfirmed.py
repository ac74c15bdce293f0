"""A trial whose bits a real code does not confirm is shown, and is the best nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.published.comparability import check_comparable, identity_of
from pixeltune.published.table import published_results
from pixeltune.results.final_statistics import Difference, final_leaderboard, mean_row
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import is_unconfirmed, leaderboard, pareto_front
from pixeltune.results.search_status import read_status
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.final import choose
from pixeltune.search.optuna_trials import trial_outcomes
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.search.trial_reference import find_weights
from tests.support.toy_search import BEGUN, play, reported, toy_space, toy_state

WHY = "60 images take 2.10000 bits/dim where 0.10000 are claimed"


def ended(verified: bool | None) -> dict[str, Any]:
    facts = {"bits_verified": verified, "bits_verified_images": 60, "bits_unverified_reason": None if verified else WHY}
    return {"end": "finished", "reason": None, "facts": facts | {"sample_images_per_second": 3.0}}


@pytest.fixture
def state(tmp_path: Path) -> SearchState:
    """Trial 0 is confirmed, trial 1 claims most and is refuted, trial 2 was not checked."""
    searched = toy_state(tmp_path, toy_space(scheduler=None, keep=1))
    for verified, bits in ((True, 2.0), (False, 0.1), (None, 1.9)):
        plan = searched.plan(searched.space.base_suggestion())
        begun = BEGUN | {"facts": BEGUN["facts"] | {"config_key": plan.config.key(), "evaluated_split": "valid"}}
        play(searched, plan, begun, reported(400, bits), ended(verified))
    return searched


def test_it_comes_last_on_the_leaderboard_without_a_rank(state: SearchState) -> None:
    places = leaderboard(state.store.trials())
    assert [(place["rank"], place["trial"], place["bits_verified"]) for place in places] == [
        (1, "00002", None),
        (2, "00000", True),
        (None, "00001", False),
    ]


def test_it_is_neither_the_best_nor_on_a_front(state: SearchState) -> None:
    rows = state.store.trials()
    best = state.best()
    assert best is not None
    assert best["trial"] == "00002"
    assert [row["trial"] for row in pareto_front(rows, ["valid_bits_per_dim"])] == ["00002"]
    standing = read_status(state.store)
    assert standing.best is not None
    assert standing.best["trial"] == "00002"


def test_its_weights_are_not_those_kept_nor_those_meant(state: SearchState, tmp_path: Path) -> None:
    store = state.store
    for trial in state.ended:
        files.write_whole(weights_file(store.checkpoint(trial)), b"weights")
    assert find_weights("toy", str(tmp_path)).endswith("00002/weights.safetensors")
    CheckpointRetention(state).tidy()
    assert [trial for trial in state.ended if files.exists(weights_file(store.checkpoint(trial)))] == ["00002"]


def test_a_final_retrains_it_only_where_it_is_named(state: SearchState) -> None:
    rows, manifest = state.store.trials(), state.store.manifest()
    assert [item.trial for item in choose(rows, manifest, top=3).chosen] == ["00002"]
    assert [item.trial for item in choose(rows, manifest, top=None, trials=("1",)).chosen] == ["00001"]
    with pytest.raises(StoreError, match="whose bits no code refutes, but none of the 1 finished"):
        choose([row for row in rows if is_unconfirmed(row)], manifest, top=1)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_do_not_learn_from_it(state: SearchState, sampler: str) -> None:
    space = toy_space(scheduler=None, sampler=sampler)
    states = [outcome.state for outcome in trial_outcomes(space, state.store.trials(), state.curves)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    shown = study(state.store.folder).get_trials()
    assert [trial.state for trial in shown] == states


def test_it_compares_with_no_published_number(state: SearchState) -> None:
    published = published_results()[0]
    for row in state.store.trials():
        why_not = check_comparable(identity_of(row), published).why_not
        assert ("its bits are not those of a real code" in why_not) == (row["trial"] == "00001")


def test_a_configuration_of_a_final_with_an_unconfirmed_run_comes_last() -> None:
    common = {"status": "finished", "search": "f", "from_search": "s", "is_bound": False}
    form = {"image_channels": 1, "image_height": 2, "image_width": 2, "data_checksum": "a", "levels": 2}
    rows, nats = [], {}
    for number, (trial, verified) in enumerate([("a", True), ("b", True), ("a", True), ("b", False)]):
        run = {"trial": f"{number}", "from_trial": trial, "evaluated_split": "test", "bits_verified": verified}
        rows.append(common | form | run)
        nats[f"{number}"] = np.arange(5.0) + (3 if trial == "a" else 1)
    first, last = final_leaderboard(rows, nats)
    assert (first["from_trial"], first["verdict"], first["bits_verified"]) == ("a", Difference.BEST, True)
    assert (last["from_trial"], last["verdict"], last["bits_verified"]) == ("b", Difference.UNCONFIRMED, False)
    assert is_unconfirmed(mean_row(last, rows))
