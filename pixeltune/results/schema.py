"""The Arrow schema of all searches: fixed columns, and one for every dotted key of every family.

Keys that only a family or a likelihood of the user's own has are one column of JSON, `own_keys`, so that all files have
one schema; `results.own_keys` adds them to rows and tables that are read.

The schema only grows: a new column needs no new version, and readers fill it with null in older files. The version
is raised when the meaning of a column changes, so that an older pixeltune leaves such files alone.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pixeltune.config import KINDS, TrialConfig
from pixeltune.config.section import Section
from pixeltune.training.epoch_report import EpochReport

SCHEMA_VERSION = 1

VERSION_KEY = b"pixeltune.schema_version"
TABLE_KEY = b"pixeltune.table"


class Status(StrEnum):
    """The status of a trial's attempt."""

    RUNNING = "running"
    """In progress, or its launcher died without reporting."""
    FINISHED = "finished"
    """Trained to its end."""
    PRUNED = "pruned"
    """Stopped by the scheduler at a rung; its curve is valid up to there."""
    STOPPED = "stopped"
    """Ended by `pixeltune stop`; its curve is valid up to there, and it is not run again."""
    DIVERGED = "diverged"
    """A value became infinite or NaN in training; the weights before that step are kept."""
    OOM = "oom"
    """Out of memory, or predicted to be; on a shared GPU it is tried once more, alone, after the other trials."""
    FAILED = "failed"
    """Ended by an error that also occurred on its retries."""
    INTERRUPTED = "interrupted"
    """Stopped from outside: Ctrl-C, a lost node, a budget; continues from its checkpoint."""
    REJECTED = "rejected"
    """The audit found that the model is not the distribution it claims to be; never ranked."""


