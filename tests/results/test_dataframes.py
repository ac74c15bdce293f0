from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixeltune.errors import StoreError
from pixeltune.published.compare import load_published
from pixeltune.results.dataframes import read_curves, read_images, read_results
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.optuna_study import study
from pixeltune.results.schema import CURVE_SCHEMA, TRIAL_SCHEMA, Status
from pixeltune.results.store import SearchStore
from tests.support.results import NOW, make_report, make_row, make_space, make_store


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Two searches; trial 1 of the first was interrupted and resumed."""
    for name in ("first", "second"):
        store = SearchStore(str(tmp_path), name)
        store.open(replace(SearchManifest.of(make_space(), name)))
        store.write_trial(make_row(0, status="finished", valid_bits_per_dim=2.0, finished_at=NOW, is_bound=False))
    store = SearchStore(str(tmp_path), "first")
    store.write_trial(make_row(1, 1, "interrupted", num_classes=10))
    store.write_trial(make_row(1, 2, "pruned", valid_bits_per_dim=3.0, reason="rung 1600"))
    store.write_curve("00001", 1, [make_report(1600, 3.5), make_report(3200, 9.0)])
    store.write_curve("00001", 2, [make_report(3200, 3.0)])
    return tmp_path


def test_a_storage_gives_the_latest_attempts_of_all_searches(storage: Path) -> None:
    frame = read_results(str(storage))
    assert list(frame.columns) == TRIAL_SCHEMA.names
    assert list(zip(frame["search"], frame["trial"], frame["attempt"], frame["status"], strict=True)) == [
        ("first", "00000", 1, "finished"),
        ("first", "00001", 2, "pruned"),
        ("second", "00000", 1, "finished"),
    ]
    assert list(read_results(str(storage), attempts="all")["attempt"]) == [1, 1, 2, 1]


def test_a_search_folder_gives_its_own_rows(storage: Path) -> None:
    assert set(read_results(str(storage / "second"))["search"]) == {"second"}


@pytest.mark.parametrize("read", [read_results, read_curves, read_images, study, load_published])
def test_a_path_object_is_taken_like_text(read: Any, storage: Path) -> None:
    """And one that was a URI, whose second slash pathlib drops, is named rather than made a folder."""
    if read is load_published:
        columns = (
            "dataset,model,metric,value,likelihood,year,image_channels,image_height,image_width,levels,binarisation"
        )
        line = "blocks,entropy,bits_per_dim,0.0625,exact,2026,1,8,8,2,none"
        (storage / "published.csv").write_text(f"{columns}\n{line}\n", encoding="utf-8")
    place = storage / "first" if read is study else storage
    got, wanted = read(place), read(str(place))
    if read is study:
        assert [trial.values for trial in got.trials] == [trial.values for trial in wanted.trials]
    else:
        pd.testing.assert_frame_equal(got, wanted)
    with pytest.raises(StoreError, match="give it as text, since a pathlib.Path drops a slash".replace(".", "[.]")):
        read(Path("s3://bucket/results"))


def test_columns_have_tidy_types(storage: Path) -> None:
    frame = read_results(str(storage), attempts="all")
    assert isinstance(frame["num_classes"].dtype, pd.Int32Dtype)
    assert isinstance(frame["model.layers"].dtype, pd.Int64Dtype)
    assert isinstance(frame["is_bound"].dtype, pd.BooleanDtype)
    assert frame["valid_bits_per_dim"].dtype == "float64"
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    assert list(frame["status"].cat.categories) == [str(status) for status in Status]
    assert isinstance(frame["model.family"].dtype, pd.CategoricalDtype)
    assert frame["num_classes"].isna().sum() == 3
    assert frame.set_index("trial")["reason"].notna().sum() == 1


def test_curves_of_a_resumed_trial_are_one(storage: Path) -> None:
    frame = read_curves(str(storage))
    assert list(frame.columns) == CURVE_SCHEMA.names
    assert list(zip(frame["images_seen"], frame["valid_bits_per_dim"], strict=True)) == [(1600, 3.5), (3200, 3.0)]
    assert len(read_curves(str(storage / "first"), attempts="all")) == 3


def test_a_search_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    make_store(tmp_path, "tiny")
    assert read_results(str(tmp_path)).empty
    assert list(read_curves(str(tmp_path / "tiny")).columns) == CURVE_SCHEMA.names


def test_nothing_there_and_unknown_options_are_one_line(storage: Path) -> None:
    with pytest.raises(StoreError, match="nothing at"):
        read_results(str(storage / "missing"))
    with pytest.raises(StoreError, match='"latest" or "all"'):
        read_results(str(storage), attempts="newest")  # type: ignore[arg-type]


def test_several_searches_are_one_table(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = make_store(tmp_path_factory.mktemp("other"), "third")
    other.write_trial(make_row(0, valid_bits_per_dim=1.0))
    both = [storage / "second", str(storage / "first")]
    assert list(read_results(both)["search"]) == ["first", "first", "second"]
    assert list(read_results([*both, other.folder, storage])["search"]) == ["first", "first", "second", "third"]
    assert list(read_results(both, attempts="all")["attempt"]) == [1, 1, 2, 1]
    assert len(read_curves(both)) == 2
    assert read_images(both).empty


def test_searches_are_named_in_a_storage(
    storage: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    assert set(read_results("second", storage=storage)["search"]) == {"second"}
    (here / "second").mkdir()  # other files of the user's
    assert list(read_results(["first", "second"], storage=storage)["search"]) == ["first", "first", "second"]
    assert len(read_curves(["first"], storage=storage)) == 2
    make_store(here / "results", "mine").write_trial(make_row(0))
    assert list(read_results(["mine", storage / "second"])["search"]) == ["mine", "second"]
    make_store(here, "first").write_trial(make_row(7))  # a path comes before a name
    assert list(read_results("first", storage=storage)["trial"]) == ["00007"]
    with pytest.raises(StoreError, match=r"there is nothing at frist, and no search frist in results$"):
        read_results(["mine", "frist"])


def test_searches_of_one_name_are_not_mixed(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = make_store(tmp_path_factory.mktemp("other"), "first")
    other.write_trial(make_row(0))
    for read in (read_results, read_curves, read_images):
        with pytest.raises(StoreError, match=r"must have different names, but .*first and .*first have one; read each"):
            read([storage, other.folder])
        with pytest.raises(StoreError, match="at least one search must be named, but the list is empty"):
            read([])
