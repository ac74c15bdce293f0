"""What a report says is what the results say, whatever strings they hold."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest

from tests.support.made_up_search import HOSTILE, write_results
from tests.support.optional import require
from tests.support.report_pages import READ_AT, Page, made_up, make_final, make_page, points_of
from tests.support.results import make_report, make_row, make_space, make_store

require("plotly", "jinja2")
from pixeltune.published.compare import compare
from pixeltune.report.page_builder import all_charts, report_html
from pixeltune.report.sections.joint_leaderboard import joint_leaderboard
from pixeltune.report.sections.leaderboard import board
from pixeltune.report.snapshot import Snapshot, read_snapshot
from pixeltune.results.dataframes import read_results
from pixeltune.results.final_statistics import leaderboard_of
from pixeltune.results.ranking import leaderboard, status_counts
from pixeltune.results.store import SearchStore
from pixeltune.space import Asha


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return make_page(made_up(folder, trials=40))


def test_the_numbers_of_the_table_are_those_of_the_results(folder: Path, page: Page) -> None:
    frame = read_results(str(folder / "toy")).set_index("trial")
    names = (
        "valid_bits_per_dim",
        "valid_nats",
        "num_parameters",
        "sample_images_per_second",
        "optim.lr",
        "model.layers",
    )
    lines = page.board()
    assert {line["trial"][1] for line in lines} == set(frame.index)
    for line in lines:
        row = frame.loc[line["trial"][1] or ""]
        assert line["status"][1] == row["status"]
        for name in names:
            known = row[name] == row[name] and row["status"] != "running"
            if known:
                assert float(line[name][1] or "nan") == row[name], name


def test_the_order_is_the_leaderboards_and_only_results_have_a_rank(folder: Path, page: Page) -> None:
    rows = SearchStore(str(folder), "toy").trials()
    places = leaderboard(rows)
    lines = page.board()
    ranked = [line for line in lines if line["rank"][1] is not None]
    assert lines[: len(ranked)] == ranked
    assert [(int(line["rank"][1] or 0), line["trial"][1]) for line in ranked] == [
        (place["rank"], place["trial"]) for place in places
    ]
    assert [float(line["below_baseline_percent"][1] or 0) for line in ranked] == [
        place["below_baseline_percent"] for place in places
    ]
    assert {line["status"][1] for line in ranked} == {"finished", "pruned"}


def test_the_head_names_models_data_and_ranges(page: Page) -> None:
    assert "Search of gated models on cifar10: 32×32, 3 channels, 256 levels" in page.words()
    ranges = (
        "likelihood categorical | logistic_mixture",
        "layers 6…20",
        "channels 32…256 (step 32)",
        "lr 2e-4…3e-3 (log)",
    )
    for text in ranges:
        assert text in page.words()


def test_the_best_trials_are_marked_and_numbers_follow_the_name(folder: Path) -> None:
    snapshot = made_up(folder / "marked", trials=40)
    found = board(snapshot, 3)
    assert [column.name for column in found.columns[:3]] == ["rank", "trial", "valid_bits_per_dim"]
    assert [column.is_pinned for column in found.columns] == [True] * 3 + [False] * (len(found.columns) - 3)
    assert [line.cells[0].value for line in found.lines if line.is_best] == [1, 2, 3]
    assert found.notes[-1] == "★ marks the best 3 trials."
    page = make_page(snapshot, top=3)
    assert [given.get("class") for tag, given in page.tags if tag == "tr" and given.get("class")][:3] == ["best"] * 3


def test_statuses_are_counted_and_pruned_trials_say_where_they_stood(folder: Path, page: Page) -> None:
    counts = status_counts(SearchStore(str(folder), "toy").trials())
    for status, count in counts.items():
        assert f"{count} {status}" in page.words()
        assert page.statuses.count(status) == count
    for line in page.board():
        text, status = line["status"]
        if status == "pruned":
            assert text == f"pruned at {int(line['images_seen'][1] or 0):,}"


def test_published_numbers_are_those_of_compare_and_none_is_called_comparable(folder: Path, page: Page) -> None:
    best = leaderboard(SearchStore(str(folder), "toy").trials())[0]
    frame = read_results(str(folder / "toy"))
    known = compare(frame[frame["trial"] == best["trial"]])
    [table] = [table for name, table in page.tables.items() if table and table[0] and table[0][0][0] == "model"]
    assert len(table) > 10
    for model, year, published, comparable, words, ours, _gap, _ in table[1:]:
        row = known[(known["model"] == model[0]) & (known["published"] == float(published[1] or 0))].iloc[0]
        assert float(ours[1] or 0) == row["ours"] == best["valid_bits_per_dim"]
        assert year[0] == str(row["year"])
        assert comparable[0] == "no"
        assert words[0].startswith(row["why_not"])
        assert "validation, not test" in words[0]
    assert "cannot be compared with published test numbers" in page.words()


def test_strings_of_the_results_are_text_and_nothing_else(page: Page) -> None:
    assert HOSTILE.split("\u2028")[0] in page.text
    assert "<script>window" not in page.html
    assert [script.get("type") for script in page.scripts].count(None) == 1
    assert not [tag for tag, _ in page.tags if tag == "b"]
    hover = [text for trace in page.json["data-timeline"]["data"] for text in trace["text"]]
    told = [text for text in hover if "window.broken" in text]
    assert told
    assert all("<script" not in text and "&lt;script&gt;" in text for text in told)


def test_nothing_is_asked_of_the_network(page: Page) -> None:
    for tag, given in page.tags:
        if tag != "a":
            for name in ("src", "href", "srcset", "action", "data"):
                assert (given.get(name) or "data:").startswith("data:"), (tag, given)
    assert not page.html.count("@import")


def test_a_report_is_the_same_twice(folder: Path) -> None:
    snapshot = made_up(folder / "again", trials=30)
    assert report_html(snapshot) == report_html(snapshot)


def test_the_environment_of_a_process_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:hunter2@proxy")
    html = report_html(made_up(tmp_path))
    assert "wJalrXUtnFEMI" not in html
    assert "hunter2" not in html


def test_every_point_of_the_curves_is_a_report_and_none_is_missing(folder: Path, page: Page) -> None:
    figure = page.json["data-curves"]
    values = {report["valid_bits_per_dim"] for report in SearchStore(str(folder), "toy").curves()}
    assert set(points_of(figure, "y")) == values
    assert figure["layout"]["xaxis"]["type"] == "log"
    texts = [note["text"] for note in figure["layout"]["annotations"]]
    assert texts[0] == "order-0 baseline 6.9000 (validation)"
    assert texts[1].endswith("(test; not comparable)")


def test_bounds_are_marked(tmp_path: Path) -> None:
    store = make_store(tmp_path, "bound", baseline_bits_per_dim=3.0)
    facts = {"levels": 17, "data_checksum": "a", "evaluated_split": "valid", "is_bound": True}
    store.write_trial(make_row(0, valid_bits_per_dim=2.0, valid_nats=90.0, **facts))
    store.write_curve("00000", 1, [make_report(1600)])
    snapshot = read_snapshot(store)
    [line] = board(snapshot).lines
    assert "≤ 2.0000" in [cell.text for cell in line.cells]
    page = make_page(snapshot)
    assert "with ≤ 2.0000" in page.words()
    assert page.json["data-curves"]["layout"]["yaxis"]["title"]["text"] == "validation bits/dim (upper bound)"


def test_binarised_images_are_told_in_nats(tmp_path: Path) -> None:
    store = make_store(tmp_path, "binary", baseline_bits_per_dim=0.3)
    form = {"levels": 2, "image_channels": 1, "image_height": 28, "image_width": 28}
    store.write_trial(make_row(0, valid_bits_per_dim=0.2, valid_nats=110.0, **form))
    store.write_curve("00000", 1, [make_report(1600, 0.2, valid_nats=110.0)])
    snapshot = read_snapshot(store)
    assert snapshot.baseline() == pytest.approx(0.3 * 784 * 0.6931471805599453)
    assert points_of(make_page(snapshot).json["data-curves"], "y") == [110.0]


def test_running_trials_stand_with_their_best_report_so_far_and_no_rank(tmp_path: Path) -> None:
    store = make_store(tmp_path, "runs")
    store.write_trial(make_row(0, status="running"))
    store.write_curve("00000", 1, [make_report(1600, 2.5), make_report(3200, 2.25), make_report(4800, 2.375)])
    [line] = make_page(read_snapshot(store)).board()
    assert line["valid_bits_per_dim"][1] == "2.25"
    assert line["status"] == ("running at 4,800", "running")
    assert "rank" not in line


def test_a_final_has_the_numbers_of_its_leaderboard(tmp_path: Path) -> None:
    snapshot = make_final(tmp_path, {"00003": 80.0, "00007": 80.05, "00001": 95.0})
    page = make_page(snapshot)
    lines = page.tables["configurations"][1:]
    places = leaderboard_of(snapshot.store)
    assert [line[1][1] for line in lines] == [place["from_trial"] for place in places]
    for line, place in zip(lines, places, strict=True):
        assert float(line[4][1] or 0) == place["bits_per_dim"]
        assert float(line[5][1] or 0) == place["nats"]
        assert float(line[6][1] or 0) == place["difference_bits_per_dim"]
        assert line[8][1] == place["verdict"]
        assert f"± {place['nats_seeds_error']:.3f}" in line[5][0]
    assert "1 of the 2 others is clearly worse; the rest cannot be distinguished" in page.words()
    assert "yes" in {line[3][0] for line in next(t for t in page.tables.values() if t[0][0][0] == "model")[1:]}


def test_within_the_noise_nobody_wins(tmp_path: Path) -> None:
    words = make_page(make_final(tmp_path, {"00003": 80.0, "00007": 80.05}, noise=2.0)).words()
    assert "No other can be distinguished from it" in words
    assert "clearly worse." not in words
    assert "noise is unknown" in make_page(make_final(tmp_path / "one", {"3": 80.0, "7": 99.0}, seeds=1)).words()


@pytest.mark.parametrize(
    ("trials", "statuses", "changes"),
    [
        (0, (), {}),
        (1, ("finished",), {}),
        (1, ("running",), {}),
        (3, ("running", "failed", "diverged"), {}),
        *((2, (status,) * 2, {}) for status in ("failed", "diverged", "oom", "rejected", "interrupted", "pruned")),
        (2, ("finished", "pruned"), {}),
        (30, (), {"objectives": ("valid_bits_per_dim", "sample_images_per_second")}),
        (30, (), {"objectives": ("sample_images_per_second",), "scheduler": None}),
        (30, (), {"constraints": {"num_parameters": 5e6}}),
        (12, ("finished",) * 12, {"vary": {}, "scheduler": Asha((320_000,))}),
    ],
)
def test_a_report_can_be_made_of_any_search(
    tmp_path: Path, trials: int, statuses: tuple[str, ...], changes: dict[str, object]
) -> None:
    page = make_page(made_up(tmp_path, trials=trials, statuses=statuses, **changes))
    assert len(page.statuses) == trials
    plots = {given["id"] for tag, given in page.tags if tag == "div" and given.get("class") == "plot"}
    assert plots == {name.replace("data-", "plot-") for name in page.json}
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2")]
    assert headings.count("h1") == 1
    for name, figure in page.json.items():
        assert any(len(trace.get("x", ())) for trace in figure["data"]), name


def two_searches(folder: Path) -> list[Snapshot]:
    stores = [write_results(str(folder), name, trials=24, seed=seed) for seed, name in enumerate(("one", "two"))]
    return [read_snapshot(store, now=READ_AT) for store in stores]


def test_several_searches_are_one_page_with_a_leaderboard_of_all(tmp_path: Path) -> None:
    both = two_searches(tmp_path)
    found = joint_leaderboard(both, 3)
    expected = sorted(
        (place["valid_bits_per_dim"], snapshot.search, place["trial"]) for snapshot in both for place in snapshot.places
    )
    at = [column.name for column in found.board.columns].index
    cells = [
        [line.cells[at(name)].value for name in ("valid_bits_per_dim", "search", "trial")] for line in found.board.lines
    ]
    assert list(map(tuple, cells)) == expected
    assert [line.cells[0].value for line in found.board.lines] == list(range(1, len(expected) + 1))
    assert sum(line.is_best for line in found.board.lines) == 3
    assert f"{expected[0][1]}/{expected[0][2]} with {expected[0][0]:.4f}" in found.headline

    page = Page(report_html(both))
    ids = [given["id"] for _, given in page.tags if given.get("id")]
    assert len(ids) == len(set(ids))
    assert len(page.tables["one-board"]) == len(page.tables["two-board"]) == 25
    assert len(page.tables["all-board"]) == len(expected) + 1
    links = [
        str(given["href"])[1:] for tag, given in page.tags if tag == "a" and str(given.get("href")).startswith("#")
    ]
    assert set(links) <= set(ids)
    alone = {name: make_page(snapshot).json for name, snapshot in zip(("one", "two"), both, strict=True)}
    assert page.json == {
        f"data-{name}-{figure.removeprefix('data-')}": drawn for name in alone for figure, drawn in alone[name].items()
    }
    assert {chart.name for chart in all_charts(both, 5)} == {name.removeprefix("data-") for name in page.json}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data_checksum": "another"}, "ranked rows must agree in data_checksum"),
        ({"levels": 17}, "ranked rows must agree in levels"),
    ],
)
def test_searches_of_different_images_are_not_ranked_together(
    tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    one, two = two_searches(tmp_path)
    for row in two.attempts:
        two.store.write_trial(dict(row) | changes)
    both = [one, read_snapshot(two.store, now=READ_AT)]
    found = joint_leaderboard(both, 3)
    assert found.board.lines == []
    assert why in found.headline
    page = Page(report_html(both))
    assert why in page.words()
    assert "all-board" not in page.tables
    assert len(page.statuses) == 48


def test_a_final_and_a_failed_search_are_named_and_not_ranked(tmp_path: Path) -> None:
    one = two_searches(tmp_path)[0]
    failed = read_snapshot(write_results(str(tmp_path), "lost", trials=2, statuses=["failed"] * 2), now=READ_AT)
    final = make_final(tmp_path, {"00003": 80.0, "00007": 85.0})
    page = Page(report_html([one, final, failed]))
    assert "Not here: toy-final, whose numbers are means on the test set. Without a ranked trial: lost." in page.words()
    assert len(page.tables["all-board"]) == len(one.places) + 1
    assert "toy-final-configurations" in page.tables
    assert joint_leaderboard([failed, final], 3).headline.startswith("Not here: toy-final")


UNREADABLE = {
    "a family of another installation": {"model.family": "mine"},
    "a likelihood of another installation": {"likelihood.name": "mine"},
    "both": {"model.family": "mine", "likelihood.name": "mine"},
    "no configuration": dict.fromkeys(["model.family", "likelihood.name", "optim.lr", "model.layers"]),
}


@pytest.mark.parametrize("changes", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("varied", [True, False])
@pytest.mark.parametrize("status", ["finished", "pruned", "failed", "running"])
def test_a_report_needs_no_configuration_that_this_installation_can_read(
    tmp_path: Path, status: str, changes: dict[str, str], varied: bool
) -> None:
    store = make_store(tmp_path, "foreign", make_space() if varied else make_space(vary={}))
    manifest = Path(store.folder, "search.json")
    tree = json.loads(manifest.read_bytes())
    del tree["sha256"]
    tree["base"] |= changes
    manifest.write_text(json.dumps(tree), encoding="utf-8")
    ranked = status in ("finished", "pruned")
    numbers = {"valid_bits_per_dim": 2.5, "levels": 17} if ranked else {"reason": "ModuleNotFoundError: no mine"}
    for trial in range(12):
        store.write_trial(make_row(trial, status=status, **numbers) | changes)
    page = make_page(read_snapshot(store))
    assert page.statuses == [status] * 12
    assert ("trial 00000 with 2.5000" in page.words()) is ranked
    if not ranked:
        assert (
            f"None of 12 trials has a result to rank: 12 {status}. The most frequent reason: ModuleNo" in page.words()
        )


@pytest.mark.parametrize("status", ["failed", "diverged", "interrupted", "running"])
@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_final_is_reported_at_any_number_of_finished_runs(tmp_path: Path, status: str, finished: int) -> None:
    snapshot = make_final(tmp_path, {"00003": 80.0, "00007": 85.0})
    for row in snapshot.rows[finished:]:
        snapshot.store.write_trial(row | {"status": status, "test_nats": None, "test_bits_per_dim": None})
    page = make_page(read_snapshot(snapshot.store))
    assert page.statuses.count(status) == 6 - finished
    assert ("No run has finished" in page.words()) is (finished == 0)


def test_the_page_holds_the_library_that_draws_its_figures(page: Page) -> None:
    script = gzip.decompress(base64.b64decode(page.scripts_of("plotly-js"))).decode()
    assert "Licensed under the MIT license" in script[:400]
    kinds = {trace["type"] for figure in page.json.values() for trace in figure["data"]}
    assert kinds == {"scatter", "bar", "contour"}, "another kind may need WebGL"
