"""A bundle: what others need to check a number, in one folder, with a manifest of all of it.

    manifest.json                 see `Manifest`; the last file that is written
    runs.parquet                  the rows of all runs, as in the results
    config-<run>.toml             the configuration of each run
    nats-<run>.parquet            the nats of each test image
    weights-<run>.safetensors     the weights of record

Folders of the author's machine and its name are left out; of `data.path` the last part stays, because a comparison
may recognise a published set by it. The manifest names the SHA-256 of every other file, and its own: that of its text
with an empty `digest`. It must be written exactly as `Manifest.to_bytes` does, so that each changed bit is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Self

from pixeltune import files
from pixeltune.config import TrialConfig, stored
from pixeltune.errors import StoreError
from pixeltune.paper.rows import FinishedFinal, mean_columns
from pixeltune.results.final_selection import Selection
from pixeltune.results.final_statistics import final_leaderboard, read_nats
from pixeltune.results.parquet_io import Row, UnreadableError, decode, encode
from pixeltune.results.schema import IMAGE_SCHEMA, TRIAL_SCHEMA

MANIFEST_NAME = "manifest.json"
ROWS_NAME = "runs.parquet"
FORMAT = "pixeltune-bundle/1"

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PRIVATE = ("hostname", "traceback")
"""Columns of a row that say nothing about a number."""
_VERSIONS = ("pixeltune_version", "python_version", "torch_version", "ray_version", "optuna_version", "git_commit")
_DATA = ("data_version", "data_checksum", "num_train", "num_valid", "num_classes", "levels")
_FORM = ("image_channels", "image_height", "image_width")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed of the configuration. weights, nats, config: names of its files. bits_per_dim: on the test set."""

    trial: str
    seed: int
    config_key: str
    weights: str
    nats: str
    config: str
    bits_per_dim: float


@dataclass(frozen=True, kw_only=True)
class Stated:
    """The mean as the tables print it, and in full. Errors are standard errors over seeds, None with one seed.

    Attributes:
        printed: By column of the tables, such as `bits_per_dim` and `bits_per_dim_error`, the digits that are printed.
    """

    seeds: int
    bits_per_dim: float
    bits_per_dim_error: float | None
    nats: float
    nats_error: float | None
    is_bound: bool
    printed: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The statements of a bundle.

    Attributes:
        search, from_search, from_trial: The final, and the trial whose configuration it retrains.
        data: Name, version, checksum, counts and form of the images.
        evaluation: How the nats were computed.
        stated: The mean.
        runs: Its seeds.
        versions: Of what trained and evaluated the first run.
        files: By name, the SHA-256 and the number of bytes of each file but the manifest.
    """

    search: str
    from_search: str
    from_trial: str
    data: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    stated: Stated
    runs: tuple[Run, ...]
    versions: Mapping[str, str | None]
    files: Mapping[str, Mapping[str, Any]]
    format: str = FORMAT

    def to_bytes(self) -> bytes:
        """Return the text of manifest.json, its own digest in it."""
        empty = _text(asdict(self) | {"digest": ""})
        return _text(asdict(self) | {"digest": hashlib.sha256(empty).hexdigest()})

    @property
    def digest(self) -> str:
        """Return the digest that names this bundle: it covers every file."""
        return str(json.loads(self.to_bytes())["digest"])

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read manifest.json; StoreError where it is damaged, changed, or of another format."""
        try:
            tree = json.loads(content)
            kind = tree.pop("format")
            if kind != FORMAT:
                raise StoreError(
                    f"a bundle's {MANIFEST_NAME} must have format {FORMAT}, but got {kind!r}; use a newer pixeltune"
                )
            tree.pop("digest")
            stated, runs = Stated(**tree.pop("stated")), tuple(Run(**run) for run in tree.pop("runs"))
            found = cls(**tree, stated=stated, runs=runs)
            is_same = found.to_bytes() == content
            _require_complete(found)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"a bundle's {MANIFEST_NAME} must be whole, but it is not ({error})") from None
        if not is_same:
            raise StoreError(f"a bundle's {MANIFEST_NAME} must be as it was written, but its digest is another one")
        names = [*found.files, *(name for run in runs for name in (run.weights, run.nats, run.config))]
        for name in names:
            if not _FILE_NAME.fullmatch(str(name)) or name not in found.files:
                raise StoreError(f"a bundle's {MANIFEST_NAME} must name files of its folder, but it has {name!r}")
        return found