_TIMESTAMP = pa.timestamp("us", tz="UTC")
_INT = pa.int64()
_FLOAT = pa.float64()
_TEXT = pa.string()
_BOOL = pa.bool_()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        type: Its Arrow type.
        description: What it holds.
        unit: The unit; "" where it has none.
        nullable: Whether it may be empty.
    """

    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True


IDENTITY_COLUMNS: dict[str, Column] = {
    "schema_version": Column(pa.int32(), "version of the schema that the row was written with", nullable=False),
    "search": Column(_TEXT, "name of the search: of its folder, also where that was renamed", nullable=False),
    "trial": Column(_TEXT, "name of the trial within its search", nullable=False),
    "attempt": Column(pa.int32(), "1 for the first try; a retry or a resumption counts up", nullable=False),
    "search_id": Column(_TEXT, "id of the search, made when it began, as in its search.json; empty in older rows"),
}

_OUTCOME_COLUMNS: dict[str, Column] = {
    "number": Column(pa.int32(), "number of the trial within its search, from 0; 0 is the base configuration"),
    "config_key": Column(_TEXT, "12 hex digits that name the configuration; trials may share one"),
    "proposed_by": Column(
        _TEXT,
        "what chose the configuration: `base`, `first`, `warm_start`, the sampler, or `random` where the sampler "
        "repeated itself; `repeat` of another seed; empty in a final, in a single training and in older rows",
    ),
    "repeat_of": Column(
        _TEXT, "first trial of this configuration, which this one repeats with another `seed`; empty in all others"
    ),
    "repeats": Column(
        pa.int32(),
        "seeds with which a configuration is trained before it counts as the best; empty where one is enough",
    ),
    "space_version": Column(
        pa.int32(),
        "version of the search's space that proposed it, from 1; `--extend` adds one; empty in rows from before there "
        "were versions, which are of version 1",
    ),
    "continues_attempt": Column(
        pa.int32(), "attempt from whose state `pixeltune continue` has trained on to more images; empty in all others"
    ),
    "from_search": Column(_TEXT, "search in which `final` found the configuration; empty in a search"),
    "from_trial": Column(_TEXT, "trial of that search which `final` retrains; empty in a search"),
    "status": Column(_TEXT, "status of the attempt, a value of `Status`", nullable=False),
    "reason": Column(_TEXT, "why it ended so, in one line"),
    "traceback": Column(_TEXT, "of the exception that ended it"),
    "started_at": Column(_TIMESTAMP, "when the attempt began", "UTC"),
    "finished_at": Column(_TIMESTAMP, "when the attempt ended; empty while it runs", "UTC"),
}

_METRIC_COLUMNS: dict[str, Column] = {
    "images_seen": Column(_INT, "training images seen, repeats counted; trial row: at its last report", "images"),
    "best_images_seen": Column(
        _INT,
        "images seen at the report of the lowest validation bits/dim, or nats if that is the first objective",
        "images",
    ),
    "step": Column(_INT, "optimiser steps, at this report (trial row: at the best one)", "steps"),
    "epoch": Column(_FLOAT, "images seen / training images, at this report (trial row: at the best one)", "epochs"),
    "train_bits_per_dim": Column(_FLOAT, "mean loss since the report before; a bound's KL as warmed up", "bits/dim"),
    "train_nats": Column(_FLOAT, "mean loss since the report before; a bound's KL as warmed up so far", "nats/image"),
    "valid_bits_per_dim": Column(_FLOAT, "whole validation set, weights of record", "bits/dim"),
    "valid_nats": Column(_FLOAT, "whole validation set, weights of record", "nats/image"),
    "valid_bits_per_dim_raw": Column(_FLOAT, "whole validation set, raw weights", "bits/dim"),
    "valid_nats_raw": Column(_FLOAT, "whole validation set, raw weights", "nats/image"),
    "valid_bits_per_dim_ema": Column(_FLOAT, "whole validation set, averaged weights", "bits/dim"),
    "valid_nats_ema": Column(_FLOAT, "whole validation set, averaged weights", "nats/image"),
    "test_bits_per_dim": Column(_FLOAT, "whole test set, read once by `final`; empty in a search", "bits/dim"),
    "test_nats": Column(_FLOAT, "whole test set, read once by `final`; empty in a search", "nats/image"),
    "bits_verified": Column(
        _BOOL,
        "whether images that were really coded took the bits that the number of record claims; empty where that was "
        "not checked. A trial whose claim is not confirmed is never ranked first",
    ),
    "bits_verified_images": Column(_INT, "images that were coded for it", "images"),
    "bits_unverified_reason": Column(_TEXT, "why `bits_verified` is false or empty, in one line"),
    "baseline_bits_per_dim": Column(_FLOAT, "order-0 on the evaluated split: a histogram a position", "bits/dim"),
    "grad_norm": Column(_FLOAT, "mean gradient norm of the mean nats per image since the report before", "nats/image"),
}

_COST_COLUMNS: dict[str, Column] = {
    "train_seconds": Column(_FLOAT, "training, summed over the trial, compilation apart", "s"),
    "eval_seconds": Column(_FLOAT, "evaluation and the check of the weights, summed over the trial", "s"),
    "compile_seconds": Column(_FLOAT, "compilation and the first step, which warms up", "s"),
    "audit_seconds": Column(_FLOAT, "the causality and normalisation gate", "s"),
    "gpu_seconds": Column(_FLOAT, "wall time × GPUs held (a share counts as its share), all attempts", "GPU s"),
    "dollars_per_hour": Column(
        _FLOAT,
        "price of an hour of all that the attempt held: `resources.dollars_per_hour`, or by the cluster file that of "
        "the dearest type of node that can hold it; empty where unknown",
        "dollars/h",
    ),
    "dollars": Column(
        _FLOAT,
        "wall time × dollars_per_hour, all attempts; those without a price are left out; empty where none has one",
        "dollars",
    ),
    "images_per_second": Column(_FLOAT, "training speed since the report before", "images/s"),
    "num_parameters": Column(_INT, "trainable parameters of the model", "parameters"),
    "network_calls": Column(_INT, "network calls that naive sampling of one image takes", "calls/image"),
    "sample_images_per_second": Column(
        _FLOAT,
        "sampling speed of a finished trial's model in float32, cached, or naive where its network cannot be stepped "
        "through; measured on the trial's device and threads, which other programs may share",
        "images/s",
    ),
    "sample_batch_size": Column(_INT, "images drawn together in that measurement", "images"),
    "receptive_field_rows": Column(_INT, "rows that the receptive field spans", "pixels"),
    "receptive_field_columns": Column(_INT, "columns that the receptive field spans", "pixels"),
    "peak_memory_bytes": Column(_INT, "most memory in training: of the GPU where there is one, else resident", "bytes"),
    "predicted_peak_bytes": Column(_INT, "most bytes of tensors in training on a worker, as foreseen", "bytes"),
}

OWN_KEYS = "own_keys"

_OWN_COLUMNS: dict[str, Column] = {
    OWN_KEYS: Column(
        _TEXT,
        "every key of a family or likelihood of your own, as JSON; `read_results` has a column for each that is not in "
        "this table; empty where both are built in",
    ),
    "own_code": Column(
        _TEXT,
        "fingerprint of the source files of a family or likelihood of your own: rows of one import path that differ in "
        "it do not compare",
    ),
}

_SETTING_COLUMNS: dict[str, Column] = {
    "precision": Column(_TEXT, "of the network in training, after the probe of `auto`"),
    "layout": Column(_TEXT, "of features in memory in training, after the probe of `auto`"),
    "micro_batch": Column(_INT, "images that a worker passes at once; fewer where memory was short", "images"),
    "weights": Column(_TEXT, "the weights of record: `raw` or `ema`"),
    "is_bound": Column(_BOOL, "whether the numbers are a bound rather than the exact likelihood"),
    "device": Column(_TEXT, "`cpu` or `cuda`"),
    "workers": Column(pa.int32(), "processes that trained the trial together", "processes"),
    "cpus_per_worker": Column(pa.int32(), "processors of each worker", "CPUs"),
    "gpus_per_worker": Column(_FLOAT, "GPUs of each worker; a share where several trials share one", "GPUs"),
    "data_version": Column(_TEXT, "version of the data set, such as the binarisation's or the down-sampling's"),
    "data_checksum": Column(_TEXT, "checksum of the images, split included: rows that differ in it do not compare"),
    "data_notes": Column(_TEXT, "files not read, images in two splits, levels that do not occur; empty for none"),
    "image_channels": Column(pa.int32(), "colour channels C of the data", "channels"),
    "image_height": Column(pa.int32(), "height H of the data", "pixels"),
    "image_width": Column(pa.int32(), "width W of the data", "pixels"),
    "levels": Column(pa.int32(), "grey levels K of the data", "levels"),
    "num_classes": Column(pa.int32(), "classes of the data; empty where it has no labels", "classes"),
    "num_train": Column(_INT, "training images", "images"),
    "num_valid": Column(_INT, "validation images", "images"),
    "num_test": Column(_INT, "test images; 0 where the data has none, empty in rows of before", "images"),
    "evaluated_split": Column(_TEXT, "the split behind the row's number of record: `valid`, or `test` in `final`"),
    "pixeltune_version": Column(_TEXT, "version of pixeltune"),
    "python_version": Column(_TEXT, "version of Python"),
    "torch_version": Column(_TEXT, "version of PyTorch"),
    "ray_version": Column(_TEXT, "version of Ray as installed, also of a training without it; empty where it is not"),
    "optuna_version": Column(_TEXT, "version of Optuna"),
    "hostname": Column(_TEXT, "the machine of the first worker"),
    "cpu_name": Column(_TEXT, "its processor"),
    "gpu_name": Column(_TEXT, "its GPU; empty where none was used"),
    "git_commit": Column(_TEXT, "commit of the code, with `+` where files had changed"),
}

_CURVE_ONLY_COLUMNS: dict[str, Column] = {
    "reported_at": Column(_TIMESTAMP, "when the report was made", "UTC"),
    "lr": Column(_FLOAT, "learning rate of the last step"),
}

IMAGE_COLUMNS: dict[str, Column] = IDENTITY_COLUMNS | {
    "image": Column(_INT, "place of the image in the test split, from 0", nullable=False),
    "nats": Column(_FLOAT, "negative log-likelihood, a float32 number, weights of record", "nats", nullable=False),
    "label": Column(_INT, "class of the image; empty where the data has no labels"),
    "is_bound": Column(_BOOL, "whether nats are a bound rather than exact", nullable=False),
}
"""The columns of the nats of test images: one row an image and final run."""

_CONFIG_UNITS = {
    "data.resize": "pixels",
    "data.num_valid": "images",
    "data.levels": "levels",
    "train.images": "images",
    "train.stop_after": "images",
    "train.batch_size": "images",
    "train.report_every": "images",
    "train.eval_batch_size": "images",
    "train.micro_batch": "images",
    "model.kernel_size": "pixels",
    "model.first_kernel_size": "pixels",
    "optim.clip": "nats/image",
}

_SHARED_KEYS = {
    "model.variant": "which of the family's published structures; each family has its own",
}
"""Keys that each class describes in its own way."""


def config_columns() -> dict[str, Column]:
    """Return a column for every dotted key of every family and likelihood; classes must agree on a key's type."""
    columns: dict[str, Column] = {}
    for key, annotation, kind in _config_fields():
        column = Column(arrow_type(annotation), _described(kind, key), _CONFIG_UNITS.get(key, ""))
        known = columns.setdefault(key, column)
        if known.type != column.type:
            raise TypeError(f"`{key}` must have one type in all classes, but got {known.type} and {column.type}")
    return columns


