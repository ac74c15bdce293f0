"""`pixeltune.run_search`: run or resume a search from Python, as `launch.py` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixeltune.cluster.ray_backend import RayBackend
from pixeltune.errors import ConfigError
from pixeltune.files import Location, join
from pixeltune.results.identity import require_new_name
from pixeltune.results.storage import storage_or_default
from pixeltune.results.store import SearchStore
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.run import open_search
from pixeltune.search.run import run_search as run_what_is_left
from pixeltune.search.state import WITHOUT_RESULT
from pixeltune.space import SearchSpace, load_search
from pixeltune.tune.ray_address import resolve_address

if TYPE_CHECKING:
    import pandas as pd


def run_search(
    space: SearchSpace | str | Path,
    name: str | None = None,
    storage: Location | None = None,
    *,
    address: str | None = None,
    warm_start: Sequence[str] = (),
    extend: bool = False,
    retry_failed: bool = False,
    max_concurrent: int | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Run a search, or what is left of one that was begun, and return its results.

    The same call again answers from the stored results. Ctrl-C, or interrupting the kernel, stops it; the call after
    that resumes it.

    Args:
        space: The search, its name in search_spaces/, or the path of its file.
        name: The name of its folder in the storage; by default the name of its file.
        storage: The folder or URI of all results; by default PIXELTUNE_STORAGE, or `results`.
        address: Of a Ray that runs, `auto`, or `local`; by default as for `launch.py --address`.
        warm_start: Folders of other searches whose compatible trials the sampler learns from.
        extend: Whether the space may differ from that of a search that has begun, as with `launch.py --extend`.
        retry_failed: Whether trials that failed, ran out of memory or were rejected are run again.
        max_concurrent: How many trials run at once at most; by default as many as the machines hold.
        quiet: Print nothing.

    Returns:
        The table of `read_results`, one row a trial.

    Raises:
        ConfigError: A search that is given as a SearchSpace has no name, or it cannot be built.
        DataError: Its images cannot be read.
        StoreError: The results are of another search, or another launch works on them.
        SearchError: No Ray answers, or a trial does not fit it.

    Example:
        >>> frame = pt.run_search(space, "my_search")  # doctest: +SKIP
    """
    from rich.console import Console

    from pixeltune.results.dataframes import read_results
    from pixeltune.search.progress import Progress

    if not isinstance(space, SearchSpace):
        name = name or Path(space).stem
        space = load_search(space)
    if not name:
        raise ConfigError("a search must have a name for its folder, but got none; give run_search(space, name)")
    require_new_name(name)
    text = storage_or_default(storage)
    place = resolve_address(address)
    callback = SearchCallback() if quiet else Progress(Console(width=160))
    callback.say(str(place))
    with SearchStore(text, name).lock():
        store, manifest = open_search(space, name, text, warm_start=warm_start, extend=extend, say=callback.say)
        outcome = run_what_is_left(
            space,
            store,
            manifest,
            backend=RayBackend(place.address),
            callback=callback,
            retries=WITHOUT_RESULT if retry_failed else (),
            max_concurrent=max_concurrent,
        )
        callback.say(f"Ended: {outcome.reason}.")
    return read_results(join(text, name))
