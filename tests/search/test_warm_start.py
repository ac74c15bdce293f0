"""What a search learns from the rows of others, and that it stays the same at every launch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution

from pixeltune.cli.search import launch_line
from pixeltune.data import Resolved, resolve
from pixeltune.errors import ConfigError, StoreError
from pixeltune.results.store import SearchStore
from pixeltune.search.pruners import pruner_for
from pixeltune.search.run import open_search
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import SAMPLERS, SearchSpace
from tests.support.results import make_store
from tests.support.toy_search import VARY, sampler_params, settle, toy_config, toy_space

BASE = toy_config().override({"data.num_valid": 100})
MIXTURE = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 3, "model.layers": 3, "optim.lr": 0.02}
PLAIN = {"likelihood.name": "categorical", "model.layers": 4, "optim.lr": 0.005}


@pytest.fixture(scope="module")
def resolved() -> Resolved:
    return resolve(BASE)


def a_space(**changes: Any) -> SearchSpace:
    return toy_space(**({"base": BASE, "scheduler": None} | changes))


class Earlier:
    """A search whose trials ended as told."""

    def __init__(self, folder: Path, resolved: Resolved, space: SearchSpace | None = None, name: str = "earlier"):
        self.space = space or a_space()
        self.store = make_store(folder, name, self.space)
        self.state = SearchState(self.space, self.store)
        self.facts = {"data_checksum": resolved.data.identity.checksum, "levels": 17, "evaluated_split": "valid"}

    def add(self, suggestion: dict[str, Any], status: str, bits: float | None = None, **facts: Any) -> None:
        plan = self.state.plan(suggestion)
        known = self.facts | {"config_key": plan.config.key()} | facts
        self.store.write_trial(settle(self.state, plan, status, bits, **known))


def opened(folder: Path, space: SearchSpace, *sources: str) -> tuple[SearchState, list[str]]:
    said: list[str] = []
    store, _ = open_search(space, "later", str(folder), warm_start=sources, say=said.append)
    return SearchState(space, store, pruner=pruner_for(space)), said


def some_trials(folder: Path, resolved: Resolved) -> Earlier:
    earlier = Earlier(folder, resolved)
    for number, bits in enumerate([2.0, 1.5, 1.75, 1.25, 3.0]):
        earlier.add(PLAIN | {"optim.lr": 0.002 * (number + 1)}, "finished", bits)
    earlier.add(MIXTURE, "finished", 1.3)
    earlier.add(MIXTURE | {"model.layers": 6}, "diverged")
    return earlier


def test_what_fits_is_told_and_the_rest_is_counted_with_its_reason(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    earlier.add(PLAIN, "pruned", 2.0)
    earlier.add(PLAIN, "failed")
    earlier.add(PLAIN, "finished", 2.0, data_checksum="other")
    earlier.add(PLAIN, "finished", 2.0, evaluated_split="test")
    earlier.add(PLAIN, "finished", 2.0, config_key="ffffffffffff")
    found = read_warm_start([earlier.store.folder], a_space(), resolved)
    assert len(found.rows) == 7
    assert found.lines() == [
        "Warm start: 7 trials of other searches are reported to the sampler (7 of earlier).",
        "Not reported: 1 pruned; 1 failed; 1 of other images; and 2 more reasons.",
    ]
    assert dict(found.left_out) == {
        "pruned": 1,
        "failed": 1,
        "of other images": 1,
        "measured on the test set": 1,
        "whose configuration is not known any more": 1,
    }


@pytest.mark.parametrize(
    ("changes", "told", "reason"),
    [
        ({}, 7, None),
        (
            {"vary": VARY | {"model.layers": IntDistribution(2, 3)}},
            1,
            "with model.layers = 4, outside of what is searched",
        ),
        ({"base": BASE.override({"optim.ema": 0.5})}, 0, "with optim.ema = 0.9, here 0.5"),
        ({"base": BASE.override({"train.images": 800})}, 0, "with train.images = 400, here 800"),
        ({"base": BASE.override({"seed": 9, "train.report_every": 200, "data.path": "/elsewhere"})}, 7, None),
        ({"vary": {"optim.lr": VARY["optim.lr"]}}, 0, "with model.layers = 4, here 2"),
        ({"objectives": ("valid_bits_per_dim", "sample_images_per_second")}, 1, "without sample_images_per_second"),
    ],
    ids=str,
)
def test_only_trials_of_this_space_are_told(
    tmp_path: Path, resolved: Resolved, changes: dict[str, Any], told: int, reason: str | None
) -> None:
    earlier = some_trials(tmp_path, resolved)
    found = read_warm_start([str(tmp_path), earlier.store.folder], a_space(**changes), resolved)
    assert len(found.rows) == told
    assert reason is None or found.left_out[reason]


def test_the_best_are_tried_after_the_base_and_the_sampler_sees_all(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    space = a_space()
    state, said = opened(tmp_path, space, earlier.store.folder)
    assert said[0].startswith("Warm start: 7 trials")
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan() for _ in range(5)]
    assert [plan.suggestion for plan in plans[:4]] == [
        space.base_suggestion(),
        PLAIN | {"optim.lr": 0.008},
        MIXTURE,
        PLAIN | {"optim.lr": 0.004},
    ]
    assert [plan.number for plan in plans] == list(range(5))
    states = [trial.state.name for trial in searcher.study().get_trials()]
    assert states == ["COMPLETE"] * 6 + ["PRUNED"] + ["RUNNING"] * 5
    assert state.store.trials() == []
    assert state.best() is None


@pytest.mark.parametrize("sampler", sampler_params(name for name in SAMPLERS if name != "grid"))
def test_it_is_the_same_at_every_launch_whatever_becomes_of_the_others(
    tmp_path: Path, resolved: Resolved, sampler: str
) -> None:
    earlier = some_trials(tmp_path, resolved)
    space = a_space(sampler=sampler)
    state, _ = opened(tmp_path, space, earlier.store.folder)
    live = OptunaSearcher(space, state)
    plans = [live.next_plan() for _ in range(6)]
    for plan in plans:
        state.store.write_trial(settle(state, plan, "finished", 1.0 + plan.suggestion["optim.lr"]))
    shutil.rmtree(earlier.store.folder)
    again, said = opened(tmp_path, space, earlier.store.folder)
    assert said == ["Warm start: 7 trials of other searches, as they were when this one began."]
    assert OptunaSearcher(space, again).next_plan() == live.next_plan()
    assert [row["search"] for row in again.store.trials()] == ["later"] * 6


def test_a_grid_takes_no_warm_start(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    with pytest.raises(ConfigError, match="must have a sampler that may try other values, but got grid"):
        opened(tmp_path, a_space(sampler="grid"), earlier.store.folder)


def test_another_warm_start_is_another_search(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    space = a_space()
    state, _ = opened(tmp_path, space, earlier.store.folder)
    state.start(state.plan(space.base_suggestion()), state.space.resources)
    for sources, words in (
        ((), "warm start: none here, earlier in the results"),
        (("x/other",), "warm start: other here"),
    ):
        with pytest.raises(StoreError, match=words):
            opened(tmp_path, space, *sources)
    opened(tmp_path, space, earlier.store.folder + "/")


def test_a_search_without_a_trial_begins_anew(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    opened(tmp_path, a_space(), earlier.store.folder)
    state, said = opened(tmp_path, a_space())
    assert said == []
    assert state.store.warm_start() == []


def test_of_several_objectives_trials_along_the_front_are_tried(tmp_path: Path, resolved: Resolved) -> None:
    space = a_space(objectives=("valid_bits_per_dim", "num_parameters"))
    earlier = Earlier(tmp_path, resolved, space)
    for layers in (2, 3, 4, 5, 6):
        earlier.add(PLAIN | {"model.layers": layers}, "finished", 3 - layers / 4, num_parameters=layers)
    earlier.add(MIXTURE, "finished", 3.0, num_parameters=9)
    state, _ = opened(tmp_path, space, earlier.store.folder)
    searcher = OptunaSearcher(space, state)
    assert [searcher.next_plan().suggestion["model.layers"] for _ in range(4)] == [2, 6, 4, 2]


def test_of_an_objective_that_is_maximised_the_largest_are_tried(tmp_path: Path, resolved: Resolved) -> None:
    space = a_space(objectives=("sample_images_per_second",))
    earlier = Earlier(tmp_path, resolved, space)
    for layers, speed in ((3, 20.0), (4, 10.0), (5, 30.0)):
        earlier.add(PLAIN | {"model.layers": layers}, "finished", 2.0, sample_images_per_second=speed)
    state, _ = opened(tmp_path, space, earlier.store.folder)
    searcher = OptunaSearcher(space, state)
    assert [searcher.next_plan().suggestion["model.layers"] for _ in range(4)] == [2, 5, 3, 4]


def test_nothing_there_is_said(tmp_path: Path, resolved: Resolved) -> None:
    with pytest.raises(StoreError, match="there is nothing at"):
        opened(tmp_path, a_space(), str(tmp_path / "nowhere"))


def test_a_file_that_was_cut_short_is_no_empty_one(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    state, _ = opened(tmp_path, a_space(), earlier.store.folder)
    path = Path(state.store.folder) / "warm_start.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match="the rows of a warm start must be readable"):
        OptunaSearcher(a_space(), state)


def test_bounds_of_the_later_search_hold_for_earlier_trials(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    space = replace(a_space(), constraints={"num_parameters": 5})  # all have 7
    state, _ = opened(tmp_path, space, earlier.store.folder)
    searcher = OptunaSearcher(space, state)
    assert len([trial for trial in searcher.study().get_trials() if trial.constraints]) == 7
    assert searcher.next_plan().suggestion == space.base_suggestion()
    assert searcher.next_plan().suggestion not in [space.suggestion_of(row) for row in state.store.warm_start()]


def test_a_search_that_is_named_twice_is_told_once(
    tmp_path: Path, resolved: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its storage and by its folder, from here and from the root."""
    earlier = Earlier(tmp_path, resolved)
    earlier.add(MIXTURE, "finished", 1.5)
    monkeypatch.chdir(tmp_path)
    found = read_warm_start([".", "earlier", str(tmp_path), earlier.store.folder], a_space(), resolved)
    assert [row["trial"] for row in found.rows] == ["00000"]


