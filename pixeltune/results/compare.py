"""Rows of ours beside published ones, as a pandas table: `comparable`, `why_not` and caveats in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.judge import RANKED, Identity, identity_of, is_same_task, judge, same_set, value_of
from pixeltune.results.published import PublishedResult, own_results, published_results

_NEEDED = ("trial", "status", "data.name", "levels", "image_channels", "image_height", "image_width")
_KEPT = ("search", "trial", "attempt", "status", "evaluated_split", "is_bound", "num_parameters", "gpu_name")
_CATEGORIES = ("dataset", "version", "binarisation", "split", "metric", "likelihood", "evidence")
_NUMBERS = ("gap", "rank", "rank_of", "our_gpu_hours", "gpu_hours", "compute_ratio", "params_million")
"""Numbers that may be null in every line."""
_COLUMNS = (
    *_KEPT,
    *("metric", "ours", "published", "gap", "rank", "rank_of", "comparable", "why_not", "caveats"),
    *("our_gpu_hours", "compute_ratio"),
    *(field.name for field in fields(PublishedResult) if field.name not in ("metric", "value")),
)


OWN_TABLE = "published.csv"
"""The name of a user's own table, in the storage beside the searches."""


def load_published(own: files.Location | None = None) -> pd.DataFrame:
    """The published results, a row a number; `pixeltune.results.published` explains the columns.

    own: a storage with a `published.csv` of the user's, or such a file; its rows follow. StoreError where there is
    none, or where it cannot be read.
    """
    return _tidy(pd.DataFrame([asdict(result) for result in (*published_results(), *read_own(own))]))


def read_own(location: files.Location | None) -> tuple[PublishedResult, ...]:
    """The user's own published results, of a storage or a file; none where `location` is None."""
    if location is None:
        return ()
    text = files.require_location(location)
    place = text if text.endswith(".csv") else files.join(text, OWN_TABLE)
    try:
        return own_results(files.read_whole(place).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(f"your published results must be a CSV file, but {place} is not ({why})") from None
    except StoreError as error:
        raise StoreError(f"{error} (in {place})") from None


def compare(frame: pd.DataFrame, own: files.Location | None = None) -> pd.DataFrame:
    """Each finished or pruned row of `read_results` beside each published result of the same data set.

    own: a storage with a `published.csv` of the user's, or such a file; its rows are compared with as well.

    ours, published: in `metric` (bits_per_dim, or nats per image). gap: ours − published, negative where ours is
    better; null where the two are not of the same task (form of the images, levels, binarised or not). rank, rank_of:
    the place that ours would take among the published results that are comparable to it and not in doubt, and how
    many that makes with ours; null beside any other. comparable, why_not, caveats: see `pixeltune.results.judge`.
    our_gpu_hours, gpu_hours: wall time × GPUs of our trial alone, without the search that found it, and of the
    published training where both are stated; compute_ratio: ours / published. GPUs of all kinds count alike: see
    `gpu_name` and `compute`.
    """
    lacking = [name for name in _NEEDED if name not in frame.columns]
    if lacking:
        raise StoreError(f"compare needs rows of read_results, but got a table without {', '.join(lacking)}")
    verdicts: dict[Identity, list[dict[str, Any]]] = {}
    added = read_own(own)
    rows = [beside for row in _records(frame) for beside in _besides(row, verdicts, added)]
    return _tidy(pd.DataFrame(rows, columns=list(_COLUMNS)))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    ranked = frame[frame["status"].isin([str(status) for status in RANKED])].astype(object)
    records = ranked.where(ranked.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _besides(
    row: Mapping[str, Any], verdicts: dict[Identity, list[dict[str, Any]]], own: Sequence[PublishedResult]
) -> Iterator[dict[str, Any]]:
    identity = identity_of(row, own)
    if identity not in verdicts:
        verdicts[identity] = _judged(identity, own)
    kept = {name: row.get(name) for name in _KEPT}
    hours = (row.get("gpu_seconds") or 0.0) / 3600
    for judged in verdicts[identity]:
        ours = value_of(row, judged["metric"])
        if ours is not None:
            gap = ours - judged["published"] if judged["same_task"] else None
            compute = {
                "our_gpu_hours": hours or None,
                "compute_ratio": hours / judged["gpu_hours"] if hours and judged["gpu_hours"] else None,
            }
            yield {**judged, **kept, **_place(ours, judged["peers"]), **compute, "ours": ours, "gap": gap}


def _judged(identity: Identity, own: Sequence[PublishedResult]) -> list[dict[str, Any]]:
    """A line for each published result of the set, with the values among which ours takes a rank beside it."""
    verdicts = [(result, judge(identity, result)) for result in same_set(identity, own)]
    peers = [result for result, verdict in verdicts if verdict.comparable and not result.doubt]
    return [
        asdict(result)
        | {
            "published": result.value,
            "comparable": verdict.comparable,
            "why_not": "; ".join(verdict.why_not),
            "caveats": "; ".join(verdict.caveats),
            "same_task": is_same_task(identity, result),
            "peers": [peer.value for peer in peers if peer.metric == result.metric] if result in peers else [],
        }
        for result, verdict in verdicts
    ]


def _place(ours: float, peers: Sequence[float]) -> dict[str, int | None]:
    if not peers:
        return {"rank": None, "rank_of": None}
    return {"rank": 1 + sum(value < ours for value in peers), "rank_of": 1 + len(peers)}


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    texts = [field.name for field in fields(PublishedResult) if "str" in str(field.type)]
    for name in [name for name in texts if name in frame and name not in _CATEGORIES]:
        frame[name] = frame[name].astype("string")
    for name in [name for name in _CATEGORIES if name in frame]:
        frame[name] = frame[name].astype("string").astype("category")
    for name in [name for name in _NUMBERS if name in frame]:
        frame[name] = frame[name].astype("float64")
    for name in [name for name in ("conditional", "augmentation", "is_bound") if name in frame]:
        frame[name] = frame[name].astype("boolean")
    return frame
