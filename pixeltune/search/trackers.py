"""TensorBoard, Weights & Biases and MLflow as trackers: one run a trial, with the images seen on the x axis.

TensorBoard's files are kept in `tensorboard/<trial>` in the search's folder. The other two keep theirs where their own
environment says: `WANDB_MODE`, `WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and the like.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.errors import ConfigError
from pixeltune.packages import require_packages
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.search.tracking import REPORT, SAMPLES, SAMPLES_AT_END, Tracker, TrialLog, TrialSnapshot

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_WITHOUT_FAULT = (Status.FINISHED, Status.PRUNED, Status.STOPPED, Status.INTERRUPTED)
"""Statuses that a tracker does not show as a failure."""
_PROJECT = "pixeltune"
_MOST_PARAMS = 100
"""Parameters that MLflow takes in one call."""
_MLFLOW_STEPS = "images_seen"
"""The metric of MLflow whose history holds the images of the logged reports."""


def require_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that cannot work: a package is missing, or no one is logged in.

    Raises:
        MissingPackageError: A package is not installed.
        ConfigError: W&B has no account to log to.
    """
    for name in names:
        require_packages(f"--track {name}", name)
        if name == WandbTracker.name:
            _require_account()


def make_trackers(names: Iterable[str], store: SearchStore) -> list[Tracker]:
    """Return the trackers of these names for a search, each once."""
    return [TRACKERS[name](store) for name in dict.fromkeys(names)]


class TensorBoardTracker(Tracker):
    """Event files of TensorBoard; on object storage they are copied there after each report."""

    name = "tensorboard"

    def open(self, snapshot: TrialSnapshot) -> TrialLog:
        """Add a file of events to those of earlier launches."""
        return _TensorBoardLog(files.join(self.store.folder, "tensorboard", snapshot.trial), snapshot)


class _TensorBoardLog(TrialLog):
    def __init__(self, folder: str, snapshot: TrialSnapshot) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._scratch = Path(tempfile.mkdtemp(prefix="pixeltune-events-")) if files.is_uri(folder) else None
        self._local = self._scratch or files.local_path(folder)
        self._before = self._fetch() if self._scratch else set()
        self._known = {
            (tag if tag in (SAMPLES, SAMPLES_AT_END, "status") else REPORT, step) for tag, step in _logged(self._local)
        }
        self._writer = SummaryWriter(str(self._local), max_queue=1000, flush_secs=3600)
        if not self._known:
            self._writer.add_text("config", _table(snapshot.config), 0)

    def has(self, kind: str, images: int) -> bool:
        return (kind, images) in self._known

    def log(self, images: int, at: datetime, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, images, walltime=at.timestamp())
        self._known.add((REPORT, images))

    def show(self, kind: str, images: int, png: bytes) -> None:
        self._writer.add_image(kind, _pixels(png), images, dataformats="HWC")
        self._known.add((kind, images))

    def flush(self) -> None:
        self._writer.flush()
        if self._scratch is not None:
            for path in self._scratch.iterdir():
                if path.name not in self._before:
                    files.write_whole(files.join(self._folder, path.name), path.read_bytes())

    def end(self, snapshot: TrialSnapshot) -> None:
        from torch.utils.tensorboard.summary import hparams

        numbers = {f"record/{name}": value for name, value in snapshot.numbers().items()}
        images = snapshot.row.get("images_seen") or 0
        if ("status", images) not in self._known:
            self._writer.add_text("status", _status(snapshot), images)
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, images)
            plain = {
                key: value for key, value in snapshot.config.items() if isinstance(value, bool | int | float | str)
            }
            for summary in hparams(plain | {"status": snapshot.status}, numbers):
                self._writer._get_file_writer().add_summary(summary)
        self.flush()
        self.drop()

    def drop(self) -> None:
        self._writer.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _fetch(self) -> set[str]:
        """Copy the events of earlier launches here, and return their names."""
        names = set(files.list_names(self._folder))
        for name in names:
            (self._local / name).write_bytes(files.read_whole(files.join(self._folder, name)))
        return names


