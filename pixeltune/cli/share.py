"""`pixeltune export` and `rerun`: a trial for others, and a trial once more."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import (
    EXIT_OK,
    add_galleries,
    add_settings,
    add_storage,
    say,
    settings_of,
    storage_words,
    writing,
)
from pixeltune.cli.show import TRIAL_HELP
from pixeltune.errors import DataError, MissingPackageError, StoreError

if TYPE_CHECKING:
    from pixeltune.config import TrialConfig
    from pixeltune.results.parquet_io import Row


def add_verbs(verbs: Any) -> None:
    """The two verbs."""
    parser = verbs.add_parser("export", help="a folder with weights, configuration and model card of one trial")
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--out", metavar="FOLDER", help="a new folder or URI [SEARCH-TRIAL]")
    add_storage(parser)
    parser.set_defaults(verb=export)

    parser = verbs.add_parser("rerun", help="train a trial's configuration anew, with changes if you like")
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--name", metavar="NAME", help="name in the results [SEARCH-TRIAL-rerun]")
    add_galleries(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=rerun)


def export(options: argparse.Namespace) -> int:
    """Write the folder; the weights are those kept, byte for byte."""
    from pixeltune.cli.trial_ref import find_trial
    from pixeltune.report.model_card import model_card
    from pixeltune.results.schema import Status
    from pixeltune.training.weights import read_weights

    found = find_trial(options.trial, options.storage)
    if not files.exists(found.weights):
        again = (
            ""
            if found.manifest.final
            else f"; pixeltune rerun {found.name}{storage_words(options.storage)} trains it anew"
        )
        raise StoreError(f"an exported trial must have kept weights, but {found.name} has none{again}")
    folder = options.out or f"{found.store.search}-{found.row['trial']}"
    ended = [row for row in found.store.trials() if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)]
    config = found.config()
    # The card comes last: a folder with one is whole.
    contents = {
        "model.safetensors": read_weights(found.weights),
        "config.toml": config.to_toml().encode(),
        "README.md": model_card(found.row, config, found.manifest, len(ended)).encode(),
    }
    if files.exists(folder) and not _is_begun(folder, contents):
        raise StoreError(f"--out must be a new folder, but {folder} exists; remove it or name another")
    for name, content in contents.items():
        with writing(files.join(folder, name)):
            files.write_whole(files.join(folder, name), content)
    say(f"Wrote {folder}: {', '.join(contents)}")
    say(f'Loads with: import pixeltune as pt; model = pt.load_model("{files.join(folder, "model.safetensors")}")')
    return EXIT_OK


def _is_begun(folder: str, contents: Mapping[str, bytes]) -> bool:
    """Whether an export of the same was killed there: some of its files as they would be written, and no card."""
    names = files.list_names(folder)
    is_same = all(name in contents and files.read_whole(files.join(folder, name)) == contents[name] for name in names)
    return bool(names) and "README.md" not in names and is_same


def rerun(options: argparse.Namespace) -> int:
    """Train it as `pixeltune train` does, then put both numbers side by side."""
    from pixeltune.cli.train import train_config
    from pixeltune.cli.trial_ref import find_trial
    from pixeltune.results.ranking import bound_mark
    from pixeltune.results.store import SearchStore

    found = find_trial(options.trial, options.storage)
    settings = settings_of(options)
    name = options.name or f"{found.store.search}-{found.row['trial']}-rerun"
    if name == found.store.search:
        raise StoreError(f"a rerun must have results of its own, but --name {name} is where {found.name} stands")
    config = found.config().override(settings)
    _require_same_images(found.name, found.row, config, settings)
    code = train_config(config, name, settings, storage=options.storage, galleries=options.galleries or ())
    again = SearchStore(options.storage, name).trials()
    if code == EXIT_OK and again:
        before, after = (row["valid_bits_per_dim"] for row in (found.row, again[0]))
        changed = f" with {', '.join(f'{key}={value}' for key, value in settings.items())}" if settings else ""
        if before is not None and after is not None:
            marked = f"{bound_mark(found.row)}{before:.5f} bits/dim; {name}{changed}: {bound_mark(again[0])}{after:.5f}"
            say(f"{found.name}: {marked} ({_apart(found.row, again[0]) or f'{after - before:+.5f}'})")
    return code


def _require_same_images(name: str, row: Row, config: TrialConfig, settings: Mapping[str, Any]) -> None:
    """Refuse to train for long what does not compare: other images at the same place, unless they were asked for."""
    from pixeltune.config import LOCATION_KEYS
    from pixeltune.data import load_data

    is_asked_for = any(key.startswith("data.") and key not in LOCATION_KEYS for key in settings)
    if is_asked_for or row["data_checksum"] is None:
        return
    try:
        checksum = load_data(config.data).identity.checksum
    except (DataError, MissingPackageError):  # a rerun that has ended answers without, and training says why it cannot
        return
    if checksum != row["data_checksum"]:
        raise StoreError(
            f"a rerun must be on the images of {name} (checksum {row['data_checksum']}), but got {checksum}; put them "
            "back, or say with --set data.path=… where they are"
        )


def _apart(before: Row, after: Row) -> str:
    """Why the difference of their numbers would say nothing of the configurations; "" where it does."""
    from pixeltune.results.ranking import SAME_IN_ALL

    if any(before[name] != after[name] for name in SAME_IN_ALL):
        return "of other images, which do not compare"
    if before["status"] != after["status"]:
        return f"the first was {before['status']} after {before['images_seen']:,} images"
    return ""
