"""One trial: the same steps under Tune, under Train and from the command line.

`run_trial` is Ray-free. It yields the messages of `pixeltune.search.messages`.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.errors import (
    AuditError,
    CheckpointError,
    ConfigError,
    DivergedError,
    MemoryShortError,
    NodePreemptedError,
    PausedError,
    PixeltuneError,
    StoreError,
    first_line,
)
from pixeltune.own_code import note_place, place_of, reason_to_skip, search_in
from pixeltune.results.schema import Status
from pixeltune.search.messages import STOPPED, Begun, Ended, Facts, Message, TrialTask
from pixeltune.search.trial_metadata import facts_of, peak_memory, reset_peak_memory, sampling_facts, seconds_to_report

if TYPE_CHECKING:
    from pixeltune.training.epoch_report import EpochReport, TrainingProgress
    from pixeltune.training.loop import Training

_SECONDS_UNANNOUNCED = 20.0
"""Seconds that a step of a trial may take without an `Expects` message."""
_PROGRESS_SECONDS = 5.0
"""Least seconds between two `Progressed` messages."""


def state_file(checkpoint: str) -> str:
    """Return the path of the TrainState in a trial's folder; it exists only while the trial may resume."""
    return files.join(checkpoint, "state.pt")


def weights_file(checkpoint: str) -> str:
    """Return the path of the weights of a trial's best report; without validation, of its last."""
    return files.join(checkpoint, "weights.safetensors")


def _never() -> bool:
    return False


