"""The parts of a report by themselves: lanes, thinning, smoothing, importances, reasons, pictures, commands."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from PIL import Image
from rich.console import Console

from tests.support.made_up_search import HOSTILE, write_results
from tests.support.optional import require
from tests.support.report_pages import READ_AT, made_up, make_final, make_page
from tests.support.results import PAIRS, make_config, make_report, make_row, make_space, make_store

require("plotly", "jinja2")
from pixeltune import files
from pixeltune.cli import command_line
from pixeltune.cli import final as final_verb
from pixeltune.config import TrialConfig, parse_setting
from pixeltune.format import number, size, span
from pixeltune.report.figures.chart import log_ticks, short
from pixeltune.report.figures.curves import learning_curves, thin
from pixeltune.report.figures.fronts import front_charts
from pixeltune.report.figures.importances import FEWEST, importance_charts, importances
from pixeltune.report.figures.key_axes import axes_of, measured
from pixeltune.report.figures.parallel import parallel_coordinates
from pixeltune.report.figures.slices import slice_charts, smooth
from pixeltune.report.figures.timeline import assign_lanes, timeline
from pixeltune.report.page_builder import figure_json
from pixeltune.report.sections.commands import rerun, setting, shown_location
from pixeltune.report.sections.finals import finals
from pixeltune.report.sections.galleries import pictures
from pixeltune.report.sections.outcomes import outcomes
from pixeltune.report.sections.summary import headline
from pixeltune.report.snapshot import Snapshot, read_snapshot
from pixeltune.report.texts import cell
from pixeltune.results.store import SearchStore

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 20)), max_size=40))
def test_no_two_bars_of_a_line_overlap_and_no_line_is_wasted(spans: list[tuple[str, int, int]]) -> None:
    times = [
        (host, BEGIN + timedelta(seconds=start), BEGIN + timedelta(seconds=start + long)) for host, start, long in spans
    ]
    lanes = assign_lanes(times)
    by_lane: dict[tuple[str, int], list[tuple[datetime, datetime]]] = {}
    for (host, start, end), lane in zip(times, lanes, strict=True):
        assert lane[0] == host
        by_lane.setdefault(lane, []).append((start, end))
    for bars in by_lane.values():
        bars.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(bars))
    for host in {host for host, *_ in spans}:
        busiest = max(
            sum(other == host and begin <= start and (start < end or begin == start) for other, begin, end in times)
            for own, start, _ in times
            if own == host
        )
        assert sum(lane[0] == host for lane in by_lane) <= busiest


@given(st.lists(st.floats(1, 9), min_size=1, max_size=200), st.integers(6, 50))
def test_thinning_keeps_the_first_the_last_and_the_best(values: list[float], most: int) -> None:
    points = [{"images_seen": 100 * (index + 1), "bits": value} for index, value in enumerate(values)]
    kept = thin(points, "bits", most)
    assert len(kept) <= most
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert min(values) in [point["bits"] for point in kept]
    assert [point["images_seen"] for point in kept] == sorted({point["images_seen"] for point in kept})
    assert len(points) > most or kept == points


def test_thinned_curves_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.report.figures.curves._MOST_POINTS", 100)
    chart = learning_curves(made_up(tmp_path, statuses=["finished"] * 20, trials=20), 3)
    assert chart.figure is not None
    drawn = sum(y is not None for trace in chart.figure.data for y in trace.y)
    assert 80 <= drawn <= 20 * 6
    assert f"Thinned: {drawn} of 400 reports are drawn" in chart.caption


def test_what_blows_up_is_cut_off_and_counted(tmp_path: Path) -> None:
    store = make_store(tmp_path, "blown")
    for trial in range(20):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0))
        last = 900.0 if trial == 0 else 2.0
        store.write_curve(f"{trial:05d}", 1, [make_report(1600, 3.0), make_report(3200, 2.5), make_report(4800, last)])
    chart = learning_curves(read_snapshot(store), 3)
    assert chart.figure is not None
    assert chart.figure.layout.yaxis.range[1] < 4
    assert "1 report above the upper edge" in chart.caption


def test_smoothing_averages_neighbours_and_tells_nothing_far_from_them() -> None:
    rng = np.random.default_rng(0)
    points_N2 = rng.random((200, 2))
    assert np.nanmax(np.abs(smooth(points_N2, np.full(200, 7.0), 20) - 7.0)) < 1e-9
    rising = smooth(points_N2, points_N2[:, 0], 20)
    assert np.all(np.diff(rising[10]) > 0)
    alone = smooth(np.zeros((12, 2)), np.ones(12), 20)
    assert np.isnan(alone[-1, -1])
    assert alone[0, 0] == 1.0


def importance_search(folder: Path, trials: int) -> Snapshot:
    """bits/dim = 2 + lr's share of its range; layers and mixtures do nothing."""
    rng = np.random.default_rng(1)
    store = make_store(folder, "keys")
    for trial in range(trials):
        kind = "categorical" if trial % 2 else "logistic_mixture"
        share, layers = rng.random(), int(rng.integers(2, 21))
        keys = {"optim.lr": 1e-4 * 100**share, "model.layers": layers}
        if kind == "logistic_mixture":
            keys["likelihood.mixtures"] = int(rng.integers(1, 11))
        row = make_row(trial, valid_bits_per_dim=2 + share) | {"likelihood.mixtures": None}
        store.write_trial(row | make_config("gated", kind).override(keys).flat())
    return read_snapshot(store)


