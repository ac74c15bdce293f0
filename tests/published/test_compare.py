from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixeltune import data
from pixeltune.config import TrialConfig
from pixeltune.errors import StoreError
from pixeltune.published.comparability import OWN_SOURCES, SOURCES, check_comparable, has_gap, identity_of
from pixeltune.published.compare import compare, load_published
from pixeltune.published.nearest import best_published
from pixeltune.published.table import Exactness, PublishedResult, published_results
from pixeltune.results.dataframes import read_results
from pixeltune.results.store import SearchStore
from tests.support.results import make_row

RESULTS = published_results()


def twin(published: PublishedResult) -> dict[str, Any]:
    """A row of ours that agrees with a published one in every respect that a row of ours can."""
    binarised = published.levels == 2
    source = "mnist_static" if published.binarisation == "static" else published.dataset
    return {
        "trial": "00000",
        "status": "finished",
        "data.name": source,
        "data_version": {"old": "old (van den Oord)", "new": "new (Chrabaszcz)"}.get(
            published.version or "", "original"
        ),
        "data.binarise": published.binarisation if binarised else "none",
        "image_channels": published.channels,
        "image_height": published.image_height,
        "image_width": published.image_width,
        "levels": published.levels,
        "evaluated_split": "test",
        f"test_{published.metric}": published.value,
        f"valid_{published.metric}": published.value,
        "is_bound": published.likelihood is not Exactness.EXACT,
        "model.conditioning": "bias" if published.conditional else "none",
        "data.flip": bool(published.augmentation),
    }


def test_a_limit_in_place_of_any_value_never_compares() -> None:
    for published in MATCHABLE:
        limit = replace(published, upper_limit=True)
        assert reasons(twin(limit), limit) == [f"published only as below {limit.value:g}"]
        assert has_gap(identity_of(twin(published)), published)
        assert not has_gap(identity_of(twin(limit)), limit)


def test_the_shipped_limit_has_neither_gap_nor_rank() -> None:
    frame = compare(pd.DataFrame([cifar_row(evaluated_split="test")]))
    limits = frame[frame["upper_limit"]]
    assert len(limits) == 1
    assert not limits["comparable"].any()
    assert limits[["gap", "rank", "rank_of"]].isna().all(axis=None)
    assert limits["why_not"].str.contains("published only as below 2").all()


def reasons(ours: dict[str, Any], published: PublishedResult) -> list[str]:
    return list(check_comparable(identity_of(ours), published).why_not)


def is_matchable(published: PublishedResult) -> bool:
    """Whether some row of ours could be compared with it at all."""
    return (
        published.dataset in ("cifar10", "mnist", "imagenet32", "imagenet64")
        and published.likelihood in (Exactness.EXACT, Exactness.LOWER_BOUND)
        and published.split == published.test_split
        and "unclear" not in (published.version, published.binarisation)
    )


every_row = pytest.mark.parametrize("published", RESULTS, ids=lambda row: f"{row.dataset} {row.model} {row.split}")
MATCHABLE = [row for row in RESULTS if is_matchable(row)]


@every_row
def test_a_twin_is_comparable_exactly_where_one_can_be(published: PublishedResult) -> None:
    assert (reasons(twin(published), published) == []) == is_matchable(published)