def run_trial(
    task: TrialTask, taken: Callable[[], bool] = _never, asked: Callable[[], bool] = _never
) -> Iterator[Message]:
    """Train one configuration from its last checkpoint or from the start.

    taken: returns whether the machine is about to be taken away; NodePreemptedError is then raised.
    asked: returns whether the launch asks the trial to end; it then ends as interrupted.

    Both are called between steps, and before such an end the state is saved, even between two reports. Expected ends
    (audit, divergence, memory) are reported as the last message; anything else is raised. With several workers a lack
    of memory is raised too, because the others wait for the one that has none left.
    """
    import torch

    # A process that trains one trial after another must start each from a clean state.
    if task.cpus:
        torch.set_num_threads(task.cpus)
    _forget_earlier_trials()
    for folder in task.code:
        search_in(Path(folder))

    # Train; ends that a configuration can cause are messages, not exceptions.
    try:
        yield from _train(task, taken, asked)
    except PausedError:
        yield _ended(Status.INTERRUPTED, STOPPED)
    except AuditError as error:
        yield _ended(Status.REJECTED, str(error))
    except ConfigError as error:
        trace = {"traceback": traceback.format_exc()} if place_of(error) else None
        yield _ended(Status.FAILED, str(error), trace)
    except DivergedError as error:
        yield _ended(Status.DIVERGED, str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise torch.OutOfMemoryError(str(error)) from error
        needed = {"predicted_peak_bytes": error.needed} if isinstance(error, MemoryShortError) else None
        yield _ended(Status.OOM, first_line(error, "out of memory"), needed)
    except PixeltuneError:
        raise
    except Exception as error:
        note_place(error)
        raise


def _train(task: TrialTask, taken: Callable[[], bool], asked: Callable[[], bool]) -> Iterator[Message]:
    from pixeltune.search.trial_artifacts import read_test_set, test_facts
    from pixeltune.search.verification import seconds_allowed, verify_claim
    from pixeltune.training.epoch_report import TrainingProgress
    from pixeltune.training.weights import save_weights

    # Resume or start, and report what is known about the model before training.
    training, warning = _begin(task, lambda: taken() or asked())
    is_first = training.workers.rank == 0
    expected = seconds_to_report(training)
    speed = _sampling_speed(training)[0] if task.speed_first and is_first else {}
    reset_peak_memory()  # audit and sampling do not count as training memory
    begun: Begun = {
        "facts": facts_of(training) | speed,
        "resumed": [_plain(report) for report in training.reports],
        "expects_seconds": expected,
    }
    yield begun if not warning else {**begun, "warning": warning}

    # The attempt before may have ended between its last report and that report's gallery.
    best = min((_value(report, task) for report in training.reports), default=math.inf)
    is_new, peak = training.images_seen < training.config.train.end, None
    for report in training.reports[-1:]:
        yield from _announced_gallery(task, training, report)

    # Train from report to report. The checkpoint is written before the report is sent: what is reported is kept.
    for event in _until_paused(task, training, asked):
        if isinstance(event, TrainingProgress):
            yield {"progress": _plain(event)}
            continue
        report = event
        value = _value(report, task)
        if is_first:
            with writing_to(task.checkpoint):
                if value < best or training.data.valid is None:
                    save_weights(
                        training.model_of_record,
                        training.config,
                        weights_file(task.checkpoint),
                        data_checksum=training.data.identity.checksum,
                    )
                training.state.save(state_file(task.checkpoint))
        best = min(best, value)
        peak = _larger(peak, peak_memory(training.device))
        yield {"report": _plain(report), "facts": {"peak_memory_bytes": peak}}
        yield from _announced_gallery(task, training, report)

    # Only a final reads the test set, once, under the last weights.
    facts: Facts = {}
    tested = None
    if task.images:
        yield {"expects_seconds": expected}
        with writing_to(task.images):
            tested = read_test_set(task, training, is_new=is_new)
        facts |= test_facts(training, tested)

    # A real code must confirm the claimed bits.
    if (seconds := seconds_allowed(training)) > _SECONDS_UNANNOUNCED:
        yield {"expects_seconds": seconds}
    if is_first:
        facts |= verify_claim(training, weights_file(task.checkpoint), tested=tested)

    # The last message, with the sampling speed.
    speed, why_not = _sampling_speed(training) if is_first else ({}, None)
    yield _ended(Status.FINISHED, why_not, facts | speed)


def _until_paused(
    task: TrialTask, training: Training, asked: Callable[[], bool]
) -> Iterator[TrainingProgress | EpochReport]:
    """Yield the reports and the progress; if the training pauses, save the state between two reports.

    Raises:
        PausedError: The launch asked one of the workers to end.
        NodePreemptedError: The machine of one of them is taken away.
    """
    try:
        yield from training.events(_PROGRESS_SECONDS)
    except PausedError as pause:
        if training.workers.rank == 0:
            with writing_to(task.checkpoint):
                training.state.save(state_file(task.checkpoint))
        if training.workers.any(asked()):
            raise
        raise NodePreemptedError(f"the machine under this trial is taken away: {pause}") from None


def _value(report: EpochReport, task: TrialTask) -> float:
    """Return the value by which the weights to keep are chosen (lower is better); NaN without validation."""
    value: float | None = getattr(report, task.objective)
    return math.inf if value is None else value


def _sampling_speed(training: Training) -> tuple[Facts, str | None]:
    """Return the sampling speed as facts, or why there are none.

    If a machine, or a likelihood of the user's own, cannot measure it, the trial lacks only that number. Torch reports
    a lack of memory on a CPU, and all errors of a device, as a RuntimeError; the row's reason has its text.
    """
    try:
        return sampling_facts(training), None
    except Exception as error:
        return {}, f"its sampling speed could not be measured: {reason_to_skip(error)}"


def _larger(peak: int | None, other: int | None) -> int | None:
    return max((value for value in (peak, other) if value is not None), default=None)


def _announced_gallery(task: TrialTask, training: Training, report: EpochReport) -> Iterator[Message]:
    """Draw the report's gallery if it is the nearest to a chosen epoch and not drawn yet.

    All workers announce it first, because they report together; the first one, which draws, knows how long it takes.
    """
    if report.images_seen not in _galleries(task, training):
        return
    location = f"{task.gallery.removesuffix('.png')}-{report.images_seen}-images.png"
    is_mine = training.workers.rank == 0 and not files.exists(location)
    yield {"expects_seconds": _seconds_to_draw(training) if is_mine else 0.0}
    if is_mine:
        _draw_gallery(task, training, report, location)
        reset_peak_memory()  # sampling does not count as training memory


def _seconds_to_draw(training: Training) -> float:
    import torch

    from pixeltune.sampling import GALLERY_SIDE, forecast

    try:
        return 2 * forecast(training.model_of_record, GALLERY_SIDE**2 // 2)
    except (torch.OutOfMemoryError, MemoryError):
        return 0.0


def _draw_gallery(task: TrialTask, training: Training, report: EpochReport, location: str) -> None:
    """Draw the gallery; without enough memory, only the gallery is missing."""
    import torch

    from pixeltune.sampling import gallery

    title = f"trial {task.trial} after {report.images_seen:,} images (epoch {report.epoch:.2f}), seed 0"
    try:
        picture = gallery(training.model_of_record, training.data.valid, title=title)
    except (torch.OutOfMemoryError, MemoryError) as error:
        warnings.warn(f"{location} is left out: {error}", stacklevel=2)
        return
    with writing_to(location):
        picture.save(location)


def _galleries(task: TrialTask, training: Training) -> set[int]:
    """Return the images seen at the reports nearest to the chosen epochs."""
    every = training.config.train.report_every
    assert every is not None, "resolve() fills train.report_every"
    reports = [round(epoch * len(training.data.train) / every) for epoch in task.galleries]
    return {min(training.config.train.end, max(1, report) * every) for report in reports}


def _begin(task: TrialTask, pause: Callable[[], bool]) -> tuple[Training, str]:
    """Resume from an earlier attempt's checkpoint, or start from scratch with a warning if it could not be used.

    An unusable checkpoint is renamed and kept.
    """
    from pixeltune.training.checkpoint import TrainState
    from pixeltune.training.loop import fit

    config, location = TrialConfig.build(task.config), state_file(task.checkpoint)
    warning = ""
    if files.exists(location):
        try:
            return fit(config, state=TrainState.load(location), gpu_share=task.gpu_share, pause=pause), ""
        except CheckpointError as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                raise  # the storage did not answer; the checkpoint there may be intact
            warning = f"starts from scratch, and keeps its old checkpoint as {location}.corrupt: {error}"
            with writing_to(location), contextlib.suppress(FileNotFoundError):  # another worker was first
                files.move(location, f"{location}.corrupt")
    return fit(config, gpu_share=task.gpu_share, pause=pause), warning


@contextlib.contextmanager
def writing_to(location: str) -> Iterator[None]:
    """Turn a full disk into a StoreError, which ends the search resumably; it is not the trial's fault."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"what a trial keeps must be writable, but {location} is not ({error.strerror or error}); "
            "free or mount the disk, or take another --storage"
        ) from error


def _forget_earlier_trials() -> None:
    """Reset memory, peak and compiled code, because an actor runs one trial after another.

    After 8 shapes torch.compile silently stops compiling, hence the reset.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    reset_peak_memory()


def _plain(report: TrainingProgress | EpochReport) -> dict[str, Any]:
    """Return a report, or progress, as a dictionary; values that are not finite become None."""
    values = asdict(report)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _ended(status: Status, reason: str | None, facts: Facts | None = None) -> Ended:
    ended: Ended = {"end": str(status), "reason": reason}
    if facts:
        ended["facts"] = facts
    return ended
