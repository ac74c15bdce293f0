"""A final's leaderboard: means over seeds with their noise, and the nats of single test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from pixeltune.format import counted, is_or_are
from pixeltune.report.figures.chart import BEST_COLOURS, Chart, new_figure, plain
from pixeltune.report.sections.leaderboard import Cell, LeaderboardColumn, Line
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import NOTHING, cell, title_of
from pixeltune.results.final_statistics import LEVEL, Difference, leaderboard_of, read_nats
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import bound_mark


@dataclass(frozen=True)
class Finals:
    """The parts about a final.

    places: from `leaderboard_of`. columns, lines: their table. charts: differences and images.
    """

    headline: str
    places: Sequence[Row]
    columns: Sequence[LeaderboardColumn]
    lines: Sequence[Line]
    notes: Sequence[str]
    charts: Sequence[Chart]


def finals(snapshot: Snapshot) -> Finals:
    """Return the parts of a final's folder; StoreError where nats are missing or do not belong to their rows."""
    places = leaderboard_of(snapshot.store)
    return Finals(
        headline=headline(places),
        places=places,
        columns=_columns(snapshot),
        lines=[_line(place, snapshot) for place in places],
        notes=_notes(places),
        charts=[_differences(places), _images(snapshot, places)] if places else [],
    )


def headline(places: Sequence[Row]) -> str:
    """Return the lowest mean, its error, and how many others differ from it."""
    if not places:
        return "No run has finished: the test set has not been read to an end yet."
    first = places[0]
    mark = bound_mark(first)
    mean = _with_error(first["bits_per_dim"], first["bits_per_dim_seeds_error"], 5)
    text = f"Lowest mean: {first['from_trial']} with {mark}{mean} test bits/dim over {counted(first['seeds'], 'seed')}."
    worse = sum(place["verdict"] == Difference.CLEARLY_WORSE for place in places)
    others = len(places) - 1
    if not others:
        return text
    if worse == others:
        return f"{text} All others are clearly worse."
    if worse == 0:
        return (
            f"{text} No other can be distinguished from it: differences are within the noise, or the noise is unknown."
        )
    clearly = f"{worse} of the {others} others {is_or_are(worse)} clearly worse"
    return f"{text} {clearly}; the rest cannot be distinguished from it."


def _columns(snapshot: Snapshot) -> list[LeaderboardColumn]:
    final = snapshot.manifest.final
    assert final is not None
    return [
        LeaderboardColumn("rank", "#", False),
        LeaderboardColumn("from_trial", "trial", True),
        LeaderboardColumn("value", f"{title_of(final.objective)} in {final.search}", False),
        LeaderboardColumn("seeds", "seeds", False),
        LeaderboardColumn("bits_per_dim", "test bits/dim ± standard error", False),
        LeaderboardColumn("nats", "nats/image ± standard error", False),
        LeaderboardColumn("difference_bits_per_dim", "difference ± standard error", False),
        LeaderboardColumn(
            "difference_bits_per_dim_half_width",
            f"half width of its interval ({1 - LEVEL:.0%} for all pairs at once)",
            False,
        ),
        LeaderboardColumn("verdict", "verdict", True),
    ]


def _line(place: Row, snapshot: Snapshot) -> Line:
    final = snapshot.manifest.final
    assert final is not None
    chosen = {item.trial: item.value for item in final.chosen}
    mark = bound_mark(place)
    value = chosen[place["from_trial"]]
    is_first = place["rank"] == 1
    difference = place["difference_bits_per_dim"]
    width = place["difference_bits_per_dim_half_width"]
    return Line(
        "finished",
        [
            Cell(str(place["rank"]), place["rank"]),
            Cell(place["from_trial"], place["from_trial"]),
            Cell(cell(final.objective, value, is_bound=place["is_bound"]), value),
            Cell(str(place["seeds"]), place["seeds"]),
            Cell(
                mark + _with_error(place["bits_per_dim"], place["bits_per_dim_seeds_error"], 5), place["bits_per_dim"]
            ),
            Cell(mark + _with_error(place["nats"], place["nats_seeds_error"], 3), place["nats"]),
            Cell(
                NOTHING
                if is_first
                else "+" * (difference >= 0) + _with_error(difference, place["difference_bits_per_dim_error"], 5),
                difference,
            ),
            Cell(NOTHING if width is None else f"{width:.5f}", width),
            Cell(place["verdict"], place["verdict"]),
        ],
    )


