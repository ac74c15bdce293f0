"""`pixeltune export`: write a folder with a trial, to share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, add_storage, say, writing
from pixeltune.cli.show import TRIAL_HELP
from pixeltune.errors import StoreError

if TYPE_CHECKING:
    pass


def add_verb(verbs: Any) -> None:
    """Add `pixeltune export`."""
    parser = verbs.add_parser(
        "export",
        help="a folder with weights, configuration and model card of one trial",
        examples=("pixeltune export digits_quick", "pixeltune export digits_quick/7 --out model"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--out", metavar="FOLDER", help="a new folder or URI [SEARCH-TRIAL]")
    add_storage(parser)
    parser.set_defaults(verb=export)


def export(options: argparse.Namespace) -> int:
    """Write the folder; the weights are copied byte for byte."""
    from pixeltune.report.model_card import model_card
    from pixeltune.results.own_keys import names_of_own
    from pixeltune.results.schema import Status
    from pixeltune.search.trial_reference import find_trial, rerun_words
    from pixeltune.training.weights import read_weights

    found = find_trial(options.trial, options.storage)
    if not files.exists(found.weights):
        again = rerun_words(found.row, found.store, options.storage)
        raise StoreError(f"an exported trial must have kept weights, but {found.name} has none{again}")
    folder = options.out or f"{found.store.search}-{found.row['trial']}"
    ended = [row for row in found.store.trials() if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)]
    config = found.config()
    # The card is written last: a folder with a card is complete.
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
    if names := names_of_own(found.row):
        say(f"It needs {names}: put the code where Python finds it, wherever the model is loaded.")
    return EXIT_OK


def _is_begun(folder: str, contents: Mapping[str, bytes]) -> bool:
    """Return whether the same export was killed there: some of its files as they would be written, and no card."""
    names = files.list_names(folder)
    is_same = all(name in contents and files.read_whole(files.join(folder, name)) == contents[name] for name in names)
    return bool(names) and "README.md" not in names and is_same
