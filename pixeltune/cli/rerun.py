"""`pixeltune rerun`: train a trial of the results again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_galleries, add_settings, add_storage, say, settings_of
from pixeltune.cli.show import TRIAL_HELP
from pixeltune.errors import DataError, MissingPackageError, StoreError
from pixeltune.format import counted

if TYPE_CHECKING:
    from pixeltune.config import TrialConfig
    from pixeltune.results.parquet_io import Row


def add_verb(verbs: Any) -> None:
    """Add `pixeltune rerun`."""
    parser = verbs.add_parser(
        "rerun",
        help="train a trial's configuration again, with changes if you like",
        examples=("pixeltune rerun digits_quick", "pixeltune rerun digits_quick/7 --set seed=1"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--name", metavar="NAME", help="name in the results [SEARCH-TRIAL-rerun]")
    add_galleries(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=rerun)


def rerun(options: argparse.Namespace) -> int:
    """Train it as `pixeltune train` does, then print both numbers."""
    from pixeltune.cli.train import train_config
    from pixeltune.results.own_keys import require_code
    from pixeltune.results.ranking import bound_mark
    from pixeltune.results.store import SearchStore
    from pixeltune.search.trial_reference import find_trial

    found = find_trial(options.trial, options.storage)
    settings = settings_of(options)
    name = options.name or f"{found.store.search}-{found.row['trial']}-rerun"
    if name == found.store.search:
        raise StoreError(f"a rerun must have results of its own, but --name {name} is the search of {found.name}")
    config = found.config().imported().override(settings)
    require_code(found.name, found.row)
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
    """Refuse to train on other images at the same path, which would not compare, unless `settings` request them."""
    from pixeltune.config import LOCATION_KEYS
    from pixeltune.data import load_data

    is_asked_for = any(key.startswith("data.") and key not in LOCATION_KEYS for key in settings)
    if is_asked_for or row["data_checksum"] is None:
        return
    try:
        checksum = load_data(config.data).identity.checksum
    except (DataError, MissingPackageError):  # an ended rerun needs no images, and training raises its own error
        return
    if checksum != row["data_checksum"]:
        raise StoreError(
            f"a rerun must be on the images of {name} (checksum {row['data_checksum']}), but got {checksum}; put them "
            "back, or say with --set data.path=… where they are"
        )


def _apart(before: Row, after: Row) -> str:
    """Return why the difference of their numbers would not compare the configurations; "" if it does."""
    from pixeltune.results.ranking import SAME_IN_ALL

    if any(before[name] != after[name] for name in SAME_IN_ALL):
        return "of other images, which do not compare"
    if before["status"] != after["status"]:
        return f"the first was {before['status']} after {counted(before['images_seen'], 'image')}"
    return ""
