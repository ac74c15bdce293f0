"""A step in several passes is the step in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pixeltune.errors import ConfigError
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.loop import fit
from pixeltune.training.micro_batches import micro_batches
from pixeltune.training.running_sums import Tally
from tests.support.tiny_trainings import GOLDEN_CONFIGS, numbers, tiny, two_processes

WITHOUT_DRAWS = {
    name: changes | {"model__dropout": 0.0, "model__label_dropout": 0.0}
    for name, changes in GOLDEN_CONFIGS.items()
    if not changes.get("model__batch_norm")
}
FAST = {str(changes.get("model__family", "gated")): name for name, changes in WITHOUT_DRAWS.items()}.values()
"""One of each family."""


@pytest.fixture
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("size", "micro_batch", "sizes"), [(8, None, [8]), (8, 8, [8]), (8, 100, [8]), (8, 3, [3, 3, 2]), (1, 1, [1])]
)
def test_passes_cover_a_batch_in_order(size: int, micro_batch: int | None, sizes: list[int]) -> None:
    rows = list(micro_batches(size, micro_batch))
    assert [len(range(size)[part]) for part in rows] == sizes
    assert [row for part in rows for row in range(size)[part]] == list(range(size))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in WITHOUT_DRAWS]
)
def test_passes_give_the_losses_of_one(name: str) -> None:
    """32 images in passes of 12, 12 and 8."""
    config = tiny(**WITHOUT_DRAWS[name])
    alone = [numbers(report) for report in fit(config)]
    passes = [numbers(report) for report in fit(config.override({"train.micro_batch": 12}))]
    for ours, theirs in zip(passes, alone, strict=True):
        for key, value in theirs.items():
            assert ours[key] == (None if value is None else pytest.approx(value, rel=1e-6)), key


@pytest.mark.parametrize("family", ["gated", "pixelcnn"])
def test_one_step_in_float32_differs_by_rounding_alone(family: str) -> None:
    """Of each parameter's gradient, as it is before the first step."""

    def gradients(micro_batch: int | None) -> list[torch.Tensor]:
        training = fit(tiny(model__family=family, train__micro_batch=micro_batch, optim__lr=1e-12))
        training._train_step(Tally(torch.device("cpu")))
        return [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]

    for whole, parts in zip(gradients(None), gradients(5), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


def test_the_network_sees_no_more_than_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = fit(tiny(train__micro_batch=12, train__precision="bfloat16"))
    seen: list[int] = []
    loss = training._loss
    monkeypatch.setattr(training, "_loss", lambda x, *rest: seen.append(len(x)) or loss(x, *rest))
    training._train_step(Tally(torch.device("cpu")))
    assert seen == [12, 12, 8]


def test_with_dropout_it_goes_on_as_if_uninterrupted(state_path: str) -> None:
    config = tiny(model__dropout=0.3, train__micro_batch=12)
    whole = [numbers(report) for report in fit(config)]
    interrupted = fit(config)
    first = numbers(next(interrupted))
    interrupted.state.save(state_path)
    rest = [numbers(report) for report in fit(config, state=TrainState.load(state_path))]
    assert [first, *rest] == whole


def test_a_checkpoint_serves_another_micro_batch(state_path: str) -> None:
    """It is no part of what is trained, so that a trial goes on with less memory than it began with."""
    interrupted = fit(tiny())
    next(interrupted)
    interrupted.state.save(state_path)
    (last,) = fit(tiny(train__micro_batch=12), state=TrainState.load(state_path))
    *_, whole = fit(tiny())
    assert last.valid_nats == pytest.approx(whole.valid_nats, rel=1e-5)


def test_batch_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`train.micro_batch` must be none with `model.batch_norm`, .* but got 8"):
        tiny(
            model__family="pixelcnn",
            model__variant="simple",
            model__batch_norm=True,
            model__head_channels=0,
            train__micro_batch=8,
        )


@pytest.mark.slow
def test_workers_in_passes_train_as_one(tmp_path: Path) -> None:
    """Each worker's 16 images in passes of 6, 6 and 4 give the losses of one worker and one pass."""
    config = tiny(train__images=640, train__report_every=160, optim__clip=20.0)
    alone = [numbers(report) for report in fit(config)]
    first, second = two_processes(config.override({"train.micro_batch": 6}), tmp_path)
    assert first["weights"] == second["weights"]
    for ours, report in zip(alone, first["reports"], strict=True):
        for key in ("train_nats", "valid_nats", "grad_norm"):
            assert report[key] == pytest.approx(ours[key], rel=1e-5), key


def test_it_is_no_part_of_the_identity() -> None:
    assert tiny(train__micro_batch=12, train__checkpoint_activations=True).key() == tiny().key()


@pytest.mark.parametrize("family", ["gated", "pixelcnnpp"])
def test_activations_computed_again_change_no_number(family: str) -> None:
    config = tiny(model__family=family, model__layers=1 if family == "pixelcnnpp" else 3, model__dropout=0.4)
    again = config.override({"train.checkpoint_activations": True})
    assert [numbers(report) for report in fit(again)] == [numbers(report) for report in fit(config)]
