"""The cluster files as a user fills them in. Addresses are those of the documentation (RFC 5737)."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "cluster"
ADDRESS = "203.0.113.7/32"

_ANSWERS = {
    "your own address": ADDRESS,
    "your bucket": "a-bucket",
    "an image with": "ami-0123456789abcdef0",
    "the sg-": "sg-0123456789abcdef0",
    "your project's id": "a-project",
    "projects/…/global": "projects/deeplearning-platform-release/global/images/common-v1",
    "projects/PROJECT": "projects/a-project/regions/us-central1/subnetworks/pixeltune",
    "pixeltune:CONTENT": "pixeltune:ssh-ed25519 AAAA",
    "the head's service account": "head@a-project.iam.gserviceaccount.com",
    "the workers' service account": "worker@a-project.iam.gserviceaccount.com",
    "the head's address": "192.0.2.1",
    "the other machines'": "192.0.2.2",
    "a user of all": "researcher",
    "a folder that all": "/shared/results",
    "a service account": "pixeltune",
    "your registry": "registry.example",
}


@functools.cache
def filled_in(name: str) -> dict[str, Any]:
    """The file `cluster/NAME.yaml` with an answer at every mark; not to be changed."""

    def answer(mark: re.Match[str]) -> str:
        return next(value for start, value in _ANSWERS.items() if mark[1].startswith(start))

    text = re.sub(r"^#.*$", "", (FOLDER / f"{name}.yaml").read_text(), flags=re.MULTILINE)
    config: dict[str, Any] = yaml.safe_load(re.sub(r"<FILL IN: ([^>]*)>", answer, text))
    return config


def write(folder: Path, config: dict[str, Any]) -> Path:
    """A cluster file with this content."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    return path
