"""`--dry-run`: the plan and cost of a search, before Ray starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from pixeltune.config import Scalar
from pixeltune.data import DataOutline, Resolved, ResolvedOutline, order0_bits_per_dim, resolve_outline
from pixeltune.format import counted, plural
from pixeltune.preflight.checks import compiles_for
from pixeltune.preflight.cost import devices_text, measure
from pixeltune.results.manifest import grid_text
from pixeltune.search.run import require_corners
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import Asha, Median, Pareto, Scheduler, SearchSpace
from pixeltune.space.keys import range_text, value_text, values_of
from pixeltune.space.metrics import sign
from pixeltune.space.priors import prior_text
from pixeltune.space.sampler_names import GRID
from pixeltune.training.compiler import compiler_advice, missing_compiler


def show_plan(out: Console, space: SearchSpace, name: str, warm_start: Sequence[str]) -> None:
    """Print space, corners, data, trials, resources and a cost estimate; ConfigError if a corner cannot be built.

    Nothing is downloaded. Without the images, the published shape of the data set is used, and lines that need the
    images are left out.

    Args:
        out: Where to print.
        space: The search.
        name: Its name.
        warm_start: Results of other searches; the plan says what the sampler would learn from them.
    """
    out.print(f"[bold]{name}[/bold]: {space.title}", highlight=False)
    with out.status("Reading the images and building every corner …"):
        resolved = resolve_outline(space.base)
        require_corners(space, resolved.data.form)
    corners = list(space.corners())
    out.print(_keys(space))
    for line in _data(resolved.data):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    out.print(
        f"Corners: {len(corners)}, all of them can be built: {_parameter_range(space, corners, resolved)}",
        highlight=False,
    )
    out.print(f"Configurations: {_configurations(space)}", highlight=False, soft_wrap=True)
    also = _limits(space)
    out.print(
        f"Budget: {space.budget.trials} trials of at most {space.base.train.images:,} images{also}; "
        f"{_stopping(space.scheduler)}; sampler {_sampler(space)}, objective {_objectives(space)}",
        highlight=False,
    )
    for line in _proposals(space):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if space.constraints:
        bounds = ", ".join(
            f"{name} {'at most' if sign(name) > 0 else 'at least'} {bound:,.6g}"
            for name, bound in space.constraints.items()
        )
        out.print(f"Constraints: {bounds}", highlight=False)
    for line in _warm_start(warm_start, space, resolved):
        out.print(line, highlight=False, soft_wrap=True)
    resources = space.resources
    out.print(
        f"Resources: {counted(resources.workers, 'worker')} a trial, each {counted(resources.cpus, 'CPU')} and "
        f"{resources.gpus:g} {plural(math.ceil(resources.gpus), 'GPU')}",
        highlight=False,
    )
    compiled = compiles_for(space)
    missing = missing_compiler(compiled) if compiled else ""
    if missing:
        out.print(f"Compiler: {missing} here; {compiler_advice(compiled)}", highlight=False, soft_wrap=True)
    out.print(f"Devices here: {devices_text(space)}", highlight=False, soft_wrap=True)
    with out.status("Measuring the speed of the base configuration …"):
        cost = measure(space, resolved)
    out.print(f"Cost: {cost}. Larger trials take longer.", highlight=False, soft_wrap=True)


def _limits(space: SearchSpace) -> str:
    """Return the limits of the budget but the trials, to follow them in a sentence."""
    budget = space.budget
    limits = {
        "images": budget.images,
        "GPU-hours": budget.gpu_hours,
        "hours": budget.hours,
        "dollars": budget.dollars,
        "finished trials in a row without an improvement": budget.patience,
    }
    text = "".join(f", at most {limit:g} {what}" for what, limit in limits.items() if limit)
    if budget.min_delta:
        text += f" of {budget.min_delta:g}"
    if budget.target is not None:
        text += f", until {space.objectives[0]} is {budget.target:g}"
    return text


def _configurations(space: SearchSpace) -> str:
    """Return how many configurations there are, and whether a search will run out of them."""
    count = space.num_configurations
    if count is None:
        floats = [key for key, distribution in space.vary.items() if values_of(distribution) is None]
        return f"not finite ({', '.join(floats)})"
    if space.sampler == GRID:
        return f"{count:,} of the grid, in the order of the keys, the last one fastest{_not_reached(space)}"
    if count < space.budget.trials:
        return f"{count:,}, fewer than the {space.budget.trials:,} trials: the search ends when all are tried"
    return f"{count:,}"


def _not_reached(space: SearchSpace) -> str:
    """Return how many configurations of a grid the budget leaves out, and what to do."""
    count = space.num_configurations or 0
    left = count - space.budget.trials
    if left <= 0:
        return ""
    return f"; {left:,} of them are beyond the budget of {counted(space.budget.trials, 'trial')}: set --trials {count}"


def _proposals(space: SearchSpace) -> Iterator[str]:
    """Yield the lines about first configurations, repeats, the grid and priors."""
    suggestions = space.first_suggestions()
    for number, suggestion in enumerate(suggestions, 1):
        text = ", ".join(f"{key}={value_text(value)}" for key, value in suggestion.items())
        beyond = f" (beyond the budget of {counted(space.budget.trials, 'trial')})" * (number >= space.budget.trials)
        yield f"First, {number} after the base: {text}{beyond}"
    if space.repeats > 1:
        yield (
            f"Repeats: a trial that would be the best is trained with {space.repeats} seeds, "
            f"{counted(space.repeats - 1, 'trial')} of the budget more, before it counts as the best"
        )
    if space.grid:
        yield f"Grid: {grid_text(space.grid)}"
    if space.prior:
        yield f"Prior: {'; '.join(f'{key} {prior_text(prior)}' for key, prior in space.prior.items())}"


def _data(data: DataOutline) -> Iterator[str]:
    num_images = {split: data.num_images.get(split, 0) for split in ("train", "valid", "test")}
    baseline = "not computed without the images"
    if data.data is not None:
        baseline = f"{order0_bits_per_dim(data.data):.4f} bits/dim"
    yield f"Data: {data.name} ({data.version}), {data.form.describe(num_images)}; order-0 baseline {baseline}"
    if data.title:
        yield f"Set: {data.title}"
    for note in data.notes:
        yield f"Data note: {note}"
    if data.files:
        yield f"Files: {data.name} {data.files}"


def _warm_start(locations: Sequence[str], space: SearchSpace, resolved: ResolvedOutline) -> Sequence[str]:
    if not locations:
        return ()
    if resolved.data.data is None:
        return ("Warm start: not checked without the images, because only trials on the same images count.",)
    return read_warm_start(locations, space, Resolved(resolved.config, resolved.data.data)).lines()


def _stopping(scheduler: Scheduler | None) -> str:
    match scheduler:
        case Asha(rungs, reduction):
            return f"ASHA keeps the best 1/{reduction} at {_listed(rungs)} images"
        case Median(grace, completed):
            return f"trials above the median stop, after {grace:,} images and {completed} finished trials"
        case Pareto(rungs, margin):
            return f"trials dominated by {margin:g} stop at {_listed(rungs)} images"
    return "every trial runs to its end"


def _listed(rungs: tuple[int, ...]) -> str:
    return ", ".join(f"{rung:,}" for rung in rungs)


def _sampler(space: SearchSpace) -> str:
    learnt = space.learnt_keys()
    drawn = ", ".join(key for key in space.vary if key not in learnt)
    return space.sampler + (f" (draws {drawn} at random)" if drawn else "")


def _objectives(space: SearchSpace) -> str:
    """Return the objectives, and mark those for which higher is better."""
    return ", ".join(name + (" (higher)" if sign(name) < 0 else "") for name in space.objectives)


def _keys(space: SearchSpace) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("key", "from", "base (trial 0)"):
        table.add_column(title)
    flat = space.base.flat()
    for key, distribution in space.vary.items():
        table.add_row(key, range_text(distribution), str(flat.get(key, "– (only where it exists)")))
    return table


def _parameter_range(space: SearchSpace, corners: list[dict[str, Scalar]], resolved: ResolvedOutline) -> str:
    """Return the range of parameter counts, from models without allocated memory."""
    import torch

    from pixeltune.models import build_model

    with torch.device("meta"):
        counts = [build_model(space.configure(corner), resolved.data.form).num_parameters() for corner in corners]
    return f"{min(counts):,} to {max(counts):,} parameters"
