"""The environment of a search, as recorded in its rows: versions, machines, data.

Nothing is read from this process or its environment except the version of pixeltune.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pixeltune.format import listed, size
from pixeltune.report.sections.commands import shown_location
from pixeltune.report.snapshot import Snapshot

_COLUMNS = {
    "pixeltune": "pixeltune_version",
    "code": "git_commit",
    "Python": "python_version",
    "PyTorch": "torch_version",
    "Ray": "ray_version",
    "Optuna": "optuna_version",
    "Machines": "hostname",
    "Processors": "cpu_name",
    "GPUs": "gpu_name",
    "Device": "device",
    "Workers a trial": "workers",
    "CPUs a worker": "cpus_per_worker",
    "GPUs a worker": "gpus_per_worker",
    "Precision of training": "precision",
    "Layout": "layout",
    "Weights of record": "weights",
    "Version of the data": "data_version",
    "Checksum of the images": "data_checksum",
}


def environment(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return names and values; where attempts differ, each value with its count."""
    return list(_facts(snapshot))


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    for title, column in _COLUMNS.items():
        counts = Counter(str(row[column]) for row in snapshot.attempts if row[column] is not None)
        if len(counts) == 1:
            yield title, next(iter(counts))
        elif counts:
            yield title, listed(f"{value} ({count:,})" for value, count in counts.most_common())
    peaks = [row["peak_memory_bytes"] for row in snapshot.attempts if row["peak_memory_bytes"]]
    if peaks:
        yield "Most memory in training", size(max(peaks))
    yield "Results", shown_location(snapshot.store.folder)
    yield "Schema of the results", str(snapshot.manifest.schema_version)
