"""How fast a model is sampled, from a few rows that are drawn for their time alone.

Neither weights, mode nor any random state is changed: the noise comes from a generator of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.models import DensityModel, eval_mode
from pixeltune.models.exact import exact_float32
from pixeltune.sampling.cached import RowSampler
from pixeltune.sampling.request import SampleRequest

SPEED_BATCH = 16
"""Images that are drawn together in every measurement of speed, which depends on it: rows that agree in it compare.

That of `benchmarks/sample.py`. It is enough for a processor to read its weights from memory once for many images, and
its caches are a small part of what training has taken on the same device.
"""

_LONGEST = 1.0
"""Seconds after which a measurement tries no more. In tries for a tenth of it, the quickest may be twice as slow as
usual: others take turns on a shared machine."""


def forecast(model: DensityModel, n: int, *, batch_size: int = 256) -> float:
    """Return the seconds that `sample` will take, from a row drawn again; less where resolutions alternate."""
    with eval_mode(model), torch.inference_mode():
        first = _FirstRows(model, min(n, batch_size), count=1)
        row = _seconds(first.draw)
    return math.ceil(n / batch_size) * (first.seconds_to_begin + first.height * row)


def images_per_second(model: DensityModel, batch: int = SPEED_BATCH) -> float:
    """Return the images drawn in a second by cached sampling in float32, `batch` at a time, on the model's device.

    Measured on the rows in which resolutions alternate, once their programs are built, captured and warm: the quickest
    of several tries, because what else the machine does only slows it. A network that cannot be stepped through is
    measured as `naive` draws it: a pass of the whole network, times the calls of its order.
    """
    with eval_mode(model), torch.inference_mode(), exact_float32():
        try:
            first = _FirstRows(model, batch)
        except ConfigError:
            return batch / (_num_calls(model) * _quickest(_WholePass(model, batch)))
        return batch / (first.height / first.count * _quickest(first.draw))


class _FirstRows:
    """The first rows of a batch, drawn again and again. count: how many; None for one of each kind.

    seconds_to_begin: until they were drawn for the first time, with all that had to be built for it.
    """

    def __init__(self, model: DensityModel, batch: int, count: int | None = None) -> None:
        start = time.perf_counter()
        noise_BNhw, like_BCHW = _inputs(model, batch)
        self._rows = RowSampler(model, SampleRequest(noise_BNhw, model.features(like_BCHW)))
        self.height = self._rows.height
        self.count = count or min(self.height, self._rows.stepper.network.period)
        self.draw()
        if noise_BNhw.device.type == "cuda":
            self.draw()  # the second time, a GPU captures it
        self.seconds_to_begin = time.perf_counter() - start

    def draw(self) -> None:
        """Return when they are drawn."""
        for row in range(self.count):
            self._rows.draw(row)
        _wait(self._rows.x_BCHW)


class _WholePass:
    """A pass of the whole network over a batch of images."""

    def __init__(self, model: DensityModel, batch: int) -> None:
        _, self._x_BCHW = _inputs(model, batch)
        self._model, self._s = model, model.features(self._x_BCHW)
        self()

    def __call__(self) -> None:
        """Return when it is done."""
        _wait(self._model.parameters_given(self._x_BCHW, self._s))


def _inputs(model: DensityModel, batch: int) -> tuple[Tensor, Tensor]:
    """Return noise of `batch` images, and images of nothing, on the model's device."""
    weight = next(model.parameters())
    noise_BNhw = model.noise(torch.Generator()).to(weight.device).expand(batch, -1, -1, -1)
    return noise_BNhw, weight.new_zeros(batch, *model.form.shape)


def _quickest(run: Callable[[], object]) -> float:
    """Return the seconds of the shortest of several tries."""
    shortest, left = math.inf, _LONGEST
    while left > 0:
        seconds = _seconds(run)
        shortest, left = min(shortest, seconds), left - seconds
    return shortest


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _wait(result: Tensor) -> None:
    """Wait until a GPU has computed it."""
    result.sum().item()


def _num_calls(model: DensityModel) -> int:
    return int(model.order().max()) + 1
