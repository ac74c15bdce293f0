"""The images of a batch are the same wherever their pixels come from, and no way to them waits or leaks."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pixeltune.config import TrialConfig
from pixeltune.data import DataSet, counter_rng, resolve
from pixeltune.data.dataset import draw_binary
from pixeltune.errors import DataError
from pixeltune.training import augment, batches, loop
from pixeltune.training.batches import IMAGES_AHEAD, Batches, Mapped, Reading, Resident
from pixeltune.training.data_order import ImageStream
from pixeltune.training.loop import Training, fit
from pixeltune.training.memory import MemoryPlan
from pixeltune.training.workers import Workers
from tests.support.tiny_trainings import numbers, tiny

CPU = torch.device("cpu")
WAYS = {"mapped": Mapped, "reading": Reading, "resident": Resident}
CHANGES: dict[str, dict[str, Any]] = {
    "labels": {"model__conditioning": "bias"},
    "dynamic": {"data__binarise": "dynamic", "likelihood__name": "bernoulli"},
    "dynamic flipped": {"data__binarise": "dynamic", "data__flip": True, "likelihood__name": "bernoulli"},
}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "memory_limit", lambda _device: 1000)


def batches_by(
    way: str, config: TrialConfig, monkeypatch: pytest.MonkeyPatch, workers: Workers | None = None
) -> Batches:
    monkeypatch.setattr(batches, "memory_limit", lambda _device: 1000 if way == "reading" else 10**12)
    made = Batches(resolve(config).data, config, workers or Workers(), CPU)
    if way == "resident":
        made.keep_on_device()
    assert type(made._pixels) is WAYS[way]
    return made


@pytest.mark.parametrize("changes", ["labels", "dynamic"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_images_and_draws_of_the_data_set(
    way: str, changes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(**CHANGES[changes])
    data: DataSet = resolve(config).data
    made, stream = batches_by(way, config, monkeypatch), ImageStream(config, len(data.train))
    for start in range(0, 2 * len(data.train), 32):
        batch, (indices, epochs) = made.part(start), stream.batch(start, 32)
        assert np.array_equal(batch.x_BCHW.numpy(), data.train_batch(indices, epochs))
        assert batch.x_BCHW.dtype == torch.uint8
        assert data.train.labels_N is not None
        assert batch.label_B is not None
        assert np.array_equal(batch.label_B.numpy(), data.train.labels_N[indices])
        assert batch.position_B.tolist() == list(range(start, start + 32))


@pytest.mark.parametrize("way", WAYS)
def test_workers_share_a_batch(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(**CHANGES["dynamic flipped"])
    parts = [batches_by(way, config, monkeypatch, Workers(rank, 4)) for rank in range(4)]
    for start in range(0, 192, 32):
        whole = parts[0].whole(start)
        assert torch.equal(torch.cat([made.part(start).x_BCHW for made in parts]), whole.x_BCHW)
        assert torch.equal(torch.cat([made.part(start).position_B for made in parts]), whole.position_B)


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_draws_on_the_device_are_those_of_numpy(levels: int) -> None:
    generator = np.random.default_rng(levels)
    pixels = generator.integers(levels, size=(50, 3, 4, 5), dtype=np.uint8)
    keys_N = generator.integers(2**64, size=50, dtype=np.uint64)
    keys = torch.from_numpy(keys_N.view(np.int64))
    drawn = augment.draw_binary(torch.from_numpy(pixels), keys, levels=levels)
    assert np.array_equal(drawn.numpy(), draw_binary(pixels, keys_N, levels=levels))
    assert np.array_equal(
        augment.below(keys, 100, 2**31).numpy(), counter_rng.below(keys_N, 100, 2**31).astype(np.int64)
    )


@pytest.mark.parametrize("changes", CHANGES)
def test_a_training_does_not_depend_on_the_way(changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve() -> tuple[type, list[dict[str, Any]]]:
        training = fit(tiny(**CHANGES[changes], train__images=2048, train__report_every=1024))
        return type(training._batches._pixels), [numbers(report) for report in training]

    curves = [curve()]
    with monkeypatch.context() as patch:
        patch.setattr(batches, "memory_limit", lambda _device: 1000)
        curves.append(curve())
    monkeypatch.setattr(loop, "plan_memory", lambda *_args, **_kwargs: MemoryPlan(32, 10**6, is_resident=True))
    curves.append(curve())
    assert [way for way, _ in curves] == [Mapped, Reading, Resident]
    assert curves[0][1] == curves[1][1] == curves[2][1]


class Operators(TorchDispatchMode):
    """The names of all that is asked of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


