"""A paper's tables: every printed number is that of the Parquet file, every row that does not compare says why."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pixeltune.errors import StoreError
from pixeltune.paper.render import numbers_of_latex, require_faithful, to_latex, to_markdown
from pixeltune.paper.rows import FinishedFinal, PaperTable, finished_final, make_table, to_json, to_parquet
from pixeltune.paper.works import bibtex, escape_tex, parse_bibtex, parse_works, published_works, source_of, work_of
from pixeltune.published.table import Exactness, PublishedResult, own_results, published_results
from pixeltune.results.store import SearchStore
from tests.support.report_pages import make_final

MEANS = {"00007": 80.2, "00003": 80.9}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SearchStore:
    """A final of two configurations of binarised MNIST, three seeds each."""
    found = make_final(tmp_path_factory.mktemp("made"), MEANS).store
    for row in found.trials():
        found.write_trial(row | {"num_parameters": 113_553})
    return found


@pytest.fixture(scope="module")
def final(store: SearchStore) -> FinishedFinal:
    return finished_final(store)


def changed(final: FinishedFinal, search: str = "other-final", **columns: Any) -> FinishedFinal:
    """Another final of the same nats, whose rows differ in these columns."""
    places = [place | {"search": search, "is_bound": columns.get("is_bound", False)} for place in final.places]
    return FinishedFinal(search=search, rows=[row | columns for row in final.rows], places=places)


def lines_of(table: PaperTable) -> list[dict[str, Any]]:
    """The shown lines of the Parquet file."""
    lines: list[dict[str, Any]] = pq.read_table(io.BytesIO(to_parquet(table)), use_threads=False).to_pylist()
    return [line for line in lines if line["is_shown"]]


def body(tex: str) -> list[str]:
    return [line for line in tex.partition(r"\midrule")[2].split("\n") if line.endswith(r" \\")]


@pytest.mark.parametrize("digits", [None, 0, 1, 2, 5, 9])
@pytest.mark.parametrize("most", [None, 4], ids=["all", "few"])
def test_every_number_of_the_latex_table_is_that_of_the_parquet_file(
    final: FinishedFinal, digits: int | None, most: int | None
) -> None:
    """Read with other code than the product's own check."""
    table = make_table([final], digits=digits, most=most)
    lines = lines_of(table)
    texts = body(to_latex(table, "t"))
    assert len(texts) == len(lines) == (2 + 4 if most else 2 + len(published_mnist()))
    counted = 0
    for text, line in zip(texts, lines, strict=True):
        _, seeds, bits, nats, parameters, _ = re.split(r"(?<!\\)&", text)
        for cell, names in (
            (seeds, ["seeds"]),
            (bits, ["bits_per_dim", "bits_per_dim_error"]),
            (nats, ["nats", "nats_error"]),
            (parameters, ["params_million"]),
        ):
            numbers = re.findall(r"\d+\.?\d*", cell)
            values = [line[name] for name in names if line[name] is not None]
            assert len(numbers) == len(values), text
            for number, value in zip(numbers, values, strict=True):
                assert Decimal(number) == Decimal(value).quantize(Decimal(number), ROUND_HALF_EVEN)
                counted += 1
    assert counted >= 2 * 6 + 4
    require_faithful(to_latex(table, "t"), lines)


def published_mnist() -> list[PublishedResult]:
    return [each for each in published_results() if each.dataset == "mnist"]


@pytest.mark.parametrize("place", range(1, 5))
def test_a_wrong_digit_anywhere_is_refused(final: FinishedFinal, place: int) -> None:
    table = make_table([final], most=3)
    tex = to_latex(table, "t")
    line = body(tex)[0]
    cells = line.split(" & ")
    cells[place] = re.sub(r"(\d)(\D*)$", lambda match: f"{(int(match[1]) + 1) % 10}{match[2]}", cells[place])
    with pytest.raises(StoreError, match=r"must be .* rounded, but LaTeX prints"):
        require_faithful(tex.replace(line, " & ".join(cells)), lines_of(table))


def test_lines_left_out_or_added_are_refused(final: FinishedFinal) -> None:
    table = make_table([final], most=3)
    tex, lines = to_latex(table, "t"), lines_of(table)
    with pytest.raises(StoreError, match="must have 4 lines"):
        require_faithful(tex, lines[:-1])
    with pytest.raises(StoreError, match="must print"):
        require_faithful(tex, [line | {"nats_error": None} for line in lines])


