"""Thin adapters to Ray Tune: the searcher, the scheduler, the callback and the stopper."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pixeltune import files
from pixeltune.errors import PixeltuneError, first_line
from pixeltune.search.messages import parse_message
from pixeltune.tune.run_state import TuneRunState, crash_of
from pixeltune.tune.trainables import MESSAGE

_COPY_SECONDS = 30.0
"""Seconds between copies of what the space's callbacks write."""


class NotPickled:
    """A part that stays in the driver: Tune pickles its parts to restore them, but we restore from Parquet."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class TuneSearcher(NotPickled, Searcher):
    """The searcher: it passes Tune's requests to the trial source, and the ends of trials to the search state."""

    def __init__(self, run_state: TuneRunState, scratch: str) -> None:
        super().__init__()
        self._run_state = run_state
        self._scratch = scratch

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial as plain parameters; `settings` is for other callbacks to show."""
        run_state = self._run_state
        if run_state.is_full:
            return None
        with run_state.guarded():
            plan = run_state.open_next(trial_id)
            if plan is not None:
                return run_state.attempt_parameters(trial_id) | {
                    "settings": plan.suggestion,
                    "resources": asdict(run_state.resources),
                    "scratch": self._scratch,
                }
        return self.FINISHED  # to None, Tune would ask again for ten minutes

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Limit concurrency ourselves: Tune gives no callback for trials that it drops before they start."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Handle a trial that finished, was stopped by the scheduler, or failed once too often."""
        with self._run_state.guarded():
            self._run_state.end(trial_id, has_crashed=error)

    def set_search_properties(self, *_args: Any, **_kwargs: Any) -> bool:
        """Accept any properties: the objectives are the space's, and Tune does not need them."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""


class TuneScheduler(NotPickled, FIFOScheduler):
    """First in, first out; the search state reads each message and decides when a trial stops."""

    def __init__(self, run_state: TuneRunState) -> None:
        super().__init__()
        self._run_state = run_state

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide at a message whether the trial continues."""
        reason: str | None = None
        with self._run_state.guarded():
            message = parse_message(result[MESSAGE])
            reason = self._run_state.receive(trial.trial_id, message)
            if "end" in message:
                trial.max_failures = 0  # If its process dies now, there is nothing to try again.
        return str(TrialScheduler.CONTINUE if reason is None else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep the text of the crash; Tune reports to the searcher only that there was one."""
        self._run_state.crash(trial.trial_id, crash_of(trial))


class TuneCallback(NotPickled, tune.Callback):
    """Starts and retries of trials, which Tune reports only to callbacks."""

    def __init__(self, run_state: TuneRunState) -> None:
        super().__init__()
        self._run_state = run_state

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that an attempt starts."""
        with self._run_state.guarded():
            self._run_state.begin(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a crash that Tune follows with another attempt."""
        with self._run_state.guarded():
            self._run_state.retry(trial.trial_id, crash_of(trial))
            trial.max_failures = trial.num_failures + self._run_state.tries_left(trial.trial_id)
            # Tune would repeat the first attempt's parameters.
            trial.config.update(self._run_state.attempt_parameters(trial.trial_id))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Drop what an ended trial no longer needs: Tune keeps all trials to the end, with 80 kB each."""
        kept = (trial.metric_analysis, trial.metric_n_steps, trial.last_result, trial.config, trial.evaluated_params)
        for what in kept:
            what.clear()
        trial.set_experiment_tag("")  # holds the configuration once more
        trial.last_result["ended"] = True  # for an empty one Tune prints a line at any verbosity


class CallbackFiles(NotPickled, tune.Callback):
    """Keeps the files that the space's callbacks write, such as event files of TensorBoard, in the search's folder.

    Callbacks write into Tune's folder of a trial, which ends with the launch. Every 30 s, and at each trial's end, the
    files that changed are copied to `callbacks/<trial>` in the search's folder, or `callbacks/<trial>-<attempt>` for a
    trial that an earlier launch began. It comes after the space's callbacks, so that it finds what they wrote last.

    Args:
        run_state: What is known of the trials.
        folder: The search's folder, or a URI.
        clock: Returns seconds.
    """

    def __init__(self, run_state: TuneRunState, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._run_state = run_state
        self._folder = files.join(folder, "callbacks")
        self._clock = clock
        self._copied_at = clock()
        self._open: dict[str, tuple[Path, str]] = {}
        self._copied: dict[Path, tuple[int, int]] = {}
        self._is_failing = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin to keep what is written for a trial."""
        if trial.trial_id not in self._open:
            name = self._run_state.attempt_name(trial.trial_id)
            self._open[trial.trial_id] = Path(trial.local_path), files.join(self._folder, name)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Copy now and then, so that a running search can be watched."""
        if self._clock() - self._copied_at > _COPY_SECONDS:
            self._copied_at = self._clock()
            for trial_id in self._open:
                self._copy(trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Copy what is new, for the last time."""
        self._copy(trial.trial_id)
        self._open.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Copy what is new, for the last time."""
        self.on_trial_complete(iteration, trials, trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Copy what is new of the trials that did not come to an end."""
        for trial_id in self._open:
            self._copy(trial_id)

    def _copy(self, trial_id: str) -> None:
        source, target = self._open.get(trial_id, (None, ""))
        if source is None:
            return
        try:
            for path in sorted(source.rglob("*")):
                found = path.stat()
                version = found.st_mtime_ns, found.st_size
                if path.is_file() and not path.name.startswith("error.") and self._copied.get(path) != version:
                    files.write_whole(files.join(target, *path.relative_to(source).parts), path.read_bytes())
                    self._copied[path] = version
        except (PixeltuneError, OSError) as error:  # the results do not depend on these files
            if not self._is_failing:
                self._run_state.say(f"Files of callbacks cannot be copied to {self._folder}: {first_line(error)}")
            self._is_failing = True


class LimitStopper(NotPickled, tune.Stopper):
    """A stopper that ends the search when `due` returns true; the scheduler stops single trials."""

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether the whole search should end now."""
        return self._due()


def directory_of(trial: Any) -> str:
    """Return a short folder name; Tune's own would contain the whole configuration."""
    return str(trial.trial_id)
