"""First configurations, grids, Sobol' points and priors: what is tried when, also after a resumption."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import digest
from pixeltune.errors import StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.search.pruners import pruner_for
from pixeltune.search.run import nothing_left, open_search
from pixeltune.search.samplers import _KeyPrior, _PriorTPE
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.space import Budget, ChoiceWeights, LogNormal, Normal, SearchSpace
from tests.support.toy_search import BEGUN, FINISHED, VARY, play, reported, settle, toy_config, toy_space, toy_state

MIXTURE = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 3}
FIRST = [{"model.layers": 6}, MIXTURE, {"optim.lr": 0.002}]
BASE = toy_config().override({"data.num_valid": 100})


def finish(state: SearchState, plan: Any, bits: float = 2.0) -> None:
    play(state, plan, BEGUN, reported(400, bits), FINISHED)


# ------------------------------------------------------------------------------------------- first configurations


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid"])
def test_first_configurations_follow_the_base_in_their_order(tmp_path: Path, sampler: str) -> None:
    space = toy_space(first=FIRST, sampler=sampler)
    searcher = OptunaSearcher(space, toy_state(tmp_path, space))
    plans = [searcher.next_plan() for _ in range(5)]
    assert [plan.suggestion for plan in plans[:4]] == [space.base_suggestion(), *space.first_suggestions()]
    assert [plan.proposed_by for plan in plans] == ["base", "first", "first", "first", sampler]


@pytest.mark.parametrize("launches", [1, 2, 3])
def test_those_not_yet_run_are_run_after_a_resumption(tmp_path: Path, launches: int) -> None:
    """As without an interruption, which one trial meets while it runs."""
    space = toy_space(first=FIRST, scheduler=None)
    whole = OptunaSearcher(space, toy_state(tmp_path / "whole", space))
    expected = [whole.next_plan().suggestion for _ in range(4)]
    for _ in range(launches):
        state = toy_state(tmp_path / "cut", space)
        searcher = OptunaSearcher(space, state)
        for _ in range(len(state.plans_to_resume())):
            finish(state, searcher.next_plan())
        if len(state.ended) < 4:
            play(state, searcher.next_plan())
    state = toy_state(tmp_path / "cut", space)
    searcher = OptunaSearcher(space, state)
    while len(state.ended) < 4:
        finish(state, searcher.next_plan())
    rows = state.store.trials()
    assert [space.suggestion_of(row) for row in rows] == expected
    assert [row["proposed_by"] for row in rows] == ["base", "first", "first", "first"]


def opened(folder: Path, space: SearchSpace) -> tuple[SearchState, list[str]]:
    """The state of a launch, as `run_search` makes it."""
    said: list[str] = []
    store, manifest = open_search(space, "later", str(folder), say=said.append)
    space = space.with_first(manifest.first)
    return SearchState(space, store, pruner=pruner_for(space)), said


def test_more_can_be_given_to_a_search_that_has_begun(tmp_path: Path) -> None:
    """They come before the sampler's proposals, at this launch or at one that does not name them."""
    plain = {"base": BASE, "scheduler": None}
    state, _ = opened(tmp_path, toy_space(**plain, first=FIRST[:1]))
    searcher = OptunaSearcher(state.space, state)
    for _ in range(4):
        finish(state, searcher.next_plan())
    state, said = opened(tmp_path, toy_space(**plain, first=FIRST))
    assert said == ["First: 2 configurations more, to be tried next unless they were tried before."]
    finish(state, OptunaSearcher(state.space, state).next_plan())
    state, said = opened(tmp_path, toy_space(**plain))
    assert said == []
    searcher = OptunaSearcher(state.space, state)
    finish(state, searcher.next_plan())
    assert searcher.next_plan().proposed_by == "tpe"
    rows, first = state.store.trials(), toy_space(**plain, first=FIRST).first_suggestions()
    assert [row["proposed_by"] for row in rows] == ["base", "first", "tpe", "tpe", "first", "first"]
    assert [state.space.suggestion_of(row) for row in rows[4:]] == toy_space(**plain, first=FIRST).first_suggestions()[
        1:
    ]
    manifest = json.loads((tmp_path / "later" / "search.json").read_text())
    assert manifest["first"] == first