def _differences(published: PublishedResult) -> dict[str, tuple[dict[str, Any], str]]:
    """Each respect: what to change in the twin, and the word that must be said."""
    table: dict[str, tuple[dict[str, Any], str]] = {
        "split": ({"evaluated_split": "valid"}, "validation, not test"),
        "levels": ({"levels": 17}, "17 levels, not"),
        "size": ({"image_height": 16}, "images"),
        "colours": ({"image_channels": 4}, "images 4×"),
        "edition": ({"data_version": "altered"}, "own copy"),
        "source": ({"data.name": "parquet", "data.path": f"/x/{published.dataset}_jpeg"}, "possibly a copy of"),
        "binarisation": ({"data.name": published.dataset, "data.binarise": "threshold"}, "binarisation threshold"),
        "exactness": ({"is_bound": published.likelihood is Exactness.EXACT}, ", theirs is "),
    }
    if published.conditional is not None:
        table["conditioning"] = (
            {"model.conditioning": "none" if published.conditional else "map"},
            "class-conditional",
        )
    if published.augmentation is not None:
        table["augmentation"] = ({"data.flip": not published.augmentation}, "augment")
    if published.version is not None:
        table["version"] = ({"data_version": "new" if published.version == "old" else "old"}, "version of the set")
    if published.binarisation == "static":
        table["draw"] = ({"data.name": "mnist", "data.binarise": "static"}, "other draw")
    return table


@pytest.mark.parametrize("published", MATCHABLE, ids=lambda row: f"{row.dataset} {row.model}")
def test_one_respect_that_differs_is_the_one_reason(published: PublishedResult) -> None:
    for respect, (change, words) in _differences(published).items():
        found = reasons(twin(published) | change, published)
        assert len(found) == 1, respect
        assert words in found[0], respect


@pytest.mark.parametrize("flip", [None, pd.NA])
def test_rows_from_before_there_were_flips_are_not_augmented(flip: Any) -> None:
    frame = pd.DataFrame([cifar_row(0, **{"data.flip": flip}), cifar_row(1, **{"data.flip": True})])
    reasons = compare(frame.astype({"data.flip": "boolean"})).query("model == 'VDM, no augmentation'")["why_not"]
    assert ["augmented, the published is not" in why for why in reasons] == [False, True]


@every_row
def test_what_is_not_stated_is_a_caveat_and_no_reason(published: PublishedResult) -> None:
    verdict = check_comparable(identity_of(twin(published)), published)
    assert ("augmentation not stated" in verdict.caveats) == (published.augmentation is None)
    assert ("conditioning not stated" in verdict.caveats) == (published.conditional is None)
    assert not any("stated" in reason for reason in verdict.why_not)


def cifar_row(number: int = 0, **columns: Any) -> dict[str, Any]:
    form = {"image_channels": 3, "image_height": 32, "image_width": 32, "levels": 256}
    metrics = {
        "evaluated_split": "test",
        "data_version": "original",
        "test_bits_per_dim": 2.95,
        "valid_bits_per_dim": 2.9,
        "is_bound": False,
    }
    return make_row(number, **({"data.name": "cifar10", **form, **metrics} | columns))


def test_compare_stands_each_row_beside_each_published_result() -> None:
    frame = compare(pd.DataFrame([cifar_row(0), cifar_row(1, evaluated_split="valid")]))
    assert len(frame) == 2 * sum(row.dataset == "cifar10" for row in RESULTS)
    [plain] = frame[(frame["trial"] == "00000") & (frame["model"] == "PixelCNN++")].to_dict("records")
    assert plain["comparable"]
    assert plain["why_not"] == ""
    assert plain["gap"] == pytest.approx(2.95 - 2.92)
    [valid] = frame[(frame["trial"] == "00001") & (frame["model"] == "PixelCNN++")].to_dict("records")
    assert not valid["comparable"]
    assert valid["why_not"] == "validation, not test"
    assert valid["ours"] == 2.9


def beside(model: str, **columns: Any) -> dict[str, Any]:
    """The one line of `compare` that stands a CIFAR-10 row of ours beside this published model."""
    frame = compare(pd.DataFrame([cifar_row(**columns)]))
    [line] = frame[frame["model"] == model].to_dict("records")
    return {str(name): value for name, value in line.items()}