def own_config_columns(config: TrialConfig) -> dict[str, Column]:
    """Return a column for each key that only a class of the user's own has, as `config_columns` describes keys."""
    columns: dict[str, Column] = {}
    for section in KINDS:
        kind = type(getattr(config, section))
        for name, field in kind.model_fields.items():
            key = f"{section}.{name}"
            columns[key] = Column(arrow_type(field.annotation), _described(kind, key))
    known = config_columns()
    return {key: columns[key] for key in config.own_keys() if key not in known}


def curve_columns() -> dict[str, Column]:
    """Return a column for every field of EpochReport, after the time of the report and the trial's costs by then."""
    hints = typing.get_type_hints(EpochReport)
    known = _METRIC_COLUMNS | _COST_COLUMNS | _CURVE_ONLY_COLUMNS
    columns = {name: known[name] for name in ("reported_at", "gpu_seconds", "peak_memory_bytes")}
    for field in dataclasses.fields(EpochReport):
        declared = known.get(field.name, Column(arrow_type(hints[field.name]), ""))
        columns[field.name] = dataclasses.replace(declared, type=arrow_type(hints[field.name]))
    return columns | {"images_seen": dataclasses.replace(columns["images_seen"], nullable=False)}


def trial_columns() -> dict[str, Column]:
    """Return every column of a trial row, in order."""
    return (
        IDENTITY_COLUMNS
        | _OUTCOME_COLUMNS
        | config_columns()
        | _OWN_COLUMNS
        | _METRIC_COLUMNS
        | _COST_COLUMNS
        | _SETTING_COLUMNS
    )


