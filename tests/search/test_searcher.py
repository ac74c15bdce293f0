"""What the sampler is told, now and after a resumption, and what it makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from pixeltune import files
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import leaderboard
from pixeltune.results.schema import Status
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.space import SAMPLERS, Budget, Resources, SearchSpace
from tests.support.toy_search import (
    BEGUN,
    FINISHED,
    ended,
    play,
    report,
    reported,
    sampler_params,
    seen,
    toy_config,
    toy_space,
    toy_state,
)

every_sampler = pytest.mark.parametrize("sampler", sampler_params())


def told(searcher: OptunaSearcher) -> list[tuple[Any, ...]]:
    """All that a sampler can see of a study."""
    return [seen(trial) for trial in searcher.study().get_trials(deepcopy=False)]


ENDS = [
    (reported(100, 2.0), reported(200, 1.5), reported(400, 1.6), FINISHED),
    (reported(100, 2.5), reported(200, 0.1), FINISHED),  # with ASHA pruned at 100
    (ended("diverged"),),
    (ended("oom"),),
    (reported(100, 1.75), reported(200, 1.8), reported(300, 0.1), FINISHED),  # with ASHA pruned at 200
    (ended("rejected"),),
]


def play_some(folder: Path, space: SearchSpace) -> tuple[SearchState, OptunaSearcher]:
    state = toy_state(folder, space)
    searcher = OptunaSearcher(space, state)
    for messages in ENDS:
        play(state, searcher.next_plan(), BEGUN, *messages)
    play(state, searcher.next_plan(), crash="E: x")
    return state, searcher


def test_the_base_is_trial_0_and_then_keys_follow_their_conditions(tmp_path: Path) -> None:
    space = toy_space()
    searcher = OptunaSearcher(space, toy_state(tmp_path, space))
    plans = [searcher.next_plan() for _ in range(12)]
    assert [plan.number for plan in plans] == list(range(12))
    assert plans[0].config == space.base
    assert plans[0].suggestion == space.base_suggestion()
    mixed = [plan for plan in plans if "likelihood.mixtures" in plan.suggestion]
    assert {plan.suggestion["likelihood.name"] for plan in mixed} == {"logistic_mixture"}
    plain = [plan for plan in plans if "likelihood.mixtures" not in plan.suggestion]
    assert {plan.suggestion["likelihood.name"] for plan in plain} == {"categorical"}
    assert len(mixed) > 1
    for plan in plans:
        assert plan.config == space.configure(plan.suggestion)


def test_every_end_is_told_as_what_it_was(tmp_path: Path) -> None:
    _state, searcher = play_some(tmp_path, toy_space())
    trials = searcher.study().get_trials(deepcopy=False)
    states = [trial.state for trial in trials]
    pruned, fail = TrialState.PRUNED, TrialState.FAIL
    assert states == [TrialState.COMPLETE, pruned, pruned, pruned, pruned, fail, fail]
    assert trials[0].values == [1.5]
    assert trials[1].intermediate_values == {100: 2.5}
    assert trials[4].intermediate_values == {100: 1.75, 200: 1.75}, "the best so far at each"
    assert [bool(trial.constraints) for trial in trials] == [False, False, True, True, False, False, False]
    assert searcher.study().best_value == 1.5


def test_a_stopped_trial_is_pending_until_it_was_resumed(tmp_path: Path) -> None:
    space = toy_space()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    play(state, searcher.next_plan(), BEGUN, reported(100, 1.0))
    resumed = OptunaSearcher(space, toy_state(tmp_path, space))
    for one in (searcher, resumed):
        assert [trial.state for trial in one.study().get_trials()] == [TrialState.RUNNING]


@every_sampler
def test_a_resumed_study_sees_what_the_live_one_did(tmp_path: Path, sampler: str) -> None:
    space = toy_space(sampler=sampler)
    _state, live = play_some(tmp_path, space)
    resumed = OptunaSearcher(space, toy_state(tmp_path, space))
    assert told(resumed) == told(live)


def test_several_objectives_resume_too(tmp_path: Path) -> None:
    space = toy_space(objectives=("valid_bits_per_dim", "num_parameters"), scheduler=None)
    state, live = play_some(tmp_path, space)
    resumed = OptunaSearcher(space, toy_state(tmp_path, space))
    assert told(resumed) == told(live)
    for _ in range(12):  # beyond the sampler's own start-up
        play(state, resumed.next_plan(), ended("diverged"))
        play(state, resumed.next_plan(), BEGUN, reported(400, 2.0), FINISHED)


SPEED = "sample_images_per_second"


def finished_at(images_per_second: float) -> dict[str, Any]:
    return FINISHED | {"facts": {SPEED: images_per_second, "sample_batch_size": 16}}


def test_of_two_that_are_as_good_the_faster_one_stands_in_front(tmp_path: Path) -> None:
    space = toy_space(objectives=("valid_bits_per_dim", SPEED), scheduler=None)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for bits, speed in [(2.0, 10.0), (2.0, 30.0), (1.5, 20.0), (1.4, 5.0), (1.9, 1.0)]:
        play(state, searcher.next_plan(), BEGUN, reported(400, bits), finished_at(speed))
    front = [(2.0, 30.0), (1.5, 20.0), (1.4, 5.0)]
    assert [tuple(trial.values) for trial in searcher.study().best_trials] == front
    assert [tuple(trial.values) for trial in study(state.store.folder).best_trials] == front


def samplers_and_speed() -> list[Any]:
    """Return each sampler with speed as its only objective, and as the second.

    Slow are the first where both can be, and the Gaussian process.
    """
    pairs = []
    for param in sampler_params():
        several = SAMPLERS[str(param.values[0])].several
        is_slow = param.values[0] == "gp" or (several and param.values[0] != "tpe")
        alone = [pytest.mark.slow] if is_slow else []
        pairs.append(pytest.param(*param.values, (SPEED,), marks=[*param.marks, *alone]))
        if several:
            pairs.append(pytest.param(*param.values, ("valid_bits_per_dim", SPEED), marks=param.marks))
    return pairs


@pytest.mark.parametrize(("sampler", "objectives"), samplers_and_speed())
def test_no_end_without_a_speed_stops_a_search_for_it(
    tmp_path: Path, sampler: str, objectives: tuple[str, ...]
) -> None:
    """Only a finished trial has one, and not even each of them; asked beyond the sampler's start-up, and resumed."""
    space = toy_space(objectives=objectives, scheduler=None, sampler=sampler)
    state = toy_state(tmp_path, space)
    live = OptunaSearcher(space, state)
    endings = [finished_at(10.0), FINISHED, *(ended(word) for word in ("diverged", "oom", "failed", "rejected"))]
    for number in range(4 * len(endings)):
        play(state, live.next_plan(), BEGUN, reported(400, 2.0), endings[number % len(endings)])
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    pruned = TrialState.PRUNED if SAMPLERS[sampler].sees_all else TrialState.COMPLETE
    states = [trial.state for trial in live.study().get_trials(deepcopy=False)]
    assert states == 4 * [complete, fail, pruned, pruned, fail, fail]
    resumed = OptunaSearcher(space, toy_state(tmp_path, space))
    assert told(resumed) == told(live)
    resumed.next_plan()
    assert study(state.store.folder).directions == live.study().directions


