"""Test numbers of a final: nats of each test image (one file a run), means over seeds, and standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.final_selection import Selection
from pixeltune.results.parquet_io import Row, UnreadableError, decode, encode
from pixeltune.results.ranking import SAME_IN_ALL, is_unconfirmed
from pixeltune.results.schema import IMAGE_SCHEMA, SCHEMA_VERSION, Status
from pixeltune.results.store import SearchStore

LEVEL = 0.05
"""The probability that any pair of a leaderboard is called different when none is."""


class Difference(StrEnum):
    """The result of comparing a configuration with the one of the lowest mean."""

    BEST = "lowest mean"
    WITHIN_NOISE = "within noise"
    CLEARLY_WORSE = "clearly worse"
    UNKNOWN = "one seed: noise unknown"
    BOUND = "bound: may be lower"
    UNCONFIRMED = "not confirmed by a code"


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, in nats per image, with its uncertainty.

    Attributes:
        value: The mean or difference.
        seeds_error, images_error: Standard errors over seeds (None with one seed) and over images.
        half_width: Half the width of the interval of no difference; None where the noise is unknown.
    """

    value: float
    seeds_error: float | None
    images_error: float | None
    half_width: float | None = None

    @property
    def error(self) -> float | None:
        """Return the standard error over both, from the sum of the variances.

        The part that is specific to a pair of seed and image is in each, hence counted twice: the true variance
        σ²_seed/M + σ²_image/N + σ²_both/MN (two-way crossed random effects; Searle, Casella and McCulloch 1992, ch. 4)
        is exceeded by σ²_both/MN on average.
        """
        if self.seeds_error is None or self.images_error is None:
            return None
        return math.hypot(self.seeds_error, self.images_error)


def mean(nats_MN: np.ndarray) -> Estimate:
    """Return the mean of one configuration with variances s_seed²/M and s_image²/N.

    s_seed is the standard deviation over seeds of the mean over images, s_image that over images of the mean over
    seeds.
    """
    return Estimate(
        math.fsum(nats_MN.mean(axis=1)) / len(nats_MN), _error(nats_MN.mean(axis=1)), _error(nats_MN.mean(axis=0))
    )


def difference(nats_MN: np.ndarray, other_MN: np.ndarray, *, level: float = LEVEL) -> Estimate:
    """Return the first mean minus the second, on the same images.

    Variance: s_a²/M_a + s_b²/M_b + s_δ²/N, with s_a and s_b over the seeds of each and s_δ over images of
    δ_n = mean over seeds of a − mean over seeds of b at image n. half_width: √Σ t²_ν(1 − level/2) v over
    these three variances v with ν = M_a − 1, M_b − 1 and N − 1 degrees of freedom (Banerjee 1960, Sankhyā 22,
    357–358), which covers the true difference at least as often as 1 − level, also with two seeds.
    """
    deltas_N = nats_MN.mean(axis=0) - other_MN.mean(axis=0)
    parts = [(nats_MN.mean(axis=1), len(nats_MN)), (other_MN.mean(axis=1), len(other_MN)), (deltas_N, len(deltas_N))]
    errors = [_error(values) for values, _ in parts]
    value, images_error = math.fsum(deltas_N) / len(deltas_N), errors[2]
    if errors[0] is None or errors[1] is None or images_error is None:
        return Estimate(value, None, images_error)
    from scipy.special import stdtrit

    quantiles = [float(stdtrit(count - 1, 1 - level / 2)) for _, count in parts]
    widths = [quantile * (error or 0.0) for quantile, error in zip(quantiles, errors, strict=True)]
    return Estimate(value, math.hypot(errors[0], errors[1]), images_error, math.hypot(*widths))


def verdict(apart: Estimate) -> Difference:
    """Return the verdict on a difference to the lowest mean."""
    if apart.half_width is None:
        return Difference.UNKNOWN
    return Difference.CLEARLY_WORSE if apart.value > apart.half_width else Difference.WITHIN_NOISE