def test_importances_find_the_key_that_matters_and_say_how_few_trials_there_were(tmp_path: Path) -> None:
    found = importances(importance_search(tmp_path, 60))
    assert found is not None
    assert next(iter(found.shares)) == "optim.lr"
    assert found.shares["optim.lr"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.trials, found.best, found.some) == (60, 6, ("likelihood.mixtures",))
    [few] = importance_charts(importance_search(tmp_path / "few", 12))
    assert "the best 5 of 12 finished trials" in few.caption
    assert "Few trials" in few.caption
    [none] = importance_charts(importance_search(tmp_path / "none", FEWEST - 1))
    assert none.figure is None
    assert none.missing == f"Importances need {FEWEST} finished trials, and there are {FEWEST - 1}."


def test_a_key_that_only_some_trials_have_breaks_no_figure(tmp_path: Path) -> None:
    snapshot = importance_search(tmp_path, 20)
    parallel = parallel_coordinates(snapshot)
    assert parallel.figure is not None
    drawn = sum((y is None) for trace in parallel.figure.data for y in trace.y) + len(parallel.figure.data)
    assert drawn == 20
    assert min(y for trace in parallel.figure.data for y in trace.y if y is not None) < 0
    assert "none" in [note.text for note in parallel.figure.layout.annotations]
    [mixtures] = [chart for chart in slice_charts(snapshot) if chart.title == "mixtures"]
    assert mixtures.figure is not None
    assert sum(len(trace.x) for trace in mixtures.figure.data) == 10
    assert mixtures.caption == "10 trials without this key."


def test_slices_have_logarithmic_axes_where_keys_were_drawn_so(tmp_path: Path) -> None:
    snapshot = importance_search(tmp_path, 20)
    kinds = {chart.title: chart.figure.layout.xaxis.type for chart in slice_charts(snapshot) if chart.figure}
    assert kinds["lr"] == "log"
    assert kinds["layers"] != "log"
    [axis] = [axis for axis in axes_of(snapshot, measured(snapshot)) if axis.key == "optim.lr"]
    assert axis.position((axis.low * axis.high) ** 0.5) == pytest.approx(0.5)


