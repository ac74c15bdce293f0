"""`pixeltune show`: everything known about one trial."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, add_storage, console
from pixeltune.errors import StoreError
from pixeltune.format import bytes_in, counted, dollars, hours
from pixeltune.results.storage import storage_words

if TYPE_CHECKING:
    from pixeltune.results.parquet_io import Row
    from pixeltune.search.trial_reference import Found

TRIAL_HELP = "SEARCH (its best trial) or SEARCH/TRIAL (a unique beginning is enough)"
_MOST_REPORTS = 20
_BAR = 40


def add_verb(verbs: Any) -> None:
    """Add `pixeltune show`."""
    parser = verbs.add_parser(
        "show",
        help="one trial: numbers, configuration, curve, artefacts",
        examples=("pixeltune show digits_quick", "pixeltune show digits_quick/7 --toml"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--toml", action="store_true", help="its configuration alone, as `pixeltune train` reads it")
    add_storage(parser)
    parser.set_defaults(verb=show)


def show(options: argparse.Namespace) -> int:
    """Print the trial; nothing is written."""
    from pixeltune.search.trial_reference import find_trial

    found = find_trial(options.trial, options.storage)
    if options.toml:
        print(found.config().to_toml(), end="")
        return EXIT_OK
    out = console()
    for line in (*_outcome(found), *_configuration(found), *_curve(found), *_artefacts(found, options.storage)):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    return EXIT_OK


def _outcome(found: Found) -> Iterator[str]:
    from pixeltune.published.nearest import nearest_published_note
    from pixeltune.results.search_status import below_baseline

    row = found.row
    attempts = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    why = f": {row['reason']}" if row["reason"] else ""
    yield f"{found.name}{attempts}: {row['status']}{why}"
    for split, name in (("valid", "validation"), ("test", "test")):
        bits, nats = row[f"{split}_bits_per_dim"], row[f"{split}_nats"]
        if bits is not None:
            bound = "at most " if row["is_bound"] else ""
            baseline = row["baseline_bits_per_dim"] if row["evaluated_split"] == split else None
            yield f"  {name}: {bound}{bits:.5f} bits/dim, {nats:.4f} nats{below_baseline(bits, baseline)}"
    note = nearest_published_note(row)
    if note:
        yield f"  {note.removeprefix('; ')}"
    yield from (f"  {name}: {text}" for name, text in _facts(row) if text)


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the columns that matter first to a reader, with units; "" for unknown values."""
    from pixeltune.results.search_status import describe_images

    def text(name: str, template: str) -> str:
        return "" if row[name] is None else template.format(row[name])

    seen = text("images_seen", "{:,}")
    best = text("best_images_seen", ", best after {:,}") if row["best_images_seen"] != row["images_seen"] else ""
    yield "images seen", seen + best
    seconds = [row[f"{name}_seconds"] for name in ("train", "eval", "compile", "audit")]
    yield (
        "seconds",
        ", ".join(
            f"{value:,.1f} {name}"
            for name, value in zip(("training", "evaluation", "compilation", "audit"), seconds, strict=True)
            if value is not None
        ),
    )
    yield "cost", "" if row["dollars"] is None else dollars(row["dollars"])
    yield "GPU-hours", hours(row["gpu_seconds"]) if row["gpu_seconds"] else ""
    yield "parameters", text("num_parameters", "{:,}")
    calls = "" if row["network_calls"] is None else f", {counted(row['network_calls'], 'network call')}"
    calls += " an image without the cache" if calls else ""
    yield "sampling", text("sample_images_per_second", "{:,.4g} images/s") + calls if row["sample_batch_size"] else ""
    yield "peak memory", bytes_in("MiB", row["peak_memory_bytes"], ",.0f") if row["peak_memory_bytes"] else ""
    rows, columns = row["receptive_field_rows"], row["receptive_field_columns"]
    yield "receptive field", f"{counted(rows, 'row')} × {counted(columns, 'column')}" if rows else ""
    yield "weights of record", text("weights", "{}")
    where = [row["gpu_name"] or row["cpu_name"], text("hostname", "on {}"), text("precision", "in {}")]
    workers = f"{row['workers']} workers, " if (row["workers"] or 1) > 1 else ""
    yield "trained", workers + " ".join(filter(None, where))
    yield "images", describe_images(row)
    yield "data", " ".join(filter(None, (row["data.name"], text("data_version", "({})"), text("data_checksum", "{}"))))
    yield "data notes", text("data_notes", "{}")
    versions = [text(f"{name}_version", name + " {}") for name in ("pixeltune", "torch", "python")]
    yield "with", ", ".join(filter(None, [*versions, text("git_commit", "commit {}")]))


def _configuration(found: Found) -> Iterator[str]:
    from pixeltune.space.keys import range_text, value_text

    varied = found.manifest.version_of(found.row).distributions()
    try:
        config = found.config()
    except StoreError as error:
        yield f"Configuration: {error}"
        return
    yield f"Configuration {found.row['config_key']} (* is varied by the search; the rest as in `pixeltune config`):"
    for key, value in config.flat().items():
        if key in varied or key in config.changed():
            among = f"  (of {range_text(varied[key])})" if key in varied else ""
            yield f"  {'*' if key in varied else ' '} {key} = {value_text(value)}{among}"


def _curve(found: Found) -> Iterator[str]:
    name = found.manifest.objectives[0]
    name = name if name in ("valid_bits_per_dim", "valid_nats") else "valid_bits_per_dim"
    curve = [point for point in found.store.curve(found.row["trial"]) if point[name] is not None]
    if not curve:
        return
    unit = ("bits/dim" if name == "valid_bits_per_dim" else "nats") + " (upper bound)" * bool(found.row["is_bound"])
    low, high = (pick(point[name] for point in curve) for pick in (min, max))
    yield f"Validation, {unit} by images seen:"
    for point in _thinned(curve):
        bar = "█" * round(_BAR * (point[name] - low) / (high - low)) if high > low else ""
        best = "  best" if point[name] == low else ""
        yield f"  {point['images_seen']:>12,}  {point[name]:.4f}  {bar}{best}"
    if len(curve) > _MOST_REPORTS:
        yield f"  {_MOST_REPORTS} of {len(curve)} reports; all of them: pt.read_curves({found.store.folder!r})"


def _thinned(curve: Sequence[Row]) -> list[Row]:
    """Return a limited number of reports, including the first and the last."""
    if len(curve) <= _MOST_REPORTS:
        return list(curve)
    step = (len(curve) - 1) / (_MOST_REPORTS - 1)
    return [curve[round(place * step)] for place in range(_MOST_REPORTS)]


def _artefacts(found: Found, storage: str) -> Iterator[str]:
    store, trial = found.store, found.row["trial"]
    where = storage_words(storage)
    yield "Artefacts:"
    yield f"  row      {store.trials_folder}"
    yield f"  curve    {store.curves_folder}"
    has_weights = files.exists(found.weights)
    yield f"  weights  {found.weights if has_weights else 'not kept; the search keeps those of its best trials'}"
    if files.exists(store.gallery(trial)):
        yield f"  picture  {store.gallery(trial)}"
    if files.exists(store.images(trial)):
        yield f"  nats     {store.images(trial)}"
    if found.manifest.final is None:
        yield f"Again: pixeltune rerun {found.name}{where}"
    if has_weights:
        yield f"To take along: pixeltune export {found.name}{where}"
