"""Checks of a cluster file by Ray's own schema, and of what the schema leaves free-form. Nothing is contacted."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from pixeltune.cluster import checks_cloud
from pixeltune.cluster.checks_common import (
    docker,
    idle_timeout,
    open_to_the_world,
    secrets,
    start_commands,
    storage,
    to_fill_in,
    versions,
)
from pixeltune.cluster.checks_rayjob import rayjob
from pixeltune.cluster.cluster_file import Config, Finding, Kind, kind_of, read_cluster_file
from pixeltune.files import expand_home
from pixeltune.tune.ray_session import set_environment

FileCheck = Callable[[Config], Iterator[Finding]]


def check_cluster_file(path: str | Path, installed: Mapping[str, str | None] | None = None) -> list[Finding]:
    """Return all findings in the order of reading; SearchError if it is not a cluster file.

    installed: versions of python, ray and torch that it must have [those of this machine].
    """
    config = read_cluster_file(path)
    kind = kind_of(config, path)
    findings = [
        *to_fill_in(config),
        *secrets(expand_home(path).read_text(encoding="utf-8")),
    ]
    refused = [] if kind is Kind.RAYJOB else [*schema(config)]
    if refused:  # its parts may be of any form
        return [*findings, *refused]
    findings += [
        *versions(config, installed or installed_versions()),
        *storage(config, kind),
        *open_to_the_world(config),
    ]
    for check in _CHECKS[kind]:
        findings += check(config)
    return findings


def installed_versions() -> dict[str, str | None]:
    """Return the versions of this machine, from which the cluster is started."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("ray", "torch")}}


def schema(config: Config) -> Iterator[Finding]:
    """Check Ray's own schema: unknown keys, values of other types. Neither cloud nor host is contacted."""
    logging.getLogger("ray.autoscaler._private.util").setLevel(logging.WARNING)
    set_environment(None)  # before Ray is imported: the next call may contact the cluster, which requires the token
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config({**config}))
    except ValidationError as error:
        yield Finding(".".join(map(str, error.absolute_path)) or "the file", f"Ray's schema: {error.message}")
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        yield Finding("the file", f"Ray cannot take it: {' '.join(str(error).split()) or type(error).__name__}")


def _local(config: Config) -> Iterator[Finding]:
    starts = [line for line in config.get("head_start_ray_commands") or [] if "ray start" in line]
    if not all("RAY_enable_autoscaler_v2=0" in line for line in starts):
        yield Finding(
            "head_start_ray_commands",
            "must have RAY_enable_autoscaler_v2=0, because the newer autoscaler starts no workers for `type: local`",
        )


_RAY_UP: tuple[FileCheck, ...] = (start_commands,)
_CLOUD: tuple[FileCheck, ...] = (
    *_RAY_UP,
    docker,
    idle_timeout,
    checks_cloud.head_and_workers,
    checks_cloud.spot_agent,
    checks_cloud.check_operator_cidr,
)
_CHECKS: dict[Kind, tuple[FileCheck, ...]] = {
    Kind.AWS: (*_CLOUD, checks_cloud.aws),
    Kind.GCP: (*_CLOUD, checks_cloud.gcp),
    Kind.LOCAL: (*_RAY_UP, _local),
    Kind.RAYJOB: (rayjob,),
}
