"""The target, the patience and the dollars of a budget, in searches without Ray: resumed as uninterrupted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from pixeltune.errors import ConfigError
from pixeltune.results.search_status import eta_seconds, left_words, read_status
from pixeltune.search import attempt
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.run import Stop, nothing_left, open_search, run_search
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.space import Budget, FinalSpace, Resources, SearchSpace
from tests.support.imitated_machines import ImitatedMachines
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_config, toy_space, toy_state

VALUES = (3.0, 2.8, 2.9, 2.85, 2.5, 2.6, 2.45, 2.7, 2.4, 2.3)


def space_of(**budget: Any) -> SearchSpace:
    return toy_space(
        vary={"optim.lr": FloatDistribution(1e-4, 1e-1)},
        scheduler=None,
        sampler="random",
        budget=Budget(**({"trials": len(VALUES)} | budget)),
    )


def launch(folder: Path, space: SearchSpace, most: int = 99, resources: Resources | None = None) -> str | None:
    """Run at most this many trials of a search; why it ended, or None."""
    state = toy_state(folder, space)
    searcher, stop = OptunaSearcher(space, state), Stop(space, state)
    for _ in range(most):
        if stop.due() or nothing_left(space, state):
            break
        plan = searcher.next_plan()
        assert plan is not None
        bits = VALUES[plan.number]
        end = ended("failed", str(bits)) if bits == 2.85 else FINISHED
        play(state, plan, BEGUN, reported(400, bits), end, resources=resources)
    return stop.reason or nothing_left(space, state)


BUDGETS = [
    (Budget(trials=10, target=2.8), 2, "trial 00001 reached the target, with valid_bits_per_dim 2.8 for 2.8"),
    (Budget(trials=10, target=2.45), 7, "trial 00006 reached the target, with valid_bits_per_dim 2.45 for 2.45"),
    (Budget(trials=10, target=0.1), 10, "all 10 trials are done"),
    (Budget(trials=10, patience=1), 3, "valid_bits_per_dim did not improve in 1 finished trial in a row"),
    (Budget(trials=10, patience=2), 10, "all 10 trials are done"),
    (
        Budget(trials=10, patience=3, min_delta=0.3),
        8,
        "valid_bits_per_dim did not improve by 0.3 or more in 3 finished trials in a row",
    ),
]


@pytest.mark.parametrize(("budget", "trials", "reason"), BUDGETS, ids=str)
@pytest.mark.parametrize("most", [99, 1, 3])
def test_a_search_ends_alike_in_one_launch_and_in_many(
    tmp_path: Path, budget: Budget, trials: int, reason: str, most: int
) -> None:
    space = toy_space(vary=space_of().vary, scheduler=None, sampler="random", budget=budget)
    for _ in range(len(VALUES)):
        launch(tmp_path, space, most)
    state = toy_state(tmp_path, space)
    assert (len(state.ended), nothing_left(space, state)) == (trials, reason)
    assert Stop(space, state).due() == (trials < 10)


def test_a_raised_limit_goes_on(tmp_path: Path) -> None:
    assert launch(tmp_path, space_of(target=2.8)) is not None
    assert launch(tmp_path, space_of(target=2.8), most=0) is not None
    launch(tmp_path, space_of(target=2.5))
    assert len(toy_state(tmp_path, space_of()).ended) == 5
    launch(tmp_path, space_of(patience=2, min_delta=0.2))
    assert len(toy_state(tmp_path, space_of()).ended) == 7
    assert launch(tmp_path, space_of()) == "all 10 trials are done"


def test_a_trial_that_runs_does_not_reach_the_target(tmp_path: Path) -> None:
    """Its bits are confirmed by a code only at its end."""
    space = space_of(target=2.0)
    state = toy_state(tmp_path, space)
    plan = state.plan({"optim.lr": 0.01})
    state.start(plan, space.resources)
    for message in (BEGUN, reported(400, 1.0)):
        state.receive(plan.trial, message)
    assert not Stop(space, state).due()
    state.receive(plan.trial, FINISHED | {"facts": {"bits_verified": False}})
    state.finish(plan.trial)
    assert not Stop(space, state).due()


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"target": -2.95}, "budget.target must be above 0, as every objective is, but got -2.95"),
        ({"target": 0.0}, "budget.target must be above 0"),
        ({"target": float("nan")}, "budget.target must be above 0"),
        ({"target": float("inf")}, "budget.target must be finite"),
        ({"target": "low"}, "budget.target must be a number"),
        ({"target": True}, "budget.target must be a number"),
        ({"patience": 0}, "budget.patience must be above 0"),
        ({"patience": 2.0}, "budget.patience must be a whole number, but got 2.0; write 2"),
        ({"patience": 2, "min_delta": -0.1}, "budget.min_delta must be a finite number of at least 0"),
        ({"patience": 2, "min_delta": float("nan")}, "budget.min_delta must be a finite number of at least 0"),
        ({"patience": 2, "min_delta": float("inf")}, "budget.min_delta must be a finite number of at least 0"),
        ({"patience": 2, "min_delta": None}, "budget.min_delta must be a number"),
        ({"min_delta": 0.1}, "budget.min_delta needs budget.patience"),
        ({"dollars": 0}, "budget.dollars must be above 0"),
        ({"dollars": float("inf")}, "budget.dollars must be finite"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(budget: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        Budget(**budget)


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf"), "0.5"], ids=str)
def test_prices_that_cannot_be_are_refused(price: Any) -> None:
    with pytest.raises(ConfigError, match=r"^resources\.dollars_per_hour must be a"):
        Resources(dollars_per_hour=price)


@pytest.mark.parametrize("budget", [Budget(target=2.0), Budget(patience=2)], ids=str)
def test_a_final_has_no_target(budget: Budget) -> None:
    """It would end by the test set."""
    with pytest.raises(ConfigError, match="a final must run all its trials"):
        FinalSpace(base=toy_config(), objectives=("test_bits_per_dim",), budget=budget, configs=(), origins=())


class Clock:
    """A clock that moves by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = attempt.now()
        monkeypatch.setattr("pixeltune.search.attempt.now", lambda: self.now)

    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)


