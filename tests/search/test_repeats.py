"""Repeats of promising trials: which are planned, what the sampler sees, and that a resumed search plans the same."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pixeltune.errors import ConfigError, StoreError
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import best_row, leaderboard
from pixeltune.results.repeats import merge_repeats
from pixeltune.results.schema import Status
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.pruners import pruner_for
from pixeltune.search.run import nothing_left, open_search
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.search.trial import state_file, weights_file
from pixeltune.space import Asha, Budget, Resources, SearchSpace
from tests.support.toy_search import (
    BEGUN,
    FINISHED,
    ended,
    play,
    reported,
    sampler_params,
    seen,
    settle,
    toy_config,
    toy_space,
    toy_state,
)


def space_of(repeats: int = 3, **changes: Any) -> SearchSpace:
    return toy_space(**({"repeats": repeats, "scheduler": None, "budget": Budget(trials=40)} | changes))


def finish(state: SearchState, plan: TrialPlan | None, bits: float, **facts: Any) -> dict[str, Any]:
    assert plan is not None
    return play(state, plan, BEGUN, reported(400, bits), FINISHED | {"facts": facts})


def origin(plan: TrialPlan | None) -> tuple[str | None, int]:
    assert plan is not None
    return plan.repeat_of, plan.config.seed


# ------------------------------------------------------------------------------------------------ which are planned


def test_a_trial_that_would_be_the_best_is_repeated_with_the_next_seeds(tmp_path: Path) -> None:
    space = space_of()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    base = searcher.next_plan()
    finish(state, base, 2.0)
    plans = [searcher.next_plan() for _ in range(3)]
    assert [origin(plan) for plan in plans] == [("00000", 6), ("00000", 7), (None, 5)]
    assert [plan.proposed_by for plan in plans if plan] == ["repeat", "repeat", "tpe"]
    assert [plan.suggestion for plan in plans[:2] if plan] == [space.base_suggestion()] * 2
    rows = [finish(state, plan, bits) for plan, bits in zip(plans, (2.2, 2.4, 2.3), strict=True)]
    assert [(row["trial"], row["repeat_of"], row["seed"], row["repeats"]) for row in rows] == [
        ("00001", "00000", 6, 3),
        ("00002", "00000", 7, 3),
        ("00003", None, 5, 3),
    ]
    assert origin(searcher.next_plan()) == (None, 5), "2.3 is worse than the mean 2.2"


def test_one_that_loses_its_lead_after_a_repeat_gets_no_further_one(tmp_path: Path) -> None:
    """And the one that leads then is repeated, before it is compared as the best."""
    space = space_of()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan(), searcher.next_plan()]
    finish(state, plans[0], 2.0)
    finish(state, plans[1], 2.1)
    finish(state, searcher.next_plan(), 2.6)  # the base: 2.3 in the mean
    assert origin(searcher.next_plan()) == ("00001", 6)
    assert [row["seeds"] for row in merge_repeats(state.ended.values())] == [2, 1]


def test_a_worse_trial_is_not_repeated(tmp_path: Path) -> None:
    space = space_of(2)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for bits in (2.0, 2.0, 2.5, 2.4):
        finish(state, searcher.next_plan(), bits)
    assert [row["repeat_of"] for row in state.ended.values()] == [None, "00000", None, None]
    assert origin(searcher.next_plan()) == (None, 5)


def test_a_contender_does_not_count_as_the_best_until_its_seeds_have_ended(tmp_path: Path) -> None:
    space = space_of(2, budget=Budget(trials=40, target=1.9))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for bits in (2.0, 2.2, 1.8):
        finish(state, searcher.next_plan(), bits)

    def board() -> list[tuple[Any, ...]]:
        places = leaderboard(state.ended.values())
        return [(place["rank"], place["trial"], place["seeds"], place["seeds_left"]) for place in places]

    assert board() == [(1, "00000", 2, 0), (None, "00002", 1, 1)]
    best = state.best()
    assert best is not None
    assert (best["trial"], best["valid_bits_per_dim"]) == ("00000", pytest.approx(2.1))
    assert best["valid_bits_per_dim_error"] == pytest.approx(math.sqrt(0.02) / math.sqrt(2))
    assert state.at_target() is None
    repeat = searcher.next_plan()
    assert origin(repeat) == ("00002", 6)
    state.start(repeat, Resources())  # type: ignore[arg-type]
    assert board() == [(1, "00000", 2, 0), (None, "00002", 1, 1)]
    finish_running(state, repeat, 1.9)
    assert board() == [(1, "00002", 2, 0), (2, "00000", 2, 0)]
    assert nothing_left(space, state) == (
        "trial 00002 reached the target, with valid_bits_per_dim 1.85 (mean of 2 seeds) for 1.9"
    )


def finish_running(state: SearchState, plan: TrialPlan | None, bits: float) -> None:
    assert plan is not None
    for message in (BEGUN, reported(400, bits), FINISHED):
        state.receive(plan.trial, message)  # type: ignore[arg-type]
    state.finish(plan.trial)


@pytest.mark.parametrize("end", ["failed", "oom", "stopped"])
def test_a_repeat_without_a_number_leaves_one_seed_less(tmp_path: Path, end: str) -> None:
    space = space_of()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    finish(state, searcher.next_plan(), 2.2)
    plan = searcher.next_plan()
    assert plan is not None
    play(state, plan, BEGUN, ended(end))
    [row] = merge_repeats(state.ended.values())
    assert (row["status"], row["seeds"], row["seeds_left"]) == ("finished", 2, 0)
    assert row["valid_bits_per_dim"] == pytest.approx(2.1)
    assert origin(searcher.next_plan()) == (None, 5), "it is not tried again with another seed"


@pytest.mark.parametrize("end", ["failed", "stopped"])
def test_one_number_alone_does_not_count_as_the_best(tmp_path: Path, end: str) -> None:
    """Then another configuration is repeated, and the search goes on."""
    space = space_of(2, budget=Budget(trials=40, patience=4))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    plan = searcher.next_plan()
    assert plan is not None
    play(state, plan, BEGUN, ended(end))
    assert origin(searcher.next_plan())[0] is None
    assert [row["seeds_left"] for row in merge_repeats(state.ended.values())] == [1]
    other = searcher.next_plan()
    finish(state, other, 2.5)
    repeat = searcher.next_plan()
    assert other is not None
    assert origin(repeat) == (other.trial, 6)
    finish(state, repeat, 2.5)
    places = [(place["rank"], place["trial"]) for place in leaderboard(state.ended.values())]
    assert places == [(1, other.trial), (None, "00000")]
    assert nothing_left(space, state) is None


@pytest.mark.parametrize("end", ["diverged", "rejected"])
def test_a_repeat_that_diverges_takes_its_configuration_with_it(tmp_path: Path, end: str) -> None:
    space = space_of()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    plan = searcher.next_plan()
    assert plan is not None
    play(state, plan, BEGUN, ended(end, "a NaN"))
    [row] = merge_repeats(state.ended.values())
    assert (row["status"], row["reason"]) == (end, "with seed 6 (trial 00001): a NaN")
    assert best_row(state.ended.values(), "bits_per_dim") is None
    assert origin(searcher.next_plan()) == (None, 5)


def test_a_repeat_beyond_a_constraint_puts_its_configuration_out_of_bounds(tmp_path: Path) -> None:
    space = space_of(2, constraints={"peak_memory_bytes": 5000})
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    plan = searcher.next_plan()
    assert plan is not None
    row = play(state, plan, BEGUN, reported(100, 2.0) | {"facts": {"peak_memory_bytes": 6000}}, FINISHED)
    assert row["status"] == Status.PRUNED
    [place] = leaderboard(state.ended.values(), constraints=space.constraints)
    assert (place["rank"], place["out_of_bounds"]) == (None, "peak_memory_bytes 6,000 above 5,000")
    assert origin(searcher.next_plan()) == (None, 5)


def test_a_repeat_whose_bits_a_code_refutes_refutes_its_configuration(tmp_path: Path) -> None:
    space = space_of(2)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0, bits_verified=True)
    finish(state, searcher.next_plan(), 2.0, bits_verified=False, bits_unverified_reason="a byte more")
    [place] = leaderboard(state.ended.values())
    assert (place["rank"], place["bits_verified"]) == (None, False)


def test_repeats_are_not_stopped_early_and_stop_no_other(tmp_path: Path) -> None:
    """A configuration counts once at a rung, with its first seed."""
    space = space_of(scheduler=Asha((100, 200), reduction=2))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    first = searcher.next_plan()
    assert first is not None
    play(state, first, BEGUN, reported(100, 2.0), reported(200, 2.0), reported(400, 1.0), FINISHED)
    for _ in range(2):
        repeat = searcher.next_plan()
        assert repeat is not None
        row = play(state, repeat, BEGUN, reported(100, 9.0), reported(200, 9.0), reported(400, 1.0), FINISHED)
        assert (row["repeat_of"], row["status"]) == ("00000", "finished")
    for again in (state, toy_state(tmp_path, space)):
        assert again._pruner._values == {100: {"00000": 2.0}, 200: {"00000": 2.0}}  # type: ignore[attr-defined]


def test_several_objectives_repeat_each_trial_that_no_other_beats(tmp_path: Path) -> None:
    space = space_of(2, objectives=("valid_bits_per_dim", "num_parameters"))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan() for _ in range(3)]
    for plan, bits, size in zip(plans, (2.0, 1.9, 2.1), (7, 8, 9), strict=True):
        finish(state, plan, bits, num_parameters=size)
    repeats = [searcher.next_plan(), searcher.next_plan()]
    assert [origin(plan)[0] for plan in repeats] == ["00001", "00000"]
    assert origin(searcher.next_plan())[0] is None, "2.1 with 9 is beaten"
    for plan, size in zip(repeats, (8, 7), strict=True):
        finish(state, plan, 2.0, num_parameters=size)
    values = [(trial.values, trial.user_attrs["seeds"]) for trial in study(state.store.folder).best_trials]
    assert values == [([2.0, 7.0], 2), ([1.95, 8.0], 2)]


# --------------------------------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("sampler", sampler_params())
def test_the_sampler_sees_one_trial_a_configuration_with_the_mean(tmp_path: Path, sampler: str) -> None:
    space = space_of(sampler=sampler)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    repeats = [searcher.next_plan(), searcher.next_plan()]
    state.start(repeats[0], Resources())  # type: ignore[arg-type]
    waiting = [(trial.state, trial.values) for trial in searcher.study().get_trials()]
    assert waiting == [(TrialState.COMPLETE, [2.0])], "a repeat that runs is no point of its own"
    finish_running(state, repeats[0], 2.4)
    assert [trial.values for trial in searcher.study().get_trials()] == [[pytest.approx(2.2)]]


@pytest.mark.parametrize("sampler", ["qmc", "random", "grid"])
def test_samplers_that_do_not_learn_propose_what_they_would_without_repeats(tmp_path: Path, sampler: str) -> None:
    proposals = []
    for repeats in (1, 3):
        space = space_of(repeats, sampler=sampler)
        state = toy_state(tmp_path / str(repeats), space)
        searcher = OptunaSearcher(space, state)
        own: list[Any] = []
        for bits in itertools.count(30, -1):
            plan = searcher.next_plan()
            assert plan is not None
            own += [plan.suggestion] if plan.repeat_of is None else []
            if len(own) == 6:
                break
            finish(state, plan, bits / 10)
        proposals.append(own)
    assert proposals[0] == proposals[1]


def test_a_finite_space_ends_after_the_repeats_of_its_best(tmp_path: Path) -> None:
    """Also where the sampler was asked while the last of its configurations still ran."""
    vary = {"model.layers": IntDistribution(2, 3)}
    space = space_of(2, vary=vary)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan(), searcher.next_plan()]
    assert searcher.next_plan() is None
    assert searcher.is_exhausted
    finish(state, plans[0], 2.0)
    assert not searcher.is_exhausted
    finish(state, plans[1], 1.5)
    assert nothing_left(space, state) is None
    finish(state, searcher.next_plan(), 1.6)
    assert nothing_left(space, state) == "all 2 configurations of the space are tried"
    assert searcher.is_exhausted
    assert space.most_trials == 4


def test_patience_waits_for_the_repeats_of_the_best(tmp_path: Path) -> None:
    space = space_of(2, budget=Budget(trials=40, patience=2))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan() for _ in range(3)]
    for plan, bits in zip(plans, (2.0, 2.1, 2.2), strict=True):
        finish(state, plan, bits)
    assert state.without_improvement() == 2
    assert nothing_left(space, state) is None
    finish(state, searcher.next_plan(), 2.0)
    assert nothing_left(space, state) == "valid_bits_per_dim did not improve in 2 finished trials in a row"


def test_repeats_count_as_trials_of_the_budget(tmp_path: Path) -> None:
    space = space_of(3, budget=Budget(trials=3))
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for _ in range(3):
        finish(state, searcher.next_plan(), 2.0)
    assert nothing_left(space, state) == "all 3 trials are done"
    assert state.spent_images() == 1200


def test_weights_are_kept_of_first_trials_and_of_contenders(tmp_path: Path) -> None:
    space = space_of(2, keep=1, keep_states=1)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    retention = CheckpointRetention(state)

    def kept(bits: float) -> list[str]:
        plan = searcher.next_plan()
        assert plan is not None
        folder = Path(state.store.checkpoint(plan.trial))
        folder.mkdir(parents=True)
        for file in (weights_file(str(folder)), state_file(str(folder))):
            Path(file).write_bytes(b"x")
        finish(state, plan, bits)
        retention.tidy()
        folders = sorted(Path(state.store.checkpoints).iterdir())
        assert all(len(list(each.iterdir())) == 2 for each in folders)
        return [each.name for each in folders]

    assert kept(2.0) == ["00000"]
    assert kept(2.2) == ["00000"]
    assert kept(1.8) == ["00000", "00002"], "it may become the best"
    assert kept(2.6) == ["00000"], "2.2 in the mean"


# ------------------------------------------------------------------------------------------------------ resumption


def planned(state: SearchState, steps: int, *, launches: bool, folder: Path, sampler: str) -> list[tuple[Any, ...]]:
    """Play a search of two trials at a time; with launches, a new one after every event."""
    space = state.space
    searcher = OptunaSearcher(space, state)
    running: list[TrialPlan] = []
    found: list[tuple[Any, ...]] = []
    for step in range(steps):
        if launches:
            state = toy_state(folder, space)
            searcher = OptunaSearcher(space, state)
            running = []
            for _ in state.plans_to_resume():
                resumed = searcher.next_plan()
                assert resumed is not None
                state.start(resumed, space.resources)
                running.append(resumed)
        while len(running) < 2:
            plan = searcher.next_plan()
            assert plan is not None
            found.append((plan.number, plan.repeat_of, plan.config.seed, plan.suggestion, plan.proposed_by))
            state.start(plan, space.resources)
            running.append(plan)
        running.sort(key=lambda plan: plan.number)
        done = running.pop(step % 2)
        bits = 3 + math.sin(17 * done.number)  # the same in every launch
        end = ended("diverged") if done.number % 7 == 6 else FINISHED
        for message in (BEGUN, reported(400, bits), end):
            state.receive(done.trial, message)  # type: ignore[arg-type]
        state.finish(done.trial)
    return found


@pytest.mark.parametrize("sampler", sampler_params())
def test_a_resumed_search_plans_what_an_uninterrupted_one_does(tmp_path: Path, sampler: str) -> None:
    """With a launch that dies after every end of a trial, while another one runs."""
    space = space_of(sampler=sampler)
    found = [
        planned(toy_state(tmp_path / name, space), 14, launches=launches, folder=tmp_path / name, sampler=sampler)
        for name, launches in (("whole", False), ("cut", True))
    ]
    assert found[0] == found[1]
    assert sum(repeat_of is not None for _, repeat_of, *_ in found[0]) >= 3


def test_an_interrupted_repeat_is_resumed_with_its_seed(tmp_path: Path) -> None:
    space = space_of()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    finish(state, searcher.next_plan(), 2.0)
    repeat = searcher.next_plan()
    assert repeat is not None
    play(state, repeat, BEGUN, reported(100, 2.5))
    state = toy_state(tmp_path, space)
    again = OptunaSearcher(space, state).next_plan()
    assert again == repeat.next_attempt()
    assert [seen(trial)[0] for trial in OptunaSearcher(space, state).study().get_trials()] == [TrialState.COMPLETE]


def test_a_lost_first_trial_leaves_its_repeats_together(tmp_path: Path) -> None:
    """And its number is not given to another configuration."""
    space = space_of(3)
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for bits in (2.0, 2.2, 2.4):
        finish(state, searcher.next_plan(), bits)
    for table in ("trials", "curves"):
        (Path(state.store.folder) / table / "00000-1.parquet").unlink()
    state = toy_state(tmp_path, space)
    [row] = merge_repeats(state.ended.values())
    assert (row["trial"], row["seeds"], row["seeds_left"]) == ("00001", 2, 1)
    assert row["valid_bits_per_dim"] == pytest.approx(2.3)
    plan = OptunaSearcher(space, state).next_plan()
    assert plan is not None
    assert (plan.number, *origin(plan)) == (3, "00000", 5), "the seed that is missing"


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        (0, "repeats must be at least 1, .* but got 0"),
        (-2, "repeats must be at least 1"),
        ("three", "repeats must be a whole number, but got 'three'"),
        (2.0, "repeats must be a whole number, but got 2.0; write 2"),
        (True, "repeats must be a whole number"),
    ],
)
def test_bad_repeats_are_refused(repeats: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        toy_space(repeats=repeats)


def test_a_search_that_varies_its_seed_takes_no_repeats() -> None:
    vary = {"seed": IntDistribution(0, 9), "optim.lr": FloatDistribution(1e-4, 1e-1, log=True)}
    with pytest.raises(ConfigError, match=r"repeats must be 1 where vary has the seed, .* but got 2"):
        toy_space(vary=vary, repeats=2)
    assert toy_space(vary=vary).repeats == 1


def test_the_highest_seed_has_none_above_it() -> None:
    base = toy_config().override({"seed": 2**63 - 2})
    assert toy_space(base=base, repeats=2).repeats == 2
    with pytest.raises(ConfigError, match=r"every repeat needs a seed below 2\^63"):
        toy_space(base=base, repeats=3)


def test_other_repeats_are_another_search(tmp_path: Path) -> None:
    base = toy_config().override({"data.num_valid": 100})
    space = space_of(2, base=base)
    store, manifest = open_search(space, "one", str(tmp_path))
    state = SearchState(space, store, pruner=pruner_for(space))
    finish(state, OptunaSearcher(space, state).next_plan(), 2.0)
    assert manifest.repeats == 2
    with pytest.raises(StoreError, match="repeats: 3 here, 2 in the results"):
        open_search(space_of(3, base=base), "one", str(tmp_path))


# ------------------------------------------------------------------------------------------------------- merged rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.lists(st.floats(0.5, 9), min_size=1, max_size=4), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_merging_is_the_mean_of_each_configuration_in_any_order_of_rows(values: list[list[float]], order: Any) -> None:
    rows, number = [], 0
    for own in values:
        first = f"{number:05d}"
        for seed, bits in enumerate(own):
            row = {"search": "toy", "trial": f"{number:05d}", "number": number, "repeats": 4, "status": "finished"}
            rows.append(row | {"repeat_of": first if seed else None, "seed": seed, "valid_bits_per_dim": bits})
            number += 1
    order.shuffle(rows)
    merged = sorted(merge_repeats(rows), key=lambda row: row["trial"])
    assert [row["seeds"] for row in merged] == [len(own) for own in values]
    for row, own in zip(merged, values, strict=True):
        assert min(own) - 1e-9 <= row["valid_bits_per_dim"] <= max(own) + 1e-9
        assert row["valid_bits_per_dim"] == pytest.approx(sum(own) / len(own))
        assert (row["valid_bits_per_dim_error"] is None) == (len(own) == 1)
        assert row["seeds_left"] == 4 - len(own)
    assert merge_repeats(merged) == merged
    board = leaderboard([{"valid_bits_per_dim": None} | row for row in rows])
    whole = [sum(own) / len(own) for own in values if len(own) == 4]
    if whole:
        assert board[0]["valid_bits_per_dim"] == pytest.approx(min(whole))
        assert board[0]["rank"] == 1


def test_rows_without_repeats_stay_as_they_are(tmp_path: Path) -> None:
    space = toy_space()
    state = toy_state(tmp_path, space)
    searcher = OptunaSearcher(space, state)
    for bits in (2.0, 1.0):
        plan = searcher.next_plan()
        assert plan is not None
        settle(state, plan, "finished", bits)
    rows = list(state.ended.values())
    assert [id(row) for row in merge_repeats(rows)] == [id(row) for row in rows]
    assert "seeds" not in leaderboard(rows)[0]


def test_a_continued_trial_is_a_row_of_its_own() -> None:
    plain = {"search": "toy", "repeats": 2, "status": "finished"}
    rows = [
        plain | {"trial": "00000", "number": 0, "valid_bits_per_dim": 1.0, "continues_attempt": 1},
        plain | {"trial": "00001", "number": 1, "valid_bits_per_dim": 2.0, "repeat_of": "00000"},
    ]
    merged = merge_repeats(rows)
    assert len({tuple(place) for place in leaderboard(rows)}) == 1, "the columns of a file"
    assert [(row["trial"], row["valid_bits_per_dim"], row["seeds"], row["seeds_left"]) for row in merged] == [
        ("00000", 1.0, 1, 0),
        ("00001", 2.0, 1, 0),
    ]