def test_the_rank_is_the_place_among_those_that_compare() -> None:
    ours = identity_of(cifar_row())
    peers = [
        row.value
        for row in RESULTS
        if row.dataset == "cifar10" and not row.doubt and not check_comparable(ours, row).why_not
    ]
    assert 5 < len(peers) < sum(row.dataset == "cifar10" for row in RESULTS) / 2
    lines = [beside("PixelCNN++", test_bits_per_dim=bits) for bits in (0.1, 2.95, 9.0)]
    assert [line["rank"] for line in lines] == [1, 1 + sum(value < 2.95 for value in peers), 1 + len(peers)]
    assert {line["rank_of"] for line in lines} == {1 + len(peers)}


@pytest.mark.parametrize("columns", [{}, {"is_bound": True}, {"evaluated_split": "valid"}, {"levels": 16}])
def test_what_does_not_compare_or_is_in_doubt_has_no_rank(columns: dict[str, Any]) -> None:
    frame = compare(pd.DataFrame([cifar_row(**columns)]))
    ranked = frame["comparable"].astype(bool) & frame["doubt"].isna()
    assert (frame["rank"].notna() == ranked).all()
    assert (frame["rank_of"].notna() == ranked).all()


def binary_row(binarise: str, **columns: Any) -> dict[str, Any]:
    form = {"image_channels": 1, "image_height": 28, "image_width": 28, "levels": 2}
    metrics = {"test_bits_per_dim": 0.15, "test_nats": 80.0}
    return cifar_row(**({"data.name": "mnist", "data.binarise": binarise, **form, **metrics} | columns))


@pytest.mark.parametrize(
    "row",
    [
        cifar_row(levels=16),
        cifar_row(image_channels=1),
        cifar_row(image_height=16, image_width=16),
        binary_row("none", levels=16),
        binary_row("none", test_nats=None, test_bits_per_dim=0.6, image_height=14, image_width=14),
    ],
)
def test_another_task_has_no_gap(row: dict[str, Any]) -> None:
    frame = compare(pd.DataFrame([row]))
    assert len(frame)
    assert frame["gap"].isna().all()
    assert frame["rank"].isna().all()


@pytest.mark.parametrize("binarise", ["static", "dynamic", "threshold"])
def test_binarised_images_have_a_gap_to_binarised_ones_alone(binarise: str) -> None:
    frame = compare(pd.DataFrame([binary_row(binarise)]))
    assert set(frame["levels"]) == {2, 256}
    assert (frame["gap"].notna() == (frame["levels"] == 2)).all()


def test_the_same_task_keeps_its_gap_and_says_what_differs() -> None:
    assert beside("PixelCNN++", evaluated_split="valid")["gap"] == pytest.approx(2.9 - 2.92)
    static = compare(pd.DataFrame([binary_row("static")]))
    drawn = static[static["why_not"] == "other draw of the binarisation"]
    assert len(drawn)
    assert drawn["gap"].notna().all()


def mnist_row(name: str, path: str | None = None) -> dict[str, Any]:
    return binary_row("none", **{"data.name": name, "data.path": path, "levels": 256, "data_version": "own files"})


@pytest.mark.parametrize(
    ("row", "dataset"),
    [
        (mnist_row("fashion_mnist"), "fashion_mnist"),
        (mnist_row("digits", "/d/mnist"), "digits"),
        (mnist_row("array", "/home/ann/mnist_lab/xray28.npz"), None),
        (mnist_row("array", "/d/kmnist.npz"), None),
        (mnist_row("array", "/d/fashion-mnist.npz"), None),
        (mnist_row("mnist.readers:xray"), None),
        (mnist_row("lab.readers:read_mnist"), "mnist"),
        (mnist_row("folder", "/d/MNIST/"), "mnist"),
        (mnist_row("folder", "s3://lab/mnist"), "mnist"),
        (cifar_row(**{"data.name": "array", "data.path": "/d/cifar100.npz"}), None),
        (cifar_row(**{"data.name": "array", "data.path": "/d/cifar10.npz"}), "cifar10"),
        (cifar_row(**{"data.name": "array", "data.path": "D:\\cifar100\\cifar10.npz"}), "cifar10"),
        (cifar_row(**{"data.name": "array", "data.path": "/d/cifar10.npz", "image_channels": 1}), None),
        (cifar_row(**{"data.name": "parquet", "data.path": "cifar10_jpeg/"}), "cifar10"),
    ],
)
def test_a_copy_is_guessed_from_whole_words_of_its_own_name(row: dict[str, Any], dataset: str | None) -> None:
    identity = identity_of(row)
    assert identity.dataset == dataset
    for published in RESULTS:
        if published.dataset == dataset:
            assert (
                f"possibly a copy of {dataset}, not the published set" in check_comparable(identity, published).why_not
            )


