"""One trial without Ray: every way in which it can end, and how it goes on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixeltune.errors import AuditError, NodePreemptedError, StoreError
from pixeltune.models import NETWORKS, DensityModel
from pixeltune.models.gated import GatedPixelCNN
from pixeltune.packages import install_command
from pixeltune.sampling import SPEED_BATCH
from pixeltune.search import trial, trial_metadata
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.messages import Message, TrialTask
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial, state_file, weights_file
from pixeltune.training import loop
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.weights import load_model
from pixeltune.training.workers import Workers
from tests.support.optional import require
from tests.support.toy_search import toy_config, toy_space, toy_state

_TIMES = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second")


def task_of(search_state: SearchState, plan: TrialPlan) -> TrialTask:
    return plan.to_task(search_state.space, search_state.store, search_state.space.resources)


def task_in(folder: Path, **changes: Any) -> TrialTask:
    config = toy_config().override({"data.num_valid": 100, **changes})
    return TrialTask(trial="00000", config=config.model_dump(), checkpoint=str(folder / "00000"), cpus=1)


def numbers(messages: list[Message]) -> list[dict[str, Any]]:
    reports = [message["report"] for message in messages if "report" in message]
    return [{name: value for name, value in report.items() if name not in _TIMES} for report in reports]


@pytest.fixture(autouse=True, scope="module")
def _no_progress() -> Iterator[None]:
    """A slow machine sends no other messages than a fast one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_PROGRESS_SECONDS", math.inf)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    return list(run_trial(task_in(tmp_path_factory.mktemp("whole"))))


def test_a_trial_tells_its_progress_between_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: list[Message]
) -> None:
    monkeypatch.setattr(trial, "_PROGRESS_SECONDS", 0.0)
    messages = list(run_trial(task_in(tmp_path)))
    progress = [message["progress"] for message in messages if "progress" in message]
    assert [each["images_seen"] for each in progress] == [50, 150, 250, 350]
    assert progress[0].keys() == {"images_seen", "images_per_second", "train_bits_per_dim"}
    assert numbers(messages) == numbers(uninterrupted)
    json.dumps(messages, allow_nan=False)


