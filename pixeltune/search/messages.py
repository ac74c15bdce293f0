"""What the driver and a running trial send each other, as JSON: a task, and messages of one kind per step.

An attempt sends one `Begun`, then a `Reported` for each report with `Progressed` and `Expects` in between, and at last
one `Ended`, unless it is stopped or crashes. A trial that cannot begin sends `Ended` alone.
"""

import json
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, final

STOPPED = "stopped before its end"
"""The reason of an attempt that a launch ended with itself; a later launch resumes the trial."""
Facts = dict[str, Any]
"""Columns of the attempt's row that are known when the message is sent."""


@dataclass(frozen=True)
class TrialTask:
    """The task of one attempt at a trial, as plain data that can be sent to its process.

    trial: its id. config: the nested configuration. checkpoint: the trial's folder for state and weights.
    objective: the EpochReport field whose lowest value marks the weights to keep. cpus: threads of this worker.
    gpu_share: the share of its GPU's memory.
    galleries: epochs at whose nearest report a gallery of samples is kept. gallery: the PNG at the trial's end; the
        others are stored next to it.
    speed_first: measure the sampling speed before training too, because trials may be stopped by it.
    images: in a final, the file for the nats of each test image; with "" the test set is not read.
    search, search_id, attempt: with `trial`, the metadata of that file.
    code: folders from which code of the user's own is imported; those that a node does not have are left out.
    """

    trial: str
    config: dict[str, Any]
    checkpoint: str
    objective: str = "valid_bits_per_dim"
    cpus: int | None = None
    gpu_share: float = 1.0
    galleries: tuple[float, ...] = ()
    gallery: str = ""
    speed_first: bool = False
    images: str = ""
    search: str = ""
    search_id: str = ""
    attempt: int = 1
    code: tuple[str, ...] = ()


@final
class Begun(TypedDict):
    """The message that the model is built and audited.

    Attributes:
        facts: Columns of the attempt's row.
        resumed: The reports of the checkpoint from which training resumes; empty if it starts from scratch.
        expects_seconds: About how long it takes until the next message.
        warning: For the user, if an earlier checkpoint could not be used.
    """

    facts: Facts
    resumed: list[dict[str, Any]]
    expects_seconds: NotRequired[float]
    warning: NotRequired[str]


@final
class Reported(TypedDict):
    """The message of one evaluation during training.

    Attributes:
        report: An `EpochReport` as a dictionary, None for what is not finite.
        facts: Columns of the attempt's row.
    """

    report: dict[str, Any]
    facts: NotRequired[Facts]


@final
class Progressed(TypedDict):
    """The message between two reports, every few seconds: a display needs it, the results do not.

    Attributes:
        progress: A `TrainingProgress` as a dictionary, None for what is not finite.
    """

    progress: dict[str, Any]


@final
class Expects(TypedDict):
    """The message before a step other than training: drawing a gallery, reading the test set, or coding images.

    Attributes:
        expects_seconds: About how long it takes until the next message.
    """

    expects_seconds: float


@final
class Ended(TypedDict):
    """The last message: the attempt is over.

    Attributes:
        end: The status.
        reason: Why, if there is something to say.
        facts: Columns of the attempt's row. After training, how fast the model samples and whether a code confirms its
            bits, and in a final the numbers of the test set.
    """

    end: str
    reason: str | None
    facts: NotRequired[Facts]


Message = Begun | Reported | Progressed | Expects | Ended

_KINDS: tuple[tuple[str, type[Any]], ...] = (
    ("end", Ended),
    ("resumed", Begun),
    ("report", Reported),
    ("progress", Progressed),
    ("expects_seconds", Expects),
)
"""The key that marks a message of each kind, in the order in which to look for them."""


def parse_message(text: str) -> Message:
    """Return the message that was sent as JSON.

    Raises:
        ValueError: It is of no known kind, lacks a key of its kind or has one of another.
    """
    values: Message = json.loads(text)
    kind = next((kind for key, kind in _KINDS if key in values), None)
    if kind is None or not kind.__required_keys__ <= values.keys() <= kind.__annotations__.keys():
        raise ValueError(f"a trial's message must be one of {_names()}, but got the keys {', '.join(values)}")
    return values


def _names() -> str:
    return ", ".join(kind.__name__ for _key, kind in _KINDS)
