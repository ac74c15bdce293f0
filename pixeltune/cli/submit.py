"""A search on a cluster from another machine: submitted as a job and followed. Ctrl-C leaves the job running."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixeltune import files
from pixeltune.cli.common import EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUTED, say
from pixeltune.errors import ConfigError, SearchError

if TYPE_CHECKING:
    from pixeltune.cluster.cluster_file import Config
    from pixeltune.cluster.jobs import Job
    from pixeltune.cluster.ssh_tunnel import DashboardConnection


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options for where a search runs."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--address",
        metavar="HOST:PORT|auto|local",
        help="a running Ray cluster, or local [RAY_ADDRESS, the cluster that this machine is a node of, or local]",
    )
    place.add_argument("--cluster", metavar="FILE", help="submit it to the cluster that `ray up FILE` started")


def submit(options: argparse.Namespace, name: str, search_file: Path | None = None) -> int:
    """Submit the user's command and follow it. search_file: the file that --search names."""
    from pixeltune.cli.common import command_again
    from pixeltune.cluster.cluster_file import read_cluster_file, storage_of
    from pixeltune.cluster.jobs import Submission, jobs_of, search_place
    from pixeltune.cluster.ssh_tunnel import reach
    from pixeltune.results.store import SearchStore

    path = options.cluster
    config = read_cluster_file(path)
    way = reach(path)
    _require_checked(path)
    given = _given(options.words)
    _require_reachable(given.storage, "--storage", path)
    for location in getattr(options, "warm_start", ()):
        _require_reachable(location, "--warm-start", path)
    storage = given.storage or storage_of(config) or ""
    SearchStore(storage, name)  # refuses a name outside its folder, and a location with a password
    words = given.rest + ([] if search_file is None else ["--search", search_place(search_file)])
    words += [] if given.storage is None else ["--storage", given.storage]
    submission = Submission(name, storage, words, command_again(), search_file)
    say(f"Runs on the cluster {config.get('cluster_name')}, as --cluster {path} says; results: {storage}")
    with jobs_of(way) as jobs:
        job = jobs.submit(submission)
        say(f"Submitted as job {job}; it continues without this machine.")
    return follow_job(way, path, config, job)


def follow_job(way: DashboardConnection, path: str, config: Config, job_id: str) -> int:
    """Print its log until it ends; return its exit code. Ctrl-C leaves it running and prints how to follow it again."""
    from pixeltune.cluster.capacity import cost_notice
    from pixeltune.cluster.jobs import follow

    come_back = f"Come back: pixeltune cluster logs {path} {job_id}    stop it: pixeltune cluster stop {path} {job_id}"
    say(come_back)
    try:
        job = follow(way, job_id, _write, say)
    except KeyboardInterrupt:
        say(f"\nLeft: the job {job_id} goes on.")
        say(come_back)
        return EXIT_INTERRUPTED
    finally:
        for line in cost_notice(config, path):
            say(line)
    return _outcome(job)


def _outcome(job: Job) -> int:
    """Return an ended job's exit code; raise errors that its log does not have."""
    if job.status == "SUCCEEDED":
        return EXIT_OK
    if job.status == "STOPPED":
        say(f"The job {job.id} was stopped; the same command resumes the search.")
        return EXIT_INTERRUPTED
    if job.code is None:  # Ray ended it, or could not start it
        raise SearchError(f"the job {job.id} must run to its end, but: {job.message[-500:]}")
    return 128 - job.code if job.code < 0 else job.code or EXIT_REFUTED


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _given(words: Sequence[str]) -> argparse.Namespace:
    """Return --storage as given, if it was, and the rest of the arguments for the head."""
    parser = argparse.ArgumentParser(add_help=False)
    for option in ("--cluster", "--search", "--storage"):
        parser.add_argument(option)
    found, rest = parser.parse_known_args(words)
    return argparse.Namespace(storage=found.storage, rest=rest)


def _require_reachable(location: str | None, option: str, path: str) -> None:
    """Require a location that all nodes of a cluster can reach: a URI, or a full path that all of them mount."""
    if location is not None and not files.is_uri(files.require_location(location)) and not Path(location).is_absolute():
        raise ConfigError(
            f"{option} on a cluster must be a URI or a full path that its nodes mount, but {location} is a folder "
            f"here; leave it out to use the storage that {path} names"
        )


def _require_checked(path: str) -> None:
    from pixeltune.cluster.checks_file import check_cluster_file

    findings = check_cluster_file(path)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise SearchError(f"{path} is not as it must be: {findings[0]}{more}; pixeltune cluster check {path}")
