"""The book of a search: what stands in the store at every moment, and what a later launch makes of it."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from pixeltune.results.compaction import compact
from pixeltune.results.schema import TRIAL_COLUMNS, Status
from pixeltune.search import attempt
from pixeltune.space import Budget, Median, Resources
from tests.support.toy_search import BEGUN, FACTS, FINISHED, ended, play, report, reported, toy_space, toy_state


@pytest.fixture(autouse=True)
def _no_corrupt_files() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_a_row_from_running_to_final(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({"optim.lr": 0.02, "model.layers": 3})
    state.start(plan, state.space.resources)
    (row,) = state.store.attempts()
    assert (row["status"], row["trial"], row["attempt"], row["number"]) == ("running", "00000", 1, 0)
    assert (row["optim.lr"], row["model.layers"], row["baseline_bits_per_dim"]) == (0.02, 3, 3.0)
    assert row["started_at"] is not None
    assert row["finished_at"] is row["num_parameters"] is row["valid_bits_per_dim"] is None

    state.receive("00000", BEGUN)
    assert state.store.attempts()[0]["num_parameters"] == 7, "facts are in the store as soon as they are known"

    for images, bits in ((100, 2.5), (200, 2.0), (300, 2.25)):
        assert state.receive("00000", reported(images, bits)) is None
        assert [point["images_seen"] for point in state.store.curve("00000")][-1] == images
    state.receive("00000", FINISHED)
    row = state.finish("00000")
    (stored,) = state.store.attempts()
    assert stored["status"] == row["status"] == "finished"
    assert stored["finished_at"] >= stored["started_at"]
    assert (stored["reason"], stored["traceback"], stored["peak_memory_bytes"]) == (None, None, 3000)
    assert set(row) <= set(TRIAL_COLUMNS)
    assert state.running == {}
    assert list(state.ended) == ["00000"]


def test_a_number_whose_row_was_lost_gets_no_curve_of_the_lost_trial(tmp_path: Path) -> None:
    """Its configuration may be another one, and pruners learn from curves."""
    state = toy_state(tmp_path)
    play(state, state.plan({"optim.lr": 0.02}), BEGUN, reported(100, 2.5), reported(200, 2.0), FINISHED)
    compact(state.store)
    state.store.write_curve("00000", 2, [reported(200, 1.0)["report"] | {"reported_at": attempt.now()}])
    Path(state.store.trials_folder, "compacted-00001.parquet").unlink()

    again = toy_state(tmp_path)
    plan = again.plan({"optim.lr": 0.5})
    assert (plan.trial, plan.attempt) == ("00000", 1)
    row = play(again, plan, ended("oom"))
    assert row["images_seen"] is None
    assert again.store.curves() == []
    assert toy_state(tmp_path).curves == {"00000": {}}


def test_columns_of_the_best_report_and_of_the_whole_trial(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(resources=Resources(workers=2, cpus=1, gpus=1.0)))
    row = play(state, state.plan({}), BEGUN, reported(100, 2.5), reported(200, 2.0), reported(300, 2.25), FINISHED)
    best, last = report(200, 2.0), report(300, 2.25)
    for name in ("valid_bits_per_dim", "valid_nats_raw", "train_nats", "step", "epoch", "grad_norm"):
        assert row[name] == best[name], name
    for name in ("train_seconds", "eval_seconds", "compile_seconds", "images_seen", "images_per_second"):
        assert row[name] == last[name], name
    assert row["best_images_seen"] == 200


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The search state's time, for the test to set."""
    time = [datetime(2026, 1, 1, tzinfo=UTC)]
    monkeypatch.setattr(attempt, "now", lambda: time[0])
    return time


