"""fit: what it reports, and that nothing but (config, data) decides it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from pixeltune.audit import AuditReport
from pixeltune.config import FAMILIES
from pixeltune.errors import CheckpointError, ConfigError, DataError, DivergedError, PausedError
from pixeltune.models import DensityModel
from pixeltune.training import loop, timers
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.epoch_report import EpochReport, TrainingProgress
from pixeltune.training.evaluation import evaluate
from pixeltune.training.loop import Training, fit, next_report
from tests.support.tiny_trainings import GOLDEN, GOLDEN_CONFIGS, numbers, tiny


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_golden_curve(name: str) -> None:
    curve = [numbers(report) for report in fit(tiny(**GOLDEN_CONFIGS[name]))]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert len(curve) == len(golden)
    for ours, theirs in zip(curve, golden, strict=True):
        for key, value in theirs.items():
            assert ours[key] == (None if value is None else pytest.approx(value, rel=1e-6)), key


def test_golden_curves_cover_every_family() -> None:
    assert {tiny(**changes).model.family for changes in GOLDEN_CONFIGS.values()} == set(FAMILIES)


def test_reports_fall_on_multiples_and_the_end() -> None:
    reports = list(fit(tiny(train__images=224, train__report_every=96)))
    assert [report.images_seen for report in reports] == [96, 192, 224]
    assert [report.step for report in reports] == [3, 6, 7]
    assert all(later.train_seconds > earlier.train_seconds for earlier, later in pairwise(reports))


def test_training_on_validation_reports_no_validation() -> None:
    training = fit(tiny(data__train_on_valid=True, optim__ema=0.9))
    reports = list(training)
    assert [report.images_seen for report in reports] == [96, 192]
    for report in reports:
        assert {name for name, value in asdict(report).items() if value is None} == {
            f"valid_{unit}{weights}" for unit in ("bits_per_dim", "nats") for weights in ("", "_raw", "_ema")
        }
        assert report.train_nats > 0
        assert report.epoch == report.images_seen / 1437, "all images that are not of the test set"
    with pytest.raises(DataError, match="must have a valid split, but digits has none"):
        training.evaluate(training.model)


def test_stopping_early_keeps_the_schedule() -> None:
    """The first part of the whole training, number by number."""
    config = tiny(train__images=384, optim__schedule="cosine", optim__warmup=0.2)
    whole = [numbers(report) for report in fit(config)]
    early = [numbers(report) for report in fit(config.override({"train.stop_after": 224}))]
    assert [report["images_seen"] for report in early] == [96, 192, 224]
    assert early[:2] == whole[:2]


def test_the_training_number_is_of_the_images_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = next(fit(tiny())).train_nats
    monkeypatch.setattr(loop.Workers, "sum", lambda _self, values: 3 * values)  # two more workers, of as many nats
    assert next(fit(tiny())).train_nats == pytest.approx(3 * alone, rel=1e-12)


def test_training_learns() -> None:
    reports = list(fit(tiny(train__images=960, train__report_every=320)))
    values = [report.valid_bits_per_dim for report in reports]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.8 * np.log2(17)


def test_the_seed_decides_and_nothing_else() -> None:
    first, again, other = (
        [numbers(report) for report in fit(tiny(model__dropout=0.5, seed=seed))] for seed in (1, 1, 2)
    )
    assert first == again
    assert all(a["valid_nats"] != b["valid_nats"] for a, b in zip(first, other, strict=True))


def test_global_random_state_does_not_matter() -> None:
    torch.manual_seed(1)
    first = [numbers(report) for report in fit(tiny(model__dropout=0.5))]
    torch.manual_seed(2)
    np.random.seed(3)
    assert [numbers(report) for report in fit(tiny(model__dropout=0.5))] == first


@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_resumed_equals_uninterrupted(name: str, state_path: str) -> None:
    config = tiny(**GOLDEN_CONFIGS[name])
    whole = fit(config)
    uninterrupted = [numbers(report) for report in whole]

    first_half = fit(config)
    next(first_half)
    first_half.state.save(state_path)
    resumed = fit(config, state=TrainState.load(state_path))
    rest = [numbers(report) for report in resumed]

    assert rest == uninterrupted[1:]
    assert [numbers(report) for report in resumed.reports] == uninterrupted
    for name_here, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name_here]), name_here
    for name_here, tensor in whole.model_of_record.state_dict().items():
        assert torch.equal(tensor, resumed.model_of_record.state_dict()[name_here]), name_here


def test_initialisation_by_data_comes_before_the_first_step_and_never_again(
    monkeypatch: pytest.MonkeyPatch, state_path: str
) -> None:
    batches: list[torch.Tensor] = []
    initialise = DensityModel.initialise

    def note(self: DensityModel, x_BCHW: torch.Tensor, label_B: torch.Tensor) -> None:
        assert self.training
        batches.append(x_BCHW)
        initialise(self, x_BCHW, label_B)

    monkeypatch.setattr(DensityModel, "initialise", note)
    config = tiny(**GOLDEN_CONFIGS["pixelcnnpp mixture dropout ema"])
    training = fit(config)
    assert [len(batch) for batch in batches] == [32]
    assert torch.equal(batches[0], training._batches.part(0).x_BCHW)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, training.model_of_record.state_dict()[name])
    next(training)
    training.state.save(state_path)
    list(fit(config, state=TrainState.load(state_path)))
    assert len(batches) == 1


def test_a_finished_state_has_nothing_left(state_path: str) -> None:
    training = fit(tiny())
    list(training)
    training.state.save(state_path)
    assert list(fit(tiny(), state=TrainState.load(state_path))) == []


def test_resume_refuses_another_configuration_or_other_data(state_path: str) -> None:
    training = fit(tiny())
    next(training)
    training.state.save(state_path)
    with pytest.raises(CheckpointError, match="configuration"):
        fit(tiny(optim__lr=1e-4), state=TrainState.load(state_path))
    state = TrainState.load(state_path)
    state.data_checksum = "another"
    with pytest.raises(CheckpointError, match="data"):
        fit(tiny(), state=state)


def test_divergence_stops_before_the_step() -> None:
    training = fit(tiny())
    next(training)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    hook = training.model.network.register_forward_hook(lambda _module, _args, theta: theta * float("nan"))
    with pytest.raises(DivergedError, match=r"step 3 \(96 images\)") as caught:
        next(training)
    hook.remove()
    assert "\n" not in str(caught.value)
    assert training.images_seen == 96
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_divergence_that_is_seen_at_the_report_has_taken_no_step_since(
    monkeypatch: pytest.MonkeyPatch, bad: str, clip: float | None
) -> None:
    """As on a GPU, where the host does not wait for each step: the second of three is bad, the third would be sound."""
    monkeypatch.setattr(Training, "_looks_at_every_step", False)
    training = fit(tiny(optim__clip=clip, optim__weight_decay=0.1))
    next(training)
    weights: list[dict[str, torch.Tensor]] = []

    def spoil(_module: Any, _args: Any, theta: torch.Tensor) -> torch.Tensor:
        weights.append({name: tensor.clone() for name, tensor in training.model.state_dict().items()})
        return theta * (float(bad) if len(weights) == 2 else 1.0)

    hook = training.model.network.register_forward_hook(spoil)
    with pytest.raises(DivergedError, match=r"step 4 \(128 images\)"):
        next(training)
    hook.remove()
    _, before, after = weights
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(after[name], before[name]), name


def test_progress_between_reports_changes_no_number() -> None:
    """Each step can be watched; the mean since the last report becomes the report's."""
    config = tiny(optim__ema=0.9)
    plain = list(fit(config))
    events = list(fit(config).events(seconds=0.0))
    reports = [event for event in events if isinstance(event, EpochReport)]
    assert [numbers(report) for report in reports] == [numbers(report) for report in plain]
    progress = [event for event in events if isinstance(event, TrainingProgress)]
    steps = range(config.train.batch_size, config.train.images + 1, config.train.batch_size)
    at_reports = {report.images_seen for report in reports}
    assert [event.images_seen for event in progress] == [images for images in steps if images not in at_reports]
    assert all(event.images_per_second > 0 and event.train_bits_per_dim > 0 for event in progress)
    assert all(isinstance(event, EpochReport) for event in fit(config).events())