def test_the_tables_hold_means_errors_and_seeds(final: FinishedFinal) -> None:
    table = make_table([final], most=0, digits=5)
    first, second = lines_of(table)
    assert (first["from_trial"], second["from_trial"]) == ("00007", "00003")
    nats = [row["test_nats"] for row in final.rows if row["from_trial"] == "00007"]
    assert first["seeds"] == len(first["runs"]) == 3
    assert first["nats"] == pytest.approx(np.mean(nats), rel=1e-12)
    assert first["nats_error"] == pytest.approx(np.std(nats, ddof=1) / math.sqrt(3), rel=1e-9)
    assert first["bits_per_dim"] == first["nats"] / (784 * math.log(2))
    assert first["params_million"] == 0.113553
    text = body(to_latex(table, "t"))[0]
    assert f"${first['bits_per_dim']:.5f} \\pm {first['bits_per_dim_error']:.5f}$" in text
    assert "$0.114$" in text
    assert "this work" in text


def test_json_and_parquet_have_the_same_values_in_full(final: FinishedFinal) -> None:
    table = make_table([final])
    tree = json.loads(to_json(table))
    lines = pq.read_table(io.BytesIO(to_parquet(table)), use_threads=False).to_pylist()
    assert tree["rows"] == lines
    assert len(lines) == 2 + len(published_mnist())


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([0.00598, 0.01026], (4, 3)), ([0.0103], (3, 2)), ([0.0000021], (6, 5)), ([], (4, 3)), ([2.0], (3, 2))],
)
def test_digits_follow_the_smallest_error(
    final: FinishedFinal, errors: Sequence[float], expected: tuple[int, int]
) -> None:
    """Two digits of it, three decimals at least. A digit of nats is no coarser than one of bits/dim."""
    places = [
        place | {"bits_per_dim_seeds_error": errors[number] if number < len(errors) else None}
        for number, place in enumerate(final.places)
    ]
    rows = [row | {"image_height": 8, "image_width": 8} for row in final.rows]
    digits = make_table([replace(final, places=places, rows=rows)]).digits
    assert (digits.bits_per_dim, digits.nats) == expected


def test_every_row_that_is_not_comparable_has_its_reasons_as_footnotes(final: FinishedFinal) -> None:
    table = make_table([final])
    tex, markdown = to_latex(table, "t"), to_markdown(table)
    footnotes = dict(re.findall(r"\\textsuperscript\{(\w+)\}~(.*?)\.(?:\\\\)?\n", tex))
    assert len(footnotes) > 5
    seen = {True: 0, False: 0}
    for text, row in zip(body(tex), table.shown, strict=True):
        marks = re.search(r"\\textsuperscript\{([\w,]+)\}", text)
        notes = [footnotes[mark] for mark in marks[1].split(",")] if marks else []
        assert sorted(notes) == sorted(escape_tex(note) for note in row.notes)
        if row.kind == "published":
            assert row.comparable == (not any(note.startswith("not comparable: ") for note in notes))
            seen[bool(row.comparable)] += 1
    assert seen[True] >= 3
    assert seen[False] > 20
    for mark in footnotes:
        assert f"<sup>{mark}</sup> " in markdown


def test_the_comparable_come_first_and_bounds_are_marked(final: FinishedFinal) -> None:
    published = [row for row in make_table([final]).shown if row.kind == "published"]
    assert [bool(row.comparable) for row in published] == sorted(
        (bool(row.comparable) for row in published), reverse=True
    )
    ours_bound = make_table([changed(final, is_bound=True)])
    for text, row in zip(body(to_latex(ours_bound, "t")), ours_bound.shown, strict=True):
        is_bound = row.kind == "ours" or row.likelihood == Exactness.LOWER_BOUND
        assert (r"\leq" in text) == is_bound
        assert row.is_bound == is_bound
    assert to_markdown(ours_bound).count("≤ 0.") >= 2