def final_leaderboard(rows: Sequence[Row], nats: Mapping[str, np.ndarray]) -> list[Row]:
    """Return a row for each configuration with a finished run, the lowest mean over its seeds first.

    The lowest mean is chosen by the same numbers that are compared, so each pair of K configurations is tested at LEVEL
    divided by the K(K − 1)/2 pairs (Bonferroni).

    Args:
        rows: Rows of the final.
        nats: By trial, the (N,) nats of each finished run's test images.

    Returns:
        Rows with `rank`, `search`, `from_search`, `from_trial`, `runs` (names) and `seeds` (number of runs);
        `bits_per_dim` and `nats`, means over seeds and images, with `_error` (both noises), `_seeds_error` and
        `_images_error`; `difference_bits_per_dim` and `difference_nats` to the lowest mean, with the same three and
        `_half_width`; and `verdict`.
        `is_bound`: whether the numbers are bounds. The likelihood may be below a bound, so a bound is never clearly
        worse than an exact number.
        `bits_verified`: false where a real code refutes one of its runs, true where it confirms all of them; refuted
        configurations come last.
    """
    finished = [row for row in rows if row["status"] == Status.FINISHED]
    _require_same(finished)
    runs: dict[str, list[Row]] = {}
    for row in finished:
        runs.setdefault(row["from_trial"], []).append(row)
    stacks = {trial: np.stack([nats[row["trial"]] for row in runs[trial]]) for trial in runs}
    unconfirmed = {trial for trial in runs if any(map(is_unconfirmed, runs[trial]))}
    order = sorted(runs, key=lambda trial: (trial in unconfirmed, mean(stacks[trial]).value, trial))
    level = LEVEL / max(1, len(order) * (len(order) - 1) // 2)
    places = [
        _place(rank, runs[trial], stacks[trial], stacks[order[0]], level) for rank, trial in enumerate(order, start=1)
    ]
    for place in places:
        if place["is_bound"] and not places[0]["is_bound"]:
            place["verdict"] = str(Difference.BOUND)
        if place["bits_verified"] is False:
            place["verdict"] = str(Difference.UNCONFIRMED)
    return places


def leaderboard_of(store: SearchStore) -> list[Row]:
    """Return the leaderboard of a final's folder; StoreError where nats are missing or do not belong to their row."""
    finished = [row for row in store.trials() if row["status"] == Status.FINISHED]
    return final_leaderboard(finished, {row["trial"]: _nats_of(row, store) for row in finished})


def mean_row(place: Row, rows: Sequence[Row]) -> Row:
    """Return a row of the results that holds the mean of an entry's runs, to be compared with published numbers."""
    first = next(row for row in rows if row["trial"] == place["runs"][0])
    means = {"test_bits_per_dim": place["bits_per_dim"], "test_nats": place["nats"]}
    return first | means | {"bits_verified": place["bits_verified"]}


def first_choice(places: Sequence[Row], selection: Selection) -> Row:
    """Return the entry of the configuration that is first on validation: the test set chooses none.

    Args:
        places: A leaderboard of `final_leaderboard`, not empty.
        selection: The choice that the final was made with.
    """
    order = [item.trial for item in selection.chosen]
    return min(places, key=lambda place: order.index(place["from_trial"]))


def _nats_of(row: Row, store: SearchStore) -> np.ndarray:
    nats_N = read_nats(store.images(row["trial"]))
    if not len(nats_N) or math.fsum(nats_N) / len(nats_N) != row["test_nats"]:
        raise StoreError(
            f"the nats of test images must be those of their row, but {store.images(row['trial'])} is of another run; "
            "put the right one back"
        )
    return nats_N


def _place(rank: int, runs: Sequence[Row], nats_MN: np.ndarray, best_MN: np.ndarray, level: float) -> Row:
    first = runs[0]
    dims = first["image_channels"] * first["image_height"] * first["image_width"]
    own = mean(nats_MN)
    apart = Estimate(0.0, None, None) if rank == 1 else difference(nats_MN, best_MN, level=level)
    return {
        "rank": rank,
        **{name: first[name] for name in ("search", "from_search", "from_trial")},
        "runs": [row["trial"] for row in runs],
        "seeds": len(runs),
        "is_bound": bool(first["is_bound"]),
        "bits_verified": _all_verified(runs),
        **_columns("", own, dims),
        **_columns("difference_", apart, dims),
        "verdict": str(Difference.BEST if rank == 1 else verdict(apart)),
    }


def _all_verified(runs: Sequence[Row]) -> bool | None:
    if any(map(is_unconfirmed, runs)):
        return False
    return True if all(row.get("bits_verified") for row in runs) else None


def _columns(prefix: str, estimate: Estimate, dims: int) -> Row:
    """Return an estimate in both units, by column."""
    values = {
        "": estimate.value,
        "_error": estimate.error,
        "_seeds_error": estimate.seeds_error,
        "_images_error": estimate.images_error,
    }
    if prefix:
        values["_half_width"] = estimate.half_width
    scales = {"bits_per_dim": 1 / (dims * math.log(2)), "nats": 1.0}
    return {
        f"{prefix}{unit}{name}": None if value is None else value * scale
        for unit, scale in scales.items()
        for name, value in values.items()
    }


def _error(values: np.ndarray) -> float | None:
    """Return the standard error of the mean of independent values; None for a single value."""
    return None if len(values) < 2 else float(values.std(ddof=1)) / math.sqrt(len(values))


def _require_same(rows: Sequence[Row]) -> None:
    for name in SAME_IN_ALL:
        values = sorted({str(row[name]) for row in rows})
        if len(values) > 1:
            raise StoreError(f"runs of a final must agree in {name}, but got {', '.join(values)}")


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
    """Publish the file of one run: one row an image, in the order of the split."""
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
    """Return the (N,) float64 nats of a run's images, in the order of the split; StoreError if it is unreadable."""
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