def test_progress_counts_from_the_last_report_on_after_a_resume(state_path: str) -> None:
    config = tiny()
    steps = count()
    halted = fit(config, pause=lambda: next(steps) == 4)
    with pytest.raises(PausedError):
        list(halted)
    halted.state.save(state_path)
    watched, other = (
        [event for event in training.events(seconds=0.0) if isinstance(event, TrainingProgress)]
        for training in (fit(config), fit(config, state=TrainState.load(state_path)))
    )
    assert [event.images_seen for event in other] == [event.images_seen for event in watched][-len(other) :]
    for resumed, whole in zip(other, watched[-len(other) :], strict=True):
        assert resumed.train_bits_per_dim == pytest.approx(whole.train_bits_per_dim)


def test_looking_at_reports_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = [numbers(report) for report in fit(tiny(optim__ema=0.9))]
    monkeypatch.setattr(Training, "_looks_at_every_step", False)
    assert [numbers(report) for report in fit(tiny(optim__ema=0.9))] == watched


def test_a_validation_that_is_not_finite_is_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(self: Training, model: Any, split: str = "valid") -> Any:
        result = evaluate(self, model, split)
        result.nats_N[0] = np.inf
        return result

    evaluate = Training.evaluate
    monkeypatch.setattr(Training, "evaluate", infinite)
    with pytest.raises(DivergedError, match="validation must be finite"):
        next(fit(tiny()))


