"""Training a trial of a search beyond its end, from its kept weights and optimiser state: `pixeltune continue`.

It trains in a folder of its own, from a copy of what the trial kept. Only if it finishes are the row and the curve of
the new attempt written and its weights put in place: until then the results are as they were, and the same command
continues an interrupted one.

What it trains is what the same configuration would have trained from the start with more images. Therefore the
learning rate must not depend on the number of images, and a warm-up, which is a share of them, is scaled so that it has
as many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.errors import ConfigError, StoreError
from pixeltune.results.own_keys import require_code
from pixeltune.results.ranking import RANKED
from pixeltune.results.schema import Status
from pixeltune.search.attempt import RunningAttempt, TrialPlan, now, objective_of, to_row
from pixeltune.search.final import LENGTH_KEYS
from pixeltune.search.messages import Message
from pixeltune.search.trial import run_trial, state_file, weights_file, writing_to
from pixeltune.search.trial_reference import Found
from pixeltune.space import Resources, SearchSpace

_ROUNDINGS = 8
"""Neighbouring numbers that are tried for a warm-up with exactly as many steps."""


@dataclass(frozen=True)
class Continuation:
    """A trial and what it is trained to.

    Attributes:
        found: The trial, with the row of the attempt that is continued.
        config: Its configuration with more images.
    """

    found: Found
    config: TrialConfig

    @property
    def folder(self) -> str:
        """Return the folder in which it trains."""
        return self.found.store.checkpoint(f"{self.found.row['trial']}-{self.config.train.images}")

    @property
    def images_before(self) -> int:
        """Return the training images of the attempt that is continued."""
        images: int = self.found.row["images_seen"]
        return images

    def run(self, resources: Resources, asked: Callable[[], bool]) -> Iterator[Message]:
        """Train, and write the results if it finishes; the caller holds the lock of the search.

        Args:
            resources: What it holds.
            asked: Returns whether it is to save its state and end.

        Yields:
            The messages of `run_trial`.
        """
        store, row = self.found.store, self.found.row
        space = self._space()
        number = 1 + max(other["attempt"] for other in store.attempts() if other["trial"] == row["trial"])
        origin = row["proposed_by"], row["space_version"], row["repeat_of"]
        plan = TrialPlan(row["number"], number, {}, self.config, *origin)
        attempt = RunningAttempt(
            plan,
            resources,
            now(),
            reports={report["images_seen"]: report for report in store.curve(row["trial"])},
            gpu_seconds_before=row["gpu_seconds"] or 0.0,
            dollars_before=row["dollars"],
        )
        self._copy_state()
        task = replace(plan.to_task(space, store, resources), checkpoint=files.absolute(self.folder))
        for message in run_trial(task, asked=asked):
            if "facts" in message:
                attempt.learn(message["facts"])
            new = [message["report"]] if "report" in message else []
            if "resumed" in message:
                new = [report for report in message["resumed"] if report["images_seen"] not in attempt.reports]
            for report in new:
                attempt.add(report)
            if "end" in message:
                attempt.conclude(Status(message["end"]), message["reason"])
            yield message
        self._finish(attempt)

    def _copy_state(self) -> None:
        """Put the state and the weights of the attempt into the folder, unless an interrupted continuation did."""
        from pixeltune.training.checkpoint import TrainState

        if files.exists(state_file(self.folder)):
            return
        row, kept = self.found.row, self.found.store.checkpoint(self.found.row["trial"])
        state = TrainState.load(state_file(kept))
        state.require(row["config_key"], row["data_checksum"])
        with writing_to(self.folder):
            files.write_whole(weights_file(self.folder), files.read_whole(weights_file(kept)))
            replace(state, config_key=self.config.key()).save(state_file(self.folder))

    def _finish(self, attempt: RunningAttempt) -> None:
        """Write the results of an attempt that has finished."""
        status, reason = attempt.finish(None, "")
        if status is not Status.FINISHED:
            return
        store, row = self.found.store, self.found.row
        whose = {
            "search": store.search,
            "baseline_bits_per_dim": row["baseline_bits_per_dim"],
            "continues_attempt": row["attempt"],
            "repeats": row["repeats"],
        }
        kept = store.checkpoint(row["trial"])
        with writing_to(kept):
            store.write_curve(row["trial"], attempt.plan.attempt, attempt.new_reports)
            files.write_whole(weights_file(kept), files.read_whole(weights_file(self.folder)))
            store.write_trial(to_row(attempt, status, reason, whose, objective_of(self._space())))
            files.write_whole(state_file(kept), files.read_whole(state_file(self.folder)))
            files.remove(self.folder)

    def _space(self) -> SearchSpace:
        """Return a space of this trial alone, with the objective by which its search chooses the weights to keep."""
        name = self.found.manifest.objectives[0]
        return SearchSpace(base=self.config, objectives=(name,))


def continuation_of(found: Found, images: int) -> Continuation:
    """Return how a trial is trained to `images`.

    Args:
        found: A trial of a search.
        images: Training images in all.

    Raises:
        ConfigError: The number does not fit the trial, or its learning rate depends on how long it trains.
        StoreError: Its state or its weights were not kept, or its code has changed.
    """
    if found.manifest.final is not None:
        raise StoreError(f"a trial of a search can be continued, but {found.store.search} is a final; name its search")
    _require_state(found)
    config = found.config().imported()
    require_code(found.name, found.row)
    _require_images(found, config, images)
    _require_schedule(found.name, config)
    if (found.row["workers"] or 1) > 1:
        raise ConfigError(
            f"a continuation trains in one process, but {found.name} was trained by {found.row['workers']}, "
            "which round differently; train it from the start with pixeltune rerun"
        )
    longer = (images, None, _same_warmup(found.name, config, images))
    return Continuation(found, config.override(dict(zip(LENGTH_KEYS, longer, strict=True))))


def continuations_of_best(found: list[Found], images: int, top: int) -> list[Continuation]:
    """Return how the `top` best trials whose state was kept are trained to `images`.

    Args:
        found: The trials of a search, the best first.
        images: Training images in all.
        top: How many.

    Raises:
        StoreError: Fewer have kept their state.
    """
    able = [trial for trial in found if files.exists(state_file(trial.store.checkpoint(trial.row["trial"])))]
    if len(able) < top:
        raise StoreError(
            f"--top {top} needs as many trials with kept state, but {found[0].store.search} has {len(able)}; searches "
            "keep it with keep_states or --keep-states"
        )
    return [continuation_of(trial, images) for trial in able[:top]]


def _require_state(found: Found) -> None:
    if found.row["status"] not in RANKED:
        raise StoreError(
            f"a trial must have ended with a number to be continued, but {found.name} is {found.row['status']}"
        )
    kept = found.store.checkpoint(found.row["trial"])
    for what, location in (("state", state_file(kept)), ("weights", weights_file(kept))):
        if not files.exists(location):
            raise StoreError(
                f"a trial must have kept its {what} to be continued, but {found.name} has not; searches keep it of "
                "their best trials with keep_states or --keep-states"
            )


def _require_images(found: Found, config: TrialConfig, images: int) -> None:
    before, every = found.row["images_seen"], config.train.report_every
    if before is None or images <= before:
        raise ConfigError(f"--images must be above the {before or 0:,} that {found.name} has seen, but got {images:,}")
    for what, number in (("the images that it has seen", before), ("--images", images)):
        for step, name in ((every, "train.report_every"), (config.train.batch_size, "train.batch_size")):
            if step and number % step:
                raise ConfigError(
                    f"to continue {found.name}, {what} must be a multiple of {name} ({step}), but got {number}"
                )


def _require_schedule(name: str, config: TrialConfig) -> None:
    if config.optim.schedule != "constant":
        why = {"cosine": "falls to zero at its end", "exponential": "has fallen by its end"}[config.optim.schedule]
        raise ConfigError(
            "a trial must have a constant learning rate to be continued, with or without a warm-up, but that of "
            f"{name} is {config.optim.schedule} and {why}; train it from the start with pixeltune rerun --set "
            "train.images=…"
        )


def _same_warmup(name: str, config: TrialConfig, images: int) -> float:
    """Return the share of `images` with exactly as many warm-up steps, as the learning rate computes them."""
    batch = config.train.batch_size
    wanted = config.optim.warmup * (config.train.images // batch)
    steps = images // batch
    share = wanted / steps
    below, above = [share], [share]
    for _ in range(_ROUNDINGS):
        below.append(math.nextafter(below[-1], 0.0))
        above.append(math.nextafter(above[-1], 1.0))
    found = next((each for each in [*below, *above] if each * steps == wanted), None)
    if found is None:
        raise ConfigError(
            f"--images must allow the warm-up of {name}, {wanted:g} steps, as a share of itself, but {images:,} does "
            "not exactly; take another multiple of train.report_every"
        )
    return found