def test_gpu_seconds_are_held_ones_over_all_attempts(tmp_path: Path, now: list[datetime]) -> None:
    """Crashes, launches that died and trials without a report have held their GPUs too."""
    two_gpus = {"space": toy_space(scheduler=None, resources=Resources(workers=2, gpus=1.0))}
    state = toy_state(tmp_path, **two_gpus)
    state.start(state.plan({}), state.space.resources)
    now[0] += timedelta(seconds=10)
    state.retry("00000", "ValueError: once")
    now[0] += timedelta(seconds=5)
    state.receive("00000", BEGUN)
    state.receive("00000", reported(100, 2.0))
    now[0] += timedelta(seconds=1000)  # the launch died after the report, which is the last that is known

    second = toy_state(tmp_path, **two_gpus)
    assert second.spent_gpu_hours() == pytest.approx(2 * 15 / 3600)
    (plan,) = second.plans_to_resume()
    second.start(plan, second.space.resources)
    now[0] += timedelta(seconds=3)
    assert second.finish("00000")["gpu_seconds"] == pytest.approx(2 * 18)
    third = toy_state(tmp_path, **two_gpus)
    assert third.spent_gpu_hours() == pytest.approx(2 * 18 / 3600)
    third.start(third.plans_to_resume()[0], third.space.resources)
    now[0] += timedelta(seconds=2)
    third.receive("00000", {"end": "diverged", "reason": "at once"})
    assert third.finish("00000")["gpu_seconds"] == pytest.approx(2 * 20)
    assert [row["gpu_seconds"] for row in third.store.attempts()] == pytest.approx([20, 30, 36, 40])


def test_nats_can_be_the_objective(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(objectives=("valid_nats",)))
    row = play(
        state,
        state.plan({}),
        BEGUN,
        reported(100, 2.0, valid_nats=90.0),
        reported(200, 2.1, valid_nats=80.0),
        FINISHED,
    )
    assert (row["valid_nats"], row["valid_bits_per_dim"], row["best_images_seen"]) == (80.0, 2.1, 200)
    assert state.plan({}).to_task(state.space, state.store, state.space.resources).objective == "valid_nats"


def test_asha_stops_with_its_reason(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    play(state, state.plan({}), BEGUN, reported(100, 2.0), FINISHED)
    row = play(state, state.plan({}), BEGUN, reported(100, 3.0), reported(200, 0.1), FINISHED)
    assert row["status"] == "pruned"
    assert row["reason"].startswith("rank 2 of 2 at the rung of 100 images")
    assert row["images_seen"] == 100


@pytest.mark.parametrize("status", ["diverged", "oom", "rejected"])
def test_expected_ends_keep_their_reason(tmp_path: Path, status: str) -> None:
    state = toy_state(tmp_path)
    row = play(state, state.plan({}), ended(status))
    assert (row["status"], row["reason"], row["traceback"]) == (status, "so it was", None)
    assert state.store.attempts()[0]["config_key"], "also without facts"
    assert state.best() is None


def test_a_crash_gives_one_line_and_a_traceback(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    crash = "ray::train() (pid=1)\n  File x, line 3\nValueError: two words\n\n"
    row = play(state, state.plan({}), BEGUN, crash=crash)
    assert (row["status"], row["reason"], row["traceback"]) == ("failed", "ValueError: two words", crash)
    assert play(state, state.plan({}), crash="")["reason"] == "the trial's process died"
    assert len(play(state, state.plan({}), crash="x" * 5000)["reason"]) == 300
    two_lines = "  File x, line 3\nmy.Error: first\n  second\n"
    assert play(state, state.plan({}), crash=two_lines)["reason"] == "my.Error: first second"
    out_of_memory = "…\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert play(state, state.plan({}), crash=out_of_memory)["status"] == "oom"


def test_a_retry_leaves_both_attempts_and_one_trial(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    state.receive(plan.trial, BEGUN)
    state.receive(plan.trial, reported(100, 2.0))
    again = state.retry(plan.trial, "Error: the first crash")
    assert (again.trial, again.attempt, again.config) == (plan.trial, 2, plan.config)
    assert state.ended == {}
    state.receive(plan.trial, {"facts": FACTS, "resumed": [report(100, 2.0)]})
    state.receive(plan.trial, reported(200, 1.9))
    state.receive(plan.trial, FINISHED)
    state.finish(plan.trial)
    assert [(row["attempt"], row["status"]) for row in state.store.attempts()] == [(1, "failed"), (2, "finished")]
    assert [(point["attempt"], point["images_seen"]) for point in state.store.curve(plan.trial)] == [
        (1, 100),
        (2, 200),
    ]
    assert state.ended[plan.trial]["best_images_seen"] == 200
    assert state.plan({}).number == 1


def test_stopped_without_an_end_is_interrupted(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    row = play(state, state.plan({}), BEGUN, reported(100, 2.0))
    assert (row["status"], row["reason"]) == ("interrupted", "stopped before its end")
    assert state.ended == {}


def test_the_best_counts_running_trials_and_no_unranked_ones(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None))
    play(state, state.plan({}), BEGUN, reported(100, 2.0), FINISHED)
    for status in ("diverged", "oom", "rejected"):
        play(state, state.plan({}), BEGUN, reported(100, 0.5), ended(status))
    assert state.best()["trial"] == "00000"
    state.start(state.plan({}), state.space.resources)
    state.receive("00004", reported(100, 1.5))
    assert state.best()["trial"] == "00004"


def test_spent_images_count_every_trial_once(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None))
    play(state, state.plan({}), BEGUN, reported(100, 2.0), reported(400, 2.0), FINISHED)
    play(state, state.plan({}), BEGUN, reported(100, 2.0), crash="E: x")
    state.start(state.plan({}), state.space.resources)
    state.receive("00002", reported(200, 2.0))
    assert state.spent_images() == 400 + 100 + 200
    again = toy_state(tmp_path, toy_space(scheduler=None))
    assert again.spent_images() == 700, "the running one is no longer live, and its images were seen"


def test_a_later_launch_finds_what_was_left(tmp_path: Path) -> None:
    first = toy_state(tmp_path, toy_space(scheduler=None))
    suggestion = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 4, "model.layers": 3, "optim.lr": 0.02}
    play(first, first.plan(first.space.base_suggestion()), BEGUN, reported(400, 2.0), FINISHED)
    play(first, first.plan(suggestion), crash="E: x")
    play(first, first.plan(suggestion), BEGUN, reported(100, 2.5), reported(200, 2.25))
    killed = first.plan(suggestion | {"model.layers": 4})
    first.start(killed, first.space.resources)
    first.receive(killed.trial, BEGUN)
    first.receive(killed.trial, reported(100, 2.6))
    before = files_of(tmp_path)

    second = toy_state(tmp_path, toy_space(scheduler=None))
    assert list(second.ended) == ["00000", "00001"]
    assert second.next_number == 4
    assert files_of(tmp_path) == before, "to look changes nothing"
    stopped, killed_again = second.plans_to_resume()
    assert (stopped.trial, stopped.attempt, stopped.suggestion) == ("00002", 2, suggestion)
    assert (killed_again.trial, killed_again.attempt, killed_again.config) == ("00003", 2, killed.config)

    play(second, killed_again, {"facts": FACTS, "resumed": [report(100, 2.6)]}, reported(200, 2.1), FINISHED)
    statuses = {(row["trial"], row["attempt"]): row["status"] for row in second.store.attempts()}
    assert statuses == {
        ("00000", 1): "finished",
        ("00001", 1): "failed",
        ("00002", 1): "interrupted",
        ("00003", 1): "interrupted",
        ("00003", 2): "finished",
    }
    settled = next(row for row in second.store.attempts() if (row["trial"], row["attempt"]) == ("00003", 1))
    assert (settled["reason"], settled["images_seen"], settled["num_parameters"]) == ("its launch died", 100, 7)
    assert settled["finished_at"] is not None
    after = files_of(tmp_path)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"toy/trials/00003-1.parquet"}
    assert [plan.trial for plan in second.plans_to_resume()] == ["00002"]


