"""Requests to stop a trial or a launch, as files in the search's folder: one file a request.

    <storage>/<search>/requests/stop.json            end the launch, as Ctrl-C does
    <storage>/<search>/requests/stop-<trial>.json    end this trial

`pixeltune stop` writes them from any shell that sees the storage, and the launch that works on the search reads and
removes them. What is left when a launch starts is of an earlier one, and is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pixeltune import digest, files
from pixeltune.errors import StoreError
from pixeltune.results.identity import REQUESTS_NAME
from pixeltune.results.table_folder import publish, reading

LOOK_SECONDS = 5.0
"""Seconds between two looks of a launch."""

_OF_LAUNCH = "stop.json"
_PREFIX, _SUFFIX = "stop-", ".json"


@dataclass(frozen=True)
class StopRequests:
    """What is to be stopped. is_launch: whether the launch is to end; trials: which trials are to end."""

    is_launch: bool = False
    trials: frozenset[str] = frozenset()


class StopRequestReader:
    """A reader for a launch, which asks the storage every few seconds at most: there each look is a request too.

    Args:
        folder: The search's folder.
        clock: Returns seconds.
    """

    def __init__(self, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._looked_at = clock()
        self._newest = StopRequests()

    def look(self) -> StopRequests:
        """Return what is requested, as of the newest look; if the storage does not answer, that of the one before."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            with suppress(StoreError, OSError):
                self._newest = read_stop_requests(self._folder)
        return self._newest


def request_stop(folder: str, trials: Sequence[str] = ()) -> None:
    """Write a request for each of `trials`, or for the launch if there are none. folder: of the search."""
    names = [f"{_PREFIX}{trial}{_SUFFIX}" for trial in trials] or [_OF_LAUNCH]
    content = digest.seal_json({"requested_at": datetime.now(UTC).isoformat(timespec="seconds")})
    for name in names:
        publish(files.join(folder, REQUESTS_NAME, name), content)


def read_stop_requests(folder: str) -> StopRequests:
    """Return the requests that wait in a search's folder; only the names are read, in one question to the storage."""
    location = files.join(folder, REQUESTS_NAME)
    with reading(location):
        names = files.list_names(location, _SUFFIX)
    trials = (name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in names if name.startswith(_PREFIX))
    return StopRequests(_OF_LAUNCH in names, frozenset(trials))


def remove_stop_request(folder: str, trial: str) -> None:
    """Remove the request for a trial, which has ended."""
    files.remove(files.join(folder, REQUESTS_NAME, f"{_PREFIX}{trial}{_SUFFIX}"))


def remove_stop_requests(folder: str) -> None:
    """Remove all requests."""
    files.remove(files.join(folder, REQUESTS_NAME))
