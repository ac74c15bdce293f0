"""Trials that are trained further: equal to a training from the start, and none of the search's own lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution
from safetensors.torch import load_file

from pixeltune.cli import main
from pixeltune.config import TrialConfig
from pixeltune.errors import ConfigError
from pixeltune.results.ranking import leaderboard
from pixeltune.results.search_status import read_status
from pixeltune.results.store import SearchStore
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.final import configs_of
from pixeltune.search.run import nothing_left, open_search
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial, state_file, weights_file
from pixeltune.space import Asha, Budget, SearchSpace

BASE = TrialConfig.build(
    {
        "data": {"name": "digits", "num_valid": 50, "fraction": 0.2},
        "model": {"family": "gated", "layers": 1, "channels": 4, "kernel_size": 3, "dropout": 0.2},
        "likelihood": {"name": "categorical"},
        "optim": {"lr": 3e-3, "ema": 0.9, "warmup": 0.3},
        "train": {"images": 200, "batch_size": 20, "report_every": 100},
    }
)
NUMBERS = (
    "valid_bits_per_dim",
    "valid_nats",
    "valid_bits_per_dim_raw",
    "train_nats",
    "grad_norm",
    "step",
    "epoch",
    "lr",
)


def space_of(base: TrialConfig = BASE, **changes: Any) -> SearchSpace:
    plain = {"vary": {"model.layers": IntDistribution(1, 2)}, "budget": Budget(trials=2), "keep_states": 2}
    return SearchSpace(**({"base": base} | plain | changes))


def searched(folder: Path, space: SearchSpace) -> SearchState:
    """A search whose trials are trained here, as a launch leaves it."""
    store, manifest = open_search(space, "tiny", str(folder))
    state = SearchState(space, store, baseline=manifest.baseline_bits_per_dim)
    searcher = OptunaSearcher(space, state)
    while len(state.ended) < space.budget.trials:
        train(state, searcher.next_plan())
    CheckpointRetention(state).tidy_all()
    return state


def train(state: SearchState, plan: Any) -> None:
    state.start(plan, state.space.resources)
    for message in run_trial(plan.to_task(state.space, state.store, state.space.resources)):
        if state.receive(plan.trial, message) is not None:
            break
    state.finish(plan.trial)


def goes_on(folder: Path, *words: str) -> int:
    return main(["continue", *words, "--storage", str(folder), "--quiet"])


def numbers(reports: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(report["images_seen"], *(report[name] for name in NUMBERS)) for report in reports]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    searched(folder, space_of())
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of the search."""
    import shutil

    shutil.copytree(kept, tmp_path / "results")
    return tmp_path / "results"


def test_a_continued_trial_is_equal_to_one_that_was_trained_as_long(folder: Path, tmp_path: Path) -> None:
    assert goes_on(folder, "tiny/0", "--images", "400") == 0
    store = SearchStore(str(folder), "tiny")
    row = store.trials()[0]
    assert (row["attempt"], row["continues_attempt"], row["images_seen"], row["status"]) == (2, 1, 400, "finished")
    [config] = configs_of([row], store.manifest())
    assert config.train.images == 400
    longer = searched(tmp_path / "longer", space_of(config, vary={}, budget=Budget(trials=1)))
    [other] = longer.store.trials()
    assert numbers(store.curve("00000")) == numbers(longer.store.curve("00000"))
    same = ("config_key", "best_images_seen", "valid_bits_per_dim", "valid_nats", "bits_verified", "model.layers")
    assert {name: row[name] for name in same} == {name: other[name] for name in same}
    weights, others = (load_file(weights_file(each.checkpoint("00000"))) for each in (store, longer.store))
    assert weights.keys() == others.keys()
    assert all(bool((weights[name] == others[name]).all()) for name in weights)
    assert row["gpu_seconds"] is not None
    assert not Path(store.checkpoint("00000-400")).exists()


def test_it_can_be_continued_again(folder: Path) -> None:
    assert goes_on(folder, "tiny/0", "--images", "300") == 0
    assert goes_on(folder, "tiny/0", "--images", "400") == 0
    rows = [row for row in SearchStore(str(folder), "tiny").attempts() if row["trial"] == "00000"]
    assert [(row["attempt"], row["continues_attempt"], row["images_seen"]) for row in rows] == [
        (1, None, 200),
        (2, 1, 300),
        (3, 2, 400),
    ]


def test_the_best_are_continued(folder: Path) -> None:
    assert goes_on(folder, "tiny", "--top", "2", "--images", "300") == 0
    store = SearchStore(str(folder), "tiny")
    assert [(row["images_seen"], row["continues_attempt"]) for row in store.trials()] == [(300, 1), (300, 1)]
    places = leaderboard(store.trials())
    assert [(place["images_seen"], place["continues_attempt"]) for place in places] == [(300, 1), (300, 1)]


def test_the_search_does_not_see_it(folder: Path) -> None:
    """Proposals, the pruner, the budget and the checkpoints are as before, and weights that it made stay."""
    space = space_of(budget=Budget(trials=3), keep=1, keep_states=0)
    store = SearchStore(str(folder), "tiny")

    def seen() -> tuple[Any, ...]:
        state = SearchState(space, store)
        return state.ended, state.curves, state.spent_images(), nothing_left(space, state)

    before = seen()
    assert goes_on(folder, "tiny", "--top", "2", "--images", "300") == 0
    assert seen() == before
    status = read_status(store)
    assert status.counts == {"finished": 2}
    state = SearchState(space, store)
    assert state.continued == {"00000", "00001"}
    CheckpointRetention(state).tidy_all()
    for trial in state.continued:
        assert Path(weights_file(store.checkpoint(trial))).exists()


