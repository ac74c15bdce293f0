"""The nats of each test image under one final run: one file a run, whole or not there."""

from __future__ import annotations

import numpy as np

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.rows import UnreadableError, decode, encode
from pixeltune.results.schema import IMAGE_SCHEMA, SCHEMA_VERSION


def write_images(
    location: str,
    nats_N: np.ndarray,
    labels_N: np.ndarray | None,
    *,
    is_bound: bool,
    search: str,
    trial: str,
    attempt: int,
    search_id: str = "",
) -> None:
    """Publish the file of one run: a row an image, in the order of the split."""
    run = {
        "schema_version": SCHEMA_VERSION,
        "search": search,
        "search_id": search_id or None,
        "trial": trial,
        "attempt": attempt,
        "is_bound": is_bound,
    }
    labels = [None] * len(nats_N) if labels_N is None else labels_N.tolist()
    rows = [
        run | {"image": image, "nats": nats, "label": label}
        for image, (nats, label) in enumerate(zip(nats_N.tolist(), labels, strict=True))
    ]
    files.write_whole(location, encode(rows, IMAGE_SCHEMA))


def read_nats(location: str) -> np.ndarray:
    """(N,) float64 nats of each image, in the order of the split; StoreError where the file is missing or damaged."""
    try:
        rows = decode(files.read_whole(location), IMAGE_SCHEMA)
    except FileNotFoundError:
        raise StoreError(
            f"a finished final run must have the nats of its test images, but there is no {location}; put it back"
        ) from None
    except (OSError, UnreadableError) as error:
        raise StoreError(
            f"the nats of test images must be readable, but {location} is not ({error}); put a copy of it back"
        ) from None
    return np.array([row["nats"] for row in sorted(rows, key=lambda row: row["image"])], dtype=np.float64)