def test_a_trial_from_facts_to_its_end(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    first, *reports, last = run_trial(task)
    assert first["resumed"] == []
    assert (first["facts"]["num_valid"], first["facts"]["levels"], first["facts"]["device"]) == (100, 17, "cpu")
    assert 0 < first["expects_seconds"] < 60
    assert [message["report"]["images_seen"] for message in reports] == [100, 200, 300, 400]
    assert all(message["facts"]["peak_memory_bytes"] > 1e6 for message in reports)
    assert (last["end"], last["reason"]) == ("finished", None)
    assert last["facts"]["sample_images_per_second"] > 0
    assert isinstance(load_model(weights_file(task.checkpoint)), DensityModel)


def test_measuring_the_speed_first_changes_no_number(tmp_path: Path) -> None:
    """Of a network with dropout, whose masks and weights are drawn after the measurement or before it."""
    changes = {"model.dropout": 0.5, "train.images": 100}
    plain = list(run_trial(task_in(tmp_path / "a", **changes)))
    first = list(run_trial(replace(task_in(tmp_path / "b", **changes), speed_first=True)))
    assert "sample_images_per_second" not in plain[0]["facts"]
    assert first[0]["facts"]["sample_images_per_second"] > 0
    assert numbers(first) == numbers(plain)


def test_what_a_trial_expects_follows_from_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which a pass over four images takes a second."""
    clock = iter(range(1_000_000))
    monkeypatch.setattr(trial_metadata.time, "monotonic", lambda: float(next(clock)))
    first = next(iter(run_trial(task_in(tmp_path))))
    assert first["expects_seconds"] == (4 * 100 + 2 * 100) / 4
    first = next(iter(run_trial(task_in(tmp_path, **{"train.report_every": 400, "optim.ema": 0.0}))))
    assert first["expects_seconds"] == (4 * 400 + 100) / 4


def test_its_messages_make_a_row(tmp_path: Path) -> None:
    """Every fact and every number has its column, of the right type."""
    space = toy_space(base=toy_config().override({"data.num_valid": 100}))
    search_state = toy_state(tmp_path, space)
    plan = search_state.plan(space.base_suggestion())
    search_state.start(plan, search_state.space.resources)
    for message in run_trial(task_of(search_state, plan)):
        search_state.receive(plan.trial, message)
    row = search_state.finish(plan.trial)
    (stored,) = search_state.store.trials()
    blank = {name for name, value in stored.items() if value is None and name in row and row[name] is not None}
    assert blank == set()
    assert stored["valid_bits_per_dim"] == min(search_state.curves[plan.trial].values())
    assert stored["sample_images_per_second"] > 0
    assert stored["sample_batch_size"] == SPEED_BATCH


def test_going_on_gives_the_same_numbers(tmp_path: Path, uninterrupted: list[Message]) -> None:
    task = task_in(tmp_path)
    trial = run_trial(task)
    before = [next(trial), next(trial), next(trial)]
    trial.close()
    first, *rest = run_trial(task)
    assert [report["images_seen"] for report in first["resumed"]] == [100, 200]
    assert numbers(before) + numbers(rest) == numbers(uninterrupted)
    assert rest[-1]["end"] == "finished"


def test_weights_of_a_better_report_before_the_interruption_are_kept(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    trial = run_trial(task)
    next(trial), next(trial)
    trial.close()
    weights, state = Path(weights_file(task.checkpoint)), TrainState.load(state_file(task.checkpoint))
    best = weights.read_bytes()
    replace(state, reports=[replace(state.reports[0], valid_bits_per_dim=0.0)]).save(state_file(task.checkpoint))
    assert len(numbers(list(run_trial(task)))) == 3
    assert weights.read_bytes() == best


def test_a_finished_trial_has_nothing_to_add(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    list(run_trial(task))
    first, last = run_trial(task)
    assert len(first["resumed"]) == 4
    assert last["end"] == "finished"


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_checkpoint_of_no_use_is_set_aside(tmp_path: Path, damage: str, uninterrupted: list[Message]) -> None:
    task = task_in(tmp_path)
    trial = run_trial(task)
    next(trial), next(trial)
    trial.close()
    state = Path(state_file(task.checkpoint))
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    elif damage == "flipped":
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1  # in the tensors, where torch reads any bytes
        state.write_bytes(content)
    else:
        other = run_trial(task_in(tmp_path / "other", **{"model.layers": 3}))
        next(other), next(other)
        other.close()
        state.write_bytes(Path(state_file(task_in(tmp_path / "other").checkpoint)).read_bytes())
    messages = list(run_trial(task))
    assert messages[0]["resumed"] == []
    assert messages[0]["warning"].startswith(f"starts from scratch, and keeps its old checkpoint as {state}.corrupt: ")
    assert "\n" not in messages[0]["warning"]
    assert numbers(messages) == numbers(uninterrupted)
    assert Path(f"{state}.corrupt").is_file()


class _Leaking(GatedPixelCNN):
    """Sees the pixel that it is to predict."""

    def forward(self, x_BCHW: torch.Tensor, s: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x_BCHW, s) + x_BCHW.mean(1, keepdim=True)


def test_a_leaking_model_is_rejected_with_the_pair_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "gated", _Leaking)
    space = toy_space(base=toy_config().override({"data.num_valid": 100}))
    search_state = toy_state(tmp_path, space)
    plan = search_state.plan(space.base_suggestion())
    row = _play(
        search_state,
        run_trial(task_of(search_state, plan)),
        plan,
    )
    assert row["status"] == "rejected"
    assert row["reason"].count("(") >= 2, row["reason"]
    assert "\n" not in row["reason"]
    assert search_state.best() is None


@pytest.fixture(autouse=True)
def _time_to_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr("pixeltune.search.verification._FEWEST_SECONDS", 20.0)


class _Opening(GatedPixelCNN):
    """Sees the pixel to the right from the fourth training step on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("gate", torch.zeros(1))

    def forward(self, x_BCHW: torch.Tensor, s: torch.Tensor | None = None) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            self.gate.add_(1)
        theta = super().forward(x_BCHW, s)
        seen = x_BCHW.roll(-1, dims=3)[:, :1] * torch.linspace(-1, 1, theta.shape[1])[:, None, None]
        return theta + 0.1 * (self.gate >= 4) * seen


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_leak_that_training_opens_is_rejected_at_the_report_that_it_would_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    """It passes the audit, and its first report, which is sound: by then it was trained for two steps."""
    monkeypatch.setitem(NETWORKS, "gated", _Opening)
    space = toy_space(base=toy_config().override({"data.num_valid": 100, "optim.ema": ema}), scheduler=None)
    search_state = toy_state(tmp_path, space)
    plan = search_state.plan(space.base_suggestion())
    row = _play(
        search_state,
        run_trial(task_of(search_state, plan)),
        plan,
    )
    assert row["status"] == "rejected"
    assert re.match(r"after training on 200 images: θ at \(row \d, col \d.* must not depend on", row["reason"])
    assert row["images_seen"] == 100
    assert search_state.best() is None
    assert row["bits_verified"] is None


@pytest.mark.needs("constriction")
def test_a_finished_trial_has_bits_that_a_code_confirms(tmp_path: Path) -> None:
    """Those of its best report, also where a later attempt finds it trained to its end."""
    task = task_in(tmp_path)
    for _ in range(2):
        *_, last = run_trial(task)
        assert {name: value for name, value in last["facts"].items() if "verified" in name} == {
            "bits_verified": True,
            "bits_verified_images": 100,
            "bits_unverified_reason": None,
        }


class _Flattered(GatedPixelCNN):
    """Sees the pixel to the right while validation is evaluated, and at no other time."""

    is_open = False

    def forward(self, x_BCHW: torch.Tensor, s: torch.Tensor | None = None) -> torch.Tensor:
        theta = super().forward(x_BCHW, s)
        seen = x_BCHW.roll(-1, dims=3)[:, :1] * torch.linspace(-1, 1, theta.shape[1])[:, None, None]
        return theta + 5 * self.is_open * seen


def _flattering(evaluate: Any) -> Any:
    def opened(*args: Any, **kwargs: Any) -> Any:
        _Flattered.is_open = True
        try:
            return evaluate(*args, **kwargs)
        finally:
            _Flattered.is_open = False

    return opened


@pytest.mark.needs("constriction")
def test_a_claim_that_no_code_confirms_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "gated", _Flattered)
    monkeypatch.setattr(loop, "evaluate", _flattering(loop.evaluate))
    *_, last = run_trial(task_in(tmp_path))
    assert last["end"] == "finished"
    assert last["facts"]["bits_verified"] is False
    assert re.match(
        r"100 images take \d.* where \d.* are claimed: the code is", last["facts"]["bits_unverified_reason"]
    )


