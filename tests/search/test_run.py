"""When a search has nothing left, what it refuses, and what stays of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.errors import ConfigError, StoreError
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.run import (
    Stop,
    nothing_left,
    open_search,
    require_buildable,
    require_same_data,
    run_search,
)
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import WITHOUT_RESULT, SearchState
from pixeltune.search.trial import state_file, weights_file
from pixeltune.space import Budget, Resources, SearchSpace
from tests.support.imitated_machines import ImitatedMachines
from tests.support.toy_search import (
    BEGUN,
    FACTS,
    FINISHED,
    ended,
    play,
    reported,
    sampler_params,
    toy_config,
    toy_space,
    toy_state,
)


def two_trials(folder: Path, **changes: Any) -> SearchState:
    state = toy_state(folder, toy_space(scheduler=None, **changes))
    play(state, state.plan({}), BEGUN, reported(400, 2.0), FINISHED)
    play(state, state.plan({}), BEGUN, reported(200, 2.0))  # interrupted
    return state


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(trials=2), None),
        (Budget(trials=1), "the only trial is done"),
        (Budget(trials=9, images=600), "the budget of 600 images is spent"),
        (Budget(trials=9, images=601), None),
        (Budget(trials=9, gpu_hours=1e-9), "the budget of 1e-09 GPU-hours is spent"),
        (Budget(trials=9, gpu_hours=0.01), None),
        (Budget(trials=9, hours=0.1), None),
    ],
)
def test_nothing_left(tmp_path: Path, budget: Budget, reason: str | None) -> None:
    """Counted over both trials, also by a later launch that has not begun with the interrupted one."""
    two_trials(tmp_path, resources=Resources(gpus=1.0))
    state = toy_state(tmp_path, toy_space(scheduler=None))
    assert nothing_left(toy_space(budget=budget), state) == reason


def test_a_corner_that_the_data_rule_out_is_named(tmp_path: Path) -> None:
    space = toy_space(vary={"model.layers": IntDistribution(2, 3)})
    require_buildable(space)
    base = toy_config().override({"likelihood.name": "bernoulli", "data.binarise": "threshold"})
    require_buildable(SearchSpace(base=base))
    vary = {
        "likelihood.name": CategoricalDistribution(("bernoulli", "categorical")),
        "model.layers": IntDistribution(2, 3),
    }
    with pytest.raises(ConfigError, match=r"likelihood\.name=bernoulli, model\.layers=2 is not: .*levels"):
        open_search(SearchSpace(base=toy_config(), vary=vary), "wrong", str(tmp_path))
    assert not (tmp_path / "wrong" / "search.json").exists()


def test_other_images_are_refused(tmp_path: Path) -> None:
    state = two_trials(tmp_path)
    data = state.space.base.data
    require_same_data(state.store, data, FACTS["data_checksum"])
    with pytest.raises(StoreError, match=r"go on with the images it began with \(checksum abc\), but got xyz"):
        require_same_data(state.store, data, "xyz")


def with_checkpoint(state: SearchState, number: int) -> Path:
    folder = Path(state.store.checkpoint(f"{number:05d}"))
    for location in (state_file(str(folder)), weights_file(str(folder))):
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        Path(location).write_bytes(b"x")
    return folder


def test_weights_of_the_best_stay_and_states_of_the_unfinished(tmp_path: Path) -> None:
    space = toy_space(scheduler=None, keep=2)
    state = toy_state(tmp_path, space)
    retention = CheckpointRetention(state)

    def kept() -> dict[str, list[str]]:
        folders = sorted(Path(state.store.checkpoints).iterdir())
        return {folder.name: sorted(file.name for file in folder.iterdir()) for folder in folders}

    for number, messages in enumerate(
        [
            (reported(400, 2.0), FINISHED),
            (reported(400, 1.0), FINISHED),
            (reported(400, 1.5), FINISHED),
            (reported(200, 0.5), ended("diverged")),
            (reported(200, 0.4), ended("rejected")),
            (reported(200, 0.3),),  # interrupted
        ]
    ):
        plan = state.plan({})
        with_checkpoint(state, number)
        play(state, plan, BEGUN, *messages)
        retention.tidy()
        if number == 1:
            assert kept() == {"00000": ["weights.safetensors"], "00001": ["weights.safetensors"]}
    live = state.plan({})
    with_checkpoint(state, 6)
    state.start(live, state.space.resources)
    retention.tidy()
    both = ["state.pt", "weights.safetensors"]
    best = ["weights.safetensors"]
    assert kept() == {"00001": best, "00002": best, "00005": both, "00006": both}
    with_checkpoint(state, 0)  # a worker wrote once more while it was being stopped
    with_checkpoint(state, 1)
    retention.tidy()
    retention.tidy_all()
    assert kept() == {"00001": best, "00002": best, "00005": both, "00006": both}


def test_weights_within_the_constraints_are_kept_before_better_ones_out_of_them(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None, keep=1, constraints={"train_seconds": 10.0}))
    folders = [with_checkpoint(state, number) for number in range(2)]
    for bits, seconds in ((2.0, 9.0), (1.0, 99.0)):
        play(state, state.plan({}), BEGUN, reported(400, bits, train_seconds=seconds), FINISHED)
    CheckpointRetention(state).tidy()
    assert [folder.exists() for folder in folders] == [True, False]


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    """A state of 0.86 GB would else lie beside the kept weights for good."""
    state = toy_state(tmp_path, toy_space(scheduler=None, keep=1))
    folder = with_checkpoint(state, 0)
    play(state, state.plan({}), BEGUN, reported(400, 2.0), FINISHED)
    store = state.store
    for place in (str(folder), store.folder, store.trials_folder, store.curves_folder):
        Path(place, ".part-0123-state.pt").write_bytes(b"half")
    CheckpointRetention(state).tidy_all()
    assert [path.name for path in tmp_path.rglob(".part-*")] == []
    assert [path.name for path in folder.iterdir()] == ["weights.safetensors"]
    assert len(store.trials()) == 1


def test_of_several_objectives_the_front_keeps_its_weights(tmp_path: Path) -> None:
    space = toy_space(objectives=("valid_bits_per_dim", "num_parameters"), scheduler=None, keep=2, constraints=BOUND)
    state = toy_state(tmp_path, space)
    for number, (bits, size) in enumerate([(0.5, 999), (1.0, 50), (1.1, 60), (3.0, 5)]):
        with_checkpoint(state, number)
        state.start(state.plan({}), state.space.resources)
        begun = {"facts": FACTS | {"num_parameters": size}, "resumed": []}
        for message in (begun, reported(400, bits), FINISHED):
            state.receive(f"{number:05d}", message)
        state.finish(f"{number:05d}")
    CheckpointRetention(state).tidy_all()
    assert sorted(folder.name for folder in Path(state.store.checkpoints).iterdir()) == ["00001", "00003"]


BOUND = {"num_parameters": 100}


def test_a_disk_that_refuses_does_not_stop_the_tidying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None, keep=1))
    retention = CheckpointRetention(state)
    folders = [with_checkpoint(state, number) for number in range(2)]
    for bits in (2.0, 1.0):
        play(state, state.plan({}), BEGUN, reported(400, bits), FINISHED)
    with monkeypatch.context() as patched:
        patched.setattr("pixeltune.files.remove", _refuse)
        retention.tidy()
    assert [folder.exists() for folder in folders] == [True, True]
    retention.tidy()
    assert [folder.exists() for folder in folders] == [False, True]


def _refuse(_location: str) -> None:
    raise OSError(30, "Read-only file system")


def small_space(vary: dict[str, Any], **changes: Any) -> SearchSpace:
    return toy_space(**({"vary": vary, "scheduler": None, "budget": Budget(trials=9)} | changes))


def run_all(folder: Path, space: SearchSpace, most: int = 20) -> SearchState:
    """What a launch makes of a search: each trial ends at once, until nothing is left or nothing is proposed."""
    state = toy_state(folder, space)
    searcher = OptunaSearcher(space, state)
    for number in range(most):
        if nothing_left(space, state) or (plan := searcher.next_plan()) is None:
            return state
        play(state, plan, BEGUN, *([ended("failed")] if number % 3 == 1 else [reported(400, 2.0), FINISHED]))
    raise AssertionError("it must come to an end")


CONDITIONAL = {
    "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
    "likelihood.mixtures": IntDistribution(2, 8, step=2),
    "optim.lr": FloatDistribution(0.01, 0.02, step=0.005),
}


@pytest.mark.parametrize("sampler", sampler_params())
@pytest.mark.parametrize(
    ("vary", "count"),
    [
        ({"model.layers": IntDistribution(1, 2)}, 2),
        ({"model.layers": IntDistribution(1, 2), "seed": IntDistribution(4, 6)}, 6),
        (
            {
                "model.layers": IntDistribution(1, 2),
                "train.checkpoint_activations": CategoricalDistribution([False, True]),
            },
            4,
        ),
    ],
    ids=["layers", "seeds", "bools"],
)
def test_a_space_that_is_used_up_ends_the_search(
    tmp_path: Path, sampler: str, vary: dict[str, Any], count: int
) -> None:
    """Failed trials have had their turns; a configuration with another seed is another one."""
    space = small_space(vary, base=toy_config().override({"model.layers": 1}), sampler=sampler)
    state = run_all(tmp_path, space)
    searched = "grid" if space.sampler == "grid" else "space"
    assert nothing_left(space, state) == f"all {count} configurations of the {searched} are tried"
    assert len({str(space.suggestion_of(row)) for row in state.ended.values()}) == len(state.ended) == count


def test_conditional_keys_count_where_they_exist(tmp_path: Path) -> None:
    """Three learning rates, alone or with each of four numbers of mixtures; some of them tried by an earlier launch."""
    space = small_space(CONDITIONAL, budget=Budget(trials=99))
    assert space.num_configurations == len(list(space.configurations())) == 3 + 4 * 3
    with pytest.raises(AssertionError, match="come to an end"):
        run_all(tmp_path, space, most=7)
    state = run_all(tmp_path, space)
    assert nothing_left(space, state) == "all 15 configurations of the space are tried"
    assert len({str(space.suggestion_of(row)) for row in state.ended.values()}) == len(state.ended) == 15


def test_what_is_left_of_a_space_is_found_when_no_draw_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler may come back to the same place for ever."""
    space = small_space({"model.layers": IntDistribution(1, 12)}, budget=Budget(trials=99))
    monkeypatch.setattr(SearchSpace, "suggest", lambda *_: {"model.layers": 2})
    orders = []
    for folder in ("one", "two"):
        state = run_all(tmp_path / folder, space)
        orders.append([row["model.layers"] for row in state.ended.values()])
    assert sorted(orders[0]) == list(range(1, 13))
    assert orders[0] == orders[1], "by the search's seed"
    assert orders[0] != sorted(orders[0])