def test_a_search_of_the_same_name_keeps_its_parameters_to_itself(tmp_path: Path, resolved: Resolved) -> None:
    """Suggestions were kept by search and trial: own trials were given those of the other storage's search."""
    other = Earlier(tmp_path / "other", resolved, name="later")
    for number in range(6):
        other.add(PLAIN | {"optim.lr": 0.002 * (number + 1)}, "finished", 2.0)
    space = a_space()
    state, _ = opened(tmp_path, space, other.store.folder)
    searcher = OptunaSearcher(space, state)
    plans = [searcher.next_plan() for _ in range(6)]
    for plan in plans:
        settle(state, plan, "finished", 1.5)
    trials = searcher.study().get_trials(deepcopy=False)
    assert [trial.params for trial in trials[:6]] == [space.suggestion_of(row) for row in other.store.trials()]
    assert [trial.params for trial in trials[6:]] == [plan.suggestion for plan in plans]


@pytest.mark.parametrize("has_id", [True, False])
def test_a_copy_of_a_search_adds_no_trials(tmp_path: Path, resolved: Resolved, has_id: bool) -> None:
    """A trial that is in both counts once; one that only the copy finished counts too."""
    earlier = some_trials(tmp_path / "one", resolved)
    if not has_id:
        forget_id(earlier)
    copy = tmp_path / "two" / "earlier"
    shutil.copytree(earlier.store.folder, copy)
    continued = SearchStore(str(copy.parent), copy.name)
    row = continued.trials()[1]
    continued.write_trial(row | {"trial": "00009", "number": 9})
    found = read_warm_start([earlier.store.folder, str(copy)], a_space(), resolved)
    assert len(found.rows) == 8
    assert found.left_out == {"also in a copy of its search": 7}


