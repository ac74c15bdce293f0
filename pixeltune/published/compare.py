"""Pandas tables of our rows next to published ones: likelihoods with `comparable` and why not, and speeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.published.comparability import NumberSpec, identity_of, published_for
from pixeltune.published.nearest import Comparison
from pixeltune.published.speeds import PublishedSpeed, published_speeds
from pixeltune.published.table import PublishedResult, own_results, published_results
from pixeltune.results.ranking import RANKED, value_of

_NEEDED = ("trial", "status", "data.name", "levels", "image_channels", "image_height", "image_width")
_KEPT = ("search", "trial", "attempt", "status", "evaluated_split", "is_bound", "num_parameters", "gpu_name")
_CATEGORIES = ("dataset", "version", "binarisation", "split", "metric", "likelihood", "evidence")
_NUMBERS = ("gap", "rank", "rank_of", "our_gpu_hours", "gpu_hours", "compute_ratio", "params_million")
"""Columns of numbers that may be null in every row."""
_COLUMNS = (
    *_KEPT,
    *("metric", "ours", "published", "gap", "rank", "rank_of", "comparable", "why_not", "caveats"),
    *("our_gpu_hours", "compute_ratio"),
    *(field.name for field in fields(PublishedResult) if field.name not in ("metric", "value")),
)

_SPEED_NEEDED = ("trial", "status", "sample_images_per_second", "image_height", "image_width")
_SPEED_COLUMNS = (
    *("origin", "search", "trial"),
    *(field.name for field in fields(PublishedSpeed)[:9]),
    *("images_per_second", "speedup", "network_calls"),
    *(field.name for field in fields(PublishedSpeed)[10:]),
)
_SPEED_WHOLE = ("image_channels", "image_height", "image_width", "batch_size", "network_calls", "year")
_SPEED_NUMBERS = ("seconds", "images_per_second", "speedup")

OWN_TABLE = "published.csv"
"""The name of a user's own table, in the storage next to the searches."""


def load_published(own: files.Location | None = None) -> pd.DataFrame:
    """Return the published results, one row a number.

    Args:
        own: A storage with a `published.csv` of the user's, or such a file, whose rows follow the shipped ones; a path
            or a URI.

    Returns:
        A table with the columns that `pixeltune.published.table` explains, such as `dataset`, `model`, `metric`
        (bits_per_dim or nats) and `value` (bits/dim or nats/image).

    Raises:
        StoreError: The user's table is missing, or it cannot be read.
    """
    return _tidy(pd.DataFrame([asdict(result) for result in (*published_results(), *read_own(own))]))