@pytest.mark.needs("constriction")
def test_a_final_run_is_confirmed_on_the_test_images_that_it_has_read(tmp_path: Path) -> None:
    task = task_in(tmp_path, **{"data.train_on_valid": True})
    *_, last = run_trial(replace(task, images=str(tmp_path / "images.parquet")))
    assert last["facts"]["bits_verified"] is True
    assert 100 < last["facts"]["bits_verified_images"] <= 360


def test_a_final_run_that_leaks_while_it_is_tested_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that the reading of the test set opens; nothing of it is kept."""
    monkeypatch.setitem(NETWORKS, "gated", _Flattered)
    monkeypatch.setattr(_Flattered, "is_open", False)
    evaluate = loop.Training.evaluate

    def opened(self: loop.Training, model: DensityModel, split: str = "valid") -> Any:
        _Flattered.is_open = split == "test"
        return evaluate(self, model, split)

    monkeypatch.setattr(loop.Training, "evaluate", opened)
    task = task_in(tmp_path, **{"data.train_on_valid": True})
    *_, last = run_trial(replace(task, images=str(tmp_path / "images.parquet")))
    assert last["end"] == "rejected"
    assert not (tmp_path / "images.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model.family": "pixelvae", "model.colour_order": "likelihood"}, "only an exact likelihood can be coded"),
        ({}, "coding needs constriction"),
        ({"train.images": 100}, "would take longer than 0 s"),
    ],
)
def test_what_is_not_checked_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], why: str
) -> None:
    if "constriction" in why:
        monkeypatch.setattr("pixeltune.packages.has_package", lambda name: name != "constriction")
    else:
        require("constriction")
    if "longer" in why:
        monkeypatch.setattr("pixeltune.search.verification._FEWEST_SECONDS", 0.0)
        monkeypatch.setattr("pixeltune.search.verification._SHARE", 0.0)
    *_, last = run_trial(task_in(tmp_path, **changes))
    assert last["end"] == "finished"
    assert (last["facts"]["bits_verified"], last["facts"]["bits_verified_images"]) == (None, 0)
    assert why in last["facts"]["bits_unverified_reason"]
    assert install_command(["constriction"]) not in last["facts"]["bits_unverified_reason"]


def _play(search_state: SearchState, messages: Iterator[Message], plan: Any) -> dict[str, Any]:
    search_state.start(plan, search_state.space.resources)
    for message in messages:
        search_state.receive(plan.trial, message)
    return search_state.finish(plan.trial)


def test_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = DensityModel.forward

    def explodes(self: DensityModel, x: torch.Tensor, label: Any = None, *rest: Any) -> torch.Tensor:
        nats = forward(self, x, label, *rest)
        return nats * float("inf") if rest[0] == 3 else nats

    monkeypatch.setattr(DensityModel, "forward", explodes)
    task = task_in(tmp_path)
    messages = list(run_trial(task))
    assert [message["report"]["images_seen"] for message in messages if "report" in message] == [100]
    assert messages[-1]["end"] == "diverged"
    assert "at step 3" in messages[-1]["reason"]
    assert Path(weights_file(task.checkpoint)).is_file(), "those from before that step"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), MemoryError()])
def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raises(*_args: Any) -> None:
        raise error

    monkeypatch.setattr(loop.Training, "_train_step", raises)
    first, last = run_trial(task_in(tmp_path))
    assert "facts" in first
    assert last["end"] == "oom"
    assert last["reason"] in ("CUDA out of memory.", "out of memory")


def test_out_of_memory_of_one_among_several_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other workers wait in a reduction: only an exception makes Train end them all."""

    def raises(*_args: Any) -> None:
        raise MemoryError("no more")

    trial = run_trial(task_in(tmp_path))
    next(trial)
    monkeypatch.setattr(loop.Training, "_train_step", raises)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        next(trial)


