"""All files of a paper, from a final to one folder; the bundle's manifest is the last."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow.parquet as pq

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.errors import CheckpointError, MissingPackageError, PixeltuneError, StoreError, first_line
from pixeltune.format import counted, minutes
from pixeltune.own_code import reason_to_skip
from pixeltune.packages import require_packages
from pixeltune.paper.bundle import MANIFEST_NAME, Manifest, make_bundle, run_config, without_folders
from pixeltune.paper.bundle_check import stated_text
from pixeltune.paper.figures import PlottedCurve, curves_of, draw_curves, draw_samples
from pixeltune.paper.render import printed_mean, require_faithful, to_latex, to_markdown
from pixeltune.paper.rows import FinishedFinal, PaperTable, make_table, to_json, to_parquet
from pixeltune.paper.works import bibtex, parse_bibtex, work_of
from pixeltune.published.table import PublishedResult
from pixeltune.report.sections.commands import final_words
from pixeltune.results.final_selection import Selection
from pixeltune.results.final_statistics import first_choice
from pixeltune.results.parquet_io import Row
from pixeltune.results.store import SearchStore

BUNDLE = "bundle"
_SAMPLING_SECONDS = 120.0
"""Samples that take longer are drawn only where their number was asked for."""
_SAMPLES = 36

_VERSION_COLUMNS = {
    "pixeltune": "pixeltune_version",
    "code": "git_commit",
    "Python": "python_version",
    "PyTorch": "torch_version",
    "Ray": "ray_version",
    "Optuna": "optuna_version",
    "processor": "cpu_name",
    "GPU": "gpu_name",
}


@dataclass(frozen=True, kw_only=True)
class PaperRequest:
    """The options of a paper.

    Attributes:
        store: The final.
        final: Its runs.
        others: Other finals whose rows join the tables.
        weights: Where the weights of each run of the bundled configuration are, by trial.
        own: Published results that the user adds.
        published: How many published rows are shown; None for all of the data set.
        digits: Decimals of our bits/dim; None chooses.
        samples: How many samples are drawn; None for as many as take little time.
        search_store: The search that the final retrains; its curves are drawn where it is there.
    """

    store: SearchStore
    final: FinishedFinal
    others: Sequence[FinishedFinal] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    own: Sequence[PublishedResult] = ()
    published: int | None = None
    digits: int | None = None
    samples: int | None = None
    search_store: SearchStore | None = None


@dataclass(frozen=True)
class Written:
    """The result of writing. names: files. missing: what was left out and why, by line. stated: the bundled mean."""

    names: Sequence[str]
    missing: Sequence[str]
    stated: str
    digest: str


def bundled_place(store: SearchStore, final: FinishedFinal) -> Row:
    """Return the configuration that is bundled: the one that validation put first, of those with a finished run."""
    return first_choice(final.places, _selection(store))


def write_paper(request: PaperRequest, folder: str) -> Written:
    """Write all files into a folder that is new or empty.

    Raises:
        StoreError: The finals do not fit together, or a file of a run is not the one of its row.
        OSError: The folder cannot be written.
    """
    table = make_table([request.final, *request.others], own=request.own, most=request.published, digits=request.digits)
    place = bundled_place(request.store, request.final)
    bundle = _bundle(request, table, place)
    manifest = Manifest.from_bytes(bundle[MANIFEST_NAME])
    missing: list[str] = []
    contents = _tables(table, request.final.search)
    contents |= _figures(request, place, missing.append)
    contents |= _configuration(request, place, manifest, tuple(contents))
    contents |= {f"{BUNDLE}/{name}": content for name, content in bundle.items()}
    for name, content in contents.items():
        files.write_whole(files.join(folder, *name.split("/")), content)
    return Written(tuple(contents), tuple(missing), stated_text(manifest), manifest.digest)


def _tables(table: PaperTable, search: str) -> dict[str, bytes]:
    """Return the tables and references, after they were read back."""
    parquet = to_parquet(table)
    tex, references = to_latex(table, search), bibtex(work_of(result) for result in table.published)
    lines = [line for line in pq.read_table(io.BytesIO(parquet), use_threads=False).to_pylist() if line["is_shown"]]
    require_faithful(tex, lines)
    known = parse_bibtex(references)
    for line in lines:
        if line["citation_key"] is not None and line["citation_key"] not in known:
            raise StoreError(f"references must have each cited work, but they lack {line['citation_key']}")
    return {
        "table.tex": tex.encode(),
        "table.md": to_markdown(table).encode(),
        "references.bib": references.encode(),
        "tables.parquet": parquet,
        "tables.json": to_json(table),
    }


def _bundle(request: PaperRequest, table: PaperTable, place: Row) -> dict[str, bytes]:
    from pixeltune.training.weights import read_weights, with_config

    contents: dict[str, bytes] = {}
    for row in _runs(request.final, place):
        trial, location = row["trial"], request.weights[row["trial"]]
        content = read_weights(location)
        try:
            weights = with_config(content, partial(_of_row, row=row))
        except CheckpointError as error:
            raise StoreError(f"{error} (in {location}); put the right file back") from None
        contents[f"weights-{trial}.safetensors"] = weights
        contents[f"nats-{trial}.parquet"] = files.read_whole(request.store.images(trial))
    line = next(row for row in table.rows if (row.search, row.runs) == (request.final.search, tuple(place["runs"])))
    return make_bundle(request.final, place, _selection(request.store), contents, printed_mean(line, table.digits))


def _of_row(config: TrialConfig, row: Row) -> TrialConfig:
    """Return a configuration without folders; CheckpointError where it is not the one of a row."""
    if config.key() != row["config_key"]:
        raise CheckpointError(
            f"weights must be of configuration {row['config_key']} as their row says, but got {config.key()}"
        )
    return without_folders(config)


def _figures(request: PaperRequest, place: Row, miss: Callable[[str], None]) -> dict[str, bytes]:
    """Return the figures that can be drawn; `miss` is called with a line for each that cannot."""
    try:
        require_packages("figures: drawing them", "matplotlib")
    except MissingPackageError as error:
        miss(str(error))
        return {}
    found: dict[str, bytes] = {}
    curves = [*_final_curves(request), *_search_curves(request, miss)]
    if curves:
        title = f"{request.final.search}: {counted(len(request.final.rows), 'run')}"
        found |= {f"curves.{kind}": content for kind, content in draw_curves(curves, title).items()}
    else:
        miss("no curves: no run has reports")
    return found | _samples(request, place, miss)


def _final_curves(request: PaperRequest) -> Iterator[PlottedCurve]:
    for row in request.final.rows:
        origin = row["from_trial"]
        name = f"{origin}, training loss of each seed"
        curve = curves_of(origin, name, request.store.curve(row["trial"]), "train", "-")
        if curve is not None:
            yield curve


def _search_curves(request: PaperRequest, miss: Callable[[str], None]) -> Iterator[PlottedCurve]:
    """Yield the curves of the trials that the final retrains, where the results of their search are still there."""
    search = request.search_store
    if search is None or not search.exists():
        miss(f"no curves of the search {_selection(request.store).search}: its results are not in the storage")
        return
    for origin in dict.fromkeys(row["from_trial"] for row in request.final.rows):
        reports = search.curve(origin)
        for split, style, label in (("train", ":", "training loss"), ("valid", "--", "validation")):
            curve = curves_of(origin, f"{origin}, {label} in the search", reports, split, style)
            if curve is not None:
                yield curve


def _samples(request: PaperRequest, place: Row, miss: Callable[[str], None]) -> dict[str, bytes]:
    if request.samples == 0:
        return {}
    from pixeltune.sampling import forecast, labels_in_turn, sample
    from pixeltune.training.weights import load_with_config
    from pixeltune.training.workers import best_device

    trial, count = place["runs"][0], request.samples or _SAMPLES
    model = load_with_config(request.weights[trial]).model.to(best_device())
    try:  # a lack of memory costs this figure alone; torch reports one on a CPU as a RuntimeError
        seconds = forecast(model, count) if request.samples is None else 0.0
        if seconds > _SAMPLING_SECONDS:
            miss(f"no samples: {count} take about {minutes(seconds)} on this machine; --samples {count} draws them")
            return {}
        images = sample(model, count, labels=labels_in_turn(model, count), seed=0).numpy()
    except PixeltuneError as error:
        miss(f"no samples: {first_line(error)}")
        return {}
    except Exception as error:
        miss(f"no samples: {reason_to_skip(error)}")
        return {}
    title = f"{count} samples of {request.final.search}/{trial}, seed 0"
    return {f"samples.{kind}": content for kind, content in draw_samples(images, model.form.levels, title).items()}


def _configuration(request: PaperRequest, place: Row, manifest: Manifest, names: Sequence[str]) -> dict[str, bytes]:
    """Return config.toml, of the bundle's first run, and README.md."""
    selection, row = _selection(request.store), _runs(request.final, place)[0]
    config = run_config(selection, row)
    command = shlex.join(final_words(selection, request.final.search, len(request.final.rows)))
    return {
        "config.toml": config.to_toml().encode(),
        "README.md": _readme(request, manifest, row, command, names).encode(),
    }