def test_reasons_are_grouped_and_every_failed_trial_is_counted(tmp_path: Path) -> None:
    snapshot = made_up(tmp_path, trials=80)
    told = outcomes(snapshot)
    counts = Counter(row["status"] for row in snapshot.rows)
    for status in ("diverged", "oom", "failed", "interrupted", "rejected"):
        [group] = [group for group in told.groups if group.status == status]
        assert group.count == counts[status]
    [failed] = [group for group in told.groups if group.status == "failed"]
    assert failed.traceback.endswith(HOSTILE.splitlines()[-1])


def test_a_bar_stands_for_each_attempt(tmp_path: Path) -> None:
    snapshot = made_up(tmp_path, trials=80)
    chart = timeline(snapshot)
    assert chart.figure is not None
    assert len(snapshot.attempts) > len(snapshot.rows)
    assert sum(len(trace.x) for trace in chart.figure.data) == len(snapshot.attempts)
    by_status = Counter(row["status"] for row in snapshot.attempts)
    assert {trace.name: len(trace.x) for trace in chart.figure.data} == {
        f"{status} ({count})": count for status, count in by_status.items()
    }


def png(side: int, noisy: bool = False) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side)) if noisy else np.zeros((side, side))
    sink = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def test_pictures_are_shown_best_first_within_a_limit_and_what_is_missing_is_said(tmp_path: Path) -> None:
    snapshot = made_up(tmp_path, trials=24)
    best = [row["trial"] for row in snapshot.best(4)]
    files.write_whole(snapshot.store.gallery(best[0]), png(40))
    files.write_whole(snapshot.store.gallery(best[1]), png(100, noisy=True))
    files.write_whole(snapshot.store.gallery(best[2]), b"no picture")
    found = pictures(snapshot, 4, most_bytes=5000)
    assert [(picture.width, picture.height) for picture in found.shown] == [(40, 40)]
    assert found.shown[0].caption.startswith(f"Trial {best[0]}: validation bits/dim")
    assert f"No picture was kept of {best[2]}, {best[3]}" in found.words
    assert f"Left out, so that this file stays small: {best[1]} (10" in found.words
    [command] = found.commands
    words = shlex.split(command.command)
    assert words[:3] == ["pixeltune", "sample", f"toy/{best[2]}"]
    assert words[words.index("--out") + 1] == snapshot.store.gallery(best[2])


SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(SCALARS | TEXTS | st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_a_setting_is_read_back_as_it_was(value: Any) -> None:
    """`data.path` takes text alone, `scheduler.rungs` has no type of its own."""
    for key in ("scheduler.rungs", "data.path") if value is None or isinstance(value, str) else ("scheduler.rungs",):
        [text] = shlex.split(shlex.quote(setting(key, value)))
        assert parse_setting(text) == (key, value)


@pytest.mark.parametrize(("family", "likelihood"), PAIRS)
def test_the_best_configuration_is_read_back_from_the_page(tmp_path: Path, family: str, likelihood: str) -> None:
    config = make_config(family, likelihood).override({"optim.lr": 0.1 + 0.2, "data.path": "/d"})
    store = make_store(tmp_path, "toy")
    store.write_trial(make_row(0, valid_bits_per_dim=2.0) | {"likelihood.mixtures": None} | config.flat())
    [command] = [command.command for command in rerun(read_snapshot(store)) if "<<'END'" in command.command]
    file = tmp_path / "config.toml"
    file.write_text(command.partition("<<'END'\n")[2].partition("END\n")[0], encoding="utf-8")
    assert TrialConfig.from_toml(file) == config.override({"data.path": None})


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("results/digits", "results/digits"),
        ("s3://bucket/results", "s3://bucket/results"),
        ("s3://AKIA:secret@bucket/results?region=eu-west-1&access_key=x", "s3://bucket/results?region=eu-west-1"),
        (
            "s3://bucket/a?endpoint_override=localhost%3A9000&token=t",
            "s3://bucket/a?endpoint_override=localhost%3A9000",
        ),
    ],
)
def test_keys_of_a_storage_are_not_shown(location: str, shown: str) -> None:
    assert shown_location(location) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000873, "0.000873"),
        (16000, "16,000"),
        (3.14159, "3.14"),
        (1234.5, "1,234"),
        (2_500_000.0, "2,500,000"),
        (0.5, "0.5"),
    ],
)
def test_numbers_have_three_digits_and_thousands(value: float, text: str) -> None:
    assert number(value) == text


