"""A cluster file as data, read safely: its kind, its texts, its node types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from pixeltune.errors import SearchError
from pixeltune.files import expand_home

Config = Mapping[str, Any]

_STORAGE = re.compile(r"PIXELTUNE_STORAGE=([^'\"]+?)(?=['\"]|\s*>>|\s*$)")


class Kind(StrEnum):
    """The means by which a cluster file starts machines."""

    AWS = "aws"
    GCP = "gcp"
    LOCAL = "local"
    RAYJOB = "RayJob"


@dataclass(frozen=True)
class Finding:
    """A value in a cluster file that must be changed. path: dotted keys of the file."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def read_cluster_file(path: str | Path) -> dict[str, Any]:
    """Return the file's content, never executing any; SearchError if it cannot be read, or is not a mapping."""
    try:
        content = yaml.safe_load(expand_home(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SearchError(f"a cluster file must be readable YAML, but {path} is not ({why})") from None
    if not isinstance(content, dict):
        raise SearchError(f"a cluster file must hold keys and values, but {path} holds {type(content).__name__}")
    return content


def kind_of(config: Config, path: str | Path) -> Kind:
    """Return the kind, by `provider.type` or `kind` of a Kubernetes object; SearchError for others."""
    word = config.get("kind") or at(config, "provider", "type")
    try:
        return Kind(word)
    except ValueError:
        known = ", ".join(Kind)
        raise SearchError(
            f"a cluster file must have a provider.type or kind among {known}, but {path} has {word}"
        ) from None


def at(config: object, *keys: str | int) -> Any:
    """Return the value under these keys, or None."""
    for key in keys:
        if isinstance(config, Mapping):
            config = config.get(key)
        elif isinstance(config, list) and isinstance(key, int) and key < len(config):
            config = config[key]
        else:
            return None
    return config


def part(config: object, *keys: str | int) -> Config:
    """Return the mapping under these keys, or an empty one."""
    found = at(config, *keys)
    return found if isinstance(found, Mapping) else {}


def rows(config: object, *keys: str | int) -> list[Config]:
    """Return the mappings of the list under these keys; none if it is not a list."""
    found = at(config, *keys)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def texts(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text with its path, such as ("docker.run_options.0", "--shm-size=6g")."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from texts(inner, f"{place}.{key}" if place else str(key))


def storage_of(config: Config) -> str | None:
    """Return where the cluster's searches keep their results; None if the file does not say."""
    for _place, text in texts(config):
        found = _STORAGE.search(text)
        if found:
            return found[1].strip()
    for entry in mappings(config):
        if entry.get("name") == "PIXELTUNE_STORAGE":
            return str(entry.get("value"))
    return None


def mappings(value: object) -> Iterator[Config]:
    """Yield every mapping at any depth."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from mappings(inner)


def node_types(config: Config) -> tuple[str, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the head's name, the head's type, and the others by name."""
    types = {name: kind for name, kind in (config.get("available_node_types") or {}).items() if kind}
    name = str(config.get("head_node_type"))
    head = types.pop(name, {})
    return name, head, types
