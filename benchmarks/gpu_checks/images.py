"""Images that need no files: sources for `data.name`, such as `gpu_checks.images:structured`."""

from __future__ import annotations

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData

SIZE = 32
WAVES = 4


def noise(_: DataConfig) -> RawData:
    """For speed alone, which does not depend on them; few to evaluate."""
    generator = np.random.default_rng(0)
    sizes = {"train": 2048, "valid": 8, "test": 8}
    return RawData.of({name: ImageSet(_noise(generator, n)) for name, n in sizes.items()})


def structured(_: DataConfig) -> RawData:
    """Waves in random directions, a disc before them, a little noise: neighbours and colours tell of each other."""
    generator = np.random.default_rng(0)
    sizes = {"train": 20_000, "valid": 1_000, "test": 1_000}
    return RawData.of({name: ImageSet(draw(generator, n)) for name, n in sizes.items()})


def few(_: DataConfig) -> RawData:
    """The same, few and small."""
    generator = np.random.default_rng(0)
    sizes = {"train": 256, "valid": 32, "test": 32}
    return RawData.of({name: ImageSet(draw(generator, n, size=8)) for name, n in sizes.items()})


def draw(generator: np.random.Generator, count: int, size: int = SIZE) -> np.ndarray:
    """(N, 3, size, size), uint8."""
    rows_HW, cols_HW = np.mgrid[:size, :size] / size
    frequency, phase = generator.normal(0, 6, (2, count, WAVES, 1, 1)), generator.uniform(0, 7, (count, WAVES, 1, 1))
    waves_NHW = np.cos(frequency[0] * rows_HW + frequency[1] * cols_HW + phase).sum(1) / WAVES
    row, col, radius = generator.uniform(0.1, 0.9, (3, count, 1, 1))
    inside_NHW = (rows_HW - row) ** 2 + (cols_HW - col) ** 2 < (radius / 3) ** 2
    tint_NC11, disc_NC11 = generator.uniform(-1, 1, (2, count, 3, 1, 1))
    colours_NCHW = np.where(inside_NHW[:, None], disc_NC11, waves_NHW[:, None] + 0.5 * tint_NC11)
    noisy_NCHW = 128 + 80 * colours_NCHW + generator.normal(0, 2, colours_NCHW.shape)
    return noisy_NCHW.round().clip(0, 255).astype(np.uint8)


def _noise(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.integers(256, size=(count, 3, SIZE, SIZE), dtype=np.uint8)