def test_a_checkpoint_ahead_of_the_curve_fills_it(tmp_path: Path) -> None:
    """The launcher died after the trial had saved its state and before the report arrived."""
    first = toy_state(tmp_path)
    play(first, first.plan({}), BEGUN, reported(100, 1.0), reported(200, 0.9), FINISHED)
    play(first, first.plan({}), BEGUN, reported(100, 0.8))
    second = toy_state(tmp_path)
    (plan,) = second.plans_to_resume()
    second.start(plan, second.space.resources)
    reason = second.receive(plan.trial, {"facts": FACTS, "resumed": [report(100, 0.8), report(200, 2.0)]})
    assert reason is None, "its best until 200 is 0.8, the first of 2"
    assert [(point["attempt"], point["images_seen"]) for point in second.store.curve(plan.trial)] == [
        (1, 100),
        (2, 200),
    ]


def test_a_missed_rung_is_judged_at_the_resumption_and_a_passed_one_is_not(tmp_path: Path) -> None:
    first = toy_state(tmp_path)
    play(first, first.plan({}), BEGUN, reported(100, 2.0))
    for _ in range(4):
        play(first, first.plan({}), BEGUN, reported(100, 1.0), FINISHED)
    second = toy_state(tmp_path)
    (plan,) = second.plans_to_resume()
    second.start(plan, second.space.resources)
    assert second.receive(plan.trial, {"facts": FACTS, "resumed": [report(100, 2.0)]}) is None, "it had passed the rung"
    second.finish(plan.trial)
    third = toy_state(tmp_path)
    late = third.plan({})
    third.start(late, third.space.resources)
    assert third.receive(late.trial, {"facts": FACTS, "resumed": [report(100, 2.0)]}) is not None, "news to this search"