def test_every_source_is_of_known_images_or_of_ones_own() -> None:
    assert set(OWN_SOURCES) < set(data.SOURCES)
    assert not set(OWN_SOURCES) & set(SOURCES)


def test_only_results_of_the_same_data_in_the_same_metric_stand_beside_a_row() -> None:
    assert compare(
        pd.DataFrame([make_row(**{"levels": 17, "image_channels": 1, "image_height": 8, "image_width": 8})])
    ).empty
    binary = cifar_row(**{"data.name": "mnist", "image_channels": 1, "image_height": 28, "image_width": 28})
    nats = binary | {"test_bits_per_dim": None, "test_nats": 80.0, "levels": 2, "data.binarise": "static"}
    assert set(compare(pd.DataFrame([nats]))["metric"]) == {"nats"}


@pytest.mark.parametrize("status", ["rejected", "diverged", "running", "failed", "interrupted", "oom"])
def test_rows_without_a_result_are_not_compared(status: str) -> None:
    assert compare(pd.DataFrame([cifar_row(status=status)])).empty


def test_a_table_of_something_else_is_one_line() -> None:
    with pytest.raises(StoreError, match=r"rows of read_results.*data\.name"):
        compare(pd.DataFrame({"trial": ["00000"], "status": ["finished"]}))


def test_a_share_of_the_training_images_is_a_caveat() -> None:
    frame = compare(pd.DataFrame([cifar_row(**{"data.fraction": 0.25})]))
    assert frame["caveats"].str.contains("trained on 0.25 of the training images").all()


@pytest.mark.parametrize(
    ("columns", "model", "why_not"),
    [
        ({}, "Combiner-Axial", ()),
        ({"evaluated_split": "valid"}, "Combiner-Axial", ("validation, not test",)),
        ({"is_bound": True}, "W-PCDM", ()),
        (
            {"data.name": "parquet", "data.path": "x/cifar10_jpeg"},
            "Combiner-Axial",
            ("possibly a copy of cifar10, not the published set",),
        ),
    ],
)
def test_the_yardstick_is_the_lowest_of_the_nearest(
    columns: dict[str, Any], model: str, why_not: tuple[str, ...]
) -> None:
    found = best_published(identity_of(cifar_row(**columns)))
    assert found is not None
    assert found.published.model == model
    assert found.why_not == why_not


def test_doubtful_numbers_are_no_yardstick_and_data_of_ones_own_has_none() -> None:
    mnist = cifar_row(**{"data.name": "mnist", "image_channels": 1, "image_height": 28, "image_width": 28})
    found = best_published(identity_of(mnist))
    assert found is not None
    assert found.published.value > 0.6
    assert best_published(identity_of(make_row())) is None


@pytest.mark.parametrize("columns", [{"levels": 16}, {"image_channels": 1}, {"image_width": 16}])
def test_another_task_has_no_yardstick(columns: dict[str, Any]) -> None:
    assert best_published(identity_of(cifar_row(**columns))) is None


OWN = """dataset,model,metric,value,likelihood,year,gpu_hours,conditional,augmentation
cifar10,ours of last year,bits_per_dim,2.90,exact,2025,50,no,no
"""


