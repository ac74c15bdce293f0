"""Every sampler by name: it runs, learns, resumes and is told of bad ends in a way that it can read. Figures measured.

No Ray and no training: the ends of trials are made up.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pixeltune.errors import ConfigError, MissingPackageError
from pixeltune.packages import install_command
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.space import SAMPLERS, Budget, Pareto, SearchSpace
from tests.support.toy_search import VARY, sampler_params, seen, settle, toy_config, toy_space, toy_state

every_sampler = pytest.mark.parametrize("sampler", sampler_params())
few_seeds = pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
LEARNERS = tuple(name for name, kind in SAMPLERS.items() if kind.learns)
SPEED = "sample_images_per_second"


def mixed_space(sampler: str, **changes: Any) -> SearchSpace:
    """A choice, a key that only some trials have, a whole number, and a number on a logarithmic scale."""
    return toy_space(**({"sampler": sampler, "scheduler": None, "budget": Budget(trials=16)} | changes))


def line(sampler: str, seed: int = 0, **changes: Any) -> SearchSpace:
    """Two numbers, of which the learning rate decides."""
    vary = {"optim.lr": FloatDistribution(0.001, 0.1), "optim.ema": FloatDistribution(0.0, 0.9)}
    base = toy_config().override({"optim.lr": 0.03})
    plain = {"base": base, "vary": vary, "sampler": sampler, "seed": seed, "scheduler": None}
    return toy_space(**(plain | {"budget": Budget(trials=60)} | changes))


def loss(plan: TrialPlan) -> float:
    """Lowest at 4 layers and a learning rate of 0.01."""
    keys = plan.suggestion
    mixture = 0.0 if keys["likelihood.name"] == "logistic_mixture" else 0.3
    return 2 + mixture + 0.1 * abs(keys["model.layers"] - 4) + 0.2 * abs(math.log10(keys["optim.lr"]) + 2)


# ------------------------------------------------------------------------------------------------------ it runs


@every_sampler
@pytest.mark.parametrize("objectives", [("valid_bits_per_dim",), ("valid_bits_per_dim", SPEED)], ids=len)
def test_it_runs_with_three_workers_and_every_end(tmp_path: Path, sampler: str, objectives: tuple[str, ...]) -> None:
    if len(objectives) > 1 and not SAMPLERS[sampler].several:
        pytest.skip("one objective only")
    space = mixed_space(sampler, objectives=objectives)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    ends = ["finished", "finished", "diverged", "finished", "oom", "finished", "failed", "finished", "rejected"]
    running = [searcher.next_plan() for _ in range(3)]
    for number in range(rounds := 9 if sampler == "gp" else 18):
        plan = running.pop(0)
        end = ends[number % len(ends)]
        settle(state, plan, end, loss(plan) if end == "finished" else None, **{SPEED: 5.0 if number % 5 else None})
        running.append(searcher.next_plan())
        assert running[-1].config == space.configure(running[-1].suggestion)
        assert ("likelihood.mixtures" in running[-1].suggestion) == (
            running[-1].suggestion["likelihood.name"] == "logistic_mixture"
        )
    assert {plan.number for plan in running} == {rounds, rounds + 1, rounds + 2}
    assert isinstance(running[-1].suggestion["model.layers"], int)


@every_sampler
def test_free_workers_get_different_trials(tmp_path: Path, sampler: str) -> None:
    """Also of the samplers that do not read what is under way, and also where few configurations are left."""
    vary: dict[str, BaseDistribution] = {"model.layers": IntDistribution(1, 4), "train.precision": _precisions()}
    space = mixed_space(sampler, vary=vary)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for _ in range(4):
        plan = searcher.next_plan()
        settle(state, plan, "finished", 2 + 0.1 * plan.suggestion["model.layers"])
    known = [*(space.suggestion_of(row) for row in state.ended.values())]
    known += [searcher.next_plan().suggestion for _ in range(4)]
    assert len({str(suggestion) for suggestion in known}) == 8 == 4 * 2
    assert searcher.next_plan() is None
    assert searcher.is_exhausted


def _precisions() -> CategoricalDistribution:
    return CategoricalDistribution(("auto", "float32"))


# ----------------------------------------------------------------------------------------------------- it resumes


@every_sampler
@pytest.mark.parametrize("objectives", [("valid_bits_per_dim",), ("valid_bits_per_dim", SPEED)], ids=len)
def test_a_resumed_search_proposes_what_the_uninterrupted_one_does(
    tmp_path: Path, sampler: str, objectives: tuple[str, ...]
) -> None:
    """Beyond the sampler's start-up and its first generations, with trials under way that the resumed one finds too."""
    if len(objectives) > 1 and not SAMPLERS[sampler].several:
        pytest.skip("one objective only")
    space = mixed_space(sampler, objectives=objectives)
    state = toy_state(tmp_path, space)
    live = OptunaSearcher(space, state)
    plans = [live.next_plan() for _ in range(16)]
    for plan in plans[:14]:
        end = "diverged" if plan.number % 5 == 4 else "finished"
        settle(state, plan, end, loss(plan) if end == "finished" else None, **{SPEED: plan.number})
    for row in state.ended.values():
        state.store.write_trial(row)
    for plan in plans[14:]:
        state.start(plan, state.space.resources)
    again = toy_state(tmp_path, space)
    resumed = OptunaSearcher(space, again)
    assert [seen(trial) for trial in resumed.study().get_trials()] == [
        seen(trial) for trial in live.study().get_trials()
    ]
    assert [resumed.next_plan().trial for _ in range(2)] == ["00014", "00015"]
    proposals = [live.next_plan(), live.next_plan()]
    assert [resumed.next_plan(), resumed.next_plan()] == proposals