def test_a_search_of_repeats_from_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Six trials of two configurations are not all configurations of three."""
    space = small_space({"model.layers": IntDistribution(1, 3)})
    state = toy_state(tmp_path, space)
    for number in range(6):
        play(state, state.plan({"model.layers": 1 + number % 2}), BEGUN, reported(400, 2.0), FINISHED)
    assert nothing_left(space, state) is None
    assert OptunaSearcher(space, state).next_plan().suggestion == {"model.layers": 3}


def test_a_search_that_varies_nothing_trains_once(tmp_path: Path) -> None:
    space = small_space({})
    state = run_all(tmp_path, space)
    assert (len(state.ended), nothing_left(space, state)) == (1, "all 1 configurations of the space are tried")


def test_a_space_without_an_end_ends_the_search_where_nothing_new_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = small_space({"optim.lr": FloatDistribution(0.01, 0.02)})
    assert space.num_configurations is None
    monkeypatch.setattr(SearchSpace, "suggest", lambda *_: {"optim.lr": 0.01})
    assert len(run_all(tmp_path, space).ended) == 1


def test_what_a_trial_holds_is_what_its_round_gives(tmp_path: Path) -> None:
    space = toy_space(
        base=toy_config().override({"data.num_valid": 100}),
        scheduler=None,
        budget=Budget(trials=3),
        resources=Resources(cpus=8, gpus=0.5),
    )
    store, manifest = open_search(space, "shared", str(tmp_path))
    machines = ImitatedMachines()
    outcome = run_search(space, store, manifest, backend=machines, callback=SearchCallback())
    assert (outcome.interrupted, outcome.reason) == (False, "all 3 trials are done")
    assert machines.rounds == [(False, 3), (True, 1)]
    held = [(row["trial"], row["status"], row["cpus_per_worker"], row["gpus_per_worker"]) for row in store.attempts()]
    assert held == [
        ("00000", "oom", 4, 0.5),
        ("00000", "finished", 4, 1.0),
        ("00001", "finished", 4, 0.5),
        ("00002", "finished", 4, 0.5),
    ]


REASON = "ConfigError: height must divide by {}, but got 28×28"


def _fail(state: SearchState, number: int, status: str = "failed", reason: str = REASON) -> None:
    play(state, state.plan({"optim.lr": 0.01 * (number + 1)}), ended(status, reason.format(number)))


@pytest.mark.parametrize("status", ["failed", "rejected"])
def test_a_search_whose_trials_all_fail_alike_ends_and_tries_them_again(tmp_path: Path, status: str) -> None:
    """The numbers of a reason may differ. The next launch runs the same trials: they have not used up the budget."""
    state = toy_state(tmp_path)
    stop = Stop(state.space, state)
    for number in range(3):
        assert not stop.due()
        _fail(state, number, status)
    assert stop.due()
    assert stop.reason == "3 trials failed for the same reason, and none has a result"
    again = toy_state(tmp_path)
    assert not Stop(again.space, again).due()
    assert [(plan.trial, plan.attempt) for plan in again.plans_to_resume()] == [
        ("00000", 2),
        ("00001", 2),
        ("00002", 2),
    ]
    play(again, again.plans_to_resume()[0], BEGUN, reported(400, 2.0), FINISHED)
    assert [row["status"] for row in again.store.trials()] == ["finished", status, status]


@pytest.mark.parametrize("trials", [1, 2, 9])
def test_trials_that_failed_alike_are_tried_again_only_where_the_search_had_ended(tmp_path: Path, trials: int) -> None:
    """A launcher that was killed after the first one is no reason to try that one again."""
    space = toy_space(budget=Budget(trials=trials))
    state = toy_state(tmp_path, space)
    for number in range(min(2, trials)):
        assert toy_state(tmp_path, space).plans_to_resume() == []
        _fail(state, number, "rejected")
    assert len(toy_state(tmp_path, space).plans_to_resume()) == (trials if trials < 9 else 0)


@pytest.mark.parametrize(
    "others",
    [("finished",), ("diverged", "failed"), ("oom", "failed"), ("another", "failed")],
)
def test_a_search_goes_on_after_failures_of_other_kinds(tmp_path: Path, others: tuple[str, ...]) -> None:
    state = toy_state(tmp_path)
    for number, status in enumerate((*others, "failed", "failed")):
        if status == "finished":
            play(state, state.plan({"optim.lr": 0.5}), BEGUN, reported(400, 2.0), FINISHED)
        elif status == "another":
            _fail(state, number, reason="ConfigError: another one")
        else:
            _fail(state, number, status)
    assert not Stop(state.space, state).due()
    assert toy_state(tmp_path).plans_to_resume() == []


def test_trials_without_a_result_are_tried_again_where_asked(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    play(state, state.plan({"optim.lr": 0.5}), BEGUN, reported(400, 2.0), FINISHED)
    for number, status in enumerate(("failed", "rejected", "oom", "diverged")):
        _fail(state, number, status)
    again = toy_state(tmp_path, retries=WITHOUT_RESULT)
    assert [plan.trial for plan in again.plans_to_resume()] == ["00001", "00002", "00003"]
