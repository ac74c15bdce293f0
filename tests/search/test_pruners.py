"""Asynchronous successive halving on sequences worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixeltune.search.pruners import AshaPruner, MedianPruner, ParetoPruner, Trace, pruner_for
from pixeltune.search.state import SearchState
from pixeltune.space import METRICS, Asha, Median, Pareto, Resources, SearchSpace
from tests.support.toy_search import BEGUN, FACTS, FINISHED, ended, play, reported, toy_space, toy_state


def at(values: dict[int, float]) -> Trace:
    return {images: (value,) for images, value in values.items()}


def test_the_better_half_of_those_seen_so_far_goes_on() -> None:
    rungs = AshaPruner(Asha((100,), reduction=2))
    # value → whether it goes on: rank among those seen so far, itself included, against ⌈seen / 2⌉
    sequence = [(2.0, True), (3.0, False), (2.5, True), (1.0, True), (2.2, True), (2.4, False), (0.5, True)]
    for number, (value, goes_on) in enumerate(sequence):
        assert (rungs.should_prune(str(number), at({100: value})) is None) is goes_on, (number, value)


def test_reduction_by_three() -> None:
    rungs = AshaPruner(Asha((100,), reduction=3))
    goes_on = [
        rungs.should_prune(str(n), at({100: value})) is None
        for n, value in enumerate([5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 3.2])
    ]
    # seen 1..7: 1, 1, 1, 2, 2, 2, 3 go on
    assert goes_on == [True, False, True, True, True, True, True]


def test_equal_values_share_a_rank() -> None:
    rungs = AshaPruner(Asha((100,)))
    assert [rungs.should_prune(name, at({100: 2.0})) for name in "abcd"] == [None] * 4


def test_only_rungs_judge_and_each_rung_for_itself() -> None:
    rungs = AshaPruner(Asha((100, 200)))
    assert rungs.should_prune("a", at({100: 1.0})) is None
    assert rungs.should_prune("b", at({100: 0.9})) is None
    assert rungs.should_prune("b", at({100: 0.9, 150: 99.0})) is None, "150 is no rung"
    assert rungs.should_prune("a", at({100: 1.0, 200: 0.8})) is None, "the first at the rung of 200"
    reason = rungs.should_prune("b", at({100: 0.9, 150: 0.88, 200: 0.85}))
    assert reason == "rank 2 of 2 at the rung of 200 images, where the best 1 go on"


def test_a_value_at_a_rung_is_the_best_so_far() -> None:
    rungs = AshaPruner(Asha((100, 200)))
    assert rungs.should_prune("a", at({100: 3.0, 200: 2.0})) is None
    assert rungs.should_prune("b", at({50: 9.0, 100: 1.9, 200: 5.0})) is None, "1.9 at 100 is its number"
    assert rungs.should_prune("c", at({100: 4.0, 200: 1.95, 300: 0.1})) is None, "300 is no rung"
    assert rungs.should_prune("d", at({100: 2.5, 200: 2.5})) is not None


def test_a_trial_that_comes_again_replaces_its_own_value() -> None:
    rungs = AshaPruner(Asha((100,)))
    rungs.remember("a", at({100: 1.0, 200: 0.1}))
    rungs.remember("b", at({50: 2.0}))
    assert rungs.should_prune("c", at({100: 1.5})) is not None, "2nd of 2"
    assert rungs.should_prune("a", at({100: 1.0})) is None, "still two values"
    assert rungs.should_prune("a", at({100: 9.0})) is not None, "now 2nd of 2"
    assert rungs.should_prune("c", at({100: 1.5})) is None


# --------------------------------------------------------------------------------------------------------- median


def test_worse_than_the_median_of_the_finished_ones_stops() -> None:
    rule = MedianPruner(Median(grace=200, completed=3))
    for name, last in zip("abc", (1.0, 1.5, 2.0), strict=True):
        rule.remember_finished(name, at({100: 3.0, 200: last, 300: last}))
    assert rule.should_prune("x", at({100: 9.0})) is None, "within the grace"
    assert rule.should_prune("x", at({100: 9.0, 200: 1.5})) is None, "as good as the median"
    assert rule.should_prune("x", at({100: 9.0, 200: 1.6})) == (
        "1.6000 at 200 images, above the median 1.5000 of 3 finished trials"
    )
    assert rule.should_prune("x", at({100: 1.4, 200: 1.6})) is None, "its best so far counts"
    assert rule.should_prune("x", at({400: 9.0})) is None, "no finished one came so far"


def test_only_finished_trials_are_the_measure() -> None:
    rule = MedianPruner(Median(completed=2))
    rule.remember_finished("a", at({100: 1.0}))
    rule.remember("b", at({100: 1.0}))
    assert rule.should_prune("x", at({100: 2.0})) is None
    rule.remember_finished("b", at({100: 1.0}))
    assert rule.should_prune("x", at({100: 2.0})) is not None
    assert rule.should_prune("a", at({100: 2.0})) is None, "its own curve is none of the others"
    rule.remember("b", {})
    assert rule.should_prune("x", at({100: 2.0})) is None


# --------------------------------------------------------------------------------------------------------- pareto

BITS, SPEED = "valid_bits_per_dim", "sample_images_per_second"


def front_of(*costs: str, margin: float = 0.1) -> ParetoPruner:
    return ParetoPruner(Pareto((100, 200), margin), (BITS, *costs))


def test_dominated_by_a_margin_stops_and_says_by_whom() -> None:
    front = front_of("num_parameters")
    assert front.should_prune("a", {100: (2.0, 50)}) is None
    assert front.should_prune("b", {100: (2.09, 50)}) is None, "within the margin"
    assert front.should_prune("c", {100: (2.5, 49)}) is None, "smaller"
    assert front.should_prune("d", {100: (1.0, 51)}) is None, "better"
    assert front.should_prune("e", {50: (9.0, 60), 100: (2.2, 60)}) == (
        "dominated at the rung of 100 images by trial a: valid_bits_per_dim 2.0000 against 2.2000, "
        "no worse in num_parameters"
    )
    assert front.should_prune("e", {100: (2.2, 60), 150: (9.0, 60)}) is None, "150 is no rung"


def test_what_is_maximised_is_worse_when_it_is_less() -> None:
    front = front_of(SPEED)
    front.remember("a", {100: (2.0, 10.0)})
    assert front.should_prune("b", {100: (2.5, 11.0)}) is None
    assert front.should_prune("c", {100: (2.5, 9.0)}) is not None


def test_what_is_not_known_neither_stops_nor_is_stopped() -> None:
    front = front_of("num_parameters", SPEED)
    front.remember("a", {100: (1.0, 1, None)})
    assert front.should_prune("b", {100: (2.0, 2, 1.0)}) is None
    front.remember("c", {100: (1.0, 1, 5.0)})
    assert front.should_prune("d", {100: (2.0, 2, None)}) is None
    assert front.should_prune("d", {100: (2.0, 2, 1.0)}) is not None


Point = tuple[float, int]


def toy_curves(seed: int, noise: float) -> list[tuple[dict[int, float], Point]]:
    """40 trials: bits at each rung and at the end, and parameters. Two change places by less than `noise`."""
    numbers = random.Random(seed)
    trials = []
    for _ in range(40):
        size = numbers.randrange(1, 30)
        bits = 1 + 3 / size + abs(numbers.gauss(0, 0.4))
        curve = {rung: bits + 100 / rung + numbers.uniform(-noise, noise) / 2 for rung in (100, 200)}
        trials.append((curve, (bits, size)))
    return trials


def is_on_front(point: Point, points: list[Point]) -> bool:
    return not any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)


@pytest.mark.parametrize("seed", range(20))
def test_no_trial_of_the_final_front_is_lost_and_many_others_are_stopped(seed: int) -> None:
    """Whatever the order in which trials come to the rungs. Measured: 45% to 65% of the trials stop, mean 55%."""
    trials = toy_curves(seed, noise=0.1)
    front = front_of("num_parameters", margin=0.1)
    stopped = set()
    for rung in (100, 200):
        order = [number for number in range(len(trials)) if number not in stopped]
        random.Random(seed).shuffle(order)
        for number in order:
            curve, (_, size) = trials[number]
            trace = {images: (bits, size) for images, bits in curve.items() if images <= rung}
            if front.should_prune(str(number), trace):
                stopped.add(number)
    points = [point for _, point in trials]
    assert not any(is_on_front(points[number], points) for number in stopped)
    assert len(stopped) >= 0.3 * len(trials)


def test_noise_beyond_the_margin_does_cost_trials_of_the_front() -> None:
    """The property above is one of the margin, and could fail."""
    lost = 0
    for seed in range(20):
        trials, front = toy_curves(seed, noise=1.0), front_of("num_parameters", margin=0.02)
        points = [point for _, point in trials]
        for number, (curve, point) in enumerate(trials):
            lost += bool(front.should_prune(str(number), {100: (curve[100], point[1])})) and is_on_front(point, points)
    assert lost > 0


# ------------------------------------------------------------------------------------------------------ resumption

COSTS = ("num_parameters", "gpu_seconds", "peak_memory_bytes")
SPACES: dict[str, dict[str, Any]] = {
    "asha": {"scheduler": Asha((100, 200))},
    "median": {"scheduler": Median(grace=200, completed=2)},
    "pareto": {"scheduler": Pareto((100, 200, 300), 0.2), "objectives": (BITS, *COSTS)},
    "bounded": {"scheduler": Asha((100, 200)), "constraints": {"peak_memory_bytes": 6000}},
}


def life(numbers: random.Random) -> Iterator[dict[str, Any]]:
    """A trial's messages. Some begin from a checkpoint that is gone, some diverge."""
    facts = FACTS | {"num_parameters": numbers.randrange(1, 9)}
    yield {"facts": facts, "resumed": []}
    quality = numbers.uniform(1, 2)
    for images in (100, 200, 300, 400):
        if numbers.random() < 0.05:
            yield ended("diverged")
            return
        message = reported(images, quality + 100 / images + numbers.gauss(0, 0.2))
        yield message | {"facts": {"peak_memory_bytes": numbers.randrange(1000, 8000)}}
    yield FINISHED


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPACES)
def test_a_resumed_judge_decides_as_the_uninterrupted_one(tmp_path: Path, name: str, seed: int) -> None:
    """At every report of trials side by side: once by the pruner that saw all, once by one made of the store."""
    space = toy_space(resources=Resources(gpus=1.0), **SPACES[name])
    state, numbers = toy_state(tmp_path, space), random.Random(seed)
    lives: dict[str, Iterator[dict[str, Any]]] = {}
    stopped = compared = 0
    while compared < 15 or not stopped:
        while len(lives) < 3:
            plan = state.plan({"model.layers": numbers.randrange(2, 7)})
            state.start(plan, state.space.resources)
            lives[plan.trial] = life(numbers)
        trial = numbers.choice(sorted(lives))
        message = next(lives[trial], None)
        if message is None:
            state.finish(trial)
            del lives[trial]
            continue
        is_compared = "report" in message and len(state.ended) > 3
        before = pruner_for(space)
        if is_compared:
            SearchState(space, state.store, pruner=before)
        reason = state.receive(trial, message)
        if is_compared:
            attempt = state.running[trial]
            again = before.should_prune(trial, state._trace(attempt.facts, attempt.reports))
            assert again == (None if str(attempt.end and attempt.end[1]).startswith("out of bounds") else reason)
            compared += 1
        if reason is not None:
            stopped += 1
            state.finish(trial)
            del lives[trial]


