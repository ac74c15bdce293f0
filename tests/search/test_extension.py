"""A wider space on a started search: what is accepted, what old rows count for, and resumed == uninterrupted."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import digest
from pixeltune.cli.search import launch
from pixeltune.data import load_data
from pixeltune.errors import StoreError
from pixeltune.report.snapshot import read_snapshot
from pixeltune.results.dataframes import read_results
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import leaderboard
from pixeltune.search.final import configs_of
from pixeltune.search.pruners import pruner_for
from pixeltune.search.run import nothing_left, open_search, require_buildable
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.space_history import SpaceHistory
from pixeltune.search.state import SearchState
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import Asha, Budget, LogNormal, SearchSpace
from tests.support.toy_search import (
    BEGUN,
    FACTS,
    FINISHED,
    VARY,
    play,
    reported,
    sampler_params,
    seen,
    toy_config,
    toy_space,
)

BASE = toy_config().override({"data.num_valid": 100})


def space_of(**changes: Any) -> SearchSpace:
    return toy_space(**({"base": BASE, "scheduler": None} | changes))


def varying(**changes: Any) -> dict[str, BaseDistribution]:
    """The toy ranges with some replaced, by the last part of their names; None fixes one."""
    names = {key.rpartition(".")[2]: key for key in [*VARY, "model.channels", "train.precision", "optim.ema"]}
    vary = VARY | {names[name]: value for name, value in changes.items()}
    return {key: value for key, value in vary.items() if value is not None}


def opened(folder: Path, space: SearchSpace, *, extend: bool = False) -> tuple[SearchState, list[str]]:
    """The state of a launch, as `run_search` makes it."""
    said: list[str] = []
    store, manifest = open_search(space, "grown", str(folder), extend=extend, say=said.append)
    space = space.with_first(manifest.first)
    history = SpaceHistory.of(space, manifest)
    return SearchState(space, store, pruner=pruner_for(space), history=history), said


def finish(state: SearchState, plan: Any, bits: float = 2.0) -> dict[str, Any]:
    return play(state, plan, begins(plan), reported(400, bits), FINISHED)


@cache
def checksum() -> str:
    return load_data(BASE.data).identity.checksum


def begins(plan: Any) -> dict[str, Any]:
    return {"facts": FACTS | {"config_key": plan.config.key(), "data_checksum": checksum()}, "resumed": []}


def begun(folder: Path, space: SearchSpace, trials: int = 4) -> SearchState:
    state, _ = opened(folder, space)
    searcher = OptunaSearcher(state.space, state)
    for number in range(trials):
        finish(state, searcher.next_plan(), 2.0 + 0.1 * number)
    return state


LR = FloatDistribution(1e-5, 1.0, log=True)
WIDER = {
    "a range of whole numbers": varying(layers=IntDistribution(1, 9)),
    "a range of numbers": varying(lr=LR),
    "a linear scale of the same values": varying(lr=FloatDistribution(1e-4, 1e-1)),
    "a key from its base value on": varying(channels=IntDistribution(4, 12)),
    "a choice from its base value on": varying(precision=CategoricalDistribution(("float32", "auto"))),
    "several at once": varying(lr=LR, layers=IntDistribution(2, 7), channels=IntDistribution(8, 9)),
    "a key fixed, another wider": varying(layers=None, lr=LR),
    "a range of one value": varying(layers=IntDistribution(2, 2)),
}


@pytest.mark.parametrize("vary", WIDER.values(), ids=WIDER)
def test_a_wider_space_is_accepted_with_extend_and_named_without(tmp_path: Path, vary: Any) -> None:
    before = begun(tmp_path, space_of())
    file = Path(before.store.folder, "search.json")
    text = file.read_bytes()
    with pytest.raises(StoreError, match=r"must go on with the settings they began with, but got vary .* --extend to"):
        open_search(space_of(vary=vary), "grown", str(tmp_path))
    assert file.read_bytes() == text
    state, said = opened(tmp_path, space_of(vary=vary), extend=True)
    assert said[0].startswith("Space: version 2 from now on: ")
    assert " → " in said[0]
    plan = OptunaSearcher(state.space, state).next_plan()
    finish(state, plan)
    rows = state.store.trials()
    assert [row["space_version"] for row in rows] == [1, 1, 1, 1, 2]
    assert len({row["config_key"] for row in rows}) == 5
    manifest = state.store.manifest()
    assert [version.distributions() for version in manifest.versions] == [space_of().vary, space_of(vary=vary).vary]
    assert all(datetime.fromisoformat(version.since).tzinfo for version in manifest.versions)
    assert SearchManifest.from_json(manifest.to_json()) == manifest
    again, said = opened(tmp_path, space_of(vary=vary), extend=True)  # the same space is no further version
    assert (said, len(again.store.manifest().versions)) == ([], 2)
    with pytest.raises(StoreError, match="in the results"):  # the space of before is another one by now
        open_search(space_of(), "grown", str(tmp_path))


def test_choices_of_classes_can_be_added_and_fixed(tmp_path: Path) -> None:
    fixed = {"optim.lr": VARY["optim.lr"]}
    start = begun(tmp_path, space_of(vary=fixed), 3)
    assert {row["likelihood.name"] for row in start.store.trials()} == {"categorical"}
    state, _ = opened(tmp_path, space_of(vary={**VARY, **fixed}), extend=True)
    assert not state.outside
    searcher = OptunaSearcher(state.space, state)
    while len({row["likelihood.name"] for row in state.store.trials()}) < 2:
        finish(state, searcher.next_plan())
    narrow = space_of(vary=VARY).override({"likelihood.name": "logistic_mixture"})
    state, _ = opened(tmp_path, narrow, extend=True)
    names = {row["trial"]: row["likelihood.name"] for row in state.store.trials()}
    assert state.outside == {trial for trial, name in names.items() if name == "categorical"}
    assert state.outside
    plan = OptunaSearcher(state.space, state).next_plan()
    assert plan.config.likelihood.name == "logistic_mixture"
    assert plan.proposed_by == "base"  # which is another one by now


NARROWER = {
    "a shorter range": (varying(layers=IntDistribution(2, 5)), "model.layers"),
    "a shifted range": (varying(lr=FloatDistribution(1e-3, 1.0, log=True)), "optim.lr"),
    "a coarser step": (varying(layers=IntDistribution(2, 6, step=2)), "model.layers"),
    "a step on a range without": (varying(lr=FloatDistribution(1e-4, 1e-1, step=1e-4)), "optim.lr"),
    "another kind": (varying(layers=CategoricalDistribution((2, 3, 4, 5, 6))), "model.layers"),
    "one wider, one shorter": (varying(lr=LR, mixtures=IntDistribution(2, 7)), "likelihood.mixtures"),
}


@pytest.mark.parametrize(("vary", "key"), NARROWER.values(), ids=NARROWER)
def test_a_range_that_loses_values_is_refused_with_the_difference(tmp_path: Path, vary: Any, key: str) -> None:
    refused(tmp_path, space_of(), space_of(vary=vary), f"vary {key}: ")


def refused(folder: Path, before: SearchSpace, after: SearchSpace, reason: str) -> None:
    state = begun(folder, before, 2)
    files = {path: path.read_bytes() for path in Path(state.store.folder).rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"in the results|in trials of the results|in an earlier version") as error:
        open_search(after, "grown", str(folder), extend=True)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError) as plain:
        open_search(after, "grown", str(folder))
    assert "--extend" not in str(plain.value)
    assert {path: path.read_bytes() for path in Path(state.store.folder).rglob("*") if path.is_file()} == files


OTHERS = {
    "objectives": ({"objectives": ("valid_nats",)}, "objectives: valid_nats here"),
    "constraints": ({"constraints": {"gpu_seconds": 3.0}}, "constraints: gpu_seconds 3 here"),
    "scheduler": ({"scheduler": Asha((100,))}, "scheduler: ASHA"),
    "sampler": ({"sampler": "random"}, "sampler: random here"),
    "seed": ({"seed": 3}, "sampler seed: 3 here"),
    "training": ({"base": BASE.override({"train.images": 500})}, "train.images: 500 here, 400 in the results"),
    "data": ({"base": BASE.override({"data.num_valid": 90})}, "data.num_valid: 90 here, 100 in the results"),
    "base of a varied key": ({"base": BASE.override({"optim.lr": 0.02})}, "optim.lr: 0.02 here, 0.01 in the results"),
    "prior of a key as before": ({"prior": {"model.layers": LogNormal(3, 2)}}, "prior model.layers: LogNormal(3, 2)"),
    "a key from another value on": (
        {"base": BASE.override({"model.channels": 4}), "vary": varying(channels=IntDistribution(4, 12))},
        "model.channels: 4 here, 8 in the results",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), OTHERS.values(), ids=OTHERS)
def test_whatever_is_not_the_space_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    refused(tmp_path, space_of(), space_of(**({"vary": WIDER["a range of numbers"]} | changes)), reason)


def test_a_key_of_other_classes_must_keep_their_default(tmp_path: Path) -> None:
    """Trials of another class than the base had it by default, so that a range without that loses them."""
    vary = {key: VARY[key] for key in ("likelihood.name", "optim.lr")}
    after = space_of(vary=vary | {"likelihood.mixtures": IntDistribution(2, 8)})
    refused(tmp_path, space_of(vary=vary), after, "vary likelihood.mixtures: 2…8 here, 10 in trials of the results")


def test_a_key_is_fixed_to_one_of_its_values(tmp_path: Path) -> None:
    after = space_of(base=BASE.override({"model.layers": 7}), vary=varying(layers=None))
    refused(tmp_path, space_of(), after, "model.layers: fixed to 7 here, varied over 2…6 in the results")


def test_a_fixed_key_varies_again_over_all_that_it_had(tmp_path: Path) -> None:
    begun(tmp_path, space_of(), 6)
    opened(tmp_path, space_of(vary=varying(layers=None)), extend=True)
    with pytest.raises(StoreError, match=r"vary model.layers: 2…5 here, 2…6 in an earlier version of the results"):
        open_search(space_of(vary=varying(layers=IntDistribution(2, 5))), "grown", str(tmp_path), extend=True)
    state, _ = opened(tmp_path, space_of(vary=varying(layers=IntDistribution(2, 8))), extend=True)
    assert len(state.store.manifest().versions) == 3
    assert not state.outside


def test_a_corner_that_cannot_be_built_writes_no_version(tmp_path: Path) -> None:
    state = begun(tmp_path, space_of(), 2)
    text = Path(state.store.folder, "search.json").read_bytes()
    wrong = space_of(vary=varying(precision=CategoricalDistribution(("auto", "float32"))) | {"model.split": _splits()})
    with pytest.raises(Exception, match="every corner of a search must be buildable"):
        open_search(wrong, "grown", str(tmp_path), extend=True)
    assert Path(state.store.folder, "search.json").read_bytes() == text


def _splits() -> CategoricalDistribution:
    return CategoricalDistribution((1, 3))  # digits are 8×8


# --------------------------------------------------------------------------------------------- rows of before


def test_rows_that_do_not_fit_stay_in_the_tables_alone(tmp_path: Path) -> None:
    old = begun(tmp_path, space_of(), 8)
    layers = {row["trial"]: row["model.layers"] for row in old.store.trials()}
    outside = {trial for trial, value in layers.items() if value != 2}
    assert outside
    assert len(outside) < 8
    state, _ = opened(tmp_path, space_of(vary=varying(layers=None, lr=LR)), extend=True)
    assert state.outside == outside
    assert state.ended.keys() == layers.keys()
    searcher = OptunaSearcher(state.space, state)
    trials = searcher.study().get_trials()
    assert len(trials) == 8 - len(outside)
    assert all("model.layers" not in trial.params for trial in trials)
    finish(state, searcher.next_plan(), 1.0)
    store, manifest = state.store, state.store.manifest()
    assert len(read_results(str(tmp_path))) == 9
    places = leaderboard(store.trials(), vary=list(manifest.searched()))
    assert {place["trial"]: place["model.layers"] for place in places} == layers | {"00008": 2}
    assert [config.model.layers for config in configs_of(store.trials(), manifest)] == [*layers.values(), 2]
    exported = study(store.folder).get_trials()
    assert [trial.params["model.layers"] for trial in exported] == [*layers.values(), 2]
    snapshot = read_snapshot(store)
    assert "model.layers" in snapshot.places[0]


def test_trials_of_an_earlier_version_are_resumed_if_the_space_has_them(tmp_path: Path) -> None:
    state, _ = opened(tmp_path, space_of())
    searcher = OptunaSearcher(state.space, state)
    left = [searcher.next_plan() for _ in range(6)]
    for plan in left:
        play(state, plan, begins(plan), reported(100, 2.0))
    inside = [plan for plan in left if plan.config.model.layers == 2]
    assert inside
    assert len(inside) < len(left)
    state, _ = opened(tmp_path, space_of(vary=varying(layers=None, channels=IntDistribution(8, 16))), extend=True)
    resumed = state.plans_to_resume()
    assert [(plan.trial, plan.config, plan.space_version) for plan in resumed] == [
        (plan.trial, plan.config, 1) for plan in inside
    ]
    assert state.next_number == len(left)


def test_the_number_of_configurations_counts_those_of_the_space(tmp_path: Path) -> None:
    vary = {"model.layers": IntDistribution(2, 3), "model.channels": IntDistribution(8, 9)}
    state = begun(tmp_path, space_of(vary=vary), 4)
    assert nothing_left(state.space, state) == "all 4 configurations of the space are tried"
    state, _ = opened(tmp_path, space_of(vary=vary | {"model.layers": IntDistribution(2, 4)}), extend=True)
    assert nothing_left(state.space, state) is None
    fixed = space_of(vary={"model.channels": IntDistribution(8, 11)})
    state, _ = opened(tmp_path, fixed, extend=True)
    assert len(state.ended) == fixed.num_configurations
    assert nothing_left(fixed, state) is None
    searcher = OptunaSearcher(state.space, state)
    assert {searcher.next_plan().config.model.channels for _ in range(2)} == {10, 11}
    assert searcher.next_plan() is None


def test_first_configurations_are_carried_over_as_far_as_they_fit(tmp_path: Path) -> None:
    first = [{"model.layers": 6}, {"optim.lr": 0.002}, {"optim.lr": 0.002, "model.layers": 5}]
    begun(tmp_path, space_of(first=first), 1)
    state, _ = opened(tmp_path, space_of(vary=varying(layers=None, channels=IntDistribution(8, 16))), extend=True)
    plan = OptunaSearcher(state.space, state).next_plan()
    assert plan.proposed_by == "first"
    assert plan.config == BASE.override({"optim.lr": 0.002})
    assert [dict(each) for each in state.store.manifest().first] == [plan.suggestion]


def test_a_warm_start_from_several_versions_reads_each_by_its_own(tmp_path: Path) -> None:
    begun(tmp_path, space_of(), 4)
    state, _ = opened(tmp_path, space_of(vary=varying(layers=None, lr=LR)), extend=True)
    finish(state, OptunaSearcher(state.space, state).next_plan())
    resolved = require_buildable(space_of())
    found = read_warm_start([state.store.folder], space_of(vary=varying(lr=LR)), resolved)
    assert (len(found.rows), found.left_out) == (5, {})


# ------------------------------------------------------------------------------------- resumed == uninterrupted


@pytest.mark.parametrize("sampler", sampler_params())
@pytest.mark.parametrize(
    "vary", [WIDER["several at once"], WIDER["a key fixed, another wider"]], ids=["grown", "fixed"]
)
def test_a_resumed_extension_proposes_what_the_uninterrupted_one_does(
    tmp_path: Path, sampler: str, vary: dict[str, BaseDistribution]
) -> None:
    lists = {"grid": {"optim.lr": [1e-4, 1e-2]}} if sampler == "grid" else {}
    plain = {"sampler": sampler, "base": BASE, "budget": Budget(trials=40)}
    begun(tmp_path, space_of(**plain, **lists), 12)
    wider = space_of(**plain, vary=vary, **({"grid": {"optim.lr": [1e-2, 1e-3, 1e-4]}} if lists else {}))
    live, _ = opened(tmp_path, wider, extend=True)
    searcher = OptunaSearcher(live.space, live)
    plans = [searcher.next_plan() for _ in range(5)]
    for plan in plans[:3]:
        finish(live, plan, 1.5 + 0.1 * plan.number)
    for plan in plans[3:]:
        live.start(plan, live.space.resources)
    again, _ = opened(tmp_path, wider)
    resumed = OptunaSearcher(again.space, again)
    assert [seen(trial) for trial in resumed.study().get_trials()] == [
        seen(trial) for trial in searcher.study().get_trials()
    ]
    assert [resumed.next_plan().trial for _ in range(2)] == [plan.trial for plan in plans[3:]]
    proposals = [searcher.next_plan(), searcher.next_plan()]
    assert [resumed.next_plan(), resumed.next_plan()] == proposals
    assert {plan.space_version for plan in proposals} == {2}


def test_a_grid_that_loses_values_is_refused(tmp_path: Path) -> None:
    grids = [{"optim.lr": values} for values in ([1e-3, 1e-2], [1e-3, 1e-1])]
    before, after = (space_of(sampler="grid", grid=grid) for grid in grids)
    refused(tmp_path, before, after, "grid optim.lr: 0.001, 0.1 here, 0.001, 0.01 in the results")


# -------------------------------------------------------------------------------------- older files, and the command


def test_a_search_from_before_there_were_versions_is_version_one(tmp_path: Path) -> None:
    state = begun(tmp_path, space_of(), 3)
    file = Path(state.store.folder, "search.json")
    tree = json.loads(file.read_text())
    for name in ("earlier", "extended_at", digest.KEY):
        del tree[name]
    file.write_text(json.dumps(tree))
    for row in state.store.trials():
        state.store.write_trial(row | {"space_version": None})
    again, said = opened(tmp_path, space_of())
    assert said == []
    assert len(again.store.manifest().versions) == 1
    wider, _ = opened(tmp_path, space_of(vary=WIDER["a key fixed, another wider"]), extend=True)
    kept = {row["trial"] for row in wider.store.trials() if row["model.layers"] == 2}
    assert wider.ended.keys() - wider.outside == kept


def test_a_row_of_a_version_that_is_not_known_is_refused(tmp_path: Path) -> None:
    state = begun(tmp_path, space_of(), 2)
    file = Path(state.store.folder, "search.json")
    before = file.read_bytes()
    state, _ = opened(tmp_path, space_of(vary=WIDER["a range of numbers"]), extend=True)
    finish(state, OptunaSearcher(state.space, state).next_plan())
    file.write_bytes(before)
    with pytest.raises(StoreError, match=r"must have version 2 of the space, which proposed .*00002, but it has 1"):
        opened(tmp_path, space_of())
    with pytest.raises(StoreError, match="must have version 2 of the space"):
        list(configs_of(state.store.trials(), state.store.manifest()))


FILE = """
from optuna.distributions import IntDistribution
from pixeltune import SearchSpace, TrialConfig
search = SearchSpace(
    base=TrialConfig.build({{"data": {{"name": "digits"}}, "model": {{"family": "gated", "layers": 3, "channels": 8}},
                             "likelihood": {{"name": "categorical"}},
                             "train": {{"images": 400, "report_every": 100, "batch_size": 50}}}}),
    vary={{"model.layers": IntDistribution({low}, {high})}},
)
"""


def test_the_command_refuses_a_shorter_range_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pixeltune.space import load_search

    file = tmp_path / "mine.py"
    file.write_text(FILE.format(low=2, high=5))
    space = load_search(str(file))
    store, _ = open_search(space, "mine", str(tmp_path / "results"))
    state = SearchState(space, store)
    play(state, state.plan(space.base_suggestion()), BEGUN, reported(400, 2.0), FINISHED)
    command = ["--search", str(file), "--storage", str(tmp_path / "results")]
    for low, options, expected in ((3, ["--extend"], "an extension may widen"), (1, [], "with --extend to go on")):
        file.write_text(FILE.format(low=low, high=6))
        before = Path(store.folder, "search.json").read_bytes()
        assert launch([*command, *options]) == 2
        assert Path(store.folder, "search.json").read_bytes() == before
        [line] = capsys.readouterr().err.splitlines()
        assert expected in line
        assert f"IntDistribution(log=False, step=1, low={low}, high=6) here" in line
