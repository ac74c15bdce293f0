"""The checks of a bundle, from the cheapest on: digests, arithmetic, the images, the nats of each image, the mean.

Needs no search and no cluster: weights, the user's own copy of the images, and torch.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

import numpy as np

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.errors import ConfigError, DataError, PixeltuneError, StoreError
from pixeltune.format import counted
from pixeltune.paper.bundle import (
    MANIFEST_NAME,
    ROWS_NAME,
    Manifest,
    Run,
    changed_files,
    is_bundle,
    read_manifest,
    rows_of,
)
from pixeltune.paper.rows import mean_columns
from pixeltune.results.final_statistics import final_leaderboard, read_nats
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import bound_mark
from pixeltune.results.schema import Status

if TYPE_CHECKING:
    from pixeltune.data import DataSet, ImageSet

RELATIVE, ABSOLUTE = 1e-5, 1e-3
"""Allowed difference of the nats of an image: ABSOLUTE + RELATIVE × its nats.

float32 has 24 bits: 6e-8 of a number. An image is a sum of thousands of terms, each after tens of layers, in which
other libraries and processors add in another order. Other weights or images differ by nats, far more than that.
"""


@dataclass(frozen=True)
class BundleCheck:
    """A line of the table. name: what was checked. passed: the result. detail: the numbers, or what is wrong."""

    name: str
    passed: bool
    detail: str


Report = Callable[[BundleCheck], None]


def verify_bundle(
    folder: str, *, data_path: str | None = None, images: int | None = None, report: Report = lambda _check: None
) -> list[BundleCheck]:
    """Check a bundle and return every check that was made; a failed digest ends them.

    Args:
        folder: The bundle, a folder or a URI.
        data_path: Where the images are; None for where the data set is kept on this machine.
        images: Recompute the first so many images only; None for all.
        report: Called with each check as soon as it is made.

    Raises:
        StoreError: There is no bundle.
        DataError: The images are missing, or are not those of the bundle.
    """
    checks: list[BundleCheck] = []

    def made(found: Iterator[BundleCheck]) -> bool:
        for check in found:
            checks.append(check)
            report(check)
        return all(check.passed for check in checks)

    if not is_bundle(folder):
        read_manifest(folder)  # says that there is none
    if not made(_digests(folder)):
        return checks
    manifest = read_manifest(folder)
    if not made(_arithmetic(folder, manifest)):
        return checks
    data, test = _images(folder, manifest, data_path, images)
    made(iter([_data_check(data, manifest)]))
    recomputed: dict[str, np.ndarray] = {}
    for run in manifest.runs:
        recomputed[run.trial] = _recompute(folder, manifest, run, test)
        made(iter([_nats_check(run, recomputed[run.trial], _kept(folder, run)[: len(test)])]))
    made(iter([_mean_check(folder, manifest, recomputed, is_partial=images is not None)]))
    return checks


def _digests(folder: str) -> Iterator[BundleCheck]:
    try:
        manifest = read_manifest(folder)
    except StoreError as error:
        yield BundleCheck(MANIFEST_NAME, False, str(error))
        return
    wrong = changed_files(folder, manifest)
    for name, why in wrong.items():
        yield BundleCheck(name, False, f"{files.join(folder, name)} {why}")
    if not wrong:
        yield BundleCheck(
            "digests", True, f"{len(manifest.files)} files as in the manifest, whose digest is {manifest.digest}"
        )


def _arithmetic(folder: str, manifest: Manifest) -> Iterator[BundleCheck]:
    """Yield whether the rows, the nats and the configurations of the bundle give what its manifest states."""
    try:
        place = _place(rows_of(folder), {run.trial: _kept(folder, run) for run in manifest.runs})
        wrong = [*_wrong_runs(folder, manifest), *_wrong_mean(place, manifest)]
    except (PixeltuneError, ArithmeticError, KeyError, ValueError, TypeError) as error:
        wrong = [str(error)]
    if wrong:
        yield BundleCheck("arithmetic", False, "; ".join(wrong))
    else:
        yield BundleCheck("arithmetic", True, f"the nats of the bundle give {stated_text(manifest)}")


def _wrong_runs(folder: str, manifest: Manifest) -> Iterator[str]:
    rows = {row["trial"]: row for row in rows_of(folder)}
    if rows.keys() != {run.trial for run in manifest.runs}:
        yield f"{ROWS_NAME} has runs {', '.join(sorted(rows))}, not those of the manifest"
        return
    for run in manifest.runs:
        row, nats_N = rows[run.trial], _kept(folder, run)
        if row["test_bits_per_dim"] != run.bits_per_dim or float(_mean(nats_N)) != row["test_nats"]:
            yield f"the numbers of run {run.trial} differ between its row, its nats and the manifest"
        if len(nats_N) != manifest.data["num_test"]:
            yield f"run {run.trial} has nats of {len(nats_N)} images, not of {manifest.data['num_test']}"
        if (row["config_key"], row["seed"]) != (run.config_key, run.seed):
            yield f"the configuration of run {run.trial} differs between its row and the manifest"
        config, batch_size = _config(folder, run), manifest.evaluation["batch_size"]
        if config.key() != run.config_key:
            yield f"{run.config} is configuration {config.key()}, not {run.config_key}"
        if config.train.eval_batch_size != batch_size:
            yield f"{run.config} evaluates {config.train.eval_batch_size} images at a time, the manifest {batch_size}"


def _wrong_mean(place: Row, manifest: Manifest) -> Iterator[str]:
    stated, values = manifest.stated, mean_columns(place)
    for name, value in values.items():
        if value != getattr(stated, name):
            yield f"{name} is {value}, not {getattr(stated, name)}"
    if place["is_bound"] != stated.is_bound:
        yield "the runs and the manifest disagree on whether the number is a bound"
    for name, text in stated.printed.items():
        if not _rounds_to(values[name], text):
            yield f"{name} is {values[name]}, which is not printed as {text}"


def _images(folder: str, manifest: Manifest, data_path: str | None, count: int | None) -> tuple[DataSet, ImageSet]:
    """Return the user's data set and the test images to recompute; refused where they are not those of the bundle."""
    from pixeltune.data import SOURCES, ImageSet, resolve

    config = _config(folder, manifest.runs[0])
    name = config.data.name
    if data_path is None and name in SOURCES and SOURCES[name].published is None:
        raise ConfigError(
            f"the images of this bundle are files of its author's own (data.name = {name}, {config.data.path}); "
            "name your copy of them with --data PATH"
        )
    data = resolve(config.override({"data.path": data_path})).data
    if data.identity.checksum != manifest.data["checksum"]:
        raise DataError(
            f"the images must be those of the bundle ({manifest.data['name']}, {manifest.data['version']}, checksum "
            f"{manifest.data['checksum']}), but those here have checksum {data.identity.checksum}; "
            "name the right ones with --data PATH"
        )
    test = data.test
    if test is None or len(test) != manifest.data["num_test"]:
        raise DataError(f"the images must have a test split of {manifest.data['num_test']} images, but have another")
    if count is None:
        return data, test
    if count > len(test):
        raise DataError(f"--images must be at most the {len(test):,} test images, but got {count:,}")
    return data, ImageSet(test.pixels_NCHW[:count], None if test.labels_N is None else test.labels_N[:count])


