"""One trial: the same steps under Tune, under Train and from the command line.

`run_trial` is Ray-free. It yields messages, plain dictionaries:
    {"facts": {...}}                        once, when the model is built and audited
    {"report": {...}}                       at each report: an EpochReport as a dictionary
    {"end": status, "reason": ..., "facts": {...}}    last, unless the trial is stopped or crashes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.errors import AuditError, CheckpointError, ConfigError, DivergedError
from pixeltune.results.schema import Status
from pixeltune.search.facts import facts_of, peak_memory, reset_peak_memory

Message = dict[str, Any]


@dataclass(frozen=True)
class TrialTask:
    """What one trial attempt is to do; plain data, so that it travels.

    trial: its id. config: the nested configuration. checkpoint: the trial's folder for state and weights.
    objective: the EpochReport field whose lowest value marks the weights to keep. cpus: threads of this worker.
    """

    trial: str
    config: dict[str, Any]
    checkpoint: str
    objective: str = "valid_bits_per_dim"
    cpus: int | None = None


def state_file(checkpoint: str) -> str:
    """Where a trial's folder holds the TrainState; there only while the trial may go on."""
    return files.join(checkpoint, "state.pt")


def weights_file(checkpoint: str) -> str:
    """Where a trial's folder holds the weights of its best report."""
    return files.join(checkpoint, "weights.safetensors")


def run_trial(task: TrialTask) -> Iterator[Message]:
    """Train one configuration from its last checkpoint or from the start.

    Expected ends (audit, divergence, memory) are told as the last message; anything else is raised.
    """
    import torch

    if task.cpus:
        torch.set_num_threads(task.cpus)
    reset_peak_memory()
    try:
        yield from _train(task)
    except (AuditError, ConfigError) as error:
        yield _end(Status.REJECTED, str(error))
    except DivergedError as error:
        yield _end(Status.DIVERGED, str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        yield _end(Status.OOM, (str(error).splitlines() or ["out of memory"])[0])


def _train(task: TrialTask) -> Iterator[Message]:
    from pixeltune.training.loop import fit
    from pixeltune.training.weights import save_weights

    training = fit(TrialConfig.build(task.config), state=_last_state(task))
    is_first = training.workers.rank == 0
    yield {"facts": facts_of(training)}
    best = min((getattr(report, task.objective) for report in training.reports), default=float("inf"))
    for report in training:
        value = getattr(report, task.objective)
        if is_first:
            if value < best:
                save_weights(training.model_of_record, training.config, weights_file(task.checkpoint))
            training.state.save(state_file(task.checkpoint))
        best = min(best, value)
        yield {"report": asdict(report), "facts": {"peak_memory_bytes": peak_memory(training.device)}}
    yield _end(Status.FINISHED, None)


def _last_state(task: TrialTask) -> Any:
    """The checkpoint of an earlier attempt; one that cannot be used is set aside, and the trial starts anew."""
    from pixeltune.training.checkpoint import TrainState

    location = state_file(task.checkpoint)
    if not files.exists(location):
        return None
    try:
        return TrainState.load(location)
    except CheckpointError:
        files.move(location, f"{location}.corrupt")
        return None


def _end(status: Status, reason: str | None) -> Message:
    return {"end": str(status), "reason": reason}