def test_tpe_looks_for_fast_models_where_that_is_all_it_is_told(tmp_path: Path) -> None:
    """The larger the learning rate, the faster: a study that minimised would go to the other end."""
    space = replace(toy_line(), objectives=(SPEED,))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    rates = []
    for _ in range(40):
        plan = searcher.next_plan()
        rates.append(plan.suggestion["optim.lr"])
        play(state, plan, BEGUN, reported(400, 2.0), finished_at(1000 * rates[-1]))
    assert sum(rate > 0.05 for rate in rates[-20:]) >= 15
    best = leaderboard(state.ended.values(), SPEED, top=1)[0]
    assert best[SPEED] == 1000 * max(rates)


@every_sampler
@pytest.mark.parametrize("with_ends", [True, False])
def test_a_resumed_search_does_not_repeat_itself(tmp_path: Path, sampler: str, with_ends: bool) -> None:
    """Also where no trial had ended: the sampler of each launch starts at another seed."""
    space = toy_space(sampler=sampler)
    proposed: list[tuple[Any, ...]] = []
    for launch in range(4):
        state = toy_state(tmp_path, space)
        searcher = OptunaSearcher(space, state)
        for _ in range(len(state.plans_to_resume())):
            play(state, searcher.next_plan())
        for _ in range(3):
            plan = searcher.next_plan()
            proposed.append(tuple(plan.suggestion.values()))
            messages = (BEGUN, reported(100, 2.0 - 0.1 * launch), FINISHED) if with_ends else (BEGUN,)
            play(state, plan, *messages)
    assert len(proposed) == len(set(proposed)) == 12