def forget_id(earlier: Earlier) -> None:
    """Make the results those of a version in which searches had no ids."""
    rows = earlier.store.attempts()
    manifest = Path(earlier.store.folder, "search.json")
    tree = json.loads(manifest.read_bytes())
    del tree["id"], tree["sha256"]
    manifest.write_text(json.dumps(tree))
    again = SearchStore.at(earlier.store.folder)
    for row in rows:
        again.write_trial(row)


def test_sources_that_were_renamed_are_the_same_warm_start(tmp_path: Path, resolved: Resolved) -> None:
    earlier = some_trials(tmp_path, resolved)
    space = a_space()
    state, _ = opened(tmp_path, space, earlier.store.folder)
    state.start(state.plan(space.base_suggestion()), state.space.resources)
    renamed = Path(earlier.store.folder).rename(tmp_path / "renamed")
    again, said = opened(tmp_path, space, str(renamed))
    assert len(again.store.warm_start()) == 7
    assert said == ["Warm start: 7 trials of other searches, as they were when this one began."]
    other = Earlier(tmp_path / "elsewhere", resolved, name="renamed")
    with pytest.raises(StoreError, match="warm start: renamed here, earlier in the results"):
        opened(tmp_path, space, other.store.folder)


def test_a_warm_start_that_is_given_twice_adds_up() -> None:
    words = ["--search", "x", "--warm-start", "a", "b", "--warm-start", "c"]
    assert launch_line().parse_args(words).warm_start == ["a", "b", "c"]
    assert launch_line().parse_args(["--search", "x"]).warm_start == []
