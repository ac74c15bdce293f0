"""Checks shared by all kinds of cluster files: marks to fill in, secrets, versions, storage, Ray's start commands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pixeltune.cluster.cluster_file import Config, Finding, Kind, at, storage_of, texts

MARK = "<FILL IN"


LEAST_IDLE_MINUTES = 15
"""A worker of a cloud takes about 10 minutes from its launch to its first trial: image, packages, Ray."""


_SECRETS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_?secret_?access_?key['\"]?\s*[:=]\s*['\"]?[^\s'\"$<]"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a token of Ray": re.compile(r"RAY_AUTH_TOKEN['\"]?\s*[:=]\s*['\"]?[^\s'\"$<]"),
    "a token of GitHub or Hugging Face": re.compile(r"\b(?:gh[pousr]_|github_pat_|hf_)[A-Za-z0-9_]{20,}"),
    "credentials of a cloud": re.compile(r"^\s*(?:aws_credentials|gcp_credentials)\s*:", re.MULTILINE),
}


_VERSIONS = {
    "python": re.compile(r"-py(\d)(\d+)\b|\bpython(\d)\.(\d+)\b"),
    "ray": re.compile(
        r"rayproject/ray:([\d.]+\d)|\bray(?:\[[^\]]*\])?==([\d.]+\d)|:ray([\d.]+\d)-|rayVersion ([\d.]+)"
    ),
    "torch": re.compile(r"\btorch==([\d.]+\d)|-torch([\d.]+\d)\b"),
}


_OBJECT_STORAGE = {Kind.AWS: ("s3://",), Kind.GCP: ("gs://", "s3://"), Kind.RAYJOB: ("s3://", "gs://")}


def to_fill_in(config: Config) -> Iterator[Finding]:
    """Find marks to fill in, each once although an anchor may repeat it; an empty value counts too."""
    seen = set()
    for place, text in texts(config):
        mark = text[text.find(MARK) :].partition(">")[0] if MARK in text else ""
        if mark and mark not in seen:
            seen.add(mark)
            yield Finding(place, f"must be filled in: {mark.removeprefix(MARK).lstrip(': ')}")
        elif not text.strip():
            yield Finding(place, "must be filled in, but is empty")


def secrets(text: str) -> Iterator[Finding]:
    """Find secrets in the whole file, including comments; the text found is not shown."""
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in _SECRETS.items():
            if pattern.search(line):
                yield Finding(f"line {number}", f"a cluster file must hold no secrets, but this looks like {what}")


def versions(config: Config, installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """Check the versions of Python, Ray and torch anywhere in the file. installed: those of this machine."""
    for name, pattern in _VERSIONS.items():
        here = _short(name, installed.get(name) or "")
        found = [
            (place, ".".join(part for part in match.groups() if part))
            for place, text in texts(config)
            for match in pattern.finditer(f"rayVersion {text}" if place.endswith("rayVersion") else text)
        ]
        if not found:
            yield Finding(name, f"its version must be pinned to {here}, as installed here, but the file names none")
        for place, version in found:
            if version != here:
                yield Finding(place, f"{name} must be {here}, as installed here, but the file has {version}")


def _short(name: str, version: str) -> str:
    """Shorten a version: 3.11 for a Python, 2.15.0 for a torch 2.15.0+cu132."""
    version = version.partition("+")[0]
    return ".".join(version.split(".")[:2]) if name == "python" else version


def storage(config: Config, kind: Kind) -> Iterator[Finding]:
    """Check that the nodes keep results where all nodes can see them."""
    found = storage_of(config)
    wanted = _OBJECT_STORAGE.get(kind)
    if found is None:
        yield Finding("PIXELTUNE_STORAGE", "must name a storage that all nodes see, but the file does not set it")
    elif wanted and not found.startswith(wanted):
        yield Finding(
            "PIXELTUNE_STORAGE", f"must begin with {' or '.join(wanted)}, which all nodes see, but is {found}"
        )
    elif not wanted and MARK not in found and "://" not in found and not Path(found).is_absolute():
        yield Finding("PIXELTUNE_STORAGE", f"must be a URI or a full path that all nodes mount, but is {found}")


def start_commands(config: Config) -> Iterator[Finding]:
    """Check the `ray start` commands; Ray's own commands open the dashboard and require no token."""
    for role in ("head", "worker"):
        place = f"{role}_start_ray_commands"
        starts = [line for line in config.get(place) or [] if "ray start" in line]
        if not starts:
            yield Finding(place, "must have a `ray start`, because Ray's own has neither token nor a closed dashboard")
        for line in starts:
            if "RAY_AUTH_MODE=token" not in line:
                yield Finding(
                    place, "`ray start` must have RAY_AUTH_MODE=token before it, or anyone who reaches it may run code"
                )
            if "ulimit -n" not in line:
                yield Finding(place, "must raise the limit of open files (ulimit -n 65536) before `ray start`")
            if role == "head":
                yield from _dashboard(place, line)
    if not any(str(target).endswith(".ray/auth_token") for target in config.get("file_mounts") or {}):
        yield Finding(
            "file_mounts", "must bring ~/.ray/auth_token to all nodes: `ray get-auth-token --generate` makes it"
        )


def _dashboard(place: str, line: str) -> Iterator[Finding]:
    host = re.search(r"--dashboard-host[= ](\S+)", line)
    if host is None or host[1] not in ("127.0.0.1", "localhost", "::1"):
        shown = "it is not set" if host is None else f"is {host[1]}"
        yield Finding(place, f"--dashboard-host must be 127.0.0.1, because the dashboard runs commands, but {shown}")


def open_to_the_world(config: Config) -> Iterator[Finding]:
    """Find ranges of all addresses anywhere in the file."""
    for place, text in texts(config):
        if re.search(r"(?<![\d.])0\.0\.0\.0/0|(?<![\w:])::/0", text):
            yield Finding(place, f"must let in your own address alone, but {text} is all of them")


def idle_timeout(config: Config) -> Iterator[Finding]:
    """Check the idle time: if it is shorter than a start, workers end before their first trial."""
    minutes = config.get("idle_timeout_minutes", 5)
    if not isinstance(minutes, int | float) or minutes < LEAST_IDLE_MINUTES:
        yield Finding(
            "idle_timeout_minutes",
            f"must be at least {LEAST_IDLE_MINUTES}, above the 10 that a worker takes to start, but is {minutes}",
        )


def docker(config: Config) -> Iterator[Finding]:
    """Check shared memory and open files of containers; machines without containers use the system's limits."""
    if not config.get("docker"):
        return
    options = [str(option) for option in at(config, "docker", "run_options") or []]
    for word, why in (("--shm-size", "Docker gives 64 MB"), ("nofile", "Ray holds many files open")):
        if not any(word in option for option in options):
            yield Finding("docker.run_options", f"must set {word}, because {why}")