def _readme(request: PaperRequest, manifest: Manifest, row: Row, command: str, names: Sequence[str]) -> str:
    seeds = ", ".join(str(run.seed) for run in manifest.runs)
    lines = [
        f"# {request.final.search}",
        "",
        f"The configuration that validation put first, {manifest.from_search}/{manifest.from_trial}: test "
        f"{stated_text(manifest)}; ± is one standard error over seeds. `table.tex` needs `\\usepackage{{booktabs}}`; "
        "its numbers are in full in `tables.parquet` and `tables.json`, its works in `references.bib`.",
        "",
        f"Files: {', '.join(f'`{name}`' for name in names)}, and `{BUNDLE}/`.",
        "",
        "## Check the numbers",
        "",
        "```console",
        f"$ pixeltune verify {BUNDLE}    # --data PATH names the images, --images N recomputes the first N",
        "```",
        "",
        f"The digest of the bundle is `{manifest.digest}`: it covers every file in it.",
        "",
        "## Train again",
        "",
        "```console",
        f"$ {command}",
        "```",
        "",
        f"retrains what the search chose. `config.toml` is configuration `{row['config_key']}` with seed "
        f"{row['seed']}; the runs (seeds {seeds}) differ in nothing else. It trains on the validation images too, as a "
        'final does: in Python `pt.fit(pt.TrialConfig.from_toml("config.toml"))`. To keep validation apart:',
        "",
        "```console",
        "$ pixeltune train --config config.toml --set data.train_on_valid=false",
        "```",
        "",
        "## Versions",
        "",
        *(f"- {name}: {value}" for name, value in _versions(request.final.rows)),
    ]
    return "\n".join(lines) + "\n"


def _versions(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for name, column in _VERSION_COLUMNS.items():
        values = dict.fromkeys(str(row[column]) for row in rows if row[column] is not None)
        if values:
            yield name, ", ".join(values)


def _runs(final: FinishedFinal, place: Row) -> list[Row]:
    return [row for row in final.rows if row["trial"] in place["runs"]]


def _selection(store: SearchStore) -> Selection:
    selection = store.manifest().final
    assert selection is not None, "it was read as a final"
    return selection