def test_a_trial_begun_anew_forgets_what_its_lost_checkpoint_saw(tmp_path: Path) -> None:
    first = toy_state(tmp_path, toy_space(scheduler=None))
    play(first, first.plan({}), BEGUN, reported(100, 2.0), reported(200, 1.0))
    second = toy_state(tmp_path, toy_space(scheduler=None))
    (plan,) = second.plans_to_resume()
    row = play(second, plan, BEGUN, reported(100, 1.9), FINISHED)
    assert (row["images_seen"], row["valid_bits_per_dim"]) == (100, 1.9)
    assert second.spent_images() == 100
    curve = second.store.curve(plan.trial)
    assert [(point["attempt"], point["images_seen"]) for point in curve] == [(2, 100)]


def test_null_is_a_choice_like_others(tmp_path: Path) -> None:
    """A null in the row of a key that was asked is its value; a key that was not asked is null as well."""
    vary = {**toy_space().vary, "optim.clip": CategoricalDistribution((None, 1.0))}
    space = toy_space(vary=vary)
    state = toy_state(tmp_path, space)
    suggestion = {"likelihood.name": "categorical", "model.layers": 3, "optim.lr": 0.02, "optim.clip": None}
    row = play(state, state.plan(suggestion), BEGUN, reported(100, 2.0))
    assert space.suggestion_of(row) == suggestion
    assert toy_state(tmp_path, space).plans_to_resume()[0].suggestion == suggestion


def test_every_status_has_an_end_in_the_ledger(tmp_path: Path) -> None:
    space = toy_space(budget=Budget(trials=50))
    state = toy_state(tmp_path, space)
    seen = {play(state, state.plan({}), ended(status))["status"] for status in Status if status != Status.RUNNING}
    assert seen == set(Status) - {Status.RUNNING}
    assert len(state.store.attempts()) == len(Status) - 1


def test_out_of_memory_on_a_shared_gpu_is_no_end_before_it_was_tried_alone(tmp_path: Path) -> None:
    shared = toy_space(resources=Resources(gpus=0.25))
    state = toy_state(tmp_path, shared)
    assert play(state, state.plan({}), BEGUN, reported(100, 2.0), ended("oom"))["status"] == "oom"
    assert state.ended == {}
    for again in (state, toy_state(tmp_path, shared)):  # this launch, or a later one
        assert again.plans_to_resume() == []
        (plan,) = again.plans_to_retry_exclusively()
        assert (plan.trial, plan.attempt) == ("00000", 2)
    whole = Resources(gpus=1.0)
    assert plan.to_task(state.space, state.store, whole).gpu_share == 1.0
    play(state, plan, BEGUN, ended("oom"), resources=whole)
    assert state.ended["00000"]["attempt"] == 2
    assert state.plans_to_retry_exclusively() == toy_state(tmp_path).plans_to_retry_exclusively() == []
    assert [row["status"] for row in state.store.attempts()] == ["oom", "oom"]


def test_the_share_of_a_gpu_travels_with_the_task(tmp_path: Path) -> None:
    for gpus, share in ((0.25, 0.25), (1.0, 1.0), (0.0, 1.0)):
        state = toy_state(tmp_path)
        assert state.plan({}).to_task(state.space, state.store, Resources(gpus=gpus)).gpu_share == share


def test_a_retry_that_begins_anew_drops_the_reports_of_the_attempt_before(tmp_path: Path) -> None:
    """Its checkpoint was lost, or held no state yet."""
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    state.receive(plan.trial, BEGUN)
    state.receive(plan.trial, reported(100, 1.0))
    state.retry(plan.trial, "Error: the first crash")
    for message in (BEGUN, reported(100, 2.0), FINISHED):
        state.receive(plan.trial, message)
    assert state.finish(plan.trial)["valid_bits_per_dim"] == 2.0
    assert [(point["attempt"], point["valid_bits_per_dim"]) for point in state.store.curve(plan.trial)] == [(2, 2.0)]


BOUNDS = {"num_parameters": 10, "peak_memory_bytes": 2500, "valid_bits_per_dim": 1.9}