# ------------------------------------------------------------------------------------------------------ it learns


@few_seeds
@pytest.mark.parametrize("sampler", sampler_params(LEARNERS))
def test_it_learns_though_every_trial_is_a_resumption(tmp_path: Path, sampler: str, count: int) -> None:
    """Optuna's own CMA-ES and NSGA-II, given rows of finished trials, begin anew: they end no better than random."""

    def last_losses(name: str, seed: int) -> float:
        space = line(name, seed, budget=Budget(trials=48))
        state = toy_state(tmp_path / f"{name}{seed}", space)
        values = []
        for _ in range(48 if sampler != "gp" else 24):
            plan = OptunaSearcher(space, state).next_plan()
            keys = plan.suggestion
            values.append((10 * keys["optim.lr"] - 0.8) ** 2 + (keys["optim.ema"] - 0.7) ** 2)
            settle(state, plan, "finished", 1 + values[-1])
        return sum(values[-8:]) / 8

    seeds = range(count // 2 if sampler == "gp" else count)
    learnt, random = (sum(last_losses(name, seed) for seed in seeds) / len(seeds) for name in (sampler, "random"))
    assert learnt < (0.7 if sampler == "nsga2" else 0.4) * random, (learnt, random)


@pytest.mark.needs("cmaes")
@pytest.mark.parametrize("distribution", [FloatDistribution(0.01, 0.03), IntDistribution(1, 30, log=True)], ids=str)
def test_cmaes_can_search_one_number(tmp_path: Path, distribution: BaseDistribution) -> None:
    key = "optim.lr" if isinstance(distribution, FloatDistribution) else "model.layers"
    space = mixed_space("cmaes", vary={key: distribution, "model.channels": CategoricalDistribution((8,))})
    state = toy_state(tmp_path, space)
    for _ in range(20):
        plan = OptunaSearcher(space, state).next_plan()
        settle(state, plan, "finished", 1 + abs(math.log(plan.suggestion[key]) - math.log(distribution.high)))
    tried = [row[key] for row in state.ended.values()]
    assert statistics.median(tried[-8:]) > math.sqrt(distribution.low * distribution.high)
    assert all(distribution.low <= value <= distribution.high for value in tried)


# -------------------------------------------------------------------------------------------------- bad regions


def bad_share(folder: Path, sampler: str, end: str, seed: int) -> float:
    """Of the proposals after 12 trials, those in the half where no trial gets through; the best lies beside it."""
    space = line(sampler, seed)
    state = toy_state(folder, space)
    searcher = OptunaSearcher(space, state)
    bad, trials = 0, 26 if sampler == "gp" else 52
    for number in range(trials):
        plan = searcher.next_plan()
        lr = plan.suggestion["optim.lr"]
        bad += lr > 0.05 and number >= 12
        settle(state, plan, *((end,) if lr > 0.05 else ("finished", 3 - 20 * lr)))
    return bad / (trials - 12)


def each_with_one_end() -> list[Any]:
    """Return each sampler with each end that gives no number; the second one of each is slow."""
    pairs = []
    for number, param in enumerate(sampler_params(LEARNERS)):
        for end in ("diverged", "oom"):
            marks = [] if (end == "oom") == (number % 2 == 1) else [pytest.mark.slow]
            pairs.append(pytest.param(*param.values, end, marks=[*param.marks, *marks]))
    return pairs


@pytest.mark.parametrize(("sampler", "end"), each_with_one_end())
def test_it_leaves_a_region_where_nothing_gets_through(tmp_path: Path, sampler: str, end: str) -> None:
    """Of 40 proposals those in the bad half, mean of 10 seeds (gp: 3), where random has 19.2:

    |       | told so | told as FAIL |
    | tpe   |    15.7 |         36.5 |
    | gp    |     3.0 |         35.7 |
    | cmaes |     9.4 |         13.2 |
    | nsga2 |    14.1 |         13.7 |

    Of NSGA-II's proposals half have a number mutated to anywhere, half of which are bad: it cannot do better than 10.
    """
    seeds = range(1 if sampler == "gp" else 4)
    told_truly = [bad_share(tmp_path / f"a{seed}", sampler, end, seed) for seed in seeds]
    most = {"tpe": 0.45, "gp": 0.2, "cmaes": 0.3, "nsga2": 0.4}[sampler]
    assert statistics.mean(told_truly) <= most, told_truly
    if sampler in ("tpe", "gp") and end == "diverged":
        as_failed = [bad_share(tmp_path / f"b{seed}", sampler, "failed", seed) for seed in seeds]
        assert sum(told_truly) <= 0.6 * sum(as_failed), (told_truly, as_failed)


@few_seeds
@pytest.mark.parametrize("sampler", sampler_params(LEARNERS))
def test_it_keeps_to_constraints_where_the_best_values_break_them(tmp_path: Path, sampler: str, count: int) -> None:
    """The larger the learning rate, the better and the larger the model; half of the space is out of bounds.

    Measured shares of proposals out of bounds, with the constraint and without: tpe 0.38 and 0.93, gp 0.14 and 1,
    cmaes 0.25 and 0.95, nsga2 0.36 and 0.63.
    """

    def share_out_of_bounds(constraints: dict[str, float], seed: int) -> float:
        space = line(sampler, seed, constraints=constraints)
        state = toy_state(tmp_path / f"{len(constraints)}{seed}", space)
        searcher, rates = OptunaSearcher(space, state), []
        for _ in range(26 if sampler == "gp" else 52):
            plan = searcher.next_plan()
            rates.append(plan.suggestion["optim.lr"])
            settle(state, plan, "finished", 3 - 20 * rates[-1], num_parameters=int(10_000 * rates[-1]))
        return statistics.mean(rate > 0.05 for rate in rates[12:])

    seeds = range(1 if sampler == "gp" else count)
    bounded = statistics.mean(share_out_of_bounds({"num_parameters": 500}, seed) for seed in seeds)
    free = statistics.mean(share_out_of_bounds({}, seed) for seed in seeds)
    assert bounded < 0.6 * free, (bounded, free)


@pytest.mark.parametrize("sampler", sampler_params(name for name, kind in SAMPLERS.items() if kind.several))
def test_stopped_trials_of_several_objectives_do_not_stop_the_search(tmp_path: Path, sampler: str) -> None:
    """Told with their curves, the next proposal of TPE would raise."""
    objectives = ("valid_bits_per_dim", "num_parameters", "gpu_seconds")
    space = mixed_space(sampler, objectives=objectives, scheduler=Pareto((100, 200), 0.1))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for number in range(12):
        plan = searcher.next_plan()
        end = "pruned" if number % 3 else "finished"
        settle(state, plan, end, loss(plan), num_parameters=plan.suggestion["model.layers"])
    study = searcher.study()
    states = {trial.state for trial in study.get_trials()}
    assert states == {TrialState.COMPLETE} | ({TrialState.PRUNED} if SAMPLERS[sampler].sees_all else set())
    assert not any(trial.intermediate_values for trial in study.get_trials())
    assert searcher.next_plan().number == 12


def test_what_a_stopped_trial_would_have_cost_is_told(tmp_path: Path) -> None:
    """Its seconds so far would make the trial that was stopped first the cheapest."""
    space = mixed_space("nsga2", objectives=("valid_bits_per_dim", "train_seconds", SPEED))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    rows = [settle(state, searcher.next_plan(), "finished", 2.0, **{SPEED: 9.0})]
    rows += [settle(state, searcher.next_plan(), "pruned", 2.5)]
    rows[1] |= {"images_seen": 100, "train_seconds": 1.5}
    assert [trial.values for trial in searcher.study().get_trials()] == [[2.0, 4.0, 9.0], [2.5, 6.0, 9.0]]
    rows[1]["train.stop_after"] = 200  # it would have ended in the middle of its schedule
    assert searcher.study().get_trials()[1].values == [2.5, 3.0, 9.0]


def test_random_knows_of_no_region(tmp_path: Path) -> None:
    bad = [bad_share(tmp_path / str(seed), "random", "diverged", seed) for seed in range(5)]
    assert 0.4 <= statistics.mean(bad) <= 0.6


@pytest.mark.parametrize("sampler", sampler_params(name for name in SAMPLERS if not SAMPLERS[name].sees_all))
def test_one_that_reads_finished_trials_alone_is_told_values(tmp_path: Path, sampler: str) -> None:
    space = mixed_space(sampler)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    ends = [("diverged", None), ("finished", 2.0), ("pruned", 2.75), ("finished", 1.5), ("oom", None), ("failed", None)]
    settle(state, searcher.next_plan(), *ends[0])
    assert searcher.study().get_trials()[0].state is TrialState.FAIL, "nothing to be worse than"
    for end in ends[1:]:
        settle(state, searcher.next_plan(), *end)
    trials = searcher.study().get_trials()
    assert [trial.values for trial in trials] == [[3.375], [2.0], [2.75], [1.5], [3.375], None]
    assert not any(trial.constraints or trial.intermediate_values for trial in trials)


# -------------------------------------------------------------------------------------------------- what it cannot


@pytest.mark.parametrize(("sampler", "package"), [("cmaes", "cmaes"), ("gp", "scipy")])
def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))
    space = mixed_space(sampler)
    with pytest.raises(MissingPackageError) as caught:
        OptunaSearcher(space, toy_state(tmp_path, space)).study()
    assert f"the sampler {sampler} needs " in str(caught.value)
    assert f"{package} is not installed; {install_command([package])}" in str(caught.value)


