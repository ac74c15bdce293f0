"""The log of a job as it comes, over as many connections as it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pixeltune.search.cluster.jobs import Job, Jobs, jobs_of
from pixeltune.search.cluster.tunnel import Reach, UnreachableError

_RETRY_SECONDS = 600.0
"""For so long a broken connection is tried again; a laptop that wakes up takes a while to find its network."""
_PAUSE_SECONDS = 3.0
_STOOD_SECONDS = 60.0
"""A connection that stood for so long was mended; what breaks then breaks anew."""


def follow(reach: Reach, job_id: str, write: Callable[[str], None], say: Callable[[str], None]) -> Job:
    """Write what the job prints until it has ended; a connection that breaks is made anew, the job goes on meanwhile.

    UnreachableError where it could not be mended for ten minutes.
    """
    reader, lost_at = _Reader(write), -math.inf
    while True:
        began = time.monotonic()
        try:
            with jobs_of(reach) as jobs:
                jobs.find(job_id)
                jobs.log(job_id, reader.again())
                job = _ended(jobs, job_id)
                if job is not None:
                    return job
        except UnreachableError as error:
            now = time.monotonic()
            if now - began > _STOOD_SECONDS or lost_at < 0:
                lost_at = now
                say(f"{error}. The job needs no connection; trying again.")
            if now - lost_at > _RETRY_SECONDS:
                raise
        time.sleep(_PAUSE_SECONDS)


class _Reader:
    """Writes a log once, though it is read from its begin at each connection."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = 0

    def again(self) -> Callable[[str], None]:
        """Of a new connection."""
        known = self._written

        def take(text: str) -> None:
            nonlocal known
            new, known = text[known:], max(0, known - len(text))
            self._written += len(new)
            if new:
                self._write(new)

        return take


def _ended(jobs: Jobs, job_id: str) -> Job | None:
    """Its log has ended: so has the job, or will at once; None where it goes on."""
    for _ in range(20):
        job = jobs.find(job_id)
        if not job.is_running:
            return job
        time.sleep(0.5)
    return None
