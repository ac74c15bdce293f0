"""Run any fault of the store or of Ray, by its name, at one of its moments."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.support import ray_faults, store_faults
from tests.support.harm import Harm


class Runner:
    """Runs faults, and keeps the Ray that stands for as long as it serves."""

    def __init__(self) -> None:
        self._stand: ray_faults.Stand | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_error: object) -> None:
        self._cleanup.close()

    def harm_at(self, name: str, moment: int) -> Harm:
        """One fault at one moment."""
        with tempfile.TemporaryDirectory(prefix="pt-", dir=_quick_folder()) as folder:
            if name in store_faults.FAULTS:
                return store_faults.harm_at(name, moment, Path(folder))
            return self._guarded(lambda: ray_faults.harm_at(name, moment, Path(folder), self._stand_at(name)))

    def _stand_at(self, name: str) -> ray_faults.Stand:
        place = ray_faults.FAULTS[name].place
        if self._stand is None or self._stand.place != place:
            self._cleanup.close()
            self._stand = ray_faults.Stand(place)
            self._cleanup.callback(self._stand.close)
        return self._stand

    @staticmethod
    def _guarded(run: Callable[[], Harm]) -> Harm:
        """A moment that never comes, because its launch ended early or hangs, is harm too."""
        try:
            return run()
        except AssertionError as error:
            harm = Harm()
            harm.add("other", str(error)[:1000])
            return harm


def _quick_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