def run_for(state: SearchState, hours: float, clock: Clock, price: float | None, *, finish: bool = True) -> None:
    plan = next(iter(state.plans_to_resume()), None) or state.plan({"optim.lr": 0.01})
    state.start(plan, Resources(workers=2, gpus=1.0, dollars_per_hour=price))
    state.receive(plan.trial, BEGUN)
    clock.wait(hours)
    state.receive(plan.trial, reported(400, 2.0))
    if finish:
        state.receive(plan.trial, FINISHED)
        state.finish(plan.trial)


def test_dollars_are_those_of_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at the price of its time; a launch that died counts until its last report."""
    clock, space = Clock(monkeypatch), space_of(dollars=9.0)
    run_for(toy_state(tmp_path, space), 2.0, clock, price=1.5, finish=False)
    clock.wait(50.0)
    state = toy_state(tmp_path, space)
    assert state.spent_dollars() == pytest.approx(3.0)
    assert nothing_left(space, state) is None
    run_for(state, 1.0, clock, price=4.0)
    rows = state.store.attempts()
    assert [(row["status"], row["dollars_per_hour"]) for row in rows] == [("interrupted", 1.5), ("finished", 4.0)]
    assert [row["dollars"] for row in rows] == pytest.approx([3.0, 7.0])
    run_for(state, 2.0, clock, price=1.0)
    for again in (state, toy_state(tmp_path, space)):
        assert again.spent_dollars() == pytest.approx(9.0)
        assert nothing_left(space, again) == "the budget of $9.00 is spent"
    assert nothing_left(space_of(dollars=9.5), state) is None
    assert read_status(state.store).dollars == pytest.approx(9.0)


def test_a_trial_without_a_price_has_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, space = Clock(monkeypatch), space_of()
    state = toy_state(tmp_path, space)
    run_for(state, 2.0, clock, price=None)
    run_for(state, 1.0, clock, price=0.0)
    assert [row["dollars"] for row in state.store.trials()] == [None, 0.0]
    assert state.trials_without_price() == ["00000"]
    assert read_status(state.store).dollars == 0.0


def test_a_running_trial_costs_until_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, space = Clock(monkeypatch), space_of(dollars=10.0)
    state = toy_state(tmp_path, space)
    state.store.write_launch({"budget": {"dollars": 10.0}})
    run_for(state, 1.0, clock, price=2.0, finish=False)
    clock.wait(1.5)
    assert state.spent_dollars() == pytest.approx(5.0)
    with state.store.lock():
        status = read_status(state.store, now=clock.now)
    assert (status.dollars, status.left["dollars"]) == (pytest.approx(5.0), pytest.approx(5.0))
    assert left_words(status.left) == ["$5.00"]
    given = {"concurrent": 1, "scheduler": None, "now": clock.now}
    assert eta_seconds(state.store.trials(), {}, {}, left={"dollars": 5.0}, **given) == pytest.approx(2.5 * 3600)


def searched(folder: Path, space: SearchSpace, machines: ImitatedMachines | None = None) -> Any:
    store, manifest = open_search(space, "toy", str(folder))
    machines = machines or ImitatedMachines()
    return run_search(space, store, manifest, backend=machines, callback=SearchCallback())


def real_space(**changes: Any) -> SearchSpace:
    return toy_space(base=toy_config().override({"data.num_valid": 100}), scheduler=None, **changes)


def test_the_status_says_why_a_search_has_ended(tmp_path: Path) -> None:
    """Also of one that has ended before: it starts nothing, and a new limit replaces the old one."""
    space = real_space(budget=Budget(trials=2), resources=Resources(gpus=1.0))
    outcome = searched(tmp_path, space)
    assert read_status(outcome.state.store).ended == outcome.reason == "all 2 trials are done"
    machines = ImitatedMachines()
    aimed = real_space(budget=Budget(trials=9, target=2.5), resources=Resources(gpus=1.0))
    again = searched(tmp_path, aimed, machines)
    assert machines.rounds == []
    assert again.reason == "trial 00000 reached the target, with valid_bits_per_dim 2 for 2.5"
    status = read_status(again.state.store)
    assert status.ended == again.reason
    assert status.target is not None
    assert (status.target.value, status.target.reached_by) == (2.5, "00000")


def test_dollars_without_a_price_are_refused(tmp_path: Path) -> None:
    machines = ImitatedMachines()
    with pytest.raises(ConfigError, match=r"budget\.dollars needs the price of a trial, but it is not known; set reso"):
        searched(tmp_path, real_space(budget=Budget(trials=2, dollars=1.0)), machines)
    assert machines.rounds == []
    assert not (tmp_path / "toy" / "launch.json").exists()


def test_a_whole_gpu_costs_as_much_more() -> None:
    assert Resources(gpus=0.25, dollars_per_hour=0.5).with_whole_gpu() == Resources(gpus=1.0, dollars_per_hour=2.0)
    assert Resources(gpus=0.25).with_whole_gpu() == Resources(gpus=1.0)
