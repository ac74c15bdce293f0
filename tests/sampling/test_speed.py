"""Speed is that of the rows of an image, warm; a clock of the test's own counts what is drawn, so that it is exact."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixeltune.errors import ConfigError
from pixeltune.models import DensityModel
from pixeltune.sampling import SPEED_BATCH, RowSampler, SampleRequest, cached, forecast, images_per_second, speed
from tests.support.model_kinds import every_network
from tests.support.tiny_models import tiny_model

BUILDING = 1000.0


class Clock:
    """Stands still but for `seconds` being added."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        patch.setattr(speed.time, "perf_counter", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A row takes 2 s where resolutions meet, else 1 s; and the first of its kind BUILDING more."""
    own, draw, built = Clock(monkeypatch), RowSampler.draw, set[tuple[RowSampler, int]]()

    def timed(self: RowSampler, row: int) -> None:
        draw(self, row)
        phase = self.stepper.network.phase
        own.seconds += (1.0 if phase else 2.0) + (0.0 if (self, phase) in built else BUILDING)
        built.add((self, phase))

    monkeypatch.setattr(RowSampler, "draw", timed)
    return own


def test_a_speed_is_of_all_kinds_of_rows_once_they_are_built(clock: Clock) -> None:
    halved = tiny_model("pixelcnnpp", shape=(3, 8, 8), stages=2)
    assert images_per_second(halved) == pytest.approx(SPEED_BATCH / (4 * (2 + 1)))


def test_rows_of_one_kind_are_as_many_as_there_are(clock: Clock) -> None:
    plain = tiny_model("gated", shape=(3, 6, 4))
    assert images_per_second(plain, batch=5) == pytest.approx(5 / (6 * 2))


def test_a_forecast_is_of_all_rows_and_batches(clock: Clock) -> None:
    model = tiny_model("gated", shape=(3, 8, 8))
    assert forecast(model, 4, batch_size=4) == pytest.approx(BUILDING + 2 + 8 * 2)
    assert forecast(model, 9, batch_size=4) == pytest.approx(3 * (BUILDING + 2 + 8 * 2))


def test_a_slow_try_is_not_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    own, draw, tries = Clock(monkeypatch), RowSampler.draw, iter([9.0, 0.1, 0.4, 0.2, *[0.3] * 90])

    def timed(self: RowSampler, row: int) -> None:
        draw(self, row)
        own.seconds += next(tries)

    monkeypatch.setattr(RowSampler, "draw", timed)
    assert images_per_second(tiny_model("gated", shape=(3, 6, 4))) == pytest.approx(SPEED_BATCH / (6 * 0.1))
    assert 0.7 <= own.seconds - 9.0 <= 1.5, "about a second in all"


@every_network
def test_every_family_has_a_speed(family: str, colour_order: str, clock: Clock) -> None:
    model = tiny_model(family, shape=(3, 8, 8), colour_order=colour_order)
    assert images_per_second(model) == pytest.approx(SPEED_BATCH / (8 * 2))


@pytest.mark.parametrize("is_training", [True, False])
def test_a_measurement_changes_nothing(is_training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_LONGEST", 0.05)
    model = tiny_model("pixelcnn/simple", batch_norm=True, dropout=0.5, conditioning="map").float().train(is_training)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert images_per_second(model, batch=2) > 0
    assert forecast(model, 2) > 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert model.training is is_training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Sorted(nn.Module):
    """A network with a function that cannot be stepped through; it is on the clock, the first pass longest."""

    def __init__(self, network: nn.Module, own: Clock) -> None:
        super().__init__()
        self.network, self.own = network, own
        self.seconds = iter([BUILDING, 0.5, *[0.7] * 90])

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        theta = self.network(x, s).sort(dim=0).values
        self.own.seconds += 0.0 if x.is_meta else next(self.seconds)
        return theta


@pytest.mark.parametrize("model", [{}, {"split": 2}])
def test_what_cannot_be_stepped_through_takes_a_pass_a_call(
    model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: DensityModel = tiny_model("gated", shape=(3, 4, 4), colour_order="likelihood", **model)
    built.network = Sorted(built.network, Clock(monkeypatch))
    with pytest.raises(ConfigError, match="cannot step through"):
        cached(built, SampleRequest(built.noise(torch.Generator())))
    assert images_per_second(built) == pytest.approx(SPEED_BATCH / ((4 if model else 16) * 0.5))