def _data_check(data: DataSet, manifest: Manifest) -> BundleCheck:
    form = "×".join(map(str, data.form.shape))
    return BundleCheck(
        "images",
        True,
        f"{data.identity.name}, {data.identity.version}, checksum {data.identity.checksum}: "
        f"{manifest.data['num_test']:,} test images of {form}, {data.form.levels} levels",
    )


def _recompute(folder: str, manifest: Manifest, run: Run, test: ImageSet) -> np.ndarray:
    """Return the (N,) float64 nats of the test images under one run's weights, as a final evaluates them."""
    from pixeltune.training.evaluation import evaluate
    from pixeltune.training.weights import load_with_config
    from pixeltune.training.workers import best_device

    trained = load_with_config(files.join(folder, run.weights))
    if trained.config.key() != run.config_key or trained.data_checksum not in (None, manifest.data["checksum"]):
        raise StoreError(
            f"weights must be of their run's configuration and images, but {run.weights} is of {trained.config.key()} "
            f"and checksum {trained.data_checksum}"
        )
    model = trained.model.to(best_device())
    return evaluate(model, test, batch_size=int(manifest.evaluation["batch_size"])).nats_N


def _nats_check(run: Run, here_N: np.ndarray, kept_N: np.ndarray) -> BundleCheck:
    difference_N = np.abs(here_N - kept_N)
    passed = bool(np.all(difference_N <= ABSOLUTE + RELATIVE * np.abs(kept_N)))
    equal = int(np.sum(here_N == kept_N))
    largest = float(np.max(difference_N))
    return BundleCheck(
        f"run {run.trial}, seed {run.seed}",
        passed,
        f"nats of {len(here_N):,} images: largest difference {largest:.3g} "
        f"(allowed {ABSOLUTE:g} + {RELATIVE:g} × nats), {equal:,} equal",
    )


