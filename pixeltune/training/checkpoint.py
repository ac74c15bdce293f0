"""TrainState: all that training needs to go on exactly, saved as one whole file."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pixeltune import files
from pixeltune.config import Layout
from pixeltune.errors import CheckpointError
from pixeltune.training.report import EpochReport

_FORMAT = 1


@dataclass(frozen=True)
class SinceReport:
    """What a training that pauses between two reports has added up since the last one.

    nats: sums over the images of each worker, by rank. norms: of the gradients. steps: of which the time is known.
    train_seconds, eval_seconds, compile_seconds: of the whole training.
    """

    nats: list[float]
    norms: float
    steps: int
    train_seconds: float
    eval_seconds: float
    compile_seconds: float


@dataclass
class TrainState:
    """A trial between two steps. Schedules, data order and seeds are functions of (config, step) and need no saving.

    config_key: of the configuration that was trained. data_checksum: of the images it was trained on.
    model, optimizer, average: state dicts; average is None without `optim.ema`.
    precision, layout: what `auto` chose, so that a resumed trial does not choose again.
    micro_batch: images a pass on each worker, by which dropout draws; None where that is not known.
    reports: the learning curve so far. The seconds in the last report go on being counted.
    since_report: what belongs to the next report already.
    """

    config_key: str
    data_checksum: str
    images_seen: int
    step: int
    precision: str
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    reports: list[EpochReport]
    layout: Layout = "channels_first"  # states from before there was a choice do not say
    micro_batch: int | None = None  # states from before there were passes do not say
    since_report: SinceReport | None = None  # None at a report

    def save(self, location: files.Location) -> None:
        """Write the state at `location` (path or URI), replacing an older one in one step."""
        content = {key: value for key, value in vars(self).items() if key != "reports"}
        content |= {"format": _FORMAT, "reports": [asdict(report) for report in self.reports]}
        content["since_report"] = None if self.since_report is None else asdict(self.since_report)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        files.write_whole(location, buffer.getvalue())

    @classmethod
    def load(cls, location: files.Location) -> TrainState:
        """Read a state; CheckpointError where it is missing, unreadable, cut short or of another format."""
        try:
            content = torch.load(io.BytesIO(files.read_whole(location)), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise CheckpointError(f"a checkpoint must exist, but there is none at {location}") from None
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())
            raise CheckpointError(f"a checkpoint must be readable, but {location} is not ({reason})") from error
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"a checkpoint must be whole, but {location} cannot be read ({reason}); remove it to start anew"
            ) from None
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise CheckpointError(f"a checkpoint must have format {_FORMAT}, but {location} has another")
        content["reports"] = [EpochReport(**report) for report in content["reports"]]
        since = content.pop("since_report", None)
        content["since_report"] = None if since is None else SinceReport(**since)
        return cls(**content)

    def require(self, config_key: str, data_checksum: str) -> None:
        """Refuse a state of another configuration or of other images."""
        for what, wanted, got in (
            ("configuration", config_key, self.config_key),
            ("data", data_checksum, self.data_checksum),
        ):
            if wanted != got:
                raise CheckpointError(f"a checkpoint must be of this {what} ({wanted}), but it is of {got}")
