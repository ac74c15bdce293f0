"""The Ray address: `--address`, then RAY_ADDRESS, then the cluster that this machine is a node of, else a local Ray.

Ray's own `auto` trusts the file that the last `ray start` left, even if that Ray has ended, and any Ray that runs on
the machine, even of another user or another search. We treat this machine as a cluster node only if the current user
runs a raylet started by `ray start` or `ray up`. Ray is not imported.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeltune.errors import SearchError
from pixeltune.machine import is_own, own_processes

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_here() -> str | None:
    """Return the name of this job; None outside of a job."""
    name = _part("metadata").get("job_submission_id")
    return None if name is None else str(name)


def job_environment() -> dict[str, Any]:
    """Return the runtime environment that this job was submitted with; empty outside of a job."""
    return _part("runtime_env")


def _part(name: str) -> dict[str, Any]:
    try:
        found = json.loads(os.environ.get(_JOB) or "{}")
    except ValueError:
        return {}
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


ADDRESS = "RAY_ADDRESS"
_GCS = re.compile(r"--gcs[-_]address=(\S+)")


@dataclass(frozen=True)
class RayAddress:
    """A resolved address. address: of a running Ray; None to start one on this machine. why: as text."""

    address: str | None
    why: str

    @property
    def where(self) -> str:
        """Return the address as text."""
        return "on this machine alone" if self.address is None else f"on the Ray cluster at {self.address}"

    def __str__(self) -> str:
        return f"Runs {self.where}: {self.why}."


def resolve_address(given: str | None) -> RayAddress:
    """Return the first address that is set; its `why` names an ignored RAY_ADDRESS. given: --address."""
    environment = os.environ.get(ADDRESS) or None
    if given is not None and given != "auto":
        return RayAddress(_unless_local(given), "--address says so" + _passed_over(environment, given))
    if environment is not None and environment != "auto":
        return RayAddress(_unless_local(_of_a_ray(environment)), _words_of_environment(given))
    found = _cluster_of_this_machine()
    if given == "auto" or environment == "auto":
        who = "--address" if given == "auto" else ADDRESS
        return found or RayAddress("auto", f"{who} says auto, what Ray finds here")
    return found or RayAddress(None, f"no --address, no {ADDRESS}, and it is no node of a cluster")


def _unless_local(address: str) -> str | None:
    return None if address == "local" else address


def _passed_over(environment: str | None, given: str) -> str:
    return "" if environment in (None, given) else f"; {ADDRESS}={environment} is passed over"


def _of_a_ray(environment: str) -> str:
    """Return RAY_ADDRESS; refuse the dashboard's address, which is meant for `ray job submit`."""
    if environment.startswith(("http://", "https://")):
        raise SearchError(
            f"{ADDRESS} must be HOST:PORT of a Ray cluster, but is {environment}, which is a dashboard's; "
            "unset it, or give --address or --cluster FILE"
        )
    return environment


def _words_of_environment(given: str | None) -> str:
    job = job_here()
    if job is not None:
        return f"it is the job {job} there"
    return f"{ADDRESS} says so" + (", which is what --address auto means" if given else "")


def _cluster_of_this_machine() -> RayAddress | None:
    """Return the cluster that this machine is a node of, or None; SearchError if its Ray has ended or is ambiguous."""
    addresses = raylets_of_this_user()
    started = _last_started()
    if started in addresses:
        return RayAddress(started, "this machine is a node of it, by `ray start`")
    if VARIABLE not in os.environ or not Path(os.environ[VARIABLE]).is_file():
        return None
    if len(addresses) == 1:
        return RayAddress(addresses.pop(), f"this machine is its head, as {VARIABLE} says")
    found = "none runs here" if not addresses else f"{', '.join(sorted(addresses))} run here"
    raise SearchError(
        f"the head of a cluster ({VARIABLE}) must have one Ray, but {found}; "
        "`ray up` starts it, --address HOST:PORT names one, --address local does without"
    )


def raylets_of_this_user() -> set[str]:
    """Return the addresses of the Rays that have a living raylet on this machine."""
    found = set()
    for _pid, words in own_processes():
        if words and Path(words[0]).name == "raylet":
            found |= {match[1] for word in words if (match := _GCS.fullmatch(word))}
    return found


def _last_started() -> str | None:
    """Return the address that this user's last `ray start` left; that Ray may have ended."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    path = Path(folder, "ray", "ray_current_cluster")
    try:
        return path.read_text(encoding="utf-8").strip() if is_own(path) else None
    except (OSError, UnicodeDecodeError):
        return None


VARIABLE = "PIXELTUNE_CLUSTER_FILE"