def _logged(folder: Path) -> set[tuple[str, int]]:
    """Return tag and step of all that the event files in a folder hold."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return {
        (value.tag.removesuffix("/text_summary"), event.step)
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if not value.tag.startswith(("record/", "config", "_hparams_"))
    }


class WandbTracker(Tracker):
    """Runs of Weights & Biases, grouped by search, in the project of its environment or `pixeltune`.

    What an offline run has logged cannot be asked for, so a file in the search's folder keeps it.
    """

    name = "wandb"

    def open(self, snapshot: TrialSnapshot) -> TrialLog:
        """Begin the run of a trial, or resume it by its id."""
        return _WandbLog(self.store, snapshot)


class _WandbLog(TrialLog):
    def __init__(self, store: SearchStore, snapshot: TrialSnapshot) -> None:
        import wandb

        self._record = files.join(store.folder, "wandb", f"{snapshot.trial}.json")
        self._logged = self._read()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            group=store.search,
            name=f"{store.search}/{snapshot.trial}",
            id=f"{store.search_id or store.search}-{snapshot.trial}",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",  # the output is that of the search, not of one trial
                silent=True,
                disable_git=True,
                save_code=False,
                finish_timeout=20.0,
                x_disable_meta=True,  # it has the command line, and with it the address of a notification
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        self._run.config.update(dict(snapshot.config), allow_val_change=True)
        self._run.define_metric("*", step_metric="images_seen")
        self._first_step = int(getattr(self._run, "starting_step", 0) or 0)
        self._last_step = max(self._first_step - 1, *(images for _kind, images in self._logged), 0)

    def has(self, kind: str, images: int) -> bool:
        return (kind, images) in self._logged or (kind == REPORT and images < self._first_step)

    def log(self, images: int, at: datetime, numbers: Mapping[str, float]) -> None:  # noqa: ARG002
        self._add(images, dict(numbers))
        self._logged.add((REPORT, images))

    def show(self, kind: str, images: int, png: bytes) -> None:
        import wandb

        self._add(images, {kind: wandb.Image(_pixels(png))})
        self._logged.add((kind, images))

    def flush(self) -> None:
        files.write_whole(self._record, json.dumps(sorted(self._logged)).encode())

    def end(self, snapshot: TrialSnapshot) -> None:
        self._run.summary.update({"status": snapshot.status, "reason": snapshot.reason or ""})
        self._run.summary.update({f"record/{name}": value for name, value in snapshot.numbers().items()})
        self._run.finish(exit_code=0 if snapshot.status in _WITHOUT_FAULT else 1)

    def drop(self) -> None:
        self._run.finish(exit_code=0)

    def _add(self, images: int, values: Mapping[str, Any]) -> None:
        """Log values at a step, which W&B takes in rising order alone; the images seen are a value too."""
        self._last_step = max(images, self._last_step + (images < self._last_step))
        self._run.log({"images_seen": images, **values}, step=self._last_step)

    def _read(self) -> set[tuple[str, int]]:
        try:
            return {(str(kind), int(images)) for kind, images in json.loads(files.read_whole(self._record))}
        except (FileNotFoundError, ValueError, TypeError):
            return set()


def _require_account() -> None:
    """Refuse W&B without an account; it would ask for one at the terminal in the middle of a search."""
    import wandb

    mode = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
    if mode not in ("online", "run", "shared"):
        return
    if not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "--track wandb needs an account, but no one is logged in; run `wandb login`, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep the runs on this machine"
        )


class MlflowTracker(Tracker):
    """Runs of MLflow in the experiment of its environment, or one named after the search."""

    name = "mlflow"

    def __init__(self, store: SearchStore) -> None:
        super().__init__(store)
        self._client: MlflowClient | None = None
        self._experiment = ""

    def open(self, snapshot: TrialSnapshot) -> TrialLog:
        """Begin the run of a trial, or continue the one with its tags."""
        from mlflow.tracking import MlflowClient

        if self._client is None:
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = MlflowClient()
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.store.search
            found = client.get_experiment_by_name(name)
            self._experiment = found.experiment_id if found is not None else client.create_experiment(name)
            self._client = client
        return _MlflowLog(self._client, self._experiment, self.store, snapshot)


class _MlflowLog(TrialLog):
    def __init__(self, client: MlflowClient, experiment: str, store: SearchStore, snapshot: TrialSnapshot) -> None:
        self._client = client
        tags = {"pixeltune.search_id": store.search_id or store.search, "pixeltune.trial": snapshot.trial}
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = client.search_runs([experiment], wanted, max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, "RUNNING")
        else:
            run = client.create_run(experiment, tags=tags, run_name=f"{store.search}/{snapshot.trial}")
            self._id = run.info.run_id
        self._log_config(snapshot.config, known=found[0].data.params if found else {})
        self._known = {(REPORT, metric.step) for metric in client.get_metric_history(self._id, _MLFLOW_STEPS)}
        for artifact in client.list_artifacts(self._id, "samples"):
            kind, _, images = Path(artifact.path).stem.rpartition("-")
            if images.isdecimal():
                self._known.add((kind, int(images)))

    def has(self, kind: str, images: int) -> bool:
        return (kind, images) in self._known

    def log(self, images: int, at: datetime, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        milliseconds = round(1000 * at.timestamp())
        values = {**numbers, _MLFLOW_STEPS: float(images)}
        metrics = [Metric(name, value, milliseconds, images) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)
        self._known.add((REPORT, images))

    def show(self, kind: str, images: int, png: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="pixeltune-samples-") as folder:
            path = Path(folder, f"{kind}-{images}.png")
            path.write_bytes(png)
            self._client.log_artifact(self._id, str(path), "samples")
        self._known.add((kind, images))

    def flush(self) -> None:
        """Nothing: each call is complete when it returns."""

    def end(self, snapshot: TrialSnapshot) -> None:
        self._client.set_tag(self._id, "pixeltune.status", snapshot.status)
        self._client.set_tag(self._id, "pixeltune.reason", snapshot.reason or "")
        for name, value in snapshot.numbers().items():
            self._client.log_metric(self._id, f"record/{name}", value, step=snapshot.row.get("images_seen") or 0)
        is_killed = snapshot.status in (Status.STOPPED, Status.INTERRUPTED)
        fine = "FINISHED" if snapshot.status in _WITHOUT_FAULT else "FAILED"
        self._client.set_terminated(self._id, "KILLED" if is_killed else fine)

    def _log_config(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log the keys that the run does not have: MLflow refuses a change, such as of a path to the images."""
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in config.items() if key not in known]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + _MOST_PARAMS])


TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoardTracker, WandbTracker, MlflowTracker)
}
"""The trackers by the name that `--track` has for each, which is also that of its package and its extra."""


def _pixels(png: bytes) -> Any:
    """Return the pixels (H, W, 3) of a PNG."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def _table(config: Mapping[str, Any]) -> str:
    """Return a configuration as a table in Markdown."""
    rows: Sequence[str] = [f"| {key} | {value} |" for key, value in config.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _status(snapshot: TrialSnapshot) -> str:
    return f"{snapshot.status}: {snapshot.reason}" if snapshot.reason else str(snapshot.status)