def make_bundle(
    final: FinishedFinal, place: Row, selection: Selection, contents: Mapping[str, bytes], printed: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the files of a bundle by name, the manifest last.

    Args:
        final: The final.
        place: The configuration that is bundled, a row of its leaderboard.
        selection: The choice behind the final, which knows the configurations.
        contents: For each run, `weights-<run>.safetensors` and `nats-<run>.parquet`.
        printed: The digits of the mean that the tables print.
    """
    rows = [next(row for row in final.rows if row["trial"] == trial) for trial in place["runs"]]
    configs = {row["trial"]: run_config(selection, row) for row in rows}
    bundled = {
        ROWS_NAME: encode([_anonymous(row) for row in rows], TRIAL_SCHEMA),
        **{f"config-{trial}.toml": config.to_toml().encode() for trial, config in configs.items()},
        **contents,
    }
    first = rows[0]
    manifest = Manifest(
        search=final.search,
        from_search=place["from_search"],
        from_trial=place["from_trial"],
        data={
            "name": first["data.name"],
            **{name.removeprefix("data_"): first[name] for name in _DATA},
            "num_test": _num_images(contents[f"nats-{first['trial']}.parquet"]),
            "shape": [first[name] for name in _FORM],
            "split": first["evaluated_split"],
        },
        evaluation={
            "batch_size": configs[first["trial"]].train.eval_batch_size,
            "dtype": "float32",
            "tf32": False,
            "weights": first["weights"],
            "importance": None,
            "device": first["gpu_name"] or first["cpu_name"] or first["device"],
        },
        stated=Stated(
            **mean_columns(place),
            is_bound=place["is_bound"],
            printed=dict(printed),
        ),
        runs=tuple(_run(row) for row in rows),
        versions={name.removesuffix("_version"): first[name] for name in _VERSIONS},
        files={name: _described(content) for name, content in sorted(bundled.items())},
    )
    return bundled | {MANIFEST_NAME: manifest.to_bytes()}


def read_manifest(folder: str) -> Manifest:
    """Read the manifest of a bundle's folder; StoreError where there is none, or where it was changed."""
    location = files.join(folder, MANIFEST_NAME)
    try:
        return Manifest.from_bytes(files.read_whole(location))
    except FileNotFoundError:
        raise StoreError(
            f"a bundle must have its {MANIFEST_NAME}, but there is no {location}; name the folder `bundle` that "
            "`pixeltune paper` wrote"
        ) from None
    except OSError as error:
        raise StoreError(f"a bundle must be readable, but {location} is not ({error.strerror or error})") from None


def changed_files(folder: str, manifest: Manifest) -> dict[str, str]:
    """Return what is wrong with each file of a bundle that is not as the manifest says, by name."""
    wrong = {}
    for name, about in manifest.files.items():
        try:
            content = files.read_whole(files.join(folder, name))
        except OSError as error:
            wrong[name] = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            continue
        if _described(content) != about:
            wrong[name] = "was changed"
    for name in files.list_names(folder):
        if name not in manifest.files and name != MANIFEST_NAME:
            wrong[name] = "is not in the manifest"
    return wrong


def require_unchanged(folder: str) -> Manifest:
    """Return the manifest of a bundle; StoreError names the first file that is not as it says."""
    manifest = read_manifest(folder)
    for name, why in changed_files(folder, manifest).items():
        raise StoreError(f"a bundle's files must be as its manifest says, but {files.join(folder, name)} {why}")
    return manifest


def bundled_final(folder: str) -> FinishedFinal:
    """Read the runs of a bundle as a final of one configuration, its mean computed from the nats of each image."""
    manifest = require_unchanged(folder)
    rows = rows_of(folder)
    nats = {run.trial: read_nats(files.join(folder, run.nats)) for run in manifest.runs}
    return FinishedFinal(search=manifest.search, rows=rows, places=final_leaderboard(rows, nats))


def rows_of(folder: str) -> list[Row]:
    """Return the rows of a bundle's runs."""
    location = files.join(folder, ROWS_NAME)
    try:
        return decode(files.read_whole(location), TRIAL_SCHEMA)
    except (OSError, UnreadableError) as error:
        raise StoreError(f"a bundle's rows must be readable, but {location} is not ({error})") from None


def is_bundle(folder: str) -> bool:
    """Return whether a folder holds a bundle's manifest."""
    return files.exists(files.join(folder, MANIFEST_NAME))


def run_config(selection: Selection, row: Row) -> TrialConfig:
    """Return a run's configuration without the author's folders; StoreError where it is not the one of its row."""
    with stored():  # code of the user's own that it names is not needed to write it down
        config = selection.configs()[row["from_trial"]].override({"seed": row["seed"]})
    if config.key() != row["config_key"]:
        raise StoreError(
            f"the configuration of {row['search']}/{row['trial']} must be {row['config_key']} as it was trained, but "
            f"the results give {config.key()}; use the pixeltune that trained it ({row['pixeltune_version']})"
        )
    return without_folders(config)


def without_folders(config: TrialConfig) -> TrialConfig:
    """Return a configuration of the same key that names no folder of the author's machine."""
    return config.override({"data.path": last_part(config.data.path), "data.download": False})


def last_part(path: str | None) -> str | None:
    """Return the name of a file or folder without the folders above it."""
    return None if path is None else PureWindowsPath(PurePosixPath(path).name).name


def _require_complete(manifest: Manifest) -> None:
    """Raise KeyError or ValueError where a manifest lacks what a check reads."""
    if int(manifest.data["num_test"]) < 1 or int(manifest.evaluation["batch_size"]) < 1 or not manifest.runs:
        raise ValueError("it must have test images, a batch and a run")
    for name in ("name", "version", "checksum"):
        str(manifest.data[name])
    for name in ("bits_per_dim", "nats"):
        float(manifest.stated.printed[name])


def _anonymous(row: Row) -> Row:
    return row | dict.fromkeys(_PRIVATE) | {"data.path": last_part(row["data.path"]), "data.download": False}


def _run(row: Row) -> Run:
    trial = row["trial"]
    return Run(
        trial=trial,
        seed=row["seed"],
        config_key=row["config_key"],
        weights=f"weights-{trial}.safetensors",
        nats=f"nats-{trial}.parquet",
        config=f"config-{trial}.toml",
        bits_per_dim=row["test_bits_per_dim"],
    )


def _num_images(content: bytes) -> int:
    return len(decode(content, IMAGE_SCHEMA))


def _described(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _text(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()