def test_what_does_not_fit_is_rejected_and_a_bug_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "audit", lambda _model: _raise(AuditError("(0, 1) sees (2, 3)")))
    assert list(run_trial(task_in(tmp_path))) == [{"end": "rejected", "reason": "(0, 1) sees (2, 3)"}]
    monkeypatch.setattr(loop, "audit", lambda _model: _raise(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        list(run_trial(task_in(tmp_path)))


def test_a_full_disk_is_no_fault_of_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("pixeltune.training.checkpoint.files.write_whole", lambda *_: _raise(full))
    with pytest.raises(
        StoreError, match=r"what a trial keeps must be writable, but .*00000 is not \(No space left on device\)"
    ):
        list(run_trial(task_in(tmp_path)))


class _Unsteppable(GatedPixelCNN):
    """Sampled by whole passes alone."""

    def forward(self, x_BCHW: torch.Tensor, s: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x_BCHW, s).flip(0).flip(0)


def test_a_network_that_cannot_be_stepped_has_a_speed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "gated", _Unsteppable)
    facts, *_ = [message["facts"] for message in run_trial(task_in(tmp_path)) if "end" in message]
    assert facts["sample_images_per_second"] > 0
    assert facts["sample_batch_size"] == SPEED_BATCH


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_speed_that_cannot_be_measured_costs_that_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, uninterrupted: list[Message]
) -> None:
    monkeypatch.setattr("pixeltune.sampling.speed.RowSampler", lambda *_: _raise(error))
    space = toy_space(base=toy_config().override({"data.num_valid": 100}), scheduler=None)
    search_state = toy_state(tmp_path, space)
    plan = search_state.plan(space.base_suggestion())
    row = _play(
        search_state,
        run_trial(task_of(search_state, plan)),
        plan,
    )
    assert (row["status"], row["sample_images_per_second"], row["sample_batch_size"]) == ("finished", None, None)
    assert row["reason"].startswith("its sampling speed could not be measured: ")
    assert "memory" in row["reason"]
    assert "\n" not in row["reason"]
    assert row["valid_bits_per_dim"] == min(report["valid_bits_per_dim"] for report in numbers(uninterrupted))