# ------------------------------------------------------------------------------------------------------ the space


def test_metrics_that_pareto_judges_by_are_known_at_a_rung(tmp_path: Path) -> None:
    """Each metric that can be an objective is in the trace; a speed from before training, where that is measured."""
    for metric in METRICS:
        if metric == BITS:
            continue
        space = toy_space(objectives=(BITS, metric), scheduler=Pareto((100,), 0.1), resources=Resources(gpus=1.0))
        state = toy_state(tmp_path / metric, space)
        plan = state.plan({})
        state.start(plan, state.space.resources)
        assert plan.to_task(state.space, state.store, state.space.resources).speed_first is (metric == SPEED)
        early = {SPEED: 3.0} if metric == SPEED else {}
        state.receive(plan.trial, {"facts": FACTS | {"network_calls": 64} | early, "resumed": []})
        message = reported(100, 2.0)
        state.receive(plan.trial, message)
        attempt = state.running[plan.trial]
        assert None not in state._trace(attempt.facts, attempt.reports)[100]


def test_a_dominated_trial_is_stopped_in_the_ledger(tmp_path: Path) -> None:
    space = toy_space(objectives=(BITS, "num_parameters"), scheduler=Pareto((100, 200), 0.1))
    state = toy_state(tmp_path, space)
    assert play(state, state.plan({}), BEGUN, reported(100, 2.0), reported(400, 1.5), FINISHED)["status"] == "finished"
    row = play(state, state.plan({}), BEGUN, reported(100, 2.5), reported(400, 1.0), FINISHED)
    assert (row["status"], row["images_seen"]) == ("pruned", 100)
    assert row["reason"].startswith("dominated at the rung of 100 images by trial 00000")


