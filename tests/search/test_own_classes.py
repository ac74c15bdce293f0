"""Trials and searches of families and likelihoods of a user's own. No Ray."""

from __future__ import annotations

from pathlib import Path

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import pixeltune as pt
from pixeltune.results.store import SearchStore
from pixeltune.search.run import open_search
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial
from pixeltune.space import Budget, SearchSpace
from tests.support.own_code import SHALLOW, WARM, own_config

VARY = {
    "model.family": CategoricalDistribution(("gated", SHALLOW)),
    "likelihood.name": CategoricalDistribution(("categorical", WARM)),
    "model.wings": IntDistribution(0, 3),
    "likelihood.temperature": FloatDistribution(0.5, 2.0),
}


def mixed_space() -> SearchSpace:
    return SearchSpace(base=own_config(), vary=VARY, budget=Budget(trials=3))


def run_all(space: SearchSpace, folder: Path, suggestions: list[dict[str, object]]) -> SearchState:
    store, manifest = open_search(space, "toy", str(folder))
    state = SearchState(space, store, data_checksum=manifest.data_checksum)
    for suggestion in suggestions:
        plan = state.plan(suggestion)
        state.start(plan, space.resources)
        for message in run_trial(plan.to_task(space, store, space.resources)):
            state.receive(plan.trial, message)
        state.finish(plan.trial)
    return state


def test_a_search_with_own_keys_is_trained_kept_and_read(code_folder: Path, tmp_path: Path) -> None:
    suggestions = [
        {"model.family": SHALLOW, "likelihood.name": "categorical", "model.wings": 3},
        {"model.family": "gated", "likelihood.name": WARM, "likelihood.temperature": 1.5},
        {"model.family": SHALLOW, "likelihood.name": WARM, "likelihood.temperature": 0.5, "model.wings": 0},
    ]
    state = run_all(mixed_space(), tmp_path / "r", suggestions)
    assert [row["status"] for row in state.ended.values()] == ["finished"] * 3, [*state.ended.values()]
    assert [row["bits_verified"] for row in state.ended.values()] == [True] * 3
    rows = SearchStore(str(tmp_path / "r"), "toy").trials()
    assert [row["model.wings"] for row in rows] == [3, None, 0]
    assert [row["likelihood.temperature"] for row in rows] == [None, 1.5, 0.5]
    assert len({row["own_code"] for row in rows}) == 3
    frame = pt.read_results(tmp_path / "r")
    assert frame["model.wings"].tolist()[::2] == [3, 0]
    assert str(frame["model.wings"].dtype) == "Int64"
    assert frame["model.wings"].isna().tolist() == [False, True, False]
    assert frame["likelihood.temperature"].dropna().tolist() == [1.5, 0.5]
