"""The peak that is predicted from a few images is the one that training reaches, and a plan keeps to the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pixeltune.config import FAMILIES, ImageSpec, TrialConfig
from pixeltune.errors import MemoryShortError
from pixeltune.models import DensityModel, build_model
from pixeltune.search.messages import TrialTask
from pixeltune.search.trial import run_trial
from pixeltune.training import loop, memory
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.loop import Training, fit
from pixeltune.training.memory import MemoryPlan, Phase, memory_limit, plan_memory, predict_peaks
from pixeltune.training.running_sums import Tally
from pixeltune.training.workers import Workers
from tests.support.tiny_trainings import GOLDEN_CONFIGS, numbers, tiny


def allocated_peak(training: Training, work: Any) -> int:
    """Most bytes that PyTorch's allocator gave out during `work`, and those that training held before."""
    states = [value for state in training.optimizer.state.values() for value in state.values()]
    models = [training.model] if training.average is None else [training.model, training.average]
    weights = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    held = sum(tensor.nbytes for tensor in (*weights, *gradients, *states))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    now = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return held + peak


def predicted(training: Training) -> dict[Phase, int]:
    return predict_peaks(
        training.model,
        training.config,
        micro_batch=training.memory.micro_batch,
        precision=training.numerics.precision,
    )


MEANS: dict[str, dict[str, Any]] = {
    "one pass": {},
    "passes": {"train__micro_batch": 12},
    "computed again": {"train__checkpoint_activations": True},
    "passes computed again": {"train__micro_batch": 12, "train__checkpoint_activations": True},
    "bfloat16": {"train__precision": "bfloat16"},
}


OF_EACH_FAMILY = {str(changes.get("model__family", "gated")): changes for changes in GOLDEN_CONFIGS.values()}


@pytest.mark.parametrize(
    "means",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ("passes", "computed again") else []) for name in MEANS],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_prediction_is_within_15_percent_of_the_allocators_peak(family: str, means: str) -> None:
    """Large enough for what oneDNN takes within an operation, half a megabyte, not to count."""
    size = {"model__channels": 24, "train__batch_size": 64, "train__report_every": 64}
    training = fit(tiny(**OF_EACH_FAMILY[family] | size | MEANS[means]))
    training._train_step(Tally(training.device))
    peaks = predicted(training)
    training.optimizer.zero_grad(set_to_none=True)
    step = allocated_peak(training, lambda: training._train_step(Tally(training.device)))
    assert max(peaks[Phase.TRAIN], peaks[Phase.UPDATE]) == pytest.approx(step, rel=0.15)
    evaluation = allocated_peak(training, lambda: training.evaluate(training.model))
    # Where nothing is kept, the copies that oneDNN makes within an operation weigh more.
    assert peaks[Phase.EVALUATE] == pytest.approx(evaluation, rel=0.25)


def test_a_prediction_leaves_the_model_and_the_random_numbers_alone() -> None:
    config = tiny(**GOLDEN_CONFIGS["pixelcnn simple batch norm"], model__channels=11, model__dropout=0.4)
    model = build_model(config, ImageSpec(1, 8, 8, levels=17)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    predict_peaks(model, config, micro_batch=32, precision="float32")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training


def test_more_workers_hold_the_buckets_of_their_exchange() -> None:
    config = tiny()
    model = build_model(config, ImageSpec(1, 8, 8, levels=17))
    one = predict_peaks(model, config.override({"train.batch_size": 16}), micro_batch=16, precision="float32")
    two = predict_peaks(model, config, micro_batch=16, precision="float32", workers=2)
    assert two[Phase.TRAIN] - one[Phase.TRAIN] == sum(parameter.nbytes for parameter in model.parameters())


def test_the_second_of_two_passes_adds_to_gradients_as_that_of_four() -> None:
    model = build_model(tiny(), ImageSpec(1, 8, 8, levels=17))
    configs = [tiny().override({"train.batch_size": size}) for size in (16, 32)]
    two, four = (predict_peaks(model, config, micro_batch=8, precision="float32") for config in configs)
    assert two[Phase.TRAIN] == four[Phase.TRAIN]


def model_and_peak(config: TrialConfig, micro_batch: int) -> tuple[DensityModel, int]:
    model = build_model(config, ImageSpec(1, 8, 8, levels=17))
    peaks = predict_peaks(model, config, micro_batch=micro_batch, precision="float32")
    return model, max(peaks.values())


SMALL_EVALUATION = {"train__eval_batch_size": 1}


def plan(model: DensityModel, config: TrialConfig, limit: int | None, at_most: int | None = None) -> int:
    found = plan_memory(model, config, precision="float32", workers=Workers(), limit=limit, at_most=at_most)
    return found.micro_batch


@pytest.mark.parametrize(("fits", "micro_batch"), [(32, 32), (31, 16), (16, 16), (9, 8), (1, 1)])
def test_what_does_not_fit_is_halved_until_it_does(fits: int, micro_batch: int) -> None:
    config = tiny(**SMALL_EVALUATION)
    model, limit = model_and_peak(config, fits)
    assert plan(model, config, limit) == micro_batch


def test_the_whole_part_of_a_batch_where_there_is_room_or_no_limit_known() -> None:
    config = tiny()
    model, _ = model_and_peak(config, 32)
    assert plan(model, config, None) == plan(model, config, 10**12) == 32
    assert plan(model, config, 10**12, at_most=8) == 8


@pytest.mark.parametrize(
    ("images", "spare", "is_resident"),
    [
        (1000, 1000, True),
        (1000, 999, False),  # the passes come first
        (0, 10**9, False),
        (10**9, 4 * 10**9, True),
        (10**9, 2 * 10**9, False),  # more than their share
    ],
)
def test_images_stay_where_they_have_room_and_are_counted(images: int, spare: int, is_resident: bool) -> None:
    config = tiny(**SMALL_EVALUATION)
    model, peak = model_and_peak(config, 32)
    found = plan_memory(model, config, precision="float32", workers=Workers(), limit=peak + spare, images=images)
    assert found == MemoryPlan(32, peak + images * is_resident, is_resident)


def test_images_never_stay_in_memory_of_unknown_size() -> None:
    config = tiny()
    model, _ = model_and_peak(config, 32)
    assert not plan_memory(model, config, precision="float32", workers=Workers(), limit=None, images=1).is_resident


def test_what_the_user_asks_for_is_kept_or_refused() -> None:
    config = tiny(**SMALL_EVALUATION, train__micro_batch=8)
    model, limit = model_and_peak(config, 8)
    assert plan(model, config, 10**12, at_most=4) == 8
    assert plan(model, config, limit) == 8
    with pytest.raises(
        MemoryShortError,
        match=r"a training pass needs .* GB with 8 images a pass, and there are .* GB; lower `train.micro_batch`",
    ):
        plan(model, config, limit - 1)


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"train__eval_batch_size": 1}, r"with 1 image a pass, and there are 1e-06 GB; set `train.checkpoint_activ"),
        ({"train__eval_batch_size": 1000}, r"evaluation needs .*; lower `train.eval_batch_size`"),
        (
            {
                "model__family": "pixelcnnpp",
                "model__layers": 1,
                "train__eval_batch_size": 1,
                "train__batch_size": 192,
                "train__report_every": 192,
            },
            "the initialisation by data needs .*; lower `train.batch_size`",
        ),
    ],
    ids=["train", "evaluate", "initialise"],
)
def test_a_refusal_says_what_needs_how_much_and_what_helps(changes: dict[str, Any], cure: str) -> None:
    config = tiny(**changes)
    model, _ = model_and_peak(config, 1)
    with pytest.raises(MemoryShortError, match=cure):
        plan(model, config, 1000)