def own_table(folder: Path, text: str = OWN) -> str:
    (folder / "published.csv").write_text(text)
    return str(folder)


def test_rows_of_ones_own_stand_among_the_published(tmp_path: Path) -> None:
    frame = pd.DataFrame([cifar_row(0, gpu_seconds=36_000.0)])
    before, after = compare(frame), compare(frame, own_table(tmp_path))
    assert len(after) == len(before) + 1
    own = after[after["evidence"] == "own"].iloc[0]
    assert (own["model"], own["published"], own["comparable"], own["where"]) == (
        "ours of last year",
        2.90,
        True,
        "your own table",
    )
    assert "from your own table" in own["caveats"]
    assert set(after["rank_of"].dropna()) == {before["rank_of"].max() + 1}
    assert load_published(own_table(tmp_path)).iloc[-1]["model"] == "ours of last year"
    assert len(load_published(str(tmp_path / "published.csv"))) == len(load_published()) + 1


def test_training_compute_stands_beside_what_was_published_of_it(tmp_path: Path) -> None:
    frame = pd.DataFrame([cifar_row(0, gpu_seconds=36_000.0), cifar_row(1, gpu_seconds=0.0), cifar_row(2)])
    table = compare(frame, own_table(tmp_path)).set_index(["trial", "model"])
    assert tuple(table.loc[("00000", "ours of last year"), ["our_gpu_hours", "gpu_hours", "compute_ratio"]]) == (
        10.0,
        50.0,
        0.2,
    )
    assert table.loc[("00000", "PixelCNN++"), "compute_ratio"] == pytest.approx(10 / 960)
    assert pd.isna(table.loc[("00000", "PixelSNAIL"), "compute_ratio"]), "its hours are not stated"
    for trial in ("00001", "00002"):
        assert table.loc[trial, ["our_gpu_hours", "compute_ratio"]].isna().all(axis=None), "no GPU was used"


