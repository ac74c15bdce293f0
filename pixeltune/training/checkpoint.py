"""TrainState: all that training needs to go on exactly, saved as one whole file."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pixeltune import digest, files
from pixeltune.config import Layout
from pixeltune.errors import CheckpointError, first_line
from pixeltune.training.epoch_report import EpochReport

_FORMAT = 2
_FORMAT_WITHOUT_DIGEST = 1
"""The format of earlier versions; a flipped bit in such a state may not show."""


@dataclass(frozen=True)
class SinceReport:
    """Sums since the last report, of a training that pauses between two reports.

    nats: sums over the images of each worker, by rank. norms: of the gradients. steps: those whose time is known.
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
        buffer.write(digest.PLACEHOLDER.encode())
        files.write_whole(location, digest.seal(buffer.getvalue()))

    @classmethod
    def load(cls, location: files.Location) -> TrainState:
        """Read a state; CheckpointError where it is missing, unreadable, damaged, cut short or of another format."""
        try:
            content = files.read_whole(location)
        except FileNotFoundError:
            raise CheckpointError(f"a checkpoint must exist, but there is none at {location}") from None
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())
            raise CheckpointError(f"a checkpoint must be readable, but {location} is not ({reason})") from error
        is_sealed = False
        try:
            is_sealed = digest.verify(content)
            tree = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            found = tree.pop("format", None) if isinstance(tree, dict) else None
            if found == (_FORMAT if is_sealed else _FORMAT_WITHOUT_DIGEST):
                return cls._from_tree(tree)
        except Exception as error:  # on damaged bytes torch raises almost anything
            if is_sealed and isinstance(error, MemoryError):
                raise  # the file is sound
            reason = first_line(error)
            raise CheckpointError(
                f"a checkpoint must be whole, but {location} cannot be read ({reason}); remove it to start from scratch"
            ) from None
        raise CheckpointError(f"a checkpoint must have format {_FORMAT} and its digest, but {location} has not")

    @classmethod
    def _from_tree(cls, tree: dict[str, Any]) -> TrainState:
        since = tree.get("since_report")
        reports = [EpochReport(**report) for report in tree["reports"]]
        return cls(**{**tree, "reports": reports, "since_report": None if since is None else SinceReport(**since)})

    def require(self, config_key: str, data_checksum: str) -> None:
        """Refuse a state of another configuration or of other images."""
        for what, wanted, got in (
            ("configuration", config_key, self.config_key),
            ("data", data_checksum, self.data_checksum),
        ):
            if wanted != got:
                raise CheckpointError(f"a checkpoint must be of this {what} ({wanted}), but it is of {got}")