def test_every_training_is_audited_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(model: Any) -> AuditReport:
        seen.append(model)
        return audit(model)

    audit = loop.audit
    monkeypatch.setattr(loop, "audit", note)
    training = fit(tiny())
    assert seen == [training.model]
    assert training.audit.receptive_rows > 1


@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_labels_are_used_in_training_and_in_evaluation(conditioning: str) -> None:
    training = fit(tiny(model__conditioning=conditioning, optim__lr=2e-2, train__images=1920, train__report_every=960))
    report = list(training)[-1]
    valid = training.data.valid
    assert valid.labels_N is not None
    wrong = replace(valid, labels_N=(valid.labels_N + 1) % 10)
    assert report.valid_nats < evaluate(training.model, wrong).nats - 0.5
    assert report.valid_nats < evaluate(training.model, replace(valid, labels_N=None)).nats


def test_withheld_labels_are_drawn_from_seed_and_step() -> None:
    first, again, none = (
        [report.train_nats for report in fit(tiny(model__conditioning="bias", model__label_dropout=rate))]
        for rate in (0.5, 0.5, 0.0)
    )
    assert first == again != none


def test_clipping_bounds_the_step_but_not_the_reported_norm() -> None:
    free, clipped = (
        next(fit(tiny(train__images=32, train__report_every=32, optim__clip=clip))) for clip in (None, 0.1)
    )
    assert free.grad_norm == clipped.grad_norm > 0.1


def test_batches_must_divide_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Workers, "current", classmethod(lambda cls: cls(rank=0, world=3)))
    with pytest.raises(ConfigError, match="3 workers"):
        fit(tiny())


def test_next_report_is_always_ahead_and_never_past_the_end() -> None:
    config = tiny(train__images=224, train__report_every=96)
    for images in range(0, 224, 32):
        assert images < next_report(config, images) <= 224
    assert next_report(config, 192) == 224


def test_ema_and_raw_are_both_reported() -> None:
    report = list(fit(tiny(optim__ema=0.9)))[-1]
    assert report.valid_nats == report.valid_nats_ema != report.valid_nats_raw
    without = list(fit(tiny()))[-1]
    assert without.valid_nats_ema is None
    assert without.valid_nats == without.valid_nats_raw == report.valid_nats_raw


@pytest.mark.parametrize("name", ["gated categorical", "gated mixture dropout ema"])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_training_that_paused_between_reports_goes_on_as_if_it_had_not(
    name: str, steps: int, state_path: str
) -> None:
    """After so many steps since the first report; and twice in the same interval."""
    config = tiny(**GOLDEN_CONFIGS[name])
    uninterrupted = [numbers(report) for report in fit(config)]
    training = fit(config)
    got = [numbers(next(training))]
    for pause_at in (training.step + steps, training.step + steps + 1):
        pause_in(training, pause_at)
        training.state.save(state_path)
        state = TrainState.load(state_path)
        assert (state.step, len(state.reports)) == (pause_at, 1)
        training = fit(config, state=state)
    got += [numbers(report) for report in training]
    assert got == uninterrupted
    assert training.state.since_report is None


def pause_in(training: Training, step: int) -> None:
    training._pause = lambda: training.step == step
    with pytest.raises(PausedError):
        next(training)


def test_seconds_before_a_pause_are_counted(state_path: str) -> None:
    config = tiny()
    training = fit(config)
    next(training)
    pause_in(training, 5)
    training.state.save(state_path)
    before = training.state.since_report
    assert before is not None
    report = next(fit(config, state=TrainState.load(state_path)))
    assert report.train_seconds > before.train_seconds
    assert report.compile_seconds > before.compile_seconds


def test_the_speed_of_a_resumed_first_step_is_its_own(state_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step a report, and every look at the clock a second later than the one before."""
    monkeypatch.setattr(timers.time, "perf_counter", count().__next__)
    config = tiny().override({"train.report_every": tiny().train.batch_size})
    training = fit(config)
    first = next(training)
    training.state.save(state_path)
    second = next(fit(config, state=TrainState.load(state_path)))
    assert (first.compile_seconds, second.compile_seconds) == (1.0, 2.0)
    assert first.images_per_second == second.images_per_second == config.train.batch_size