def test_a_bug_in_the_measurement_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.sampling.speed.RowSampler", lambda *_: _raise(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        list(run_trial(task_in(tmp_path)))


def test_one_of_several_workers_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_in(tmp_path)
    *_, first = run_trial(task)
    assert first["facts"]["sample_images_per_second"] > 0
    monkeypatch.setattr(loop.Workers, "current", lambda: Workers(rank=1, world=1))
    _, last = run_trial(task)  # trained already
    assert last == {"end": "finished", "reason": None}


def _raise(error: Exception) -> None:
    raise error


def test_what_is_not_finite_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results hold finite numbers only, and one odd number must not end the search."""
    monkeypatch.setattr(loop.Tally, "mean_norm", lambda *_: float("nan"))
    assert next(m for m in run_trial(task_in(tmp_path)) if "report" in m)["report"]["grad_norm"] is None


def test_a_trial_whose_machine_goes_keeps_what_it_learned_between_reports(
    tmp_path: Path, uninterrupted: list[Message]
) -> None:
    task = task_in(tmp_path)
    asked: list[int] = []
    first: list[Message] = []
    with pytest.raises(NodePreemptedError, match=r"taken away: training pauses after 250 images"):
        first += run_trial(task, lambda: bool(asked.append(1)) or len(asked) == 6)
    assert TrainState.load(state_file(task.checkpoint)).images_seen == 250
    second = list(run_trial(task))
    assert [report["images_seen"] for report in second[0]["resumed"]] == [100, 200]
    assert numbers(second) == numbers(uninterrupted)[2:]
    assert second[-1]["end"] == "finished"


def test_a_trial_that_is_asked_to_end_keeps_its_steps_between_reports(
    tmp_path: Path, uninterrupted: list[Message]
) -> None:
    """Its end is a message: it is not a fault, and no other process has to try it again."""
    task = task_in(tmp_path)
    calls: list[int] = []
    *first, last = run_trial(task, asked=lambda: bool(calls.append(1)) or len(calls) >= 6)
    assert last == {"end": "interrupted", "reason": "stopped before its end"}
    assert TrainState.load(state_file(task.checkpoint)).images_seen == 250
    assert numbers(first) == numbers(uninterrupted)[:2]
    second = list(run_trial(task))
    assert numbers(second) == numbers(uninterrupted)[2:]
    assert second[-1]["end"] == "finished"


def test_a_machine_that_goes_at_once_costs_the_first_step_alone(tmp_path: Path, uninterrupted: list[Message]) -> None:
    """There is no report yet to begin from."""
    task = task_in(tmp_path)
    with pytest.raises(NodePreemptedError):
        list(run_trial(task, lambda: True))
    again = list(run_trial(task))
    assert again[0]["resumed"] == []
    assert numbers(again) == numbers(uninterrupted)
