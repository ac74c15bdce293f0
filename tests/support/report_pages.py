"""Reports of made-up searches, and what a page says, for tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from pixeltune.report.snapshot import Snapshot, read_snapshot
from pixeltune.results.final_selection import Chosen, Selection
from pixeltune.results.final_statistics import write_images
from pixeltune.space import FinalSpace, Resources
from tests.support.made_up_search import write_results
from tests.support.results import NOW, make_config, make_row, make_store

READ_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
OUTCOMES = ("finished", "pruned", "diverged", "oom", "failed", "interrupted", "rejected", "running")


def made_up(folder: Path, trials: int = 24, **how: Any) -> Snapshot:
    """A search `toy` with every outcome among its first trials, as read."""
    statuses = how.pop("statuses", OUTCOMES)
    return read_snapshot(write_results(str(folder), "toy", trials=trials, statuses=statuses, **how), now=READ_AT)


def make_final(
    folder: Path, means: dict[str, float], *, seeds: int = 3, images: int = 200, noise: float = 0.5
) -> Snapshot:
    """A final `toy-final` of binarised images: of each trial its true mean of nats, and what seeds add."""
    rng = np.random.default_rng(0)
    config = make_config()
    chosen = tuple(
        Chosen(
            trial=trial,
            value=1.0 + place / 10,
            config=config.flat(),
            images=6400,
            best_images=6400,
            workers=1,
            cpus=1,
            gpus=0.0,
        )
        for place, trial in enumerate(means)
    )
    told = {"objective": "valid_bits_per_dim", "direction": "minimize", "top": len(means), "trials": (), "images": None}
    selection = Selection(search="toy", data_checksum="abc", chosen=chosen, **told)
    space = FinalSpace.of(selection.configs(), search="toy", seeds=selection.seeds(seeds), resources=Resources())
    store = make_store(folder, "toy-final", space, final=selection)
    store.write_launch({"budget": {"trials": len(means) * seeds}})
    hard_N = rng.normal(0, 5, images)
    for number, (origin, run) in enumerate(zip(space.origins, space.configs, strict=True)):
        trial = origin["from_trial"]
        nats_N = np.float32(means[str(trial)] + noise * rng.normal() + hard_N + rng.normal(0, 0.5, images)).astype(
            np.float64
        )
        told_nats = math.fsum(nats_N) / images
        form = {"levels": 2, "image_channels": 1, "image_height": 28, "image_width": 28, "data.name": "mnist_static"}
        row = make_row(number, **form, is_bound=False, evaluated_split="test", data_version="original", finished_at=NOW)
        row |= {
            **origin,
            "seed": run.seed,
            "test_nats": told_nats,
            "test_bits_per_dim": told_nats / (784 * math.log(2)),
        }
        store.write_trial(row | {"data_checksum": "abc", "images_seen": 6400, "data.binarise": "static"})
        reports = [{"reported_at": NOW, "images_seen": seen, "train_nats": 90.0 - seen / 1600} for seen in (3200, 6400)]
        store.write_curve(f"{number:05d}", 1, reports)
        write_images(
            store.images(f"{number:05d}"),
            nats_N,
            None,
            is_bound=False,
            search="toy-final",
            trial=f"{number:05d}",
            attempt=1,
        )
    return read_snapshot(store, now=READ_AT)


class Page(HTMLParser):
    """What a parser of HTML finds: tables of cells (text, data-value), scripts, JSON by id, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.statuses: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, Any] = {}
        self._packed: dict[str, str] = {}
        self.text = ""
        self._stack: list[tuple[str, dict[str, str | None]]] = []
        self._table: list[list[tuple[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._stack.append((tag, given))
        if tag == "table":
            self._table = self.tables[given.get("id") or f"table-{len(self.tables)}"] = []
        if tag == "tr":
            self._table.append([])
            self.statuses += [given["data-status"] or ""] if "data-status" in given else []
        if tag in ("td", "th"):
            self._table[-1].append(("", given.get("data-value")))
        if tag == "script":
            self.scripts.append(given)

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, given = self._stack[-1] if self._stack else ("", {})
        if tag == "script" and given.get("type") == "application/json":
            self.json[str(given["id"])] = json.loads(data)
        elif tag == "script" and "id" in given:
            self._packed[str(given["id"])] = data
        elif tag not in ("script", "style"):
            self.text += data
        for inner, _ in reversed(self._stack):
            if inner in ("td", "th"):
                text, value = self._table[-1][-1]
                self._table[-1][-1] = (text + data, value)
                return

    def board(self) -> list[dict[str, tuple[str, str | None]]]:
        """The table of trials, by the names of the results' columns."""
        names = [str(given["data-name"]) for tag, given in self.tags if tag == "th" and "data-name" in given]
        return [dict(zip(names, cells, strict=True)) for cells in self.tables["board"][1:]]

    def scripts_of(self, name: str) -> str:
        """The content of a script that is no JSON, by its id."""
        return self._packed[name]

    def words(self) -> str:
        """All text, spaces as one."""
        return " ".join(self.text.split())


def make_page(snapshot: Snapshot, top: int = 5) -> Page:
    from pixeltune.report.page_builder import report_html

    return Page(report_html(snapshot, top=top))


def points_of(figure: dict[str, Any], axis: str) -> Sequence[float]:
    """The numbers of all traces on one axis."""
    return [value for trace in figure["data"] for value in trace[axis] if value is not None]