def test_one_that_did_not_get_through_is_no_measure(tmp_path: Path) -> None:
    space = toy_space(objectives=(BITS, "num_parameters"), scheduler=Pareto((100, 200), 0.1))
    state = toy_state(tmp_path, space)
    play(state, state.plan({}), BEGUN, reported(100, 1.0), ended("diverged"))
    row = play(state, state.plan({}), BEGUN, reported(100, 2.5), reported(400, 1.0), FINISHED)
    assert row["status"] == "finished"


def test_a_space_names_its_pruner() -> None:
    kinds = {name: type(pruner_for(toy_space(**changes))).__name__ for name, changes in SPACES.items()}
    assert kinds == {"asha": "AshaPruner", "median": "MedianPruner", "pareto": "ParetoPruner", "bounded": "AshaPruner"}
    assert type(pruner_for(toy_space(scheduler=None))).__name__ == "NopPruner"
    assert isinstance(toy_space(scheduler=None), SearchSpace)


# ------------------------------------------------------------------------------------------- decisions that were lost


def killed_at(state: SearchState, plan: Any, *messages: dict[str, Any]) -> str | None:
    """A trial whose launch dies at the last message: the report is in the store, the row still says `running`."""
    state.start(plan, state.space.resources)
    reasons = [state.receive(plan.trial, message) for message in messages]
    return reasons[-1]


