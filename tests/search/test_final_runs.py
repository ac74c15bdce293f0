"""A final run from its start to the one reading of the test set, whatever cuts it short; no Ray."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.cli import main
from pixeltune.config import TrialConfig
from pixeltune.data import DataSet, ImageSet, Resolved, order0_bits_per_dim, resolve
from pixeltune.errors import StoreError
from pixeltune.published.compare import compare
from pixeltune.results.dataframes import read_images, read_results
from pixeltune.results.final_statistics import leaderboard_of
from pixeltune.results.store import SearchStore
from pixeltune.search import trial_artifacts
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.messages import Message
from pixeltune.search.searcher import FixedTrials
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial, state_file, weights_file
from pixeltune.training import loop
from pixeltune.training.evaluation import evaluate
from pixeltune.training.weights import load_with_config
from tests.support.toy_final import asked, final_state, searched


class Watched(ImageSet):
    """A test split that notes each time its pixels are looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "pixels_NCHW" and "events" in object.__getattribute__(self, "__dict__"):
            self.events.append("test")
        return object.__getattribute__(self, name)

    def __len__(self) -> int:
        return len(object.__getattribute__(self, "pixels_NCHW"))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, in order: looks at the test images during a run, and whatever a test adds."""
    seen: list[str] = []

    def watching(config: TrialConfig) -> Resolved:
        found = resolve(config)
        assert found.data.test is not None
        test = Watched(found.data.test.pixels_NCHW, found.data.test.labels_N)
        object.__setattr__(test, "events", seen)
        data = DataSet(**(vars(found.data) | {"test": test}))
        return Resolved(found.config, data)

    monkeypatch.setattr(loop, "resolve", watching)
    return seen


@pytest.fixture
def begun(tmp_path: Path) -> tuple[SearchState, TrialPlan]:
    """A final of one configuration with two seeds, best after 300 of 400 images, and its first plan."""
    searched(tmp_path, [(1.5, 300)])
    state, space = final_state(asked(tmp_path, top=1))
    return state, FixedTrials(space, state).next_plan()


def run(state: SearchState, plan: TrialPlan, events: list[str], *, cut_before: str = "") -> list[Message]:
    """A run in its process; where `cut_before` is a kind of message, it dies before the first of that kind is told."""
    messages = []
    state.start(plan, state.space.resources)
    for message in run_trial(plan.to_task(state.space, state.store, state.space.resources)):
        kind = next((kind for kind in ("end", "report", "resumed") if kind in message), "wait")
        events.append(kind)
        if kind == cut_before:
            break
        messages.append(message)
        state.receive(plan.trial, message)
    return messages


def opened(folder: Path) -> tuple[SearchState, TrialPlan]:
    """The final as the next launch finds it, and what it resumes."""
    state, space = final_state(asked(folder, top=1))
    return state, FixedTrials(space, state).next_plan()


def in_order(events: list[str]) -> list[str]:
    """Without repetitions: one evaluation looks at the images batch by batch."""
    return [event for event, before in zip(events, ["", *events], strict=False) if event != before]


def test_the_test_set_is_read_once_and_at_the_end(begun: tuple[SearchState, TrialPlan], events: list[str]) -> None:
    state, plan = begun
    run(state, plan, events)
    assert in_order(events) == ["resumed", "report", "wait", "test", "end"]
    assert events.count("report") == 3


def test_its_row_says_what_was_done(tmp_path: Path, begun: tuple[SearchState, TrialPlan], events: list[str]) -> None:
    state, plan = begun
    run(state, plan, events)
    state.finish(plan.trial)
    (row,) = state.store.trials()
    expected = {
        "status": "finished",
        "from_search": "toy",
        "from_trial": "00000",
        "seed": 6,
        "evaluated_split": "test",
        "data.train_on_valid": True,
        "num_train": 1437,
        "num_valid": 0,
        "images_seen": 300,
        "best_images_seen": 300,
        "step": 6,
        "epoch": 300 / 1437,
        "train.images": 400,
        "train.stop_after": 300,
        "valid_bits_per_dim": None,
        "valid_nats": None,
        "weights": "ema",
    }
    assert {name: row[name] for name in expected} == expected
    data = resolve(plan.config).data
    assert row["data_checksum"] == data.identity.checksum
    assert row["baseline_bits_per_dim"] == order0_bits_per_dim(data, "test")
    assert row["test_bits_per_dim"] == row["test_nats"] / (64 * math.log(2))
    assert row["sample_images_per_second"] > 0
    assert row["train_nats"] > 0
    frame = read_results(state.store.folder)
    assert frame["valid_nats"].isna().all()
    assert compare(frame).empty, "nothing is published of digits"


def test_the_nats_of_its_images_are_those_of_its_weights_and_of_its_row(
    begun: tuple[SearchState, TrialPlan], events: list[str]
) -> None:
    state, plan = begun
    run(state, plan, events)
    row = state.finish(plan.trial)
    frame = read_images(state.store.folder)
    data = resolve(plan.config).data
    assert data.test is not None
    assert data.test.labels_N is not None
    assert math.fsum(frame["nats"]) / len(frame) == row["test_nats"]
    assert frame["image"].tolist() == list(range(len(data.test)))
    assert frame["label"].tolist() == data.test.labels_N.tolist()
    assert np.array_equal(frame["nats"], np.float32(frame["nats"]).astype(np.float64))
    trained = load_with_config(weights_file(state.store.checkpoint(plan.trial)))
    assert trained.config.key() == row["config_key"]
    again = evaluate(trained.model, data.test, batch_size=plan.config.train.eval_batch_size)
    assert np.array_equal(again.nats_N, frame["nats"])
    (place,) = leaderboard_of(state.store)
    assert (place["nats"], place["runs"]) == (row["test_nats"], ["00000"])


def test_a_run_that_dies_after_the_reading_does_not_read_again(
    tmp_path: Path, begun: tuple[SearchState, TrialPlan], events: list[str]
) -> None:
    state, plan = begun
    run(state, plan, events, cut_before="end")
    assert state.store.trials()[0]["test_nats"] is None
    kept = Path(state.store.images(plan.trial)).read_bytes()
    events.clear()
    state, plan = opened(tmp_path)
    assert (plan.number, plan.attempt) == (0, 2)
    run(state, plan, events)
    row = state.finish(plan.trial)
    # The baseline is a histogram of the very same images; the model does not see them again.
    assert Path(state.store.images(plan.trial)).read_bytes() == kept
    assert row["status"] == "finished"
    assert [place["nats"] for place in leaderboard_of(state.store)] == [row["test_nats"]]


def test_nor_does_its_model_see_them(
    tmp_path: Path, begun: tuple[SearchState, TrialPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, plan = begun
    run(state, plan, [], cut_before="end")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the test set was read before")

    monkeypatch.setattr(loop.Training, "evaluate", never)
    state, plan = opened(tmp_path)
    run(state, plan, [])
    assert state.finish(plan.trial)["test_nats"] is not None


def test_a_run_that_dies_before_goes_on_from_its_checkpoint_to_the_same_number(
    tmp_path: Path, begun: tuple[SearchState, TrialPlan], events: list[str]
) -> None:
    state, plan = begun
    run(state, plan, events, cut_before="report")
    assert "test" not in events
    state, plan = opened(tmp_path)
    messages = run(state, plan, events)
    assert len(messages[0]["resumed"]) == 1
    cut = state.finish(plan.trial)
    searched(tmp_path / "whole", [(1.5, 300)])
    whole, first = opened(tmp_path / "whole")
    run(whole, first, [])
    assert cut["test_nats"] == whole.finish(first.trial)["test_nats"]


def test_weights_trained_anew_are_read_anew(
    tmp_path: Path, begun: tuple[SearchState, TrialPlan], events: list[str]
) -> None:
    """A checkpoint that was lost after the reading: what was kept is of weights that are no more."""
    state, plan = begun
    run(state, plan, events, cut_before="end")
    Path(state_file(state.store.checkpoint(plan.trial))).unlink()
    images = Path(state.store.images(plan.trial))
    images.write_bytes(images.read_bytes()[:-9])
    state, plan = opened(tmp_path)
    run(state, plan, events)
    row = state.finish(plan.trial)
    assert row["status"] == "finished"
    assert [place["nats"] for place in leaderboard_of(state.store)] == [row["test_nats"]]


def test_a_search_reads_no_test_set(tmp_path: Path, events: list[str]) -> None:
    search = searched(tmp_path, [])
    plan = search.plan({"optim.lr": 0.01})
    run(search, plan, events)
    row = search.finish(plan.trial)
    assert in_order(events) == ["resumed", "report", "end"]
    assert (row["evaluated_split"], row["num_valid"], row["test_nats"]) == ("valid", 100, None)
    assert not Path(search.store.images_folder).exists()


def test_test_images_that_are_impossible_end_the_run_as_diverged(
    begun: tuple[SearchState, TrialPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, plan = begun
    whole = loop.Training.evaluate

    def spoiled(self: loop.Training, *words: Any) -> Any:
        found = whole(self, *words)
        found.nats_N[3] = math.inf
        return found

    monkeypatch.setattr(loop.Training, "evaluate", spoiled)
    run(state, plan, [])
    row = state.finish(plan.trial)
    assert (row["status"], row["test_nats"]) == ("diverged", None)
    assert "test images must have finite nats" in row["reason"]
    assert not Path(state.store.images(plan.trial)).exists()


def test_a_full_disk_is_no_fault_of_the_run(
    begun: tuple[SearchState, TrialPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trial_artifacts, "write_images", full)
    with pytest.raises(StoreError, match=r"00000\.parquet is not \(No space left on device\)"):
        run(*begun, [])


def test_the_weights_of_every_run_stay(tmp_path: Path) -> None:
    searched(tmp_path, [(1.5, 100), (1.6, 100), (1.7, 100)])
    state, space = final_state(asked(tmp_path, top=3))
    plans = FixedTrials(space, state)
    retention = CheckpointRetention(state)
    for _ in range(6):
        plan = plans.next_plan()
        run(state, plan, [])
        state.finish(plan.trial)
        retention.tidy()
    retention.tidy_all()
    left = sorted(str(path.relative_to(state.store.checkpoints)) for path in Path(state.store.checkpoints).rglob("*.*"))
    assert left == [f"{number:05d}/weights.safetensors" for number in range(6)]
    places = leaderboard_of(SearchStore(str(tmp_path), "toy-final"))
    assert sorted(place["seeds"] for place in places) == [2, 2, 2]


def test_what_is_said_of_a_run_can_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`rerun` and `train` refuse what trains on validation, and `evaluate` has no validation images to measure."""
    searched(tmp_path, [(1.5, 300)])
    state, space = final_state(asked(tmp_path, top=1))
    plan = FixedTrials(space, state).next_plan()
    run(state, plan, [])
    row = state.finish(plan.trial)
    out, storage = tmp_path / "out", ["--storage", str(tmp_path)]
    assert main(["show", "toy-final/0", *storage]) == main(["export", "toy-final/0", *storage, "--out", str(out)]) == 0
    assert "pixeltune rerun" not in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "`pixeltune evaluate model.safetensors --split test` measures the number below again" in card
    assert "Trained by `pixeltune final toy`, on the validation images too." in card
    assert main(["evaluate", str(out / "model.safetensors"), "--split", "test"]) == 0
    assert f"test: {row['test_bits_per_dim']:.5f} bits/dim" in capsys.readouterr().out
