"""`pixeltune doctor`: check that this machine or cluster is fit for a search, before one starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, EXIT_REFUTED, add_settings, add_storage, console, settings_of
from pixeltune.errors import PixeltuneError
from pixeltune.files import require_location
from pixeltune.packages import require_packages
from pixeltune.space import search_path

if TYPE_CHECKING:
    from pixeltune.preflight.checks import Check
    from pixeltune.preflight.node_table import NodeCell, NodeRow
    from pixeltune.space import SearchSpace

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}


def add_verb(verbs: Any) -> None:
    """Add `pixeltune doctor`."""
    parser = verbs.add_parser(
        "doctor",
        help="check machine, cluster, storage and data before a search",
        examples=("pixeltune doctor", "pixeltune doctor --search cifar_gated --address auto"),
    )
    parser.add_argument("--search", metavar="NAME|PATH", help="what that search needs [what any needs]")
    parser.add_argument(
        "--address", metavar="HOST:PORT|auto|local", help="a running Ray cluster, or local [where a search would run]"
    )
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print what each node has and lacks, the other checks, and what to do; return 1 if a check fails."""
    if options.search:
        search_path(options.search)  # checked before missing packages
    require_location(options.storage)
    require_packages("a search", "optuna", "rich", "ray")
    from pixeltune.space import load_search
    from pixeltune.tune.ray_address import resolve_address

    space = load_search(options.search).override(settings_of(options)) if options.search else None
    place = resolve_address(options.address)
    console().print(f"A search would run {place.where}: {place.why}.", highlight=False, soft_wrap=True)
    alone = place.address is None
    rows, checks = _alone(space, options.storage) if alone else _together(space, options.storage, place.address)
    checks += _of_results(options.search, options.storage)
    show_nodes(rows)
    _show(checks)
    verdicts = [*(check.verdict for check in checks), *(cell.verdict for row in rows for cell in row.cells.values())]
    return EXIT_REFUTED if "fail" in verdicts else EXIT_OK


def _alone(space: SearchSpace | None, storage: str) -> tuple[list[NodeRow], list[Check]]:
    """Check this machine, where a search would start its own Ray; none is started for this."""
    from pixeltune.preflight import checks as preflight
    from pixeltune.preflight.node_table import Wanted, node_rows
    from pixeltune.space import Resources

    resources = space.resources if space else Resources()
    nodes = [preflight.local_node()]
    compiled = preflight.compiles_for(space)
    found = preflight.node_facts(data=_data_of(space), gpus=bool(resources.gpus), compiles_for=compiled)
    here = replace(found, ray_gpus=nodes[0]["GPU"])
    data = space.base.data.name if space else ""
    wanted = Wanted(versions=here.versions, data=data, gpus=resources.gpus, compiles=bool(compiled))
    return node_rows([here], wanted), [
        preflight.check_here(here.versions),
        preflight.check_room(nodes, resources),
        preflight.check_drivers(nodes, resources),
        preflight.check_state_api(resources, None),
        *_of_storage(space, storage),
    ]


def _together(space: SearchSpace | None, storage: str, address: str | None) -> tuple[list[NodeRow], list[Check]]:
    from pixeltune.cluster.capacity import cluster_file, nodes_at_most
    from pixeltune.preflight import checks as preflight
    from pixeltune.space import Resources
    from pixeltune.tune.ray_session import connect

    resources = space.resources if space else Resources()
    with connect(address) as nodes:
        from pixeltune.preflight.probe_nodes import ask_state_api, look_at_nodes

        here = preflight.node_facts(data=_data_of(space))
        checks = [
            preflight.check_here(here.versions),
            *([preflight.check_own_data(space.base.data.name, here)] if space else []),
            preflight.check_room(nodes_at_most(nodes, cluster_file()), resources),
            preflight.check_drivers(nodes, resources),
            preflight.check_state_api(resources, ask_state_api() if resources.workers > 1 else None),
            *_of_storage(space, storage),
        ]
        rows = look_at_nodes(
            storage,
            config=_data_of(space),
            checksum=here.data,
            gpus=resources.gpus,
            meet=resources.uses_gloo,
            compiles_for=preflight.compiles_for(space),
        )
        return rows, checks


def _of_storage(space: SearchSpace | None, storage: str) -> list[Check]:
    from pixeltune.preflight import checks as preflight

    checks = [preflight.check_storage(storage)]
    if checks[0].verdict != "fail":
        checks.append(preflight.check_disk(storage, _checkpoint_bytes(space), preflight.free_disk(storage)))
    return checks


def _of_results(search: str | None, storage: str) -> list[Check]:
    """Check the results that the search has so far under its own name, if a search is given."""
    from pixeltune.preflight.checks import Check, CheckResult, check_results
    from pixeltune.results.store import SearchStore

    if not search:
        return []
    try:
        return [check_results(SearchStore(storage, search_path(search).stem))]
    except PixeltuneError as error:
        return [Check("results so far", str(error), CheckResult.SKIPPED)]


def _data_of(space: SearchSpace | None) -> dict[str, object] | None:
    return None if space is None else space.base.model_dump()


def _checkpoint_bytes(space: SearchSpace | None) -> int:
    """Return the most bytes of checkpoints: each running trial's state, twice while written, and the best weights."""
    if space is None:
        return 0
    import torch

    from pixeltune.data import resolve_outline
    from pixeltune.models import build_model
    from pixeltune.preflight.checks import local_node, most_at_once

    try:
        form = resolve_outline(space.base).data.form
    except PixeltuneError:  # the check of the data says so
        return 0
    with torch.device("meta"):
        weights = max(4 * build_model(space.configure(corner), form).num_parameters() for corner in space.corners())
    states = 4 if space.base.optim.ema else 3  # weights, Adam's two moments, the average
    return weights * (2 * states * most_at_once([local_node()], space.resources) + space.keep)


def show_nodes(rows: Sequence[NodeRow]) -> None:
    """Print one row per node and one column per check; below, what to do, each once."""
    from rich.markup import escape
    from rich.table import Table

    from pixeltune.preflight.node_table import COLUMNS, to_do

    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = [column for column in COLUMNS if any(row.cells[column].verdict != "skipped" for row in rows)]
    for title in ("node", *shown):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(escape(row.name), *(_cell(row.cells[column]) for column in shown))
    out = console()
    out.print(table)
    for line in to_do(rows):
        out.print(escape(line), style="bold")
    out.print()


def _cell(cell: NodeCell) -> str:
    """Return a cell with the result as text too, because a log has no colours."""
    from rich.markup import escape

    word = f"{cell.verdict}: " if cell.verdict in ("warn", "fail") else ""
    return f"[{_COLOURS[cell.verdict]}]{escape(word + cell.found)}[/]"


def _show(checks: Sequence[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("check", "verdict", "found", "what to do"):
        table.add_column(title, overflow="fold")
    for check in checks:
        colour = _COLOURS[check.verdict]
        table.add_row(check.name, f"[{colour}]{check.verdict}[/]", escape(check.found), escape(check.advice))
    console().print(table)