def test_units_can_be_read() -> None:
    assert [size(900), size(86_200_000), size(2.5e9)] == ["900 B", "86.2 MB", "2.5 GB"]
    assert [span(3.42), span(127), span(10931), span(400_000)] == ["3.42 s", "2:07 min", "3:02:11 h", "111 h"]
    assert cell("valid_bits_per_dim", 1.5, is_bound=True) == "≤ 1.5000"
    assert cell("optim.lr", None) == "–"
    assert [short(16000), short(0.0005), short(2.5e6), short(2e-5)] == ["16k", "0.0005", "2.5M", "2e-5"]


@given(st.floats(1e-6, 1e6), st.floats(1.0, 1e5))
def test_a_logarithmic_axis_has_ticks_that_can_be_read(low: float, ratio: float) -> None:
    axis = log_ticks([low, low * ratio])
    start, end = axis["range"]
    inside = [tick for tick in axis["tickvals"] if start <= np.log10(tick) <= end]
    assert len(inside) <= 12
    assert len(inside) >= 1 or ratio < 2


def test_json_of_a_figure_cannot_end_its_element(tmp_path: Path) -> None:
    chart = timeline(made_up(tmp_path, trials=24))
    text = figure_json(chart)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["data"]


def test_a_report_of_a_search_that_goes_on_is_of_one_moment(tmp_path: Path) -> None:
    """What is written after the search was read is not half in the report."""
    snapshot = made_up(tmp_path, trials=24)
    before = make_page(snapshot)
    write_results(str(tmp_path), "toy", trials=40, seed=1)
    after = make_page(snapshot)
    assert after.board() == before.board()
    assert after.json == before.json


def test_a_training_and_a_search_of_one_key_say_why_there_is_no_figure(tmp_path: Path) -> None:
    one = make_space(vary={"optim.lr": FloatDistribution(1e-4, 1e-2, log=True)})
    assert {chart.missing for chart in importance_charts(searched(tmp_path / "one", one, 12))} == {
        "Fewer than two keys were searched, so that there is nothing to weigh against each other."
    }
    none = searched(tmp_path / "none", make_space(vary={}), 1)
    assert [chart.missing for chart in slice_charts(none)] == ["No key was searched."]
    same = searched(tmp_path / "same", make_space(vary={"model.layers": IntDistribution(2, 20)}), 3)
    assert [chart.missing for chart in slice_charts(same)] == [
        "They need two trials with a result that differ in a key."
    ]


def searched(folder: Path, space: Any, trials: int) -> Snapshot:
    store = make_store(folder, "toy", space)
    for trial in range(trials):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0 + trial))
    return read_snapshot(store, now=READ_AT)


def test_a_search_at_work_says_so_and_its_running_bars_reach_to_the_moment_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up(tmp_path, trials=1, statuses=["running"])
    assert "1 trial left behind as running" in make_page(made).words()
    monkeypatch.setattr(SearchStore, "holder", lambda _: {"pid": 1, "host": "here"})
    now = made.rows[0]["started_at"] + timedelta(hours=5)
    live = read_snapshot(made.store, now=now)
    assert "running: 1 trial at work when this was written" in make_page(live).words()
    bars = [chart.figure.data[0].x for chart in (timeline(made), timeline(live)) if chart.figure]
    assert bars[1] == (5 * 3600 * 1000,)
    assert bars[0] < bars[1]


