"""`pixeltune train`: train one configuration without a search; its results are named after its file.

With `torchrun --nproc-per-node N -m pixeltune train …` N processes train it together.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    add_galleries,
    add_settings,
    add_storage,
    is_verbose,
    say,
    say_progress,
    settings_of,
)
from pixeltune.cli.notify import add_notify, addresses_of, notified
from pixeltune.cli.progress_bar import training_progress
from pixeltune.cli.track import add_track, require_trackers, tracked
from pixeltune.format import counted
from pixeltune.results.storage import storage_words

if TYPE_CHECKING:
    from pixeltune.cli.notify import Ending
    from pixeltune.config import TrialConfig
    from pixeltune.results.stop_requests import StopRequestReader
    from pixeltune.search.attempt import Row
    from pixeltune.space import SearchSpace

REPORT_HEADER = "   images   epoch  train bits/dim  valid bits/dim   valid nats     raw     EMA  images/s"


def add_verb(verbs: Any) -> None:
    """Add `pixeltune train`."""
    parser = verbs.add_parser(
        "train",
        help="train one configuration, without a search",
        examples=(
            "pixeltune train model.toml",
            "pixeltune train model.toml --name wide --set model.channels=64",
        ),
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "file", nargs="?", metavar="FILE.toml", help="the configuration; `pixeltune config --template` writes one"
    )
    which.add_argument("--config", metavar="FILE.toml", help="the same")
    parser.add_argument("--name", metavar="NAME", help="name in the results [the file's name]")
    add_galleries(parser)
    add_track(parser)
    add_notify(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=train)


def train(options: argparse.Namespace) -> int:
    """Train, or resume an earlier run; print a table of losses per report."""
    from pixeltune.config import TrialConfig

    settings = settings_of(options)
    file = options.file or options.config
    config = TrialConfig.from_toml(file).override(settings)
    name = options.name or Path(file).stem
    require_trackers(options.track)
    return train_config(
        config,
        name,
        settings,
        storage=options.storage,
        galleries=options.galleries or (),
        track=options.track,
        notify=addresses_of(options),
    )


def train_config(
    config: TrialConfig,
    name: str,
    settings: dict[str, Any],
    *,
    storage: str,
    galleries: tuple[float, ...] = (),
    track: Sequence[str] = (),
    notify: Sequence[str] = (),
) -> int:
    """Train `config`, which includes `settings`, into the results `name`; return the exit code.

    track: names of trackers. notify: addresses that get a message at the end. Of several workers the first uses them.
    """
    from pixeltune.results.identity import require_new_name

    require_new_name(name)
    import torch

    from pixeltune.space import Budget, Resources, SearchSpace
    from pixeltune.training.compiler import require_compiler
    from pixeltune.training.workers import best_device, process_group

    with process_group() as workers:
        device_type = best_device(workers.rank).type
        if config.train.compile:
            require_compiler(device_type)
        gpus = 1.0 if device_type == "cuda" else 0.0
        space = SearchSpace(
            base=config,
            budget=Budget(trials=1),
            resources=Resources(workers.world, cpus=torch.get_num_threads(), gpus=gpus),
            galleries=galleries,
            title="one trial",
        )
        if workers.rank == 0:
            with notified(notify, name) as ending:
                return _train_and_keep(space, name, settings, storage, track, ending)
        return _train_along(space, name, storage)


def _train_and_keep(
    space: SearchSpace, name: str, settings: dict[str, Any], storage: str, track: Sequence[str], ending: Ending
) -> int:
    from pixeltune import files
    from pixeltune.data import resolve
    from pixeltune.results.schema import Status
    from pixeltune.results.stop_requests import StopRequestReader, remove_stop_requests
    from pixeltune.results.store import SearchStore
    from pixeltune.search.run import open_search, require_same_code, require_same_data, require_same_data_if_readable
    from pixeltune.search.state import SearchState
    from pixeltune.search.trial import run_trial, state_file

    with SearchStore(storage, name).lock():
        remove_stop_requests(SearchStore(storage, name).folder)  # what is left is for an earlier launch
        store, manifest = open_search(space, name, storage, overrides=settings, say=say)
        baseline = manifest.baseline_bits_per_dim
        state = SearchState(space, store, baseline=baseline, retries=(Status.FAILED,))
        before = next(iter(state.ended.values()), None)
        if before is not None:
            require_same_data_if_readable(store, space.base.data, say)
        require_same_code(store)
        say(f"{name}: order-0 baseline {baseline:.4f} bits/dim on validation")
        if _first_says(before is not None, space.resources.workers):
            ending.of_training(before or {})
            return _show_end(before or {}, name + storage_words(storage))
        data = resolve(space.base).data
        say(f"{name}: {data.identity.name} ({data.identity.version}), {data.form.describe(data.num_images)}")
        if store.has_trials():
            require_same_data(store, space.base.data, data.identity.checksum)
        plan = next(iter(state.plans_to_resume()), None) or state.plan({})
        say_progress(REPORT_HEADER)
        for point in store.curve(plan.trial):
            say_progress(report_line(point))
        crash = None
        with tracked(track, store, say_progress) as callback:
            callback.begin(state, space.resources, 1, data.form)
            state.start(plan, space.resources)
            try:
                with (
                    stop_on_signal(space.resources.workers, StopRequestReader(store.folder)) as is_stopping,
                    training_progress(space.base.train.end) as show,
                ):
                    for message in run_trial(plan.to_task(space, store, space.resources), asked=is_stopping):
                        state.receive(plan.trial, message)
                        callback.change()
                        if "warning" in message:
                            say(f"{plan.trial} {message['warning']}")
                        if "progress" in message:
                            show(message["progress"])
                        if "report" in message:
                            say_progress(report_line(message["report"]))
                        if message.get("end") == Status.INTERRUPTED:
                            say("Stopped; the same command resumes from here.")
            except KeyboardInterrupt:
                say("Stopped; the same command resumes from the last report.")
            except BaseException:
                crash = traceback.format_exc()
                raise
            finally:
                row = state.finish(plan.trial, crash=crash)
                if plan.trial in state.ended and row["status"] != Status.FAILED:
                    files.remove(state_file(store.checkpoint(plan.trial)))
                callback.end()
        ending.of_training(row)
        return _show_end(row, name + storage_words(storage))


def _train_along(space: SearchSpace, name: str, storage: str) -> int:
    """Run a worker that is not the first: the same steps, nothing written."""
    from pixeltune.results.store import SearchStore
    from pixeltune.search.messages import TrialTask
    from pixeltune.search.trial import run_trial

    if _first_says(False, space.resources.workers):
        return EXIT_OK
    checkpoint = SearchStore(storage, name).checkpoint("00000")
    for _message in run_trial(TrialTask("00000", space.base.model_dump(), checkpoint)):
        pass
    return EXIT_OK


def _first_says(done: bool, world: int) -> bool:
    """Return whether the first process found the training done; the others read no results and wait for its answer."""
    if world == 1:
        return done
    from pixeltune.training.workers import Workers

    return Workers.current().as_first(done)


def _show_end(row: Row, words: str) -> int:
    """Print the trained row; words: what a command needs to name it."""
    from pixeltune.results.ranking import bound_mark
    from pixeltune.results.schema import Status

    status = Status(row["status"])
    if status is Status.FINISHED:
        say(
            f"Best {bound_mark(row)}{row['valid_bits_per_dim']:.4f} bits/dim ({row['valid_nats']:.3f} nats) after "
            f"{counted(row['best_images_seen'], 'image')}; pixeltune evaluate {words}; pixeltune sample {words}"
        )
        if row["bits_verified"] is False:
            say(f"Not confirmed: {row['bits_unverified_reason']}.")
        return EXIT_OK
    if status is Status.INTERRUPTED:
        return EXIT_INTERRUPTED
    if is_verbose() and row["traceback"]:
        print(row["traceback"], file=sys.stderr)
    say(f"Ended as {status}: {row['reason']}")
    return EXIT_USER_ERROR


def report_line(report: Row) -> str:
    """Return a report as a line under REPORT_HEADER."""
    ema = report["valid_bits_per_dim_ema"]
    return (
        f"{report['images_seen']:>9,}  {report['epoch']:>6.2f}  {report['train_bits_per_dim']:>14.4f}  "
        f"{report['valid_bits_per_dim']:>14.4f}  {report['valid_nats']:>11.3f}  "
        f"{report['valid_bits_per_dim_raw']:>6.4f}  {'–' if ema is None else f'{ema:.4f}':>6}  "
        f"{report['images_per_second']:>8,.0f}"
    )


@contextmanager
def stop_on_signal(world: int, requests: StopRequestReader) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, and SIGTERM as clusters send it, stop the training where it is; a second one leaves at once.

    So does a request of `pixeltune stop`. world: how many processes train. torchrun ends all of several, so these leave
    at once.

    Yields a function that returns whether to stop; the training calls it before each step, and saves its state.
    """
    stops = 0

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if world > 1 or stops > 1:
            raise KeyboardInterrupt
        say_progress("Stopping after this step; Ctrl-C again to leave at once.")

    before = {which: signal.signal(which, handle) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stops > 0 or (world == 1 and requests.look().is_launch)
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