def test_a_pruned_trial_goes_on_if_its_state_was_kept(tmp_path: Path) -> None:
    space = space_of(scheduler=Asha((100,)))
    store, manifest = open_search(space, "tiny", str(tmp_path))
    state = SearchState(space, store, baseline=manifest.baseline_bits_per_dim)
    plan = state.plan(space.base_suggestion())
    state.start(plan, space.resources)
    for message in run_trial(plan.to_task(space, store, space.resources)):
        state.receive(plan.trial, message)
        if "report" in message:
            break
    from pixeltune.results.schema import Status

    state.running[plan.trial].conclude(Status.PRUNED, "as in a test")
    state.finish(plan.trial)
    CheckpointRetention(state).tidy_all()
    assert goes_on(tmp_path, "tiny/0", "--images", "200") == 0
    [row] = store.trials()
    assert (row["status"], row["images_seen"], row["continues_attempt"]) == ("finished", 200, 1)


def test_an_interrupted_one_resumes_and_changes_nothing_until_it_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixeltune.search import continuation
    from pixeltune.search.messages import STOPPED

    assert goes_on(folder, "tiny/1", "--images", "400") == 0
    store = SearchStore(str(folder), "tiny")
    expected = numbers(store.curve("00001"))
    before = store.trials()[0]

    def stops(task: Any, **options: Any) -> Iterator[Any]:
        for message in run_trial(task, **options):
            yield message
            if "report" in message:
                yield {"end": "interrupted", "reason": STOPPED}
                return

    monkeypatch.setattr(continuation, "run_trial", stops)
    assert goes_on(folder, "tiny/0", "--images", "400") == 130
    assert store.trials()[0] == before
    monkeypatch.undo()
    assert goes_on(folder, "tiny/0", "--images", "400") == 0
    assert [report["images_seen"] for report in store.curve("00000")] == [100, 200, 300, 400]
    assert len(expected) == 4


REFUSED = {
    "not more": (["tiny/0", "--images", "200"], "--images must be above the 200 that tiny/00000 has seen, but got 200"),
    "between reports": (["tiny/0", "--images", "350"], "a multiple of train.report_every (100), but got 350"),
    "neither a trial nor --top": (["tiny", "--images", "400"], "SEARCH with --top K, but got tiny without --top"),
    "both": (["tiny/0", "--top", "2", "--images", "400"], "SEARCH with --top K, but got tiny/0 with --top"),
    "more than there are": (["tiny", "--top", "3", "--images", "400"], "--top 3 needs as many trials with kept state"),
    "no such trial": (["tiny/7", "--images", "400"], "must be named by a unique beginning"),
    "no such search": (["other/7", "--images", "400"], "must have been begun"),
}


@pytest.mark.parametrize(("words", "reason"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(
    kept: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(kept, words, reason, capsys)


def _refused(folder: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert goes_on(folder, *words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == files


@pytest.mark.parametrize("schedule", ["cosine", "exponential"])
def test_a_schedule_that_depends_on_the_length_is_refused(
    tmp_path: Path, schedule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = BASE.override({"optim.schedule": schedule})
    searched(tmp_path, space_of(base, vary={}, budget=Budget(trials=1)))
    _refused(tmp_path, ["tiny/0", "--images", "400"], "must have a constant learning rate to be continued", capsys)


def test_a_trial_without_its_state_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = searched(tmp_path, space_of(keep_states=1))
    kept = [trial for trial in state.ended if Path(state_file(state.store.checkpoint(trial))).exists()]
    best = min(state.ended.values(), key=lambda row: row["valid_bits_per_dim"])
    assert kept == [best["trial"]]
    other = next(trial for trial in state.ended if trial not in kept)
    _refused(tmp_path, [f"tiny/{other}", "--images", "400"], "must have kept its state to be continued", capsys)


def test_more_states_than_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep_states must be from 0 to keep \(1\).* but got 2"):
        space_of(keep=1)


def test_the_row_is_plain_data(folder: Path) -> None:
    assert goes_on(folder, "tiny/0", "--images", "300") == 0
    assert main(["leaderboard", "tiny", "--json", "--storage", str(folder)]) == 0
    assert json.loads(json.dumps(leaderboard(SearchStore(str(folder), "tiny").trials())))


def test_a_trial_with_repeats_is_continued_alone(tmp_path: Path) -> None:
    """The repeat is a training of its own seed, and neither is in the mean of the other's length."""
    state = searched(tmp_path / "results", space_of(repeats=2))
    assert [(row["repeat_of"], row["seed"]) for row in state.store.trials()] == [
        (None, BASE.seed),
        ("00000", BASE.seed + 1),
    ]
    alone = searched(tmp_path / "alone", space_of(BASE.override({"seed": BASE.seed + 1}), budget=Budget(trials=1)))
    assert numbers(state.store.curve("00001")) == numbers(alone.store.curve("00000"))
    mean = leaderboard(state.store.trials())[0]
    assert (mean["seeds"], [path.name for path in Path(state.store.checkpoints).iterdir()]) == (2, ["00000"])
    assert goes_on(tmp_path / "results", "tiny/0", "--images", "400") == 0
    rows = state.store.trials()
    assert [(row["continues_attempt"], row["repeat_of"], row["repeats"]) for row in rows] == [
        (1, None, 2),
        (None, "00000", 2),
    ]
    places = leaderboard(rows)
    assert {(place["trial"], place["seeds"], place["seeds_left"]) for place in places} == {
        ("00000", 1, 0),
        ("00001", 1, 0),
    }
    again = SearchState(state.space, state.store)
    assert leaderboard(again.ended.values())[0]["valid_bits_per_dim"] == mean["valid_bits_per_dim"]