@pytest.mark.parametrize("name", ["asha", "median", "pareto"])
def test_a_stop_that_was_lost_between_curve_and_row_is_decided_again(tmp_path: Path, name: str) -> None:
    space = toy_space(**SPACES[name])
    first = toy_state(tmp_path, space)
    for _ in range(2):
        play(first, first.plan({}), BEGUN, *(reported(images, 1.0) for images in (100, 200, 300, 400)), FINISHED)
    worse = {"facts": FACTS | {"num_parameters": 8}, "resumed": []}
    plan = first.plan({})
    why = killed_at(
        first, plan, worse, *(reported(images, 3.0) for images in ((100, 200) if name == "median" else (100,)))
    )
    assert why is not None
    later = first.plan({})  # what comes to the rung afterwards has no part in the decision
    killed_at(first, later, BEGUN, reported(100, 9.0))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}

    second = toy_state(tmp_path, space)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before, "to look changes nothing"
    assert plan.trial not in [each.trial for each in second.plans_to_resume()]
    assert second.ended[plan.trial]["reason"] == why
    second.write_lost_decisions()
    (row,) = [row for row in toy_state(tmp_path, space).store.attempts() if row["trial"] == plan.trial]
    assert (row["status"], row["reason"], row["attempt"]) == ("pruned", why, 1)
    assert (row["images_seen"], row["valid_bits_per_dim"], row["num_parameters"]) == (
        max(first.curves[plan.trial]),
        3.0,
        8,
    )
    assert row["finished_at"] is not None


def test_a_trial_that_was_let_through_is_not_stopped_by_what_came_later(tmp_path: Path) -> None:
    """The first at its rung goes on; a launch that dies then, and better trials of others meanwhile, change nothing."""
    space = toy_space()
    first = toy_state(tmp_path, space)
    plan = first.plan({})
    assert killed_at(first, plan, BEGUN, reported(100, 2.0)) is None
    for _ in range(4):
        play(first, first.plan({}), BEGUN, reported(100, 1.0), FINISHED)
    second = toy_state(tmp_path, space)
    assert [each.trial for each in second.plans_to_resume()] == [plan.trial]


def test_one_that_diverged_later_counted_when_the_stop_was_decided(tmp_path: Path) -> None:
    first = toy_state(tmp_path)
    better = first.plan({})
    killed_at(first, better, BEGUN, reported(100, 1.0))
    plan = first.plan({})
    assert killed_at(first, plan, BEGUN, reported(100, 2.0)) is not None
    first.receive(better.trial, ended("diverged"))
    first.finish(better.trial)
    assert toy_state(tmp_path).ended[plan.trial]["status"] == "pruned"