def test_a_trial_that_cannot_fit_ends_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "memory_limit", lambda *_args, **_kwargs: 10_000)
    (only,) = run_trial(TrialTask(trial="00000", config=tiny().model_dump(), checkpoint=str(tmp_path / "00000")))
    assert only["end"] == "oom"
    assert "1e-05 GB" in only["reason"]
    assert only["facts"]["predicted_peak_bytes"] > 10_000


def test_a_short_memory_changes_no_number_but_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(**SMALL_EVALUATION)
    whole = fit(config)
    _, limit = model_and_peak(config, 10)
    monkeypatch.setattr(loop, "memory_limit", lambda *_args, **_kwargs: limit)
    short = fit(config)
    assert (whole.memory.micro_batch, short.memory.micro_batch) == (32, 8)
    assert short.memory.predicted_peak_bytes <= limit < whole.memory.predicted_peak_bytes
    for ours, theirs in zip(short, whole, strict=True):
        assert ours.valid_nats == pytest.approx(theirs.valid_nats, rel=1e-5)


def test_a_training_goes_on_in_the_passes_it_began_with(state_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By them dropout draws."""
    config = tiny(**SMALL_EVALUATION, model__dropout=0.4)
    _, limit = model_and_peak(config, 10)
    with monkeypatch.context() as short:
        short.setattr(loop, "memory_limit", lambda *_args, **_kwargs: limit)
        curve = [numbers(report) for report in fit(config)]
        interrupted = fit(config)
        next(interrupted)
        interrupted.state.save(state_path)
    rest = [numbers(report) for report in fit(config, state=TrainState.load(state_path))]
    assert rest == curve[1:]


def test_the_memory_of_this_machine() -> None:
    limit = memory_limit(torch.device("cpu"))
    assert limit is None or 1e8 < limit < 1e15


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (
            "0::/user/job7",
            {"v2/memory.max": "max", "v2/user/memory.max": "5000", "v2/user/job7/memory.max": "7000"},
            5000,
        ),
        ("4:cpu,memory:/job7\n0::/", {"v1/job7/memory.limit_in_bytes": "3000"}, 3000),
        ("4:memory:/docker/4f5e", {"v1/memory.limit_in_bytes": "9000"}, 9000),  # a container sees its own as the root
        ("3:cpu:/job7", {"v1/job7/memory.limit_in_bytes": "3000"}, None),
    ],
)
def test_the_memory_of_a_process_is_that_of_its_control_groups(
    groups: str, limits: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    (tmp_path / "cgroup").write_text(groups + "\n", encoding="ascii")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    folders = {"": (str(tmp_path / "v2"), "memory.max"), "memory": (str(tmp_path / "v1"), "memory.limit_in_bytes")}
    monkeypatch.setattr(memory, "_GROUP_LIMITS", folders)
    limit = memory_limit(torch.device("cpu"))
    assert limit == expected if expected else limit is None or limit > 10**8