def test_a_trial_out_of_bounds_for_good_is_stopped_as_soon_as_that_is_known(tmp_path: Path) -> None:
    """At its first message where the model alone decides; what training may still bring within its bound waits."""
    state = toy_state(tmp_path, toy_space(scheduler=None, constraints=BOUNDS))
    too_large = {"facts": FACTS | {"num_parameters": 11}, "resumed": []}
    row = play(state, state.plan({}), too_large, reported(100, 1.0), FINISHED)
    assert (row["status"], row["reason"]) == ("pruned", "out of bounds: num_parameters 11 above 10")
    assert row["valid_bits_per_dim"] is None
    row = play(state, state.plan({}), BEGUN, reported(200, 1.0), reported(300, 0.9), reported(400, 0.8), FINISHED)
    assert (row["reason"], row["images_seen"]) == ("out of bounds: peak_memory_bytes 3,000 above 2,500", 300)
    assert state.best() is None, "out of bounds, whatever its bits/dim"
    row = play(state, state.plan({}), BEGUN, reported(100, 3.0), reported(200, 1.8), FINISHED)
    assert (row["status"], row["reason"]) == ("finished", None)
    play(state, state.plan({}), BEGUN, reported(100, 2.0), FINISHED)
    assert state.best()["trial"] == "00002"
    state.start(state.plan({}), state.space.resources)
    state.receive("00004", {"facts": {"num_parameters": 1}, "resumed": []})
    state.receive("00004", {"report": report(100, 1.5)})
    assert state.best()["trial"] == "00004", "its peak is not known yet"


def test_a_trial_out_of_bounds_takes_no_place_at_a_rung(tmp_path: Path) -> None:
    space = toy_space(constraints={"peak_memory_bytes": 500})
    state = toy_state(tmp_path, space)
    play(state, state.plan({}), BEGUN, reported(100, 0.5))
    messages = ({"report": report(100, 2.0)}, {"report": report(400, 2.0)}, FINISHED)
    assert play(state, state.plan({}), BEGUN, *messages)["status"] == "finished"
    assert play(toy_state(tmp_path, space), state.plan({}), BEGUN, *messages)["status"] == "finished"


def test_gpu_seconds_and_memory_stand_in_the_curve(tmp_path: Path, now: list[datetime]) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None, resources=Resources(gpus=1.0)))
    state.start(state.plan({}), state.space.resources)
    for images in (100, 200):
        now[0] += timedelta(seconds=10)
        state.receive("00000", reported(images, 2.0))
    curve = state.store.curve("00000")
    assert [(point["gpu_seconds"], point["peak_memory_bytes"]) for point in curve] == [(10.0, 1000), (20.0, 2000)]


def test_the_peak_of_memory_is_that_of_all_attempts(tmp_path: Path) -> None:
    """An attempt that finds its training done reports nothing; one that trains the rest may take less."""
    state = toy_state(tmp_path, toy_space(scheduler=None))
    state.start(state.plan({}), state.space.resources)
    state.receive("00000", BEGUN)
    state.receive("00000", reported(400, 2.0))
    second = toy_state(tmp_path, toy_space(scheduler=None))
    went_on = {"facts": FACTS, "resumed": [report(400, 2.0)]}
    row = play(second, second.plans_to_resume()[0], went_on, FINISHED)
    assert (row["status"], row["peak_memory_bytes"]) == ("finished", 4000)
    assert [stored["peak_memory_bytes"] for stored in second.store.attempts()] == [4000, 4000]

    less = {"report": report(400, 2.0), "facts": {"peak_memory_bytes": 500}}
    second.start(second.plan({}), second.space.resources)
    second.receive("00001", reported(200, 2.0))
    plan = second.retry("00001", "ValueError: once")
    for message in ({"facts": FACTS, "resumed": [report(200, 2.0)]}, less, FINISHED):
        second.receive(plan.trial, message)
    assert second.finish("00001")["peak_memory_bytes"] == 2000


def test_a_trial_that_has_trained_to_its_end_is_finished_whatever_the_others_reached(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=Median(completed=2)))
    for last in (1.0, 1.0, 1.9):
        row = play(state, state.plan({}), BEGUN, reported(200, 1.9), reported(400, last), FINISHED)
        assert (row["status"], row["images_seen"], row["valid_bits_per_dim"]) == ("finished", 400, last)
    stopped = play(state, state.plan({}), BEGUN, reported(200, 2.5), reported(400, 1.0), FINISHED)
    assert (stopped["status"], stopped["images_seen"]) == ("pruned", 200)
