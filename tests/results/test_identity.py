"""A search is its id: folders are renamed, copied and mixed up, and every row is still read under its folder's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixeltune.errors import StoreError
from pixeltune.results.compaction import compact
from pixeltune.results.dataframes import read_curves, read_images, read_results
from pixeltune.results.final_statistics import write_images
from pixeltune.results.identity import require_new_name
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.optuna_study import study
from pixeltune.results.store import SearchStore, find_searches
from pixeltune.results.table_folder import StoreWarning
from tests.support.results import NOW, make_report, make_row, make_space, make_store


def begun(storage: Path, name: str, *bits: float) -> SearchStore:
    """A search with a finished trial, its curve and the nats of two test images for each number."""
    store = make_store(storage, name)
    for number, value in enumerate(bits):
        row = make_row(number, valid_bits_per_dim=value, finished_at=NOW, **{"optim.lr": 0.001 * value})
        store.write_trial(row)
        store.write_curve(row["trial"], 1, [make_report(1600, value)])
        run = {"search": name, "search_id": store.search_id or "", "trial": row["trial"], "attempt": 1}
        write_images(store.images(row["trial"]), _pair(value), None, is_bound=False, **run)
    return store


def _pair(value: float) -> Any:
    import numpy as np

    return np.array([value, value])


def shown(frame: Any, column: str) -> list[tuple[str, float]]:
    return list(zip(frame["search"].astype(str), frame[column], strict=True))


def test_each_search_has_an_id_that_its_rows_and_curves_carry(tmp_path: Path) -> None:
    one, other = begun(tmp_path, "one", 2.0), begun(tmp_path, "other", 3.0)
    assert one.search_id
    assert one.search_id != other.search_id
    assert one.search_id == one.manifest().id == SearchStore(str(tmp_path), "one").search_id
    for rows in (one.attempts(), one.curves()):
        assert {row["search_id"] for row in rows} == {one.search_id}
    for frame in (read_results(str(tmp_path)), read_curves(str(tmp_path)), read_images(str(tmp_path))):
        assert set(frame["search_id"]) == {one.search_id, other.search_id}


def test_a_renamed_folder_and_a_new_search_of_its_old_name_are_both_read(tmp_path: Path) -> None:
    """Rows were keyed by the name that they were written under: one of two trials was lost."""
    begun(tmp_path, "a", 2.0)
    (tmp_path / "a").rename(tmp_path / "a_old")
    begun(tmp_path, "a", 3.0)
    assert shown(read_results(str(tmp_path)), "valid_bits_per_dim") == [("a", 3.0), ("a_old", 2.0)]
    assert shown(read_curves(str(tmp_path)), "valid_bits_per_dim") == [("a", 3.0), ("a_old", 2.0)]
    assert shown(read_images(str(tmp_path)), "nats") == [("a", 3.0), ("a", 3.0), ("a_old", 2.0), ("a_old", 2.0)]


def test_a_renamed_folder_has_its_new_name_everywhere(tmp_path: Path) -> None:
    compact(begun(tmp_path, "a", 2.0, 3.0))
    (tmp_path / "a").rename(tmp_path / "b")
    store = SearchStore(str(tmp_path), "b")
    assert store.manifest().search == "b"
    assert {row["search"] for row in [*store.trials(), *store.curves(), *store.curve("00000")]} == {"b"}
    assert study(store.folder).study_name == "b"
    frame = read_results(store.folder)
    assert list(frame["search"].cat.categories) == ["b"]
    assert len(frame) == 2


def test_a_renamed_search_goes_on_and_its_new_rows_have_its_id(tmp_path: Path) -> None:
    first = begun(tmp_path, "a", 2.0)
    (tmp_path / "a").rename(tmp_path / "b")
    store = SearchStore(str(tmp_path), "b")
    assert store.open(SearchManifest.of(make_space(), "b")).id == first.search_id
    store.write_trial(make_row(1))
    assert {(row["search"], row["search_id"]) for row in store.attempts()} == {("b", first.search_id)}


def test_copies_are_all_read_and_reported(tmp_path: Path) -> None:
    begun(tmp_path, "a", 2.0)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    begun(tmp_path, "c", 4.0)
    with pytest.warns(StoreWarning, match=r"/a and .*/copy are copies of one search") as caught:
        frame = read_results(str(tmp_path))
    assert len(caught) == 1
    assert shown(frame, "valid_bits_per_dim") == [("a", 2.0), ("c", 4.0), ("copy", 2.0)]


def test_a_row_of_another_search_is_reported_and_read(tmp_path: Path) -> None:
    one, other = begun(tmp_path, "one", 2.0), begun(tmp_path, "other", 3.0, 4.0)
    shutil.copy(Path(other.trials_folder, "00001-1.parquet"), one.trials_folder)
    with pytest.warns(StoreWarning, match="1 row in the folder one is of another search"):
        assert [row["valid_bits_per_dim"] for row in one.attempts()] == [2.0, 4.0]
    with pytest.warns(StoreWarning, match="1 row in the folder one"):
        assert shown(read_results(one.folder), "valid_bits_per_dim") == [("one", 2.0), ("one", 4.0)]


def test_results_from_before_searches_had_ids_read_resume_and_rename(tmp_path: Path) -> None:
    store = begun(tmp_path, "a")
    manifest = Path(store.folder, "search.json")
    tree = json.loads(manifest.read_bytes())
    for name in ("id", "data_checksum", "warm_start_ids", "sha256"):
        del tree[name]
    manifest.write_text(json.dumps(tree))
    old = SearchStore(str(tmp_path), "a")
    old.write_trial(make_row())
    assert [row["search_id"] for row in old.attempts()] == [None]
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = make_store(tmp_path, "b")
    assert [row["search"] for row in renamed.attempts()] == ["b"]


KEPT = ["trials", "curves", "images", "checkpoints", "samples", "Trials", "search.json", "launch.json", "_corrupt"]
ELSEWHERE = ["CON", "nul", "com1", "LPT9.x", "a.", "_x", ".hidden", "a/b"]


@pytest.mark.parametrize("name", [*KEPT, *ELSEWHERE])
def test_a_name_that_means_something_else_is_refused_where_a_search_begins(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="name"):
        require_new_name(name)
    with pytest.raises(StoreError, match="name"):
        make_store(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["trial", "trials2", "console", "com10", "a.b", "my-trials", "0"])
def test_other_names_are_free(name: str) -> None:
    require_new_name(name)


def test_an_old_search_called_trials_hides_nothing(tmp_path: Path) -> None:
    begun(tmp_path, "a", 2.0)
    begun(tmp_path, "b", 3.0)
    (tmp_path / "b").rename(tmp_path / "trials")
    assert shown(read_results(str(tmp_path)), "valid_bits_per_dim") == [("a", 2.0), ("trials", 3.0)]
    (tmp_path / "trials").rename(tmp_path / "curves")
    assert [store.search for store in find_searches(str(tmp_path))] == ["a", "curves"]


def _empty_table(storage: Path) -> None:
    (storage / "curves").mkdir()


def _stray_manifest(storage: Path) -> None:
    shutil.copy(storage / "a" / "search.json", storage)


def _search_without_manifest(storage: Path) -> None:
    (storage / "a" / "search.json").unlink()
    (storage / "a").rename(storage / "trials")


@pytest.mark.parametrize("put", [_empty_table, _stray_manifest, _search_without_manifest])
def test_what_is_put_into_a_storage_does_not_make_it_look_like_an_empty_search(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    begun(tmp_path, "a", 2.0)
    begun(tmp_path, "b", 3.0)
    put(tmp_path)
    assert sorted(read_results(str(tmp_path))["valid_bits_per_dim"]) == [2.0, 3.0]


def test_a_search_without_a_trial_is_a_search(tmp_path: Path) -> None:
    begun(tmp_path, "a")
    assert [store.search for store in find_searches(str(tmp_path / "a"))] == ["a"]


def test_a_folder_with_a_name_that_no_search_can_have_is_not_left_out_silently(tmp_path: Path) -> None:
    begun(tmp_path, "a", 2.0)
    shutil.copytree(tmp_path / "a", tmp_path / "a (copy)")
    with pytest.warns(StoreWarning, match=r"left out .*a \(copy\): .*rename the folder"):
        assert len(read_results(str(tmp_path))) == 1