def test_a_checksum_says_that_the_images_are_the_same_whatever_they_are_called(tmp_path: Path) -> None:
    text = "dataset,model,metric,value,likelihood,year,image_height,image_width,image_channels,levels,binarisation,"
    text += "data_checksum\ncells,rival,bits_per_dim,1.5,exact,2026,16,24,1,256,none,abc\n"
    ours = cifar_row(
        0, image_channels=1, image_height=16, image_width=24, **{"data.name": "folder", "data.path": "x/y"}
    )
    same, other = (ours | {"data_checksum": checksum} for checksum in ("abc", "abd"))
    table = compare(pd.DataFrame([same, other]), own_table(tmp_path, text))
    assert list(table["model"]) == ["rival"], "another data set is not on the table"
    assert list(table["comparable"]) == [True]
    named = other | {"data.path": "x/cells"}
    table = compare(pd.DataFrame([named]), own_table(tmp_path, text))
    assert list(table["why_not"]) == ["images of checksum abd, not abc"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset,model\n", "but the file lacks metric, value, likelihood, year"),
        (OWN.replace("gpu_hours", "gpu_hrs"), "but the file has 'gpu_hrs'"),
        (OWN.replace("gpu_hours", "year"), "must name each column once in the first line, but got year in it"),
        (OWN.replace("gpu_hours", ""), "but got one without a name in it"),
        (OWN.replace(",", ";"), "separate the columns by commas"),
        (OWN.replace(",", "\t"), "separate the columns by commas"),
        (OWN.replace("2.90", "low"), "line 2 of your published results must have value, a number of 0 or more"),
        (OWN.replace("2.90", "nan"), "likelihood of whole levels, not a density), but got 'nan'"),
        (OWN.replace("2.90", "-inf"), "but got '-inf'"),
        (OWN.replace("2.90", "-0.01"), "line 2 of your published results must have value, a number of 0 or more"),
        (OWN.replace("bits_per_dim,2.90", "nats,-80"), "but got '-80'"),
        (OWN.replace("2.90", ""), "line 2 of your published results must have value, but got a blank field"),
        (OWN.replace("exact", "exactly"), "must have likelihood, exact or lower_bound or"),
        (OWN.replace("bits_per_dim", "bpd"), "must have metric, bits_per_dim or nats, but got 'bpd'"),
        (OWN.replace(",50,", ",-50,"), "must have gpu_hours, a number of 0 or more, or nothing, but got '-50'"),
        (OWN.replace(",no,no", ",No,no"), "must have conditional, yes or no or nothing, but got 'No'"),
        (OWN.replace("cifar10,", "svhn,"), "line 2 of your published results must have image_height"),
        (OWN.replace("cifar10,", "svhn,"), "'svhn' is not a data set of the shipped table; those of"),
        (OWN.replace("cifar10,", "cifra10,"), "did you mean cifar10?"),
        (OWN.replace("cifar10,", "CIFAR-10,"), "must have dataset cifar10, as the shipped table spells it"),
        (OWN.replace("cifar10,", "ImageNet 32,"), "must have dataset imagenet32, as the shipped table spells it"),
        (OWN.replace("cifar10,ours of last year,bits_per_dim", "mnist,a,nats"), "must have binarisation, because"),
        (OWN + OWN.splitlines()[1] + "\n", "line 3 of your published results must be another number than line 2"),
        (OWN + "\n\n" + OWN.splitlines()[1].replace("2.90", "2.91"), "line 5 of your published results"),
        (OWN.replace("2.90", "2_9"), "but got '2_9'"),
        (OWN.replace("2025", "20255"), "must have year, a whole number from 1900 to 2100, but got '20255'"),
        (
            OWN.replace("ours of", "x" * 140_000),
            "line 2 of your published results must be CSV, but it is not: field larger",
        ),
        ("\n" + OWN, "must have the names of the columns in the first line, but it is blank"),
        ("dataset,model\ncifar10\n", "but the file lacks metric"),
        (OWN.replace("2.90", "2,90"), "line 2 of your published results must have as many fields as the header"),
        ("", "but the file lacks dataset"),
    ],
)
def test_a_table_of_ones_own_that_is_wrong_says_where(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        compare(pd.DataFrame([cifar_row(0)]), own_table(tmp_path, text))
    assert words in str(caught.value)
    assert "published.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_table_may_come_from_a_spreadsheet(encoding: str, line_end: str, tmp_path: Path) -> None:
    text = OWN.replace("ours of last year", '"ours, of ""last"" year"').replace("\n", line_end)
    (tmp_path / "published.csv").write_bytes(text.encode(encoding))
    assert load_published(str(tmp_path)).iloc[-1]["model"] == 'ours, of "last" year'


def test_a_table_in_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_bytes(OWN.encode("utf-16"))
    with pytest.raises(StoreError, match=r"must be text in UTF-8, but .*published.csv is not") as caught:
        load_published(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [("ours of", "theirs of"), ("cifar10", "mnist"), ("cifar10", "imagenet32"), ("cifar10", "celeba64")]
)
def test_what_differs_in_model_or_data_is_no_duplicate(change: tuple[str, str], tmp_path: Path) -> None:
    text = f"{OWN}{OWN.splitlines()[1].replace(*change)}\n"
    assert len(load_published(own_table(tmp_path, text))) == len(load_published()) + 2


def test_a_table_of_ones_own_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must be a CSV file, but .*published.csv is not"):
        compare(pd.DataFrame([cifar_row(0)]), str(tmp_path))


@pytest.mark.parametrize(("version", "caveats"), [("", ["version of the set not stated"]), ("old", [])])
def test_a_number_without_the_version_of_its_set_compares_with_a_caveat(
    version: str, caveats: list[str], tmp_path: Path
) -> None:
    own = own_table(
        tmp_path,
        "dataset,version,model,metric,value,likelihood,year,conditional,augmentation\n"
        f"imagenet64,{version},ours of last year,bits_per_dim,3.5,exact,2025,no,no\n",
    )
    form = {"data.name": "imagenet64", "data_version": "old", "image_height": 64, "image_width": 64}
    frame = compare(pd.DataFrame([cifar_row(0, **form)]), own)
    (line,) = frame[frame["model"] == "ours of last year"].to_dict("records")
    assert (line["comparable"], line["why_not"]) == (True, "")
    assert line["caveats"].split("; ") == [*caveats, "from your own table"]


def final_row(**columns: Any) -> dict[str, Any]:
    """A run of `pixeltune final` on dynamically binarised MNIST, as it is handed to the store."""
    data = {"name": "mnist", "binarise": "dynamic", "train_on_valid": True}
    config = TrialConfig.build({"data": data, "model": {"family": "gated"}, "likelihood": {"name": "bernoulli"}})
    form = {"image_channels": 1, "image_height": 28, "image_width": 28, "levels": 2, "data_version": "original"}
    numbers = {"evaluated_split": "test", "test_nats": 80.5, "test_bits_per_dim": 0.1481, "is_bound": False}
    made = {"from_search": "mnist_gated", "from_trial": "00007", "num_train": 60_000, "num_valid": 0}
    return make_row(0, **(config.flat() | form | numbers | made | columns))


def compared_final(folder: Path, **columns: Any) -> pd.DataFrame:
    SearchStore(str(folder), "mnist_gated-final").write_trial(final_row(**columns))
    frame = compare(read_results(str(folder)))
    return frame[frame["metric"] == "nats"].set_index("model")


REIMPLEMENTED = [f"{name} (pytorch-generative reimplementation)" for name in ("PixelCNN", "Gated PixelCNN", "ImageGPT")]


def test_a_final_on_dynamic_mnist_compares_with_the_reimplementations(tmp_path: Path) -> None:
    lines = compared_final(tmp_path).loc[REIMPLEMENTED]
    assert list(lines["comparable"]) == [True, True, True]
    assert list(lines["published"]) == [81.45, 81.5, 79.17]
    assert list(lines["gap"]) == pytest.approx([-0.95, -1.0, 1.33])
    assert (lines["why_not"] == "").all()
    for caveat in ("each paper draws its own test pixels", "which epoch is printed is not stated"):
        assert lines["caveats"].str.contains(caveat).all()
    assert not lines["caveats"].str.contains("conditioning|augmentation").any()


@pytest.mark.parametrize(
    ("columns", "why_not"),
    [
        ({"data.binarise": "static"}, "binarisation static, not dynamic"),
        ({"data.binarise": "threshold"}, "binarisation threshold, not dynamic"),
        ({"data_version": "altered"}, "own copy of the data, not the published set"),
        ({"is_bound": True}, "ours is a bound, theirs is exact"),
        ({"data.flip": True}, "augmented, the published is not"),
        ({"evaluated_split": "valid", "valid_nats": 80.5, "valid_bits_per_dim": 0.1481}, "validation, not test"),
    ],
)
def test_a_final_that_differs_from_the_reimplementations_says_in_what(
    columns: dict[str, Any], why_not: str, tmp_path: Path
) -> None:
    lines = compared_final(tmp_path, **columns).loc[REIMPLEMENTED]
    assert set(lines["why_not"]) == {why_not}


def test_an_ensemble_and_a_number_cited_elsewhere_say_so(tmp_path: Path) -> None:
    table = compared_final(tmp_path)
    ensemble = table.loc["LMConv, 8 S-curve orders"]
    assert ensemble["comparable"]
    assert "ensemble" in ensemble["caveats"]
    assert "as cited in Discrete VAE Tab.1" in table.loc["Deep belief network (DBN)", "caveats"]
    assert pd.isna(table.loc["Deep belief network (DBN)", "rank"])
