"""The definition and status of a search, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pixeltune.config import Scalar
from pixeltune.format import counted, dollars, hours, listed, number, shortened, span
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, moment, title_of
from pixeltune.results.manifest import grid_text, priors_text
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED, counted_statuses
from pixeltune.results.repeats import seeds_text
from pixeltune.results.schema import Status
from pixeltune.results.search_status import below_baseline
from pixeltune.space.keys import range_text, short_name, value_text


@dataclass(frozen=True)
class Summary:
    """The summary. about: what the results are of. ranges: what was searched. headline: the result in one sentence.
    counts: trials by status. facts: names and values.
    """

    about: str
    ranges: list[str]
    headline: str
    counts: dict[str, int]
    facts: list[tuple[str, str]]


def summary(snapshot: Snapshot) -> Summary:
    """Return the summary of a search; `finals.headline` is the headline of a final."""
    counts = Counter(str(row["status"]) for row in snapshot.rows)
    order = [str(status) for status in Status]
    return Summary(
        about=_about(snapshot),
        ranges=[f"{title_of(key)} {range_text(value)}" for key, value in snapshot.manifest.searched().items()],
        headline=headline(snapshot),
        counts={status: counts[status] for status in sorted(counts, key=order.index)},
        facts=list(_facts(snapshot)),
    )


def _about(snapshot: Snapshot) -> str:
    """Return the head of the page: whether it is of a search, a training or a final, its models and its data."""
    manifest, data = snapshot.manifest, data_words(snapshot)
    if manifest.final is not None:
        return f"Final of {manifest.final.search} on {data}"
    families = getattr(manifest.searched().get("model.family"), "choices", [manifest.base.get("model.family")])
    return f"{'Search' if manifest.searched() else 'Training'} of {listed(map(str, families))} models on {data}"


def headline(snapshot: Snapshot) -> str:
    """Return a sentence about the best trial, its number, and how far that can be trusted."""
    ranked = snapshot.best(len(snapshot.rows))
    best = next(iter(ranked), None)
    if best is None:
        if not snapshot.rows:
            return "No trial has begun."
        return f"None of {counted(len(snapshot.rows), 'trial')} has a result to rank: {_commonest(snapshot.rows)}."
    value = cell(snapshot.objective, best[snapshot.objective], is_bound=bool(best["is_bound"]))
    error = best.get(f"{snapshot.objective}_error")
    value += "" if error is None else f" ± {cell(snapshot.objective, error)}"
    seeds = f" ({seeds_text(best)})" if seeds_text(best) else ""
    text = f"Best by {title_of(snapshot.objective)}: trial {best['trial']}{seeds} with {value}"
    if snapshot.objective == "valid_bits_per_dim" and best["baseline_bits_per_dim"]:
        below = below_baseline(best["valid_bits_per_dim"], best["baseline_bits_per_dim"])
        text += below.replace("the baseline", "the order-0 baseline")
    if best["status"] in (Status.PRUNED, Status.STOPPED):
        text += f"; {best['status']}, so measured after {cell('images_seen', best['images_seen'])} images"
    if len(ranked) == 1:
        return f"{text}."
    count = counted(len(ranked), "ranked trial")
    return f"{text}. The best of {count} by these very images, and so a little optimistic."


def _commonest(rows: Sequence[Row]) -> str:
    """Return the statuses with their counts, and the most frequent reason of trials that ended."""
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    text = counted_statuses(rows)
    return f"{text}. The most frequent reason: {shortened(reasons.most_common(1)[0][0], 200)}" if reasons else text


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    manifest = snapshot.manifest
    yield "State", _state(snapshot)
    yield "Data", data_words(snapshot)
    if manifest.final is not None:
        chosen = listed((item.trial for item in manifest.final.chosen), 12)
        yield "Retrained", f"{chosen} of {manifest.final.search}, chosen by {title_of(manifest.final.objective)}"
        if manifest.final.left_out:
            yield "Left out", "; ".join(manifest.final.left_out)
    directions = zip(manifest.objectives, manifest.directions, strict=True)
    yield (
        "Objective" + "s" * (len(manifest.objectives) > 1),
        ", ".join(f"{title_of(name)} ({way})" for name, way in directions),
    )
    if manifest.constraints:
        yield (
            "Constraints",
            ", ".join(f"{title_of(name)} {number(bound)}" for name, bound in manifest.constraints.items()),
        )
    if not snapshot.is_final and manifest.searched():
        if manifest.earlier:
            since = ", ".join(f"{number} since {version.since}" for number, version in enumerate(manifest.versions, 1))
            yield "Versions of the space", since
        yield "Sampler", f"{manifest.sampler}, seed {manifest.sampler_seed}"
        if manifest.repeats > 1:
            yield "Repeats", f"{manifest.repeats} seeds of each configuration that would be the best"
        if manifest.first:
            yield "First configurations", "; ".join(map(_configuration_text, manifest.first))
        if manifest.grid:
            yield "Grid", grid_text(manifest.grid)
        if manifest.prior:
            yield "Prior", priors_text(manifest.prior)
        yield "Early stopping", _scheduler(snapshot)
    if manifest.warm_start:
        yield "Warm start", listed(manifest.warm_start)
    yield from _spent(snapshot)


def _configuration_text(suggestion: Mapping[str, Scalar]) -> str:
    return " ".join(f"{short_name(key)}={value_text(value)}" for key, value in suggestion.items())


def _state(snapshot: Snapshot) -> str:
    running = sum(row["status"] == Status.RUNNING for row in snapshot.rows)
    if snapshot.launcher:
        return f"running: {counted(running, 'trial')} at work when this was written, {moment(snapshot.read_at)}"
    budget = (snapshot.launch.get("budget") or {}).get("trials")
    ended = sum(row["status"] not in (Status.RUNNING, Status.INTERRUPTED) for row in snapshot.rows)
    left = f"; {counted(running, 'trial')} left behind as running" if running else ""
    asked = f" of {budget:,} asked for" if budget and ended < budget else ""
    return f"no launcher at work; {counted(ended, 'trial')} ended{asked}{left}"


def data_words(snapshot: Snapshot) -> str:
    """Return a text about the images, as recorded in the rows."""
    row: Row | None = next((row for row in snapshot.rows if row["levels"] is not None), None)
    name = str(snapshot.manifest.base.get("data.name"))
    if row is None:
        return name
    parts = []
    if row["image_height"] and row["image_width"] and row["image_channels"]:
        parts += [f"{row['image_height']}×{row['image_width']}", counted(row["image_channels"], "channel")]
    parts.append(f"{row['levels']} levels")
    version = "" if row["data_version"] in (None, "original") else f", {row['data_version']}"
    counts = [f"{number(row[f'num_{part}'])} {part}" for part in ("train", "valid") if row[f"num_{part}"]]
    images = f"; {' and '.join(counts)} images" if counts else ""
    return f"{name}{version}: {', '.join(parts)}{images}"


def _scheduler(snapshot: Snapshot) -> str:
    tree = snapshot.manifest.scheduler
    if tree is None:
        return "none"
    settings = ", ".join(
        f"{name} {' and '.join(map(number, value)) if isinstance(value, list) else number(value)}"
        for name, value in tree.items()
        if name != "name" and value is not None
    )
    return f"{tree.get('name', 'asha')}: {settings}"


def _spent(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    rows, attempts = snapshot.rows, snapshot.attempts
    starts = [row["started_at"] for row in attempts if row["started_at"]]
    ends = [row["finished_at"] for row in attempts if row["finished_at"]]
    if starts:
        until = f" to {moment(max(ends))}" if ends else ""
        yield "Trained", f"{moment(min(starts))}{until}"
    images = sum(row["images_seen"] or 0 for row in rows)
    seconds = sum(row["train_seconds"] or 0.0 for row in rows)
    yield "Spent", f"{images:,} training images, {span(seconds)} of training summed over trials"
    gpu = sum(row["gpu_seconds"] or 0.0 for row in rows)
    if gpu:
        yield "GPU time", f"{hours(gpu)} GPU-hours"
    costs = [row["dollars"] for row in rows if row["dollars"] is not None]
    if costs:
        yield "Cost", f"{dollars(sum(costs))} of {counted(len(costs), 'trial')}"
    retried = len(attempts) - len(rows)
    if retried:
        yield "Attempts", f"{counted(len(attempts), 'attempt')}, {retried:,} of them earlier tries of the same trials"
    unranked = [row for row in rows if row["status"] not in RANKED]
    if unranked:
        yield "Without a rank", f"{counted(len(unranked), 'trial')}: see outcomes below"