def test_several_objectives_are_refused_where_optuna_refuses_them() -> None:
    for sampler, kind in SAMPLERS.items():
        objectives = ("valid_bits_per_dim", "num_parameters")
        if kind.several:
            mixed_space(sampler, objectives=objectives)
            continue
        with pytest.raises(ConfigError, match=r"one objective, but got .*; take tpe, gp, nsga2, random, qmc, grid"):
            mixed_space(sampler, objectives=objectives)


def test_a_space_of_which_a_sampler_would_learn_nothing_is_refused() -> None:
    choices = {"likelihood.name": VARY["likelihood.name"], "likelihood.mixtures": VARY["likelihood.mixtures"]}
    for sampler in ("tpe", "random", "gp", "nsga2"):
        mixed_space(sampler, vary=choices)
    with pytest.raises(ConfigError, match="the sampler cmaes must have a key of numbers that every trial has, but got"):
        mixed_space("cmaes", vary=choices)


def test_the_keys_that_a_sampler_learns() -> None:
    learnt = {sampler: set(mixed_space(sampler).learnt_keys()) for sampler in SAMPLERS}
    numbers = {"model.layers", "optim.lr"}
    assert learnt == {
        "tpe": set(VARY),
        "random": set(VARY),
        "qmc": set(VARY),
        "grid": set(VARY),
        "gp": numbers | {"likelihood.name"},
        "nsga2": numbers | {"likelihood.name"},
        "cmaes": numbers,
    }
