"""The Ray job that this process is the entrypoint of, as Ray tells it in the environment. Ray is not imported."""

from __future__ import annotations

import json
import os
from typing import Any

COMMAND = "PIXELTUNE_COMMAND"
"""Set in jobs that `--cluster` submitted: the command as it was given, to be shown as the one to give again."""

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_here() -> str | None:
    """Its name; None outside of a job."""
    name = _part("metadata").get("job_submission_id")
    return None if name is None else str(name)


def job_environment() -> dict[str, Any]:
    """The runtime environment that it was submitted with; empty outside of a job."""
    return _part("runtime_env")


def _part(name: str) -> dict[str, Any]:
    try:
        found = json.loads(os.environ.get(_JOB) or "{}")
    except ValueError:
        return {}
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}