def read_own(location: files.Location | None) -> tuple[PublishedResult, ...]:
    """Return the user's own published results, of a storage or a file; none where `location` is None."""
    if location is None:
        return ()
    text = files.require_location(location)
    path = text if text.endswith(".csv") else files.join(text, OWN_TABLE)
    try:
        return own_results(files.read_whole(path).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise StoreError(f"your published results must be text in UTF-8, but {path} is not; save it as such") from None
    except OSError as error:
        why = error.strerror or error
        raise StoreError(f"your published results must be a CSV file, but {path} is not ({why})") from None
    except StoreError as error:
        raise StoreError(f"{error} (in {path})") from None


def compare(frame: pd.DataFrame, own: files.Location | None = None) -> pd.DataFrame:
    """Return each finished or pruned row of `read_results` with each published result of the same data set.

    Args:
        frame: Rows of `read_results`.
        own: A storage with a `published.csv` of the user's, or such a file, whose rows are included.

    Returns:
        One row for each pair, with the columns of both, and:
        `ours`, `published`: values in `metric` (bits_per_dim, or nats per image).
        `gap`: ours − published in the same unit, negative where ours is better; null where the two are not of the same
        task (form of the images, levels, binarised or not) or the published value is an upper limit.
        `rank`, `rank_of`: the rank of ours among the published results that are comparable to it and not in doubt, and
        their number with ours; null in any other row.
        `comparable`, `why_not`, `caveats`: see `pixeltune.published.comparability`.
        `our_gpu_hours`, `gpu_hours`: wall time × GPUs (GPU-hours) of our trial alone, without the search that found it,
        and of the published training if both are stated.
        `compute_ratio`: ours / published. GPUs of all kinds count alike; see `gpu_name` and `compute`.

    Raises:
        StoreError: The table is none of `read_results`, or the user's table cannot be read.
    """
    lacking = [name for name in _NEEDED if name not in frame.columns]
    if lacking:
        raise StoreError(f"compare needs rows of read_results, but got a table without {', '.join(lacking)}")
    verdicts: dict[NumberSpec, list[_Judged]] = {}
    added = read_own(own)
    rows = [line for row in _records(frame) for line in _compared(row, verdicts, added)]
    return _tidy(pd.DataFrame(rows, columns=list(_COLUMNS)))


def compare_speeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the measured sampling speeds of rows of `read_results` above the published ones.

    Images per second of two devices do not compare, only speed-ups against naive sampling on one device do. The
    results hold no naive speed, so `speedup` is null in rows of ours.

    Args:
        frame: Rows of `read_results`; those without a result or a measured speed are left out.

    Returns:
        One row a speed, with `origin` (`ours` or `published`) and the columns of
        `pixeltune.published.speeds`; `network_calls` is how many passes naive sampling of an image takes.
        Published rows with images of the same size as ours come first.

    Raises:
        StoreError: The table is none of `read_results`.
    """
    lacking = [name for name in _SPEED_NEEDED if name not in frame.columns]
    if lacking:
        raise StoreError(f"compare_speeds needs rows of read_results, but got a table without {', '.join(lacking)}")
    ours = [_our_speed(row) for row in _records(frame) if row["sample_images_per_second"] is not None]
    sizes = {(row["image_height"], row["image_width"]) for row in ours}
    published = sorted(published_speeds(), key=lambda speed: (speed.image_height, speed.image_width) not in sizes)
    theirs = [
        asdict(speed) | {"origin": "published", "images_per_second": speed.images_per_second} for speed in published
    ]
    table = pd.DataFrame([*ours, *theirs], columns=list(_SPEED_COLUMNS))
    for name in _SPEED_WHOLE:
        table[name] = table[name].astype("Int64")
    for name in _SPEED_NUMBERS:
        table[name] = table[name].astype("float64")
    for name in [name for name in _SPEED_COLUMNS if name not in (*_SPEED_WHOLE, *_SPEED_NUMBERS)]:
        table[name] = table[name].astype("string")
    return table


def _our_speed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: row.get(name) for name in ("search", "trial", "image_channels", "image_height", "image_width")},
        "origin": "ours",
        "model": row.get("model.family"),
        "dataset": row.get("data.name"),
        "method": "cached or naive",
        "batch_size": row.get("sample_batch_size"),
        "device": row.get("gpu_name") or row.get("cpu_name") or row.get("device"),
        "images_per_second": row["sample_images_per_second"],
        "network_calls": row.get("network_calls"),
        "where": "your results",
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    ranked = frame[frame["status"].isin([str(status) for status in RANKED])].astype(object)
    records = ranked.where(ranked.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A published result next to one kind of numbers of ours; peers: the values among which ours is ranked."""

    comparison: Comparison
    columns: Mapping[str, Any]
    peers: Sequence[float]


def _compared(
    row: Mapping[str, Any], verdicts: dict[NumberSpec, list[_Judged]], own: Sequence[PublishedResult]
) -> Iterator[dict[str, Any]]:
    identity = identity_of(row, own)
    if identity not in verdicts:
        verdicts[identity] = _judged(identity, own)
    kept = {name: row.get(name) for name in _KEPT}
    hours = (row.get("gpu_seconds") or 0.0) / 3600
    for judged in verdicts[identity]:
        published = judged.comparison.published
        ours = value_of(row, published.metric)
        if ours is not None:
            compute = {
                "our_gpu_hours": hours or None,
                "compute_ratio": hours / published.gpu_hours if hours and published.gpu_hours else None,
            }
            gap = replace(judged.comparison, ours=ours).gap
            yield {**judged.columns, **kept, **_place(ours, judged.peers), **compute, "ours": ours, "gap": gap}


def _judged(identity: NumberSpec, own: Sequence[PublishedResult]) -> list[_Judged]:
    """Return a line for each published result of the set, with the values among which ours is ranked in it."""
    found = [Comparison.of(identity, result) for result in published_for(identity, own)]
    peers = [each.published for each in found if each.comparable and not each.published.doubt]
    return [
        _Judged(
            comparison=each,
            columns=asdict(each.published)
            | {
                "published": each.published.value,
                "comparable": each.comparable,
                "why_not": "; ".join(each.why_not),
                "caveats": "; ".join(each.caveats),
            },
            peers=[peer.value for peer in peers if peer.metric == each.published.metric]
            if each.published in peers
            else [],
        )
        for each in found
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
