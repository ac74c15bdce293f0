"""`pixeltune paper`: the files that a publication of a final needs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, add_storage, positive, require_writable, say, writing
from pixeltune.errors import StoreError
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.paper.rows import FinishedFinal
    from pixeltune.results.parquet_io import Row
    from pixeltune.results.store import SearchStore

_PUBLISHED = 12
_MOST_DIGITS = 12


def add_verb(verbs: Any) -> None:
    """Add `pixeltune paper`."""
    parser = verbs.add_parser(
        "paper",
        help="tables, references, figures and a checkable bundle of a final",
        examples=(
            "pixeltune paper digits_quick-final",
            "pixeltune paper digits_quick-final --digits 3 --published all",
        ),
    )
    parser.add_argument("final", metavar="FINAL", help="a final in the storage, all its runs ended")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        metavar="OTHER",
        dest="others",
        help="rows of another final too: its name in the storage, its folder, or a bundle; repeatable",
    )
    parser.add_argument("--out", metavar="DIR", help="a new or empty folder [FINAL-paper in the working directory]")
    parser.add_argument(
        "--digits", type=_digits, metavar="D", help="decimals of bits/dim [two digits of the smallest standard error]"
    )
    parser.add_argument(
        "--published",
        type=_published,
        default=_PUBLISHED,
        metavar="K|all",
        help=f"published rows in the table, nearest in kind first [{_PUBLISHED}]",
    )
    parser.add_argument("--own", metavar="FILE", help="CSV with published rows of yours [STORAGE/published.csv]")
    parser.add_argument(
        "--samples", type=_samples, metavar="N", help="samples in the figure; 0 for none [36, where that is quick]"
    )
    add_storage(parser)
    parser.set_defaults(verb=paper)


def paper(options: argparse.Namespace) -> int:
    """Do the cheap checks, then write the folder."""
    from pixeltune.paper.rows import finished_final, require_finished
    from pixeltune.results.store import SearchStore

    # Check for typing errors first, then what takes time, then packages that may be missing.
    store = SearchStore(options.storage, options.final)
    rows = require_finished(store)
    for other in options.others:
        _require_other(other, options.storage)
    folder = options.out or f"{options.final}-paper"
    _require_empty(folder)
    weights = _weights(store, rows)
    require_packages("a paper", "scipy", "torch")
    from pixeltune.paper.write import PaperRequest, bundled_place, write_paper
    from pixeltune.published.compare import OWN_TABLE, read_own

    in_storage = files.join(options.storage, OWN_TABLE)
    own = options.own or (in_storage if files.exists(in_storage) else None)
    final = finished_final(store)
    place = bundled_place(store, final)
    _require_weights(store, place, weights)
    request = PaperRequest(
        store=store,
        final=final,
        others=[_other(name, options.storage) for name in options.others],
        weights=weights,
        own=read_own(own),
        published=options.published,
        digits=options.digits,
        samples=options.samples,
        search_store=SearchStore(options.storage, place["from_search"]),
    )
    with writing(folder):
        written = write_paper(request, folder)
    say(f"Wrote {folder}: {', '.join(name for name in written.names if '/' not in name)}, bundle/")
    say(f"The configuration that validation put first, {place['from_search']}/{place['from_trial']}: {written.stated}")
    for line in written.missing:
        say(f"Left out: {line}")
    say(f"Bundle {written.digest}")
    say(f"Anyone checks it with: pixeltune verify {files.join(folder, 'bundle')}")
    return EXIT_OK


def _digits(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_MOST_DIGITS}, but got {text[:40]!r}")
    return int(text)


def _published(text: str) -> int | None:
    return None if text == "all" else positive(text)


def _samples(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _require_empty(folder: str) -> None:
    """Refuse a folder with files in it: they would be taken for this paper's."""
    require_writable(files.join(folder, "table.tex"))
    if files.exists(folder) and (files.list_names(folder) or files.list_folders(folder)):
        raise StoreError(f"--out must be a new or empty folder, but {folder} holds files; remove it or name another")


def _weights(store: SearchStore, rows: list[Row]) -> dict[str, str]:
    """Return the weights file of each run that has kept its weights."""
    from pixeltune.search.trial import weights_file

    places = {row["trial"]: weights_file(store.checkpoint(row["trial"])) for row in rows}
    kept = {trial: location for trial, location in places.items() if files.exists(location)}
    if not kept:
        raise StoreError(f"a bundle needs the weights of the runs, but {store.checkpoints} holds none; put them back")
    return kept


def _require_weights(store: SearchStore, place: Row, weights: dict[str, str]) -> None:
    lacking = [trial for trial in place["runs"] if trial not in weights]
    if lacking:
        raise StoreError(
            f"a bundle needs the weights of each run of {place['from_search']}/{place['from_trial']}, but "
            f"{store.checkpoints} lacks those of {', '.join(lacking)}; put them back"
        )


def _require_other(name: str, storage: str) -> None:
    """Refuse a name that is neither a bundle nor a finished final, before anything is computed."""
    from pixeltune.paper.rows import require_finished

    if bundle_of(name) is None:
        require_finished(_store_of(name, storage))


def _other(name: str, storage: str) -> FinishedFinal:
    from pixeltune.paper.bundle import bundled_final
    from pixeltune.paper.rows import finished_final

    bundle = bundle_of(name)
    return finished_final(_store_of(name, storage)) if bundle is None else bundled_final(bundle)


def bundle_of(name: str) -> str | None:
    """Return the bundle that a name means: itself, or `bundle` in it; None if neither is one."""
    from pixeltune.paper.bundle import is_bundle

    return next((place for place in (name, files.join(name, "bundle")) if is_bundle(place)), None)


def _store_of(name: str, storage: str) -> SearchStore:
    """Return the final of a name in the storage, or of a folder."""
    from pixeltune.results.store import SearchStore

    return SearchStore.at(name) if "/" in name or "\\" in name else SearchStore(storage, name)
