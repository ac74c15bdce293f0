"""What a training spends its time on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixeltune.training.checkpoint import SinceReport
from pixeltune.training.epoch_report import EpochReport


class Clock:
    """Seconds of training, of evaluation, and of the first step, which compiles and warms up."""

    def __init__(self) -> None:
        self.train_seconds = self.eval_seconds = self.compile_seconds = 0.0
        self.steps = 0
        self._warm = False
        self._reported_seconds = self._reported_compile_seconds = 0.0

    def go_on_from(self, report: EpochReport | None, since: SinceReport | None) -> None:
        """Count on from an earlier training's last report, or from its pause after it."""
        if report is not None:
            self._reported_seconds, self._reported_compile_seconds = report.train_seconds, report.compile_seconds
        if since is not None:
            self.steps = since.steps
        if (last := since or report) is not None:
            self.train_seconds, self.eval_seconds = last.train_seconds, last.eval_seconds
            self.compile_seconds = last.compile_seconds

    @contextmanager
    def training(self, device: torch.device) -> Iterator[None]:
        """Time a step, which a GPU may still be at when it ends here."""
        start = time.perf_counter()
        yield
        if not self._warm:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self.compile_seconds += time.perf_counter() - start
            self._warm = True
        else:
            self.train_seconds += time.perf_counter() - start
            self.steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time the wait for steps that were only handed to the device."""
        start = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - start

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time a reading of the validation images."""
        start = time.perf_counter()
        yield
        self.eval_seconds += time.perf_counter() - start

    def speed_since_last_report(self, count: int, batch_size: int) -> float:
        """Return images per second; where the only step was the first one, that step's own speed."""
        seconds = self.train_seconds - self._reported_seconds
        first_seconds = self.compile_seconds - self._reported_compile_seconds
        images = self.steps * batch_size
        self._reported_seconds, self._reported_compile_seconds = self.train_seconds, self.compile_seconds
        self.steps = 0
        return images / seconds if images else count / first_seconds


class Pace:
    """The speed since it was last measured, in wall time: what a user waits for.

    Args:
        images_seen: Training images at the start.
    """

    def __init__(self, images_seen: int) -> None:
        self._images_seen = images_seen
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Return the seconds since the last measurement."""
        return time.perf_counter() - self._since

    def measure(self, images_seen: int) -> float:
        """Return images per second since the last measurement, and begin another.

        Args:
            images_seen: Training images now.
        """
        speed = (images_seen - self._images_seen) / max(self.seconds, 1e-9)
        self._images_seen, self._since = images_seen, time.perf_counter()
        return speed
