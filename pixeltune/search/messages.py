"""Messages from a running trial to the driver: plain dictionaries, one kind per step, sent as JSON.

An attempt sends one `Begun`, then a `Reported` for each report with `Expects` in between, and at last one `Ended`,
unless it is stopped or crashes. A trial that cannot begin sends `Ended` alone.
"""

import json
from typing import Any, NotRequired, TypedDict, final

Facts = dict[str, Any]
"""Columns of the attempt's row that are known when the message is sent."""


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


Message = Begun | Reported | Expects | Ended

_KINDS: tuple[tuple[str, type[Any]], ...] = (
    ("end", Ended),
    ("resumed", Begun),
    ("report", Reported),
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
