"""What a trial's messages look like on their way to the driver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pixeltune.search.messages import parse_message
from tests.support.toy_search import BEGUN, FINISHED, reported


@pytest.mark.parametrize(
    "message",
    [
        BEGUN,
        BEGUN | {"expects_seconds": 3.0, "warning": "starts from scratch"},
        reported(100, 2.0),
        {"expects_seconds": 0.0},
        {"progress": {"images_seen": 50, "images_per_second": 10.5, "train_bits_per_dim": None}},
        FINISHED,
        FINISHED | {"facts": {"test_nats": 80.0}},
    ],
)
def test_a_message_arrives_as_it_was_sent(message: dict[str, Any]) -> None:
    assert parse_message(json.dumps(message)) == message


@pytest.mark.parametrize(
    "message", [{}, {"facts": {}}, {"end": "finished"}, {"resumed": []}, reported(100, 2.0) | {"reason": None}]
)
def test_what_is_no_message_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of Ended, Begun, Reported, Progressed, Expects, but got"):
        parse_message(json.dumps(message))
