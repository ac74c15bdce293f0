"""What a search costs on this machine, from the measured speed of its base configuration."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from pixeltune.config import TrialConfig
from pixeltune.data import ResolvedOutline
from pixeltune.format import number, plural, rough_duration
from pixeltune.machine import usable_cpus
from pixeltune.results.forecast import expected_images
from pixeltune.results.manifest import scheduler_tree
from pixeltune.space import SearchSpace

MOST_HOURS = 720.0
"""A search that would take longer, 30 days, is not started without being confirmed."""
_MOST_PROBE_IMAGES = 32
_PROBE_SECONDS = 2.0
"""About how long the measured steps take, after a first one of a single image."""


@dataclass(frozen=True)
class Cost:
    """The cost of a search on this machine.

    Attributes:
        images: Training images of all its trials, if nothing stops them.
        expected: The same with early stopping, as far as its rungs say.
        speed: Images per second of one worker with the base configuration.
        workers: How many such workers train at once: one for each GPU, or one that uses all CPUs.
        device: The kind of device.
    """

    images: float
    expected: float
    speed: float
    workers: int
    device: str

    @property
    def hours(self) -> float:
        """Return the hours that the search takes, with early stopping."""
        return self.expected / (self.speed * self.workers) / 3600

    def __str__(self) -> str:
        stopped = f", {rough_duration(self.hours)} with early stopping" if self.expected < self.images else ""
        several = f" on {self.workers} devices" if self.workers > 1 else ""
        whole = self.images / (self.speed * self.workers) / 3600
        return (
            f"the base configuration trains at {number(self.speed)} images/s here ({self.device}); all "
            f"{self.images:,.0f} images at that speed are {rough_duration(whole)}{several}{stopped}"
        )


def devices_text(space: SearchSpace) -> str:
    """Return which devices this machine has, and what that means for a search that asks for a GPU."""
    import torch

    gpus = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(index) for index in range(gpus)})
    found = f"{gpus} {plural(gpus, 'GPU')} ({', '.join(names)})" if gpus else "no GPU"
    asked = "; the search asks for one, and would train on the CPUs" if space.resources.gpus and not gpus else ""
    return f"{usable_cpus()} {plural(usable_cpus(), 'CPU')} and {found}{asked}"


def measure(space: SearchSpace, resolved: ResolvedOutline) -> Cost:
    """Measure a few training steps of the base configuration; seconds, or one step where that takes longer.

    Args:
        space: The search.
        resolved: Its base, with the images or their form.
    """
    import torch

    end = space.base.train.end
    expected = space.budget.trials * expected_images(end, scheduler_tree(space.scheduler))
    return Cost(
        images=float(space.budget.trials * end),
        expected=min(expected, space.budget.images or expected),
        speed=_images_per_second(resolved.config, resolved),
        workers=max(1, torch.cuda.device_count()),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _images_per_second(config: TrialConfig, resolved: ResolvedOutline) -> float:
    """Time training steps on this machine, without audit and evaluation.

    The batch is as large as the time allows. Without the images, random levels are used: a step takes as long.
    """
    import torch

    from pixeltune.models import build_model
    from pixeltune.training.optim import build_optimizer
    from pixeltune.training.workers import best_device

    device = best_device()
    model = build_model(config, resolved.data.form).to(device).train()
    optimizer = build_optimizer(config.optim, model)

    def seconds_of(count: int) -> float:
        x_BCHW = torch.from_numpy(_batch(resolved, count)).to(device)
        start = time.perf_counter()
        optimizer.zero_grad()
        model.loss(x_BCHW).mean().backward()
        optimizer.step()
        float(next(model.parameters()).detach().sum())  # waits for a GPU
        return time.perf_counter() - start

    most = min(config.train.batch_size, _MOST_PROBE_IMAGES, resolved.data.num_images["train"])
    first = min(seconds_of(1), seconds_of(1)) if most > 1 else seconds_of(1)
    count = max(1, min(most, int(_PROBE_SECONDS / first)))
    if count == 1:
        return 1 / first
    return count / min(seconds_of(count) for _ in range(2))


def _batch(resolved: ResolvedOutline, count: int) -> np.ndarray:
    data = resolved.data
    if data.data is None:
        shape = (count, *data.form.shape)
        return np.random.default_rng(0).integers(0, data.form.levels, shape, dtype=np.uint8)
    return data.data.train_batch(np.arange(count), np.zeros(count, dtype=np.int64))
