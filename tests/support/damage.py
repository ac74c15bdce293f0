"""Damaged results files: flipped bits and truncations, and what each reader makes of them."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pixeltune.errors import PixeltuneError
from pixeltune.results.compaction import compact
from pixeltune.results.dataframes import read_curves, read_results
from pixeltune.results.final_statistics import read_nats, write_images
from pixeltune.results.schema import SCHEMA_VERSION
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from pixeltune.space import SearchSpace
from tests.support.long_search import BASE, rows_of
from tests.support.results import make_store

OUTCOMES = ("detected", "harmless", "silent", "foreign")


@dataclass(frozen=True)
class Target:
    """A file and how it is read. moved: where its reader may move it."""

    name: str
    path: Path
    read: Callable[[], Any]
    moved: Path

    def outcome(self, content: bytes, expected: object) -> str:
        """One of OUTCOMES for these bytes in the file's place."""
        self.path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", StoreWarning)
                found = self.read()
        except (PixeltuneError, StoreWarning) as error:
            return "foreign" if "\n" in str(error) else "detected"
        except Exception:
            return "foreign"
        finally:
            self.moved.unlink(missing_ok=True)
        return "harmless" if is_same(found, expected) else "silent"

    def count(self, damaged: Iterable[bytes]) -> Counter[str]:
        """Outcomes of damaged contents; the file is whole again afterwards."""
        whole, expected = self.path.read_bytes(), self.read()
        counts = Counter(self.outcome(content, expected) for content in damaged)
        self.path.write_bytes(whole)
        if not is_same(self.read(), expected):
            raise RuntimeError(f"{self.name} must read as before")
        return counts


def flips(content: bytes, positions: Iterable[int]) -> Iterator[bytes]:
    """The content with the bit at each of these positions flipped."""
    for position in positions:
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        yield bytes(damaged)


def cuts(content: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    """The first bytes of the content, so many."""
    return (content[:length] for length in lengths)


def is_same(one: object, other: object) -> bool:
    """Whether two values are equal, down to types, tensors and tables."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(itertools.starmap(is_same, zip(one, other, strict=True)))
    if is_dataclass(one):
        return all(is_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return bool(one.equals(other))
    if hasattr(one, "shape"):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())  # type: ignore[attr-defined]
    return bool(one == other)


def table_targets(folder: Path, *, trials: int = 20) -> list[Target]:
    """The files of two searches: one has a trial in files of its own, and one has many in merged files."""
    one, many = (_begun(folder, name) for name in ("one", "many"))
    rows = list(rows_of(trials, 5))
    for store, some in ((one, rows[:1]), (many, rows)):
        for row, curve in some:
            store.write_trial(row)
            store.write_curve(row["trial"], 1, curve)
    compact(many)
    one.write_warm_start([row | {"search": "many", "schema_version": SCHEMA_VERSION} for row, _curve in rows[:3]])
    one.write_launch({"started_at": "2026-11-30T12:00:00+00:00", "budget": {"trials": 20}, "resources": {"cpus": 4}})
    nats = np.random.default_rng(0).normal(100.0, 5.0, 30)
    write_images(one.images("00000"), nats, np.arange(30), is_bound=False, search="one", trial="00000", attempt=1)
    reads: list[tuple[str, SearchStore, str, Callable[[], Any]]] = [
        ("row", one, "trials/00000-1.parquet", lambda: read_results(one.folder)),
        ("curve", one, "curves/00000-1.parquet", lambda: read_curves(one.folder)),
        ("compacted rows", many, "trials/compacted-00001.parquet", lambda: read_results(many.folder)),
        ("compacted curves", many, "curves/compacted-00001.parquet", lambda: read_curves(many.folder)),
        ("nats of a final", one, "images/00000.parquet", lambda: read_nats(one.images("00000"))),
        ("warm start", one, "warm_start.parquet", one.warm_start),
        ("search.json", one, "search.json", one.manifest),
        ("launch.json", one, "launch.json", lambda: _known(one.launch())),
    ]
    return [
        Target(name, Path(store.folder, place), read, Path(store.folder, "_corrupt", place))
        for name, store, place, read in reads
    ]


def _begun(folder: Path, name: str) -> SearchStore:
    return make_store(folder, name, SearchSpace(title=name, base=BASE, vary={}))


def page_checksum_target(folder: Path) -> Target:
    """A row as Parquet alone can protect it, and as no version of pixeltune writes it."""
    store = _begun(folder, "pages")
    row, _curve = next(rows_of(1, 5))
    store.write_trial(row)
    path = Path(store.trials_folder, "00000-1.parquet")
    table = pq.ParquetFile(path).read()
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False, "compression": "none"}
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True, **options) as writer:
        writer.write_table(table)

    def read() -> Any:
        try:
            return pq.read_table(path, page_checksum_verification=True).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise PixeltuneError("damaged") from error

    return Target("row with page checksums alone", path, read, path.with_name("none"))


def _known(launch: dict[str, Any]) -> dict[str, Any]:
    """What a launch said; damage is shown as no launch."""
    if not launch:
        raise PixeltuneError("no launch")
    return launch


def checkpoint_targets(folder: Path) -> list[Target]:
    """The state and the weights of a small training."""
    from pixeltune.training.checkpoint import TrainState
    from pixeltune.training.loop import fit
    from pixeltune.training.weights import load_with_config, save_weights

    changes = {"model.layers": 1, "model.channels": 4, "likelihood.mixtures": 1, "train.images": 32}
    training = fit(BASE.override({**changes, "train.report_every": 32, "train.batch_size": 32}))
    next(training)
    state, weights = folder / "state.pt", folder / "weights.safetensors"
    training.state.save(str(state))
    save_weights(training.model_of_record, training.config, str(weights), data_checksum="0123456789abcdef")

    def loaded() -> tuple[Any, ...]:
        trained = load_with_config(str(weights))
        return trained.config, trained.data_checksum, trained.model.form, dict(trained.model.state_dict())

    return [
        Target("training state", state, lambda: TrainState.load(str(state)), folder / "none"),
        Target("weights", weights, loaded, folder / "none"),
    ]