def test_what_is_published_as_below_a_value_is_marked(final: FinishedFinal, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = replace(published_mnist()[0], likelihood=Exactness.EXACT, upper_limit=True)
    monkeypatch.setattr("pixeltune.paper.rows.published_for", lambda *_: [limit])
    table = make_table([final])
    marked = [r"\leq" in text for text in body(to_latex(table, "t"))]
    assert marked == [row.kind == "published" for row in table.shown]


def test_with_another_final_both_are_judged(final: FinishedFinal) -> None:
    """Next to one that knows the class, what is unconditional is not comparable: the note says next to which row."""
    conditional = changed(final, **{"model.conditioning": "bias"})
    table = make_table([final, conditional])
    names = [row.model for row in table.rows if row.kind == "ours"]
    assert names == [
        f"Gated PixelCNN (ours, toy/{trial} in {each})" for each in ("toy-final", "other-final") for trial in MEANS
    ]
    assert [row.notes for row in table.rows if row.kind == "ours"] == [(), ()] + [
        ("given the class of each image",)
    ] * 2
    comparable = [{row.model for row in each.rows if row.comparable} for each in (make_table([final]), table)]
    unstated = {row.model for row in table.rows if "conditioning not stated" in row.notes}
    assert len(comparable[0]) >= 3
    assert comparable[1] == comparable[0] & unstated
    (note,) = {note for row in table.rows for note in row.notes if "class-conditional" in note and "next to" in note}
    assert note.endswith(f"(next to {', '.join(names[2:])})")
    require_faithful(to_latex(table, "t"), lines_of(table))


def test_with_other_images_of_the_set_is_a_footnote_and_another_set_is_refused(final: FinishedFinal) -> None:
    part = changed(final, data_checksum="def", **{"data.fraction": 0.5})
    notes = make_table([final, part]).rows[-1 - len(published_mnist())].notes
    assert "checksum of training and test images def, not abc as in toy-final" in notes
    assert "trained on 0.5 of the training images, and on validation" in notes
    digits = changed(final, search="toy-final", **{"data.name": "digits"})
    carved = changed(digits, data_checksum="def")
    assert [len(row.notes) for row in make_table([digits, carved]).rows] == [0, 0, 1, 1]
    arrays = changed(final, **{"data.name": "array"})
    with pytest.raises(StoreError, match=r"\(array of checksum abc, .*\), but third has array of checksum def, "):
        make_table([arrays, changed(arrays, search="third", data_checksum="def")])
    for columns in ({"levels": 256}, {"image_height": 14}, {"data.name": "cifar10"}):
        with pytest.raises(StoreError, match="--with must be a final of the same test images as toy-final"):
            make_table([final, changed(final, **columns)])


def test_runs_that_failed_and_single_seeds_are_footnotes(final: FinishedFinal) -> None:
    rows = [row | ({"status": "diverged"} if row["trial"] == "00002" else {}) for row in final.rows]
    places = [place | {"seeds": 1, "runs": place["runs"][:1]} for place in final.places]
    ours = make_table([FinishedFinal(search="toy-final", rows=rows, places=places)]).rows[:2]
    assert ours[0].notes == (
        "one seed: the noise of training is not known",
        "1 of 3 runs are not in the mean: 1 diverged",
    )


def test_without_published_results_there_are_our_rows_alone(final: FinishedFinal) -> None:
    table = make_table([changed(final, **{"data.name": "digits"})])
    assert [row.kind for row in table.rows] == ["ours", "ours"]
    assert to_latex(table, "t").count(r"\midrule") == 1
    require_faithful(to_latex(table, "t"), lines_of(table))


HOSTILE = r"50% & more_of {this} $x^2$ #1 ~ \input{/etc/passwd} <a|b> 3×3 café"


def test_latex_prints_text_and_obeys_none(final: FinishedFinal) -> None:
    columns = "dataset,model,metric,value,likelihood,year,levels,binarisation"
    own = own_results(f'{columns}\nmnist,"{HOSTILE}",nats,79.5,exact,2026,2,static\n')
    table = make_table([changed(final, search="a_b%final")], own=own)
    tex = to_latex(table, "a_b%final")
    (line,) = [line for line in body(tex) if "79.5" in line]
    assert line.startswith(
        r"50\% \& more\_of \{this\} \$x\textasciicircum{}2\$ \#1 \textasciitilde{} "
        r"\textbackslash{}input\{/etc/passwd\} "
        r"\textless{}a\textbar{}b\textgreater{} 3$\times$3 caf{\'{e}}"
    )
    assert r"\label{tab:a-b-final}" in tex
    require_faithful(tex, lines_of(table))
    references = parse_bibtex(bibtex(work_of(each) for each in own))
    (key,) = references
    assert key == "own-50-more-of-this-x-2-1-input-2026"
    assert rf"\cite{{{key}}}" in line
    assert "own" in (published := next(row for row in table.rows if row.citation_key == key)).notes[-1]
    assert published.comparable


def is_well_formed(tex: str) -> bool:
    """Groups, environments and cells: what LaTeX would stop at."""
    plain = re.sub(r"\\[{}]", "", re.sub(r"(?m)(?<!\\)%.*$", "", tex))
    depth, open_environments = 0, []
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            return False
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", plain):
        if kind == "begin":
            open_environments.append(name)
        elif not open_environments or open_environments.pop() != name:
            return False
    cells = {len(re.split(r"(?<!\\)&", line)) for line in body(tex)}
    return depth == 0 and not open_environments and cells == {6} and plain.count("$") % 2 == 0


def test_the_latex_table_is_well_formed(final: FinishedFinal) -> None:
    tex = to_latex(make_table([final]), "t")
    assert is_well_formed(tex)
    assert not is_well_formed(tex.replace(r"\end{tabular}", ""))
    assert not is_well_formed(tex.replace("{tabular}", "{tabular", 1))
    assert not is_well_formed(tex.replace(" & ", " ", 20))


@pytest.mark.needs("pdflatex")
def test_pdflatex_sets_the_table(final: FinishedFinal, tmp_path: Path) -> None:
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    table = to_latex(make_table([final]), "t")
    (tmp_path / "a.tex").write_text(document + table + "\\end{document}\n", encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "a.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "a.pdf").exists()


def test_every_published_row_has_its_work() -> None:
    works = published_works()
    assert {source_of(each) for each in published_results()} <= works.keys()
    assert len({work.key for work in works.values()}) == len(works)
    for each in published_results():
        work = work_of(each)
        assert work.arxiv == each.arxiv or each.arxiv is None
        assert work.year - each.year in (-1, 0, 1), work


def test_the_references_parse_and_are_cited(final: FinishedFinal) -> None:
    text = bibtex(published_works().values())
    entries = parse_bibtex(text)
    assert entries.keys() == {work.key for work in published_works().values()}
    assert text.isascii()
    assert entries["vandenoord2016pixel"]["author"].startswith('van den Oord, A{\\"{a}}ron and Kalchbrenner, Nal and')
    assert entries["grcic2021densely"]["author"] == (
        r"Grci{\'{c}}, Matej and Grubi{\v{s}}i{\'{c}}, Ivan and {\v{S}}egvi{\'{c}}, Sini{\v{s}}a"
    )
    for entry in entries.values():
        assert entry["author"]
        assert all(", " in name for name in entry["author"].split(" and "))
    cited = set(re.findall(r"\\cite\{(.*?)\}", to_latex(make_table([final]), "t")))
    assert cited <= entries.keys()
    assert len(cited) > 5


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("}\n\n@", "}\n\n@misc{a,\n  title = {b},\n}\n\n@", 1),
        lambda text: text.replace("@inproceedings{", "@inproceedings{x y", 1),
        lambda text: text.replace("},\n", "}},\n", 1),
        lambda text: text.rstrip("\n").removesuffix("}"),
        lambda text: text + "\n" + text,
    ],
    ids=["no year", "key", "braces", "cut", "twice"],
)
def test_references_that_would_not_parse_are_refused(change: Any) -> None:
    text = bibtex(published_works().values())
    with pytest.raises(StoreError, match="BibTeX"):
        parse_bibtex(change(text))


