"""Row columns of a trial in addition to its configuration and reports: the model, the data, the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeltune.machine import cpu_name, peak_resident_memory
from pixeltune.results.own_keys import own_columns

if TYPE_CHECKING:
    import torch

    from pixeltune.training.loop import Training


def facts_of(training: Training) -> dict[str, Any]:
    """Return the row columns that are known once a trial is built and audited."""
    data, model, config = training.data, training.model, training.config
    return {
        "config_key": config.key(),
        **config.flat(),
        **own_columns(config),
        "precision": training.numerics.precision,
        "layout": training.numerics.layout,
        "micro_batch": training.memory.micro_batch,
        "predicted_peak_bytes": training.memory.predicted_peak_bytes,
        "weights": "ema" if config.optim.ema else "raw",
        "is_bound": model.is_bound,
        "num_parameters": model.num_parameters(),
        "network_calls": int(model.order().max()) + 1,
        "receptive_field_rows": training.audit.receptive_rows,
        "receptive_field_columns": training.audit.receptive_cols,
        "audit_seconds": training.audit.seconds,
        "data_version": data.identity.version,
        "data_checksum": data.identity.checksum,
        "data_notes": "; ".join(data.notes) or None,
        "image_channels": data.form.channels,
        "image_height": data.form.height,
        "image_width": data.form.width,
        "levels": data.form.levels,
        "num_classes": data.form.num_classes,
        **{f"num_{split}": count for split, count in data.num_images.items()},
        "evaluated_split": "test" if data.valid is None else "valid",
        "device": training.device.type,
        **_environment(training.device),
    }


def sampling_facts(training: Training) -> dict[str, Any]:
    """Measure how fast the trained model draws images, and return it as row columns."""
    from pixeltune.sampling import SPEED_BATCH, images_per_second

    speed = images_per_second(training.model_of_record, SPEED_BATCH)
    return {"sample_images_per_second": speed, "sample_batch_size": SPEED_BATCH}


_LOOK_AT_CPU, _LOOK_AT_GPU = 4, 64
"""Images of a timed pass; a GPU needs several to be busy."""
_STEP_IN_PASSES = 4.0
"""Cost of a training step in forward passes: one forward, one backward of twice its cost, and the optimiser's."""


def seconds_to_report(training: Training) -> float:
    """Estimate the seconds to the next report from one pass over a few black images.

    Neither weights nor random states are changed. Other trials on the same machine, and compiling, add to it.
    """
    import numpy as np

    from pixeltune.data import ImageSet
    from pixeltune.training.evaluation import evaluate
    from pixeltune.training.loop import next_report

    data, most = training.data, _LOOK_AT_GPU if training.device.type == "cuda" else _LOOK_AT_CPU
    few = min(most, training.memory.micro_batch)
    pixels_NCHW = np.zeros((few, *data.form.shape), dtype=np.uint8)
    images = ImageSet(pixels_NCHW, None if data.train.labels_N is None else np.zeros(few, dtype=np.int64))
    for _ in range(2):  # the first one warms up
        start = time.monotonic()
        evaluate(training.model, images, batch_size=few)
        seconds = time.monotonic() - start
    train = next_report(training.config, training.images_seen) - training.images_seen
    validated = 0 if data.valid is None else len(data.valid)
    passes = _STEP_IN_PASSES * train + (1 if training.average is None else 2) * validated
    return seconds / few * passes / training.workers.world


def _environment(device: torch.device) -> dict[str, Any]:
    import torch

    return {
        **versions(),
        "hostname": socket.gethostname(),
        "cpu_name": cpu_name(),
        "gpu_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "git_commit": _git_commit(),
    }


@cache
def versions() -> dict[str, str | None]:
    """Return the versions that a trial's numbers depend on; None for a missing package."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    names = ("pixeltune", "torch", "ray", "optuna")
    return {f"{name}_version": version(name) for name in names} | {"python_version": platform.python_version()}


@cache
def _git_commit() -> str | None:
    """Return the commit of the running code, with `+` if the tree has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get("PIXELTUNE_GIT_COMMIT")

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return (commit + ("+" if git("status", "--porcelain", "-uno").strip() else "")) or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def reset_peak_memory() -> None:
    """Reset the peak: actors are reused, and a trial's peak must not include the previous trial's."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then that of the process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes allocated on a GPU; on a CPU the process's largest resident size, libraries included."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_memory()
