"""Searches as Ray jobs of a cluster: submitted, listed, followed and stopped through its dashboard.

A job runs on the head and needs no connection. A search is identified by the metadata of its job.
"""

from __future__ import annotations

import asyncio
import math
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeltune.cluster.dashboard_client import DashboardFaultError, client_at
from pixeltune.cluster.ssh_tunnel import DashboardConnection, UnreachableError
from pixeltune.errors import SearchError
from pixeltune.results.storage import COMMAND
from pixeltune.tune.ray_session import copy_modules, stage_code

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_RETRY_SECONDS = 600.0
"""How long a broken connection is retried; a laptop that wakes up needs a while to find its network."""
_PAUSE_SECONDS = 3.0
_STOOD_SECONDS = 60.0
"""A connection that has worked for this long counts as restored; its next failure starts a new retry period."""


def follow(reach: DashboardConnection, job_id: str, write: Callable[[str], None], say: Callable[[str], None]) -> Job:
    """Write what the job prints until it has ended; a broken connection is restored while the job continues.

    UnreachableError or DashboardFaultError if it cannot be restored for ten minutes.
    """
    reader, lost_at = _LogReader(write), -math.inf
    while True:
        began = time.monotonic()
        try:
            with jobs_of(reach) as jobs:
                jobs.find(job_id)
                jobs.log(job_id, reader.again())
                job = _ended(jobs, job_id)
                if job is not None:
                    return job
        except (UnreachableError, DashboardFaultError) as error:
            now = time.monotonic()
            if now - began > _STOOD_SECONDS or lost_at < 0:
                lost_at = now
                say(f"{error}. The job needs no connection; trying again.")
            if now - lost_at > _RETRY_SECONDS:
                raise
        time.sleep(_PAUSE_SECONDS)


class _LogReader:
    """A writer of a log that skips the part already written: each connection reads the log from its start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = 0

    def again(self) -> Callable[[str], None]:
        """Return the function that takes the log's text on a new connection."""
        known = self._written

        def take(text: str) -> None:
            nonlocal known
            new, known = text[known:], max(0, known - len(text))
            self._written += len(new)
            if new:
                self._write(new)

        return take


def _ended(jobs: Jobs, job_id: str) -> Job | None:
    """Return the job once it has ended, shortly after its log; None if it continues."""
    for _ in range(20):
        job = jobs.find(job_id)
        if not job.is_running:
            return job
        time.sleep(0.5)
    return None


_NAME, _STORAGE = "pixeltune_name", "pixeltune_storage"
_STOP_SECONDS = 300
"""From Ray's SIGTERM to its SIGKILL: running trials are cut, their rows written, the best ones shown."""
_AGENT_SECONDS = 60.0
_NO_AGENT = "No available agent"
"""In Ray's refusal of a job that it has not taken."""
_RUNNING = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Job:
    """A job of the cluster. name, storage: of its search; "" for jobs of other kinds. started: seconds since 1970.

    status: Ray's name for it, such as RUNNING. code: exit code of a job that has ended; None if Ray has none.
    """

    id: str
    name: str
    storage: str
    status: str
    started: float
    ended: float | None
    code: int | None
    message: str

    @property
    def seconds(self) -> float:
        """Return the seconds that it has run so far, by this machine's clock."""
        return max(0.0, (self.ended or time.time()) - self.started)

    @property
    def is_running(self) -> bool:
        """Return whether it runs or will run."""
        return self.status in _RUNNING


@dataclass(frozen=True)
class ClusterNode:
    """A machine of the cluster. has: CPUs and GPUs that trials may take."""

    address: str
    is_head: bool
    has: dict[str, float]


@dataclass(frozen=True)
class Submission:
    """A job to submit. name: of the results folder; storage: where the head keeps it, as far as known here.

    words: the arguments of `pixeltune` on the head. shown: the user's command. search_file: a file to send, or None.
    """

    name: str
    storage: str
    words: Sequence[str]
    shown: str
    search_file: Path | None = None