def _with_error(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _notes(places: Sequence[Row]) -> list[str]:
    notes = ["Retrained on train and validation; the test set was read once a run, at its end."]
    if len(places) > 1:
        notes.append(
            "± of bits/dim and nats is one standard error over seeds, of a difference over seeds and images; "
            f"differences are taken image by image. Clearly worse: outside of the {1 - LEVEL:.0%} intervals of both "
            "noises, for all pairs at once."
        )
    if any(place["seeds"] == 1 for place in places):
        notes.append("With one seed the noise of training is not known, and nothing is called worse.")
    return notes


def _differences(places: Sequence[Row]) -> Chart:
    """Return the differences to the lowest mean with the intervals by which they are judged."""
    name, title = "differences", "Differences to the lowest mean"
    others = [place for place in places[1:] if place["difference_bits_per_dim_half_width"] is not None]
    if not others:
        why = "There is one configuration." if len(places) == 1 else "With one seed no interval is known."
        return Chart(name=name, title=title, missing=why)
    shown = list(reversed(others))
    figure = new_figure(
        [
            go.Scatter(
                x=[place["difference_bits_per_dim"] for place in shown],
                y=[plain(place["from_trial"]) for place in shown],
                error_x={
                    "type": "data",
                    "array": [place["difference_bits_per_dim_half_width"] for place in shown],
                    "thickness": 1.5,
                },
                mode="markers",
                marker={"size": 9, "color": "#0072B2"},
                hovertemplate="%{y}: %{x:+.5f}<extra></extra>",
            )
        ],
        xaxis={"title": {"text": f"test bits/dim above {plain(places[0]['from_trial'])}"}},
        yaxis={"type": "category", "showline": False, "ticks": ""},
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": "#444", "width": 1.2, "dash": "dash"})
    text = (
        f"{1 - LEVEL:.0%} intervals of seeds and images, for all pairs at once; one that reaches 0 is within the noise."
    )
    return Chart(
        name=name, title=title, caption=text, figure=figure, height=110 + 36 * len(shown), is_wide=True, alt=text
    )


def _images(snapshot: Snapshot, places: Sequence[Row]) -> Chart:
    """Return the nats of each image, mean over seeds, of the best configurations."""
    shown = places[: len(BEST_COLOURS)]
    stacks = [
        np.stack([read_nats(snapshot.store.images(run)) for run in place["runs"]]).mean(axis=0) for place in shown
    ]
    edges = np.histogram_bin_edges(np.concatenate(stacks), bins=40)
    traces = []
    for place, nats_N, colour in zip(shown, stacks, BEST_COLOURS, strict=False):
        counts, _ = np.histogram(nats_N, bins=edges)
        traces.append(
            go.Scatter(
                x=edges.tolist(),
                y=[*counts.tolist(), 0],
                name=f"{place['rank']}. {plain(place['from_trial'])}",
                mode="lines",
                line={"shape": "hv", "color": colour, "width": 1.6},
                hovertemplate="from %{x:.1f} nats: %{y} images<extra></extra>",
            )
        )
    figure = new_figure(
        traces,
        xaxis={"title": {"text": "nats of a test image, mean over seeds"}},
        yaxis={"title": {"text": "images"}, "rangemode": "tozero"},
    )
    text = f"{counted(len(stacks[0]), 'test image')}; the configurations are compared image by image."
    return Chart(
        name="images", title="Nats of single images", caption=text, figure=figure, height=340, is_wide=True, alt=text
    )
