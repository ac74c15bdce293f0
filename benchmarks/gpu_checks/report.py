"""One table, a row as soon as it is measured, and a part's time."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

import torch

from pixeltune.machine import cpu_name


@dataclass(frozen=True)
class Found:
    """One row. ok: whether `expected` is met, None where it is no limit. setting: on top of the check's."""

    measured: str
    expected: str = "–"
    ok: bool | None = None
    setting: str = ""

    @classmethod
    def at_most(cls, value: float, limit: float, what: str = "", setting: str = "") -> Found:
        """A number with a limit, which NaN breaks."""
        return cls(f"{value:.2g}{what}", f"≤ {limit:.0e}", value <= limit, setting)

    @classmethod
    def is_so(cls, holds: bool, what: str, otherwise: str = "", setting: str = "") -> Found:
        """Something that must hold."""
        return cls(what if holds else otherwise or f"not {what}", what, holds, setting)


class _TimeIsOver(BaseException):
    """Past every `except Exception` on the way."""


class Report:
    """A part under way. device: that is measured. is_quick: on toys. left: seconds of the part's time."""

    def __init__(self, device: torch.device, *, is_quick: bool, seconds: float) -> None:
        self.device = device
        self.is_quick = is_quick
        self._end = time.monotonic() + seconds
        self._rows = {"kept": 0, "missed": 0, "without a limit": 0, "skipped": 0}

    @classmethod
    def begin(cls, options: argparse.Namespace) -> Report:
        """The head of the table."""
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{cpu_name()}, {torch.get_num_threads()}"
        quick = ", toys" if options.quick else ""
        print(f"Part {options.part}, {datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}{quick}\n")
        print("| check | setting | measured | expected | ok? |\n|---|---|---|---|---|", flush=True)
        return cls(device, is_quick=options.quick, seconds=options.minutes * 60)

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def check(self, name: str, setting: str, measure: Callable[[], Iterable[Found]], *, seconds: float = 10.0) -> None:
        """Print what `measure` finds. seconds: what it may take; with less left, or after an error, a row says so."""
        if self.left < (0 if self.is_quick else seconds):
            self._print(name, setting, Found(f"skipped: {max(self.left, 0):.0f} s left, may take {seconds:.0f}"))
            return
        try:
            with self._within_its_time():
                for found in measure():
                    self._print(name, ", ".join(filter(None, (setting, found.setting))), found)
        except _TimeIsOver:
            self._print(name, setting, Found("skipped: stopped, the part's time is over"))
        except Exception as error:
            traceback.print_exc()
            words = " ".join(str(error).split()).replace("|", "/")[:200]
            self._print(name, setting, Found(f"{type(error).__name__}: {words}", "to run", ok=False))

    def skip(self, name: str, setting: str, reason: str) -> None:
        """A row for what cannot be measured here."""
        self._print(name, setting, Found(f"skipped: {reason}"))

    def end(self) -> int:
        """What the rows came to, and the exit code."""
        print(f"\n{', '.join(f'{count} {what}' for what, count in self._rows.items())}; {self.left:.0f} s left")
        return 1 if self._rows["missed"] else 0

    @contextmanager
    def _within_its_time(self) -> Iterator[None]:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            raise _TimeIsOver

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 0.01))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _print(self, name: str, setting: str, found: Found) -> None:
        if found.measured.startswith("skipped"):
            kind = "skipped"
        else:
            kind = {None: "without a limit", True: "kept", False: "missed"}[found.ok]
        self._rows[kind] += 1
        ok = {None: "–", True: "yes", False: "NO"}[found.ok]
        print(f"| {name} | {setting} | {found.measured} | {found.expected} | {ok} |")
        sys.stdout.flush()


def wait_for(device: torch.device) -> None:
    """Until it has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall time, the device's work included."""
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def peak_gigabytes(device: torch.device) -> str:
    """Most that tensors took since the last `forget_earlier`."""
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB" if device.type == "cuda" else "no GPU memory"


def forget_earlier(device: torch.device) -> None:
    """Memory, its peak and compiled code; after 8 shapes torch.compile silently stops compiling."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """TF32 for products of float32, of matrices and convolutions, on or off."""
    # The older switches: the newer ones leave these unreadable, which the compiler reads.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