WAITING = {f"aten.{name}" for name in ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero")}
"""What the host must have the answer of before it goes on."""


@pytest.mark.parametrize("changes", CHANGES)
def test_nothing_in_a_resident_batch_waits_for_the_device(changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = batches_by("resident", tiny(**CHANGES[changes]), monkeypatch)
    with Operators() as seen:
        made.part(0)
    assert "aten.index" in seen.names
    assert not seen.names & WAITING
    with Operators() as seen:
        torch.ones(3).sum().item()
    assert seen.names & WAITING


# --- Flips ------------------------------------------------------------------------------------------------------------


def flips_of(config: TrialConfig, made: Batches, epochs: int) -> dict[tuple[int, int], bool]:
    """Whether each image was flipped, by (epoch, index); one that is its own mirror image is left out."""
    data, size = resolve(config).data, config.train.batch_size
    stream, found = ImageStream(config, len(data.train)), dict[tuple[int, int], bool]()
    for start in range(0, epochs * len(data.train), size):
        x_BCHW = made.part(start).x_BCHW.numpy()
        for image, index, epoch in zip(x_BCHW, *stream.batch(start, size), strict=True):
            plain = data.train.pixels_NCHW[index]
            is_flipped = np.array_equal(image, plain[..., ::-1])
            assert is_flipped or np.array_equal(image, plain)
            if not np.array_equal(plain, plain[..., ::-1]):
                found[int(epoch), int(index)] = is_flipped
    return found


def test_a_flip_is_of_seed_epoch_and_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(data__flip=True)
    flips = flips_of(config, batches_by("mapped", config, monkeypatch), epochs=3)
    for way, other in (("resident", config), ("reading", tiny(data__flip=True, train__batch_size=48))):
        again = flips_of(other, batches_by(way, other, monkeypatch), epochs=2)
        assert len(again) > 2000
        common = flips.keys() & again.keys()
        assert len(common) > 2000
        assert {place: flips[place] for place in common} == {place: again[place] for place in common}


def test_half_of_the_images_are_flipped_anew_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (
        flips_of(config, batches_by("mapped", config, monkeypatch), epochs=2)
        for config in (tiny(data__flip=True), tiny(data__flip=True, seed=1))
    )
    images = {index for epoch, index in first if epoch == 1 and (0, index) in first}
    over_epochs = [(first[0, index], first[1, index]) for index in images]
    over_seeds = [(first[place], other[place]) for place in first.keys() & other.keys()]
    for pairs in (over_epochs, over_seeds):
        spread = 0.5 / np.sqrt(len(pairs))
        assert abs(np.mean(pairs) - 0.5) < 4 * spread
        assert abs(np.mean([a == b for a, b in pairs]) - 0.5) < 4 * spread


def test_without_flip_no_image_is_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    assert not any(flips_of(config, batches_by("mapped", config, monkeypatch), epochs=1).values())


def test_a_dynamic_draw_is_flipped_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, flipped = (
        batches_by("mapped", tiny(**CHANGES[name]), monkeypatch).part(0).x_BCHW
        for name in ("dynamic", "dynamic flipped")
    )
    is_flipped = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert (is_flipped | (flipped == plain).flatten(1).all(1)).all()
    assert 4 < is_flipped.sum() < 28


def test_evaluation_never_sees_a_flip() -> None:
    """A step of nothing leaves the weights, so that validation is that of the plain set."""
    still = {"optim__lr": 1e-30, "train__images": 32, "train__report_every": 32}
    plain, flipped = (next(fit(tiny(**still, data__flip=on))) for on in (False, True))
    assert flipped.valid_nats == plain.valid_nats
    assert flipped.train_nats != plain.train_nats
    test = [fit(tiny(**still, data__flip=on)) for on in (False, True)]
    assert test[0].evaluate(test[0].model, "test").nats == test[1].evaluate(test[1].model, "test").nats


# --- Reading ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "world"), [(32, 1), (32, 2), (192, 1), (256, 2)])
@pytest.mark.usefixtures("small_memory")
def test_images_are_announced_once_before_they_are_read_and_not_too_early(
    batch_size: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _file, place, size, _advice: told.append((place - 128) // size))
    config = tiny(train__batch_size=batch_size, train__images=768, train__report_every=768)
    data = resolve(config).data
    made, stream = Batches(data, config, Workers(world - 1, world), CPU), ImageStream(config, len(data.train))
    part = batch_size // world
    mine = [stream.batch(start, batch_size)[0][-part:].tolist() for start in range(0, 768, batch_size)]
    for step in range(len(mine)):
        made.part(step * batch_size)
        ahead = len(told) - step * part
        assert ahead == min(max(part, IMAGES_AHEAD), (len(mine) - 1 - step) * part)
    assert told == [index for indices in mine[1:] for index in indices]


@pytest.mark.usefixtures("small_memory")
def test_systems_that_take_no_advice_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [numbers(report) for report in fit(tiny())]
    monkeypatch.delattr(os, "posix_fadvise")
    assert [numbers(report) for report in fit(tiny())] == before


def open_files() -> list[str]:
    return sorted(str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to look at open files")
@pytest.mark.parametrize("end", ["dropped", "failed"])
@pytest.mark.usefixtures("small_memory")
def test_nothing_is_left_when_a_training_is_over(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    next(fit(tiny()))  # what a process keeps open and running after its first training
    gc.collect()
    files, threads = open_files(), threading.active_count()
    training = fit(tiny())
    next(training)
    assert len(open_files()) == len(files) + 1
    if end == "failed":
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(DataError):
            next(training)
    del training
    gc.collect()
    assert open_files() == files
    assert threading.active_count() == threads


def broken(*_: Any) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("fault", ["disk", "cut"])
@pytest.mark.usefixtures("small_memory")
def test_a_read_that_fails_is_one_line_and_takes_no_step(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = fit(tiny())
    next(training)
    weights = [weight.clone() for weight in training.model.parameters()]
    monkeypatch.setattr(os, "preadv", broken if fault == "disk" else lambda *_: 5)
    why = os.strerror(errno.EIO) if fault == "disk" else "it has 5 of 64 bytes there"
    with pytest.raises(DataError, match=rf"image \d+ of .*train\.npy is not: {why}; check the disk") as caught:
        next(training)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError) == (fault == "disk")
    assert training.step == 3
    assert all(torch.equal(now, then) for now, then in zip(training.model.parameters(), weights, strict=True))


def test_a_map_is_read_only_where_memory_cannot_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(256, size=(40, 1, 5, 5), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    view = np.asarray(mapped[8:24]).view()
    wanted = torch.from_numpy(images[8:24][[3, 15, 0]])
    for limit, kind in ((2 * view.nbytes, Mapped), (2 * view.nbytes - 1, Reading), (None, Mapped)):
        monkeypatch.setattr(batches, "memory_limit", lambda _device, limit=limit: limit)
        pixels = batches.from_host(view, CPU)
        assert type(pixels) is kind
        assert torch.equal(pixels.take(np.array([3, 15, 0])), wanted)
    monkeypatch.setattr(batches, "memory_limit", lambda _device: 1)
    for elsewhere in (images, mapped[::2], mapped[:, :, :4]):
        assert type(batches.from_host(elsewhere, CPU)) is Mapped
    (tmp_path / "images.npy").unlink()  # as a cache that was deleted: the map still holds the images
    assert type(batches.from_host(view, CPU)) is Mapped


def test_a_training_on_a_cpu_keeps_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batches, "keep_on_device", None)
    training: Training = fit(tiny())
    assert not training.memory.is_resident
    assert type(training._batches._pixels) is Mapped