def test_trials_to_resume_come_first_and_under_their_own_names(tmp_path: Path) -> None:
    space = toy_space()
    state, searcher = play_some(tmp_path, space)
    stopped = [searcher.next_plan(), searcher.next_plan()]
    for plan in stopped:
        play(state, plan, BEGUN)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    again = [searcher.next_plan(), searcher.next_plan()]
    assert again == [plan.next_attempt() for plan in stopped]
    params = [trial.params for trial in searcher.study().get_trials() if trial.state == TrialState.RUNNING]
    assert params == [plan.suggestion for plan in stopped]
    fresh = searcher.next_plan()
    assert (fresh.number, fresh.attempt) == (len(ENDS) + 3, 1)
    play(state, again[1], BEGUN, reported(100, 1.0), FINISHED)
    assert len([trial for trial in searcher.study().get_trials() if trial.state == TrialState.RUNNING]) == 2


def toy_line(sampler: str = "tpe") -> SearchSpace:
    """One learning rate: the larger the better, until training diverges."""
    vary = {"optim.lr": FloatDistribution(0.001, 0.1), "optim.ema": FloatDistribution(0.0, 0.9)}
    base = toy_config().override({"optim.lr": 0.03})
    return toy_space(base=base, vary=vary, sampler=sampler, scheduler=None, budget=Budget(trials=60))


def test_a_trial_that_never_began_is_planned_again_as_what_it_was(tmp_path: Path) -> None:
    """Two began at once, the second one first, and the launch was killed between."""
    space = toy_space(scheduler=None)
    first = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, first)
    never, second = searcher.next_plan(), searcher.next_plan()
    play(first, second, BEGUN, reported(400, 2.0), FINISHED)
    state = toy_state(tmp_path, space)
    again = OptunaSearcher(space, state)
    assert again.next_plan() == never
    assert [again.next_plan().number for _ in range(2)] == [2, 3]


def test_a_long_search_resumes_without_a_read_or_a_proposal_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count, for 80 rows, the files that are read again and the proposals that are made."""
    space = toy_space(budget=Budget(trials=100))
    state = toy_state(tmp_path, space)
    random = OptunaSearcher(toy_space(sampler="random"), state)
    for number in range(80):
        plan = random.next_plan()
        row = state._row(_live(state, plan, 2 + math.sin(number)), Status.PRUNED, "rank")
        state.ended[plan.trial] = row
        state.curves[plan.trial] = {100: 2.5, 200: row["valid_bits_per_dim"]}
    reads, asked = [], []
    read_whole, ask = files.read_whole, optuna.Study.ask
    monkeypatch.setattr(files, "read_whole", lambda location: reads.append(location) or read_whole(location))
    monkeypatch.setattr(optuna.Study, "ask", lambda *args, **kwargs: asked.append(1) or ask(*args, **kwargs))
    searcher = OptunaSearcher(space, state)
    searcher.next_plan()
    assert len(searcher.study().get_trials(deepcopy=False)) == 81
    assert len(reads) < 5
    assert len(asked) == 1


def _live(state: SearchState, plan: TrialPlan, bits: float) -> Any:
    from datetime import UTC, datetime

    from pixeltune.search.attempt import RunningAttempt

    return RunningAttempt(plan, state.space.resources, datetime.now(UTC), reports={200: report(200, bits)})


def test_out_of_memory_on_a_shared_gpu_counts_when_it_was_met_alone_too(tmp_path: Path) -> None:
    space = toy_space(resources=Resources(gpus=0.5))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    play(state, searcher.next_plan(), ended("oom"))
    assert searcher.study().get_trials()[0].state == TrialState.RUNNING
    alone = OptunaSearcher(space, state, waiting=state.plans_to_retry_exclusively())
    play(state, alone.next_plan(), ended("oom"), resources=Resources(gpus=1.0))
    (trial,) = alone.study().get_trials()
    assert (trial.state, bool(trial.constraints)) == (TrialState.PRUNED, True)