def test_the_command_of_a_finals_report_asks_for_the_same_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_final(Path("results"), {"00003": 80.0, "00007": 81.0}, seeds=3)
    [again, report] = rerun(made)
    options = command_line().parse_args(shlex.split(again.command)[1:])
    assert options.verb is final_verb.final
    request, selection = final_verb._request(options), made.manifest.final
    assert selection is not None
    asked = {"search": request.search, "top": request.top, "trials": request.trials, "images": request.images}
    assert selection.difference(**asked) == []
    assert (request.seeds, request.store.folder) == (3, made.store.folder)
    assert shlex.split(report.command)[:3] == ["pixeltune", "report", "toy-final"]


def test_the_headline_counts_those_among_which_the_best_was_picked(tmp_path: Path) -> None:
    store = make_store(tmp_path, "bounded", make_space(constraints={"num_parameters": 10}))
    for trial, parameters in enumerate((9, 99, 99, 9)):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0 - trial / 10, num_parameters=parameters))
    assert "trial 00003 with 1.7000. The best of 2 ranked trials" in headline(read_snapshot(store))


def test_a_final_marks_bounds_and_says_of_what_its_intervals_are(tmp_path: Path) -> None:
    snapshot = make_final(tmp_path, {"00001": 80.0, "00002": 81.0, "00003": 82.0})
    for row in snapshot.rows:
        snapshot.store.write_trial(row | {"is_bound": True})
    found = finals(read_snapshot(snapshot.store))
    cells = dict(zip([column.name for column in found.columns], found.lines[0].cells, strict=True))
    assert (cells["value"].text, cells["value"].value) == ("≤ 1.0000", 1.0)
    title = next(column.title for column in found.columns if column.name.endswith("half_width"))
    assert title == "half width of its interval (95% for all pairs at once)"

    assert snapshot.manifest.final is not None
    said = io.StringIO()
    final_verb.show_final(Console(file=said, width=200), snapshot.store, snapshot.manifest.final)
    assert re.search(r"^1 +00001 +≤ 1 +3 +≤ 0\.", said.getvalue(), re.MULTILINE)


def test_a_figure_does_not_call_beaten_what_is_out_of_bounds(tmp_path: Path) -> None:
    space = make_space(objectives=("valid_bits_per_dim", "num_parameters"), scheduler=None)
    store = make_store(tmp_path, "bounded", replace(space, constraints={"network_calls": 10}))
    for trial, (bits, calls) in enumerate(((2.0, 9), (1.0, 99))):
        numbers = {"valid_bits_per_dim": bits, "num_parameters": 5 + trial, "network_calls": calls, "is_bound": True}
        store.write_trial(make_row(trial, **numbers))
    (chart,) = front_charts(read_snapshot(store))
    assert chart.figure is not None
    assert {trace.name: list(trace.y) for trace in chart.figure.data} == {
        "finished, beaten or out of bounds": [1.0],
        "front": [2.0],
    }
    assert [trace.text[0].splitlines()[0] for trace in chart.figure.data] == [
        "00001<br>validation bits/dim ≤ 1.0000<br>parameters 6",
        "00000<br>validation bits/dim ≤ 2.0000<br>parameters 5",
    ]


def test_a_whole_number_among_the_choices_of_a_float_has_its_place(tmp_path: Path) -> None:
    """Also in results of a version that wrote the choices as they were given: a row of 0.0 was not found among them."""
    choices = CategoricalDistribution([0, 0.25])
    space = make_space(base=make_config().override({"model.dropout": 0.25}), vary={"model.dropout": choices})
    store = make_store(tmp_path, "tiny", space)
    for trial, dropout in enumerate((0.25, 0.0)):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0, **{"model.dropout": dropout}))
    manifest = Path(store.folder, "search.json")
    tree = json.loads(manifest.read_bytes())
    del tree["sha256"]
    tree["vary"]["model.dropout"]["attributes"]["choices"] = [0, 0.25]
    manifest.write_text(json.dumps(tree))
    snapshot = read_snapshot(store)
    rows = measured(snapshot)
    [axis] = axes_of(snapshot, rows)
    assert [axis.position(row["model.dropout"]) for row in rows] == [1.0, 0.0]