def test_one_that_the_sampler_has_tried_is_not_tried_again(tmp_path: Path) -> None:
    space = toy_space(scheduler=None)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for _ in range(3):
        finish(state, searcher.next_plan())
    tried = space.suggestion_of(state.store.trials()[2])
    more = space.with_first([tried])
    assert OptunaSearcher(more, toy_state(tmp_path, space)).next_plan().proposed_by == "tpe"


# ----------------------------------------------------------------------------------------------------------- grid

GRID = {"optim.lr": [0.02, 0.01], "model.layers": [3, 2], "likelihood.mixtures": [5]}


def test_a_grid_is_tried_in_its_order_and_ends_the_search(tmp_path: Path) -> None:
    """With three trials at a time, of which some fail, and a launch for each."""
    space = toy_space(sampler="grid", grid=GRID, scheduler=None, budget=Budget(trials=50))
    tried, base = [], space.base_suggestion()
    while True:
        state = toy_state(tmp_path, space)
        if nothing_left(space, state):
            break
        searcher = OptunaSearcher(space, state)
        plans = [plan for plan in (searcher.next_plan() for _ in range(3)) if plan is not None]
        tried += [plan.suggestion for plan in plans if plan.attempt == 1]
        for plan in plans:
            if plan.number % 3 == 2 and plan.attempt == 1:
                play(state, plan, crash="E: x")
            else:
                finish(state, plan)
    assert tried == [base, *(each for each in space.grid_configurations() if each != base)]
    assert nothing_left(space, state) == "all 8 configurations of the grid are tried"
    assert OptunaSearcher(space, state).next_plan() is None
    assert space.most_trials == 8


def test_another_grid_is_another_search(tmp_path: Path) -> None:
    plain = {"base": BASE, "sampler": "grid", "scheduler": None}
    state, _ = opened(tmp_path, toy_space(**plain, grid=GRID))
    finish(state, OptunaSearcher(state.space, state).next_plan())
    with pytest.raises(StoreError, match=r"grid: likelihood.mixtures 5; model.layers 2, 3; .* here, .* 3, 2; "):
        opened(tmp_path, toy_space(**plain, grid=GRID | {"model.layers": [2, 3]}))
    opened(tmp_path, toy_space(**plain, grid=GRID))


# ------------------------------------------------------------------------------------------------------------ qmc


def test_a_trial_takes_the_point_of_its_number(tmp_path: Path) -> None:
    """Whatever has ended, how and in what order, and which trials run: also of a resumed search."""
    space = toy_space(sampler="qmc", scheduler=None)
    calm = toy_state(tmp_path / "a", space)
    searcher = OptunaSearcher(space, calm)
    expected = [searcher.next_plan().suggestion for _ in range(12)]
    for number in range(0, 12, 4):
        state = toy_state(tmp_path / "b", space)
        searcher = OptunaSearcher(space, state)
        plans = [searcher.next_plan() for _ in range(4)]
        assert [plan.suggestion for plan in plans] == expected[number : number + 4]
        for plan in reversed(plans):
            status = ("pruned", "finished", "diverged", "oom")[plan.number % 4]
            state.store.write_trial(settle(state, plan, status, 2.0 if plan.number % 4 < 2 else None))


def test_the_points_cover_the_space_evenly(tmp_path: Path) -> None:
    """Each aligned block of 16 points has one in every sixteenth of each range; random points do not."""
    vary = {
        "optim.lr": FloatDistribution(0.001, 0.1, log=True),
        "optim.ema": FloatDistribution(0.0, 0.9),
        "model.channels": CategoricalDistribution((8, 16, 24, 32)),
        "model.layers": IntDistribution(1, 8),
    }
    space = toy_space(sampler="qmc", vary=vary, scheduler=None, budget=Budget(trials=40))
    searcher = OptunaSearcher(space, toy_state(tmp_path, space))
    block = [searcher.next_plan().suggestion for _ in range(32)][16:]
    rates = [16 * math.log(each["optim.lr"] / 0.001) / math.log(100) for each in block]
    assert sorted(map(int, rates)) == list(range(16))
    assert sorted(int(16 * each["optim.ema"] / 0.9) for each in block) == list(range(16))
    assert statistics.multimode(each["model.channels"] for each in block) != [8]
    assert {sum(each["model.channels"] == channels for each in block) for channels in (8, 16, 24, 32)} == {4}
    assert {sum(each["model.layers"] == layers for each in block) for layers in range(1, 9)} == {2}