def _mean_check(
    folder: str, manifest: Manifest, recomputed: Mapping[str, np.ndarray], *, is_partial: bool
) -> BundleCheck:
    """Return whether the recomputed mean is the printed one, where all images were recomputed.

    A number at the edge between two roundings may be printed otherwise here: it may be off by half of its last digit.
    """
    if is_partial:
        count = len(next(iter(recomputed.values())))
        detail = (
            f"PARTIAL: {count:,} of {manifest.data['num_test']:,} images were recomputed, the mean "
            f"{stated_text(manifest)} was not"
        )
        return BundleCheck("mean", True, detail)
    values, stated = mean_columns(_place(rows_of(folder), recomputed)), manifest.stated
    wrong = [
        f"{name} {values[name]!r} here, {text} printed"
        for name, text in stated.printed.items()
        if abs(values[name] - getattr(stated, name)) > _half_digit(text)
    ]
    same = all(_rounds_to(values[name], text) for name, text in stated.printed.items())
    how = "as printed" if same else "within half of the last printed digit"
    return BundleCheck("mean", not wrong, "; ".join(wrong) or f"{stated_text(manifest)}, recomputed {how}")


def stated_text(manifest: Manifest) -> str:
    """Return the mean as the tables print it."""
    stated, printed = manifest.stated, manifest.stated.printed
    mark = bound_mark({"is_bound": stated.is_bound})
    parts = [
        f"{mark}{printed[unit]}" + (f" ± {printed[f'{unit}_error']}" if f"{unit}_error" in printed else "") + f" {name}"
        for unit, name in (("bits_per_dim", "bits/dim"), ("nats", "nats"))
    ]
    return f"{', '.join(parts)} ({counted(stated.seeds, 'seed')})"


def _place(rows: Sequence[Row], nats: Mapping[str, np.ndarray]) -> Row:
    places = final_leaderboard([row for row in rows if row["status"] == Status.FINISHED], nats)
    if len(places) != 1:
        raise StoreError(f"a bundle must hold the runs of one configuration, but it has {len(places)}")
    return places[0]


def _config(folder: str, run: Run) -> TrialConfig:
    return TrialConfig.build(tomllib.loads(files.read_whole(files.join(folder, run.config)).decode()))


def _kept(folder: str, run: Run) -> np.ndarray:
    return read_nats(files.join(folder, run.nats))


def _mean(nats_N: np.ndarray) -> float:
    return math.fsum(nats_N) / len(nats_N) if len(nats_N) else math.nan


def _rounds_to(value: float | None, text: str) -> bool:
    return value is not None and Decimal(value).quantize(Decimal(text), ROUND_HALF_EVEN) == Decimal(text)


def _half_digit(text: str) -> float:
    return float(Decimal(1).scaleb(int(Decimal(text).as_tuple().exponent)) / 2)
