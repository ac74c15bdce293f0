"""The order of the training images."""

from __future__ import annotations

import numpy as np

from pixeltune.training.data_order import ImageStream
from pixeltune.training.workers import Workers
from tests.support.tiny_trainings import tiny


def test_each_epoch_sees_each_image_once() -> None:
    stream = ImageStream(tiny(), 37)
    indices = np.concatenate([stream.batch(start, 5)[0] for start in range(0, 185, 5)])
    for epoch in indices.reshape(5, 37):
        assert sorted(epoch) == list(range(37))
    assert not np.array_equal(indices[:37], indices[37:74])


def test_batches_cross_epochs_and_say_which() -> None:
    stream = ImageStream(tiny(), 10)
    indices, epochs = stream.batch(8, 14)
    assert epochs.tolist() == [0] * 2 + [1] * 10 + [2] * 2
    assert indices.tolist() == [*stream.batch(8, 2)[0], *stream.batch(10, 10)[0], *stream.batch(20, 2)[0]]


def test_a_position_decides_whatever_was_asked_before() -> None:
    used = ImageStream(tiny(), 37)
    for start in range(0, 400, 8):
        used.batch(start, 8)
    fresh = ImageStream(tiny(), 37)
    assert np.array_equal(used.batch(16, 64)[0], fresh.batch(16, 64)[0])
    assert not np.array_equal(fresh.batch(0, 37)[0], ImageStream(tiny(seed=1), 37).batch(0, 37)[0])


def test_workers_share_a_batch_without_overlap() -> None:
    batch = np.arange(12)
    parts = [Workers(rank, 3).my_part(batch) for rank in range(3)]
    assert np.concatenate(parts).tolist() == batch.tolist()
    assert {len(part) for part in parts} == {4}