@pytest.mark.parametrize(
    "line",
    [
        "1,a,misc,B,T,2020,,,,\n1,b,misc,B,T,2020,,,,",
        "1,a,misc,B,T,2020,,,,\n2,a,misc,B,T,2020,,,,",
        "1,a,book,B,T,2020,,,,",
        "1,a,misc,,T,2020,,,,",
        "1,a,misc,B,T,soon,,,,",
        "1,a,misc,B,T,2020,,,,,",
    ],
)
def test_a_table_of_works_is_read_strictly(line: str) -> None:
    with pytest.raises(StoreError, match=r"line \d of the works"):
        parse_works(f"source,key,kind,authors,title,year,venue,arxiv,doi,url\n{line}\n")


def test_a_final_that_is_not_finished(store: SearchStore, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "toy-final")
    found = SearchStore(str(tmp_path), "toy-final")
    row = found.trials()[1]
    found.write_trial(row | {"status": "running"})
    with pytest.raises(StoreError, match=r"toy-final has 5 of 6 runs; run `pixeltune final toy` again"):
        finished_final(found)
    found.write_trial(row)
    found.write_launch({"budget": {"trials": 10}})
    with pytest.raises(StoreError, match="has 6 of 10 runs"):
        finished_final(found)
    found.write_launch({})
    assert len(finished_final(found).rows) == 6
    for row in found.trials():
        found.write_trial(row | {"status": "failed"})
    with pytest.raises(StoreError, match=r"needs a finished run, but toy-final has none \(6 failed\)"):
        finished_final(found)


def test_numbers_of_latex_refuses_what_is_no_line_of_ours() -> None:
    with pytest.raises(StoreError, match="must have 6 cells"):
        numbers_of_latex("\\midrule\na & b \\\\\n\\bottomrule\n")
    with pytest.raises(StoreError, match="must have 1 numbers at most"):
        numbers_of_latex("\\midrule\na & 1 2 & & & & \\\\\n\\bottomrule\n")