class Jobs:
    """The jobs of one dashboard, while the connection to it is open."""

    def __init__(self, client: JobSubmissionClient) -> None:
        self._client = client

    def all(self) -> list[Job]:
        """Return the submitted jobs, the newest last."""
        jobs = [_job_of(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(jobs, key=lambda job: job.started)

    def find(self, word: str | None, *, only_running: bool = False) -> Job:
        """Return the newest job with this id or search name; without a word the running one, or the last one."""
        jobs = [job for job in self.all() if job.is_running or not only_running]
        if word is not None:
            fitting = [job for job in jobs if word in (job.id, job.name)]
        else:
            fitting = [job for job in jobs if job.is_running] or jobs
            if len(fitting) > 1 and fitting[0].is_running:
                raise SearchError(f"one of the running jobs must be named: {', '.join(job.id for job in fitting)}")
        if not fitting:
            kind = "running job" if only_running else "job"
            known = ", ".join(job.id for job in jobs) or "none"
            raise SearchError(f"there must be such a {kind} on the cluster ({word or 'any'}), but known are: {known}")
        return fitting[-1]

    def submit(self, submission: Submission) -> str:
        """Submit the job and return its id; SearchError if a job of that search already runs."""
        for job in self.all():
            if job.is_running and (job.name, job.storage) == (submission.name, submission.storage):
                raise SearchError(
                    f"one launch must work on a search at a time, but the job {job.id} runs {job.name} there; "
                    "follow it (pixeltune cluster logs), stop it (pixeltune cluster stop), or take another --name"
                )
        with _staged(submission) as folder:
            identity = f"{submission.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
            return self._start_job(
                # exec: the signal that stops a job reaches the search, and no shell ends before it.
                entrypoint=shlex.join(["exec", "python", "-m", "pixeltune", *submission.words]),
                submission_id=identity,
                runtime_env={
                    "working_dir": str(folder),
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS), COMMAND: submission.shown},
                },
                metadata={_NAME: submission.name, _STORAGE: submission.storage},
            )

    def _start_job(self, **job: Any) -> str:
        """Submit a job, and wait for the head's agent that starts it: after `ray up` it is ready last."""
        end = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                return self._client.submit_job(**job)
            except RuntimeError as error:
                if _NO_AGENT not in str(error) or time.monotonic() >= end:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def stop(self, job: Job) -> Job:
        """Stop a job as Ctrl-C would, and return it as it ended."""
        self._client.stop_job(job.id)
        end = time.monotonic() + _STOP_SECONDS + 30
        while time.monotonic() < end:
            now = self.find(job.id)
            if not now.is_running:
                return now
            time.sleep(1)
        raise SearchError(f"the job {job.id} must end when it is stopped, but runs on; ray down ends the cluster")

    def log(self, job_id: str, write: Callable[[str], None]) -> None:
        """Write what the job prints, from its start until it ends or the connection breaks."""

        import aiohttp

        async def read() -> None:
            async for text in self._client.tail_job_logs(job_id):
                write(text)

        try:
            asyncio.run(read())
        except (RuntimeError, aiohttp.ClientError, OSError) as error:
            raise ConnectionError(f"the log's stream broke: {error}") from None

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes that are alive, the head first."""
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        try:
            found = list_nodes(address=self._client.get_address(), filters=[("state", "=", "ALIVE")], timeout=30)
        except RayStateApiException as error:
            raise ConnectionError(str(error)) from None
        return sorted((_node_of(vars(state)) for state in found), key=lambda node: (not node.is_head, node.address))


@contextmanager
def jobs_of(reach: DashboardConnection) -> Iterator[Jobs]:
    """Yield the jobs of the cluster; UnreachableError if the connection fails or breaks."""
    with client_at(reach) as client:
        yield Jobs(client)


def _job_of(details: Any) -> Job:
    metadata = details.metadata or {}
    return Job(
        id=details.submission_id,
        name=metadata.get(_NAME, ""),
        storage=metadata.get(_STORAGE, ""),
        status=str(getattr(details.status, "value", details.status)),
        started=(details.start_time or 0) / 1000,
        ended=details.end_time / 1000 if details.end_time else None,
        code=details.driver_exit_code,
        message=details.message or "",
    )


def _node_of(state: Mapping[str, Any]) -> ClusterNode:
    total = state["resources_total"] or {}
    has = {kind: float(total[kind]) for kind in ("CPU", "GPU") if kind in total}
    return ClusterNode(str(state["node_ip"]), bool(state["is_head_node"]), has)


@contextmanager
def _staged(submission: Submission) -> Iterator[Path]:
    """Yield the job's working directory with code and search, without data and results."""
    folder = Path(tempfile.mkdtemp(prefix="pixeltune-job-"))
    try:
        stage_code(folder)
        if submission.search_file is not None:
            target = folder / search_place(submission.search_file)
            if not submission.search_file.resolve().is_relative_to(Path.cwd().resolve()):
                copy_modules(submission.search_file.resolve().parent, target.parent)  # it may import them
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(submission.search_file, target)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def search_place(search_file: Path) -> str:
    """Return a search file's path in the job's working directory; files from elsewhere go into `searches`."""
    here = Path.cwd().resolve()
    path = search_file.resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else f"searches/{path.name}"
