"""The order in which training images are seen: a function of (seed, position), the same for any number of workers."""

from __future__ import annotations

import numpy as np

from pixeltune.config import TrialConfig


class ImageStream:
    """An endless sequence of image indices: one seeded permutation of the training set after another.

    Batches are cut from the sequence without regard to epochs, so each image is seen equally often and every
    batch is full.
    """

    def __init__(self, config: TrialConfig, num_images: int) -> None:
        self._config = config
        self._num_images = num_images
        self._permutations: dict[int, np.ndarray] = {}

    def batch(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image indices (size,) at positions start … start + size - 1, and the epoch (size,) of each."""
        positions = np.arange(start, start + size)
        epochs, places = positions // self._num_images, positions % self._num_images
        indices = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[places[here]]
        return indices, epochs

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            self._permutations = {kept: order for kept, order in self._permutations.items() if kept == epoch - 1}
            generator = np.random.default_rng(self._config.seed_for("order", epoch))
            self._permutations[epoch] = generator.permutation(self._num_images)
        return self._permutations[epoch]