def test_another_seed_has_other_points(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        space = toy_space(sampler="qmc", seed=seed, scheduler=None)
        searcher = OptunaSearcher(space, toy_state(tmp_path / str(seed), space))
        found.append([searcher.next_plan().suggestion for _ in range(3)][1:])
    assert found[0] != found[1]


# --------------------------------------------------------------------------------------------------------- priors


def search_line(folder: Path, seed: int, prior: dict[str, Any], trials: int = 40) -> list[float]:
    """Return the losses of a search whose best learning rate is 0.01, of a range of three decades, in their order."""
    vary = {"optim.lr": FloatDistribution(1e-4, 1e-1, log=True), "optim.ema": FloatDistribution(0.0, 0.9)}
    base = toy_config().override({"optim.lr": 1e-4})
    space = toy_space(base=base, vary=vary, scheduler=None, seed=seed, prior=prior, budget=Budget(trials=trials))
    state = toy_state(folder, space)
    searcher, losses = OptunaSearcher(space, state), []
    for _ in range(trials):
        plan = searcher.next_plan()
        keys = plan.suggestion
        losses.append(math.log10(keys["optim.lr"] / 0.01) ** 2 + (keys["optim.ema"] - 0.45) ** 2)
        settle(state, plan, "finished", 1 + losses[-1])
    return losses


def until(losses: list[float], goal: float) -> int:
    return next((number for number, loss in enumerate(losses, 1) if loss <= goal), len(losses) + 1)


def test_a_good_prior_finds_the_optimum_sooner_and_a_misleading_one_is_overcome(tmp_path: Path) -> None:
    priors = {"none": {}, "good": {"optim.lr": LogNormal(0.01, 1.5)}, "bad": {"optim.lr": LogNormal(3e-4, 1.5)}}
    runs = {
        name: [search_line(tmp_path / f"{name}{seed}", seed, prior) for seed in range(9)]
        for name, prior in priors.items()
    }
    trials = {name: statistics.median(until(losses, 0.01) for losses in each) for name, each in runs.items()}
    assert trials["good"] <= trials["none"] - 3, trials
    best = {name: statistics.median(min(losses) for losses in each) for name, each in runs.items()}
    assert best["bad"] <= 0.05, best
    early = statistics.median(min(losses[:8]) for losses in runs["bad"])
    assert early >= 0.5, "the prior misled at first"


def test_a_prior_fades_with_the_number_of_results() -> None:
    prior = _KeyPrior(LogNormal(0.01, 2.0, confidence=20), VARY["optim.lr"])
    values = np.array([0.01, 0.02, 0.04])
    at_first = prior.log_weights(values, 20)
    density = np.exp(-np.array([0.0, 1.0, 4.0]) / 2) / math.log(2) / math.sqrt(2 * math.pi)
    assert at_first == pytest.approx(np.log(0.9 * density + 0.1 / math.log(1e3)), abs=1e-3)
    assert prior.log_weights(values, 200) == pytest.approx(at_first / 10)
    choices = _KeyPrior(ChoiceWeights({"categorical": 1, "logistic_mixture": 4}), VARY["likelihood.name"])
    assert choices.log_weights(np.array([0.0, 1.0]), 10) == pytest.approx(np.log([0.9 * 0.2 + 0.05, 0.9 * 0.8 + 0.05]))


def test_the_acquisition_is_weighted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Optuna's TPE the method is not public: a version that does not call it would ignore the prior."""
    called = []
    weigh = _PriorTPE._compute_acquisition_func
    monkeypatch.setattr(
        _PriorTPE, "_compute_acquisition_func", lambda self, *args: called.append(1) or weigh(self, *args)
    )
    search_line(tmp_path, 0, {"optim.lr": LogNormal(0.01, 1.5)}, trials=16)
    assert len(called) >= 16 - 10


def test_while_there_are_few_results_values_are_drawn_from_the_prior() -> None:
    rng = np.random.default_rng(0)
    layers = _KeyPrior(Normal(5, 0.75), IntDistribution(2, 6))
    drawn = [layers.draw(rng) for _ in range(400)]
    assert all(type(value) is int and 2 <= value <= 6 for value in drawn)
    assert statistics.median(drawn) == 5
    rates = [_KeyPrior(LogNormal(0.01, 2.0), VARY["optim.lr"]).draw(rng) for _ in range(400)]
    assert 0.6 <= statistics.mean(0.005 <= rate <= 0.02 for rate in rates) <= 0.76
    stepped = [_KeyPrior(Normal(0.2, 0.1), FloatDistribution(0.0, 0.4, step=0.1)).draw(rng) for _ in range(100)]
    assert {round(value, 6) for value in stepped} == {0.0, 0.1, 0.2, 0.3, 0.4}
    weights = ChoiceWeights({"categorical": 1, "logistic_mixture": 4})
    chosen = [_KeyPrior(weights, VARY["likelihood.name"]).draw(rng) for _ in range(400)]
    assert 0.7 <= chosen.count("logistic_mixture") / 400 <= 0.9


PRIOR = {
    "optim.lr": LogNormal(0.02, 2),
    "model.layers": Normal(4, 1),
    "likelihood.name": ChoiceWeights({"categorical": 1, "logistic_mixture": 3}),
    "likelihood.mixtures": Normal(3, 1),
}


@pytest.mark.parametrize("objectives", [("valid_bits_per_dim",), ("valid_bits_per_dim", "num_parameters")], ids=len)
@pytest.mark.parametrize("ended", [2, 14])
def test_a_resumed_search_with_priors_proposes_the_same(
    tmp_path: Path, objectives: tuple[str, ...], ended: int
) -> None:
    """In the start-up and beyond it, with keys that only some trials have, and with trials under way."""
    space = toy_space(prior=PRIOR, objectives=objectives, scheduler=None)
    state = toy_state(tmp_path, space)
    live = OptunaSearcher(space, state)
    plans = [live.next_plan() for _ in range(ended + 2)]
    for plan in plans[:ended]:
        settle(state, plan, "finished", 2 + 0.1 * plan.suggestion["model.layers"], num_parameters=plan.number)
    for row in state.ended.values():
        state.store.write_trial(row)
    for plan in plans[ended:]:
        state.start(plan, state.space.resources)
    resumed = OptunaSearcher(space, toy_state(tmp_path, space))
    assert [resumed.next_plan().trial for _ in range(2)] == [plan.trial for plan in plans[ended:]]
    assert [resumed.next_plan(), resumed.next_plan()] == [live.next_plan(), live.next_plan()]


def test_another_prior_is_another_search(tmp_path: Path) -> None:
    state, _ = opened(tmp_path, toy_space(base=BASE, scheduler=None, prior=PRIOR))
    finish(state, OptunaSearcher(state.space, state).next_plan())
    with pytest.raises(StoreError, match=r"prior: none here, .*optim.lr LogNormal\(0.02, 2\) in the results"):
        opened(tmp_path, toy_space(base=BASE, scheduler=None))
    opened(tmp_path, toy_space(base=BASE, scheduler=None, prior=dict(reversed(PRIOR.items()))))


def test_a_search_of_an_older_version_has_none_of_these(tmp_path: Path) -> None:
    """Its search.json has no such entries, and its rows no `proposed_by`."""
    space = toy_space(base=BASE, scheduler=None)
    manifest = json.loads(SearchManifest.of(space, "later").to_json())
    old = {name: value for name, value in manifest.items() if name not in ("first", "grid", "prior")}
    read = SearchManifest.from_json(digest.seal_json({k: v for k, v in old.items() if k != digest.KEY}))
    assert read.difference(SearchManifest.of(space, "later")) == []
    assert (read.first, read.grid, read.prior) == ((), {}, {})
