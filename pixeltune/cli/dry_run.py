"""`--dry-run`: the plan and cost of a search, before Ray starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from pixeltune.config import Scalar, TrialConfig
from pixeltune.data import DataOutline, Resolved, ResolvedOutline, order0_bits_per_dim, resolve_outline
from pixeltune.format import rough_duration
from pixeltune.preflight.checks import compiles_for
from pixeltune.search.run import require_corners
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import Asha, Median, Pareto, Scheduler, SearchSpace
from pixeltune.space.keys import values_of
from pixeltune.space.metrics import sign
from pixeltune.training.compiler import compiler_advice, missing_compiler

_PROBE_STEPS = 3
_MOST_PROBE_IMAGES = 32


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
    resolved = resolve_outline(space.base)
    require_corners(space, resolved.data.form)
    corners = list(space.corners())
    out.print(f"[bold]{name}[/bold]: {space.title}", highlight=False)
    out.print(_keys(space))
    for line in _data(resolved.data):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    out.print(
        f"Corners: {len(corners)}, all of them can be built: {_parameter_range(space, corners, resolved)}",
        highlight=False,
    )
    out.print(f"Configurations: {_configurations(space)}", highlight=False, soft_wrap=True)
    limits = {"images": space.budget.images, "GPU-hours": space.budget.gpu_hours, "hours": space.budget.hours}
    also = "".join(f", at most {limit:g} {what}" for what, limit in limits.items() if limit)
    out.print(
        f"Budget: {space.budget.trials} trials of at most {space.base.train.images:,} images{also}; "
        f"{_stopping(space.scheduler)}; sampler {_sampler(space)}, objective {_objectives(space)}",
        highlight=False,
    )
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
        f"Resources: {resources.workers} worker(s) a trial, each {resources.cpus} CPU and {resources.gpus:g} GPU",
        highlight=False,
    )
    compiled = compiles_for(space)
    missing = missing_compiler(compiled) if compiled else ""
    if missing:
        out.print(f"Compiler: {missing} here; {compiler_advice(compiled)}", highlight=False, soft_wrap=True)
    out.print(_cost(space, resolved), highlight=False, soft_wrap=True)


def _configurations(space: SearchSpace) -> str:
    """Return how many configurations there are, and whether a search will run out of them."""
    count = space.num_configurations
    if count is None:
        floats = [key for key, distribution in space.vary.items() if values_of(distribution) is None]
        return f"not finite ({', '.join(floats)})"
    if count < space.budget.trials:
        return f"{count:,}, fewer than the {space.budget.trials:,} trials: the search ends when all are tried"
    return f"{count:,}"


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
        table.add_row(key, str(distribution), str(flat.get(key, "– (only where it exists)")))
    return table


def _parameter_range(space: SearchSpace, corners: list[dict[str, Scalar]], resolved: ResolvedOutline) -> str:
    """Return the range of parameter counts, from models without allocated memory."""
    import torch

    from pixeltune.models import build_model

    with torch.device("meta"):
        counts = [build_model(space.configure(corner), resolved.data.form).num_parameters() for corner in corners]
    return f"{min(counts):,} to {max(counts):,} parameters"


def _cost(space: SearchSpace, resolved: ResolvedOutline) -> str:
    speed, device = _images_per_second(resolved.config, resolved)
    images = space.budget.trials * space.base.train.images
    hours = images / speed / 3600
    return (
        f"Cost: the base configuration trains at {speed:,.0f} images/s here ({device}, one worker); "
        f"all {images:,} images at that speed are {rough_duration(hours)} of one worker. "
        "Larger trials take longer, stopped ones less."
    )


def _images_per_second(config: TrialConfig, resolved: ResolvedOutline) -> tuple[float, str]:
    """Time a few training steps of the base configuration on this machine, without audit and evaluation.

    Without the images, random levels are used: a step takes as long.
    """
    import numpy as np
    import torch

    from pixeltune.models import build_model
    from pixeltune.training.optim import build_optimizer
    from pixeltune.training.workers import best_device

    device = best_device()
    model = build_model(config, resolved.data.form).to(device).train()
    optimizer = build_optimizer(config.optim, model)
    data = resolved.data
    count = min(config.train.batch_size, _MOST_PROBE_IMAGES, data.num_images["train"])
    if data.data is None:
        batch = np.random.default_rng(0).integers(0, data.form.levels, (count, *data.form.shape), dtype=np.uint8)
    else:
        batch = data.data.train_batch(np.arange(count), np.zeros(count, dtype=np.int64))
    x_BCHW = torch.from_numpy(batch).to(device)
    seconds = []
    for _ in range(_PROBE_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        model.loss(x_BCHW).mean().backward()
        optimizer.step()
        float(next(model.parameters()).detach().sum())  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return count / min(seconds), device.type