def arrow_type(annotation: object) -> pa.DataType:
    """Return the Arrow type of a field: bool, int, float, str, a Literal of one of them, or one of these or None."""
    kinds: set[object]
    if typing.get_origin(annotation) is typing.Literal:
        kinds = {type(value) for value in typing.get_args(annotation)}
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return arrow_type(parts[0]) if len(parts) == 1 else _no_arrow_type(annotation)
    else:
        kinds = {annotation}
    arrow = {bool: _BOOL, int: _INT, float: _FLOAT, str: _TEXT}
    kind = kinds.pop() if len(kinds) == 1 else None
    return arrow[kind] if isinstance(kind, type) and kind in arrow else _no_arrow_type(annotation)


def _no_arrow_type(annotation: object) -> pa.DataType:
    raise TypeError(f"a configuration field must be a bool, int, float or str (or None), but got {annotation}")


def _config_fields() -> Iterator[tuple[str, object, type[Section]]]:
    kinds: dict[str, typing.Iterable[type[Section]]] = {
        section: kind.built_in.values() for section, kind in KINDS.items()
    }
    for section, field in TrialConfig.model_fields.items():
        annotation = field.annotation
        if section not in kinds and not (isinstance(annotation, type) and issubclass(annotation, Section)):
            yield section, annotation, TrialConfig
            continue
        for kind in kinds.get(section, [typing.cast(type[Section], annotation)]):
            # The discriminator is a Literal of its own name in each class: str in all.
            yield from ((f"{section}.{name}", value.annotation, kind) for name, value in kind.model_fields.items())


def _described(kind: type[Section], key: str) -> str:
    """Return the description of a key in the most general class that has one; the key's name where none has."""
    if key in _SHARED_KEYS:
        return _SHARED_KEYS[key]
    name = key.rpartition(".")[2]
    for owner in reversed(kind.__mro__):
        field = owner.model_fields.get(name) if issubclass(owner, Section) else None
        if field is not None and field.description:
            return " ".join(field.description.split()).rstrip(".")
    return f"configuration key {key}"


TRIAL_COLUMNS: dict[str, Column] = trial_columns()
CURVE_COLUMNS: dict[str, Column] = IDENTITY_COLUMNS | curve_columns()
COLUMNS: dict[str, Column] = IMAGE_COLUMNS | CURVE_COLUMNS | TRIAL_COLUMNS
"""Every column of the three tables."""


def _schema(table: str, columns: Mapping[str, Column]) -> pa.Schema:
    fields = [
        pa.field(name, column.type, column.nullable, {"description": column.description, "unit": column.unit})
        for name, column in columns.items()
    ]
    return pa.schema(fields, {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()})


TRIAL_SCHEMA: pa.Schema = _schema("trials", TRIAL_COLUMNS)
CURVE_SCHEMA: pa.Schema = _schema("curves", CURVE_COLUMNS)
IMAGE_SCHEMA: pa.Schema = _schema("images", IMAGE_COLUMNS)
