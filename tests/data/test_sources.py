"""Every source, through the dict: what it promises, whichever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, DataSet, ImageSet, RawData, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.errors import DataError
from tests.support.image_sets import MAKERS, make_idx, random_pixels, save_image, shared, write_parquet


@pytest.fixture(params=SOURCES)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> DataConfig:
    if request.param == "cifar10":
        request.getfixturevalue("trust_cifar10")
    return MAKERS[request.param](tmp_path / "source")


def carves_validation(config: DataConfig) -> bool:
    """Whether validation is carved from training images; some sets publish one."""
    published = SOURCES[config.name].published
    return published is None or published.num_valid is None


def splits_of(data: DataSet) -> dict[str, ImageSet]:
    every = {"train": data.train, "valid": data.valid, "test": data.test}
    return {name: split for name, split in every.items() if split is not None}


def test_splits_have_the_promised_form(config: DataConfig) -> None:
    data = load_data(config)
    for split in splits_of(data).values():
        assert split.pixels_NCHW.dtype == np.uint8
        assert split.pixels_NCHW.shape == (len(split), *data.form.shape)
        assert split.pixels_NCHW.max() < data.form.levels
        assert not split.pixels_NCHW.flags.writeable
        assert (split.labels_N is None) == (data.form.num_classes is None)
        if split.labels_N is not None:
            assert split.labels_N.shape == (len(split),)
            assert split.labels_N.dtype == np.int64


def test_validation_is_disjoint_complete_and_seeded(config: DataConfig) -> None:
    def rows(split_seed: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
        data = load_data(config.model_copy(update={"split_seed": split_seed}))
        assert data.test is None or data.test.pixels_NCHW.tobytes() == test_bytes
        train, valid = (sorted(image.tobytes() for image in split.pixels_NCHW) for split in (data.train, data.valid))
        return train, valid, sorted(train + valid)

    test = load_data(config).test
    test_bytes = test.pixels_NCHW.tobytes() if test is not None else b""
    train_0, valid_0, all_0 = rows(0)
    train_1, valid_1, all_1 = rows(1)
    assert all_0 == all_1
    assert (valid_0 != valid_1) == carves_validation(config)
    assert len(set(all_0)) == len(train_0) + len(valid_0)
    assert len(train_0) == len(train_1)


def test_training_on_validation_too_takes_the_same_images_and_leaves_none_to_validate_on(config: DataConfig) -> None:
    for changes in ({}, {"split_seed": 1}):
        apart = load_data(config.model_copy(update=changes))
        together = load_data(config.model_copy(update=changes | {"train_on_valid": True}))
        assert apart.valid is not None
        assert together.valid is None
        for what in ("pixels_NCHW", "labels_N"):
            train, valid, both = (getattr(part, what) for part in (apart.train, apart.valid, together.train))
            assert (both is None) if train is None else np.array_equal(both, np.concatenate([train, valid]))
        assert (apart.test is None) == (together.test is None)
        if apart.test is not None and together.test is not None:
            assert np.array_equal(apart.test.pixels_NCHW, together.test.pixels_NCHW)
        assert together.identity.checksum != apart.identity.checksum
        assert together.form == apart.form


@pytest.mark.parametrize("has_own_valid", [False, True])
@pytest.mark.parametrize("binarise", ["static", "dynamic"])
def test_images_that_are_drawn_are_the_same_ones_when_validation_is_trained_on(
    tmp_path: Path, binarise: str, has_own_valid: bool
) -> None:
    """A static draw stays what it was; a dynamic one keeps the grey levels of all that is trained on."""
    splits = {"train": random_pixels(50, 4, 4), "test": random_pixels(6, 4, 4, seed=1)}
    if has_own_valid:
        splits["valid"] = random_pixels(9, 4, 4, seed=2)
    np.savez(tmp_path / "set.npz", **splits)
    config = DataConfig(name="array", path=str(tmp_path / "set.npz"), binarise=binarise)
    apart = load_data(config)
    together = load_data(config.model_copy(update={"train_on_valid": True}))
    assert apart.valid is not None
    if binarise == "static":
        every = np.concatenate([apart.train.pixels_NCHW, apart.valid.pixels_NCHW])
        assert np.array_equal(together.train.pixels_NCHW, every)
    else:
        grey = [splits["train"], *([splits["valid"]] if has_own_valid else [])]
        images = sorted(image.tobytes() for part in grey for image in part)
        assert sorted(image.tobytes() for image in together.train.pixels_NCHW) == images
        epochs = np.zeros(len(together.train), dtype=np.int64)
        assert together.train_batch(np.arange(len(together.train)), epochs).max() == 1


def test_a_fraction_shortens_train_alone_and_is_nested(config: DataConfig) -> None:
    whole, half, quarter = (load_data(config.model_copy(update={"fraction": share})) for share in (1.0, 0.5, 0.25))
    images = [{image.tobytes() for image in data.train.pixels_NCHW} for data in (quarter, half, whole)]
    assert images[0] < images[1] < images[2]
    assert len(half.train) == round(len(whole.train) / 2)
    for name in ("valid", "test"):
        assert name not in splits_of(whole) or np.array_equal(
            splits_of(whole)[name].pixels_NCHW, splits_of(quarter)[name].pixels_NCHW
        )


def test_identity_is_of_the_content(config: DataConfig) -> None:
    first = load_data(config)
    forget_loaded()
    again = load_data(config)
    assert again.identity == first.identity
    assert first.identity.name == config.name
    others: list[dict[str, object]] = [{"fraction": 0.5}]
    if carves_validation(config):
        others += [{"split_seed": 1}]
    if load_data(config).form.levels > 2:
        others += [{"levels": 4}, {"binarise": "threshold"}, {"binarise": "dynamic"}]
    checksums = {load_data(config.model_copy(update=change)).identity.checksum for change in [{}, *others]}
    assert len(checksums) == 1 + len(others)
    unused = load_data(config.model_copy(update={"binarise_seed": 5}))
    assert unused.identity == first.identity


def test_memory_and_cache_hold_the_same(config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = load_data(config)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PIXELTUNE_CACHE", str(tmp_path / "file"))
    in_memory = load_data(config)
    assert in_memory.identity == cached.identity
    assert np.array_equal(in_memory.train.pixels_NCHW, cached.train.pixels_NCHW)


def test_train_batch_copies_the_images_asked_for(config: DataConfig) -> None:
    data = load_data(config)
    indices = np.array([3, 0, 3])
    batch = data.train_batch(indices, epochs=np.zeros(3, np.int64))
    assert np.array_equal(batch, data.train.pixels_NCHW[indices])
    batch[:] = 0


@pytest.mark.parametrize("name", ["digits", "array", "folder", "parquet", "mnist"])
def test_reading_imports_no_torch(name: str, tmp_path: Path) -> None:
    config = MAKERS[name](tmp_path / "source")
    code = (
        "import sys; import pixeltune.data as data; from pixeltune.config import DataConfig\n"
        "heavy = {'torch', 'torchvision', 'ray', 'pandas', 'sklearn', 'pyarrow', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"data.load_data(DataConfig.model_validate({config.model_dump()!r}))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_are_the_real_ones() -> None:
    data = load_data(DataConfig(name="digits"))
    assert (len(data.train), len(data.valid), len(data.test or ())) == (1077, 360, 360)
    assert data.form.levels == 17
    assert data.form.num_classes == 10
    assert data.identity.checksum == "de3c63a264769de2"


def test_packed_and_unpacked_idx_are_one_set(tmp_path: Path) -> None:
    identities = []
    for suffix in ("", ".gz"):
        make_idx(tmp_path / f"as{suffix}", "MNIST", suffix)
        identities.append(load_data(DataConfig(name="mnist", path=str(tmp_path / f"as{suffix}"), num_valid=5)).identity)
    assert identities[0] == identities[1]
    assert identities[0].version == "altered"


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for split, classes in (("train", "ab"), ("test", "b")):
        for name in classes:
            for index in range(4):
                save_image(tmp_path / split / name / "deep" / f"{index}.png", np.full((4, 4), ord(name), np.uint8))
    data = load_data(DataConfig(name="folder", path=str(tmp_path), num_valid=2))
    assert data.form.num_classes == 2
    assert data.train.labels_N is not None
    assert np.array_equal(data.train.labels_N, data.train.pixels_NCHW[:, 0, 0, 0] - ord("a"))
    save_image(tmp_path / "train" / "stray.png", np.zeros((4, 4), np.uint8))
    forget_loaded()
    assert load_data(DataConfig(name="folder", path=str(tmp_path), num_valid=2)).form.num_classes is None


def test_linked_class_folders_count_and_loops_end(tmp_path: Path) -> None:
    for index in range(4):
        save_image(tmp_path / "set" / "train" / "a" / f"{index}.png", np.full((4, 4), ord("a"), np.uint8))
        save_image(tmp_path / "elsewhere" / "deep" / f"{index}.png", np.full((4, 4), ord("b"), np.uint8))
    train = tmp_path / "set" / "train"
    (train / "b").symlink_to(tmp_path / "elsewhere")
    (train / "c").symlink_to(tmp_path / "elsewhere" / "deep")
    (train / "a" / "self").symlink_to(train / "a")
    (train / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    files = SOURCES["folder"].files
    assert files is not None
    config = DataConfig(name="folder", path=str(tmp_path / "set"), num_valid=2, follow_links=True)
    assert [path.relative_to(train).as_posix() for path in files(config)] == [
        f"{name}/{index}.png" for name in ("a", "b/deep", "c") for index in range(4)
    ]
    data = load_data(config)
    assert data.form.num_classes == 3
    assert (len(data.train), len(data.valid)) == (10, 2)


def test_a_folders_own_validation_is_used_unless_one_is_carved(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 6)):
        for index, pixels in enumerate(random_pixels(count, 4, 4, seed=count)):
            save_image(tmp_path / split / f"{index:02}.png", pixels)
    own = load_data(DataConfig(name="folder", path=str(tmp_path)))
    carved = load_data(DataConfig(name="folder", path=str(tmp_path), num_valid=3))
    assert (len(own.train), len(own.valid)) == (20, 6)
    assert (len(carved.train), len(carved.valid)) == (17, 3)


def test_resizing_is_a_box_filter(tmp_path: Path) -> None:
    pixels = random_pixels(6, 8, 8, 3)
    for index, image in enumerate(pixels):
        save_image(tmp_path / "train" / f"{index}.png", image)
    save_image(tmp_path / "train" / ".hidden" / "0.png", pixels[0, :3])
    save_image(tmp_path / "train" / "6.png", np.full((12, 12, 3), 7, np.uint8))
    data = load_data(DataConfig(name="folder", path=str(tmp_path), resize=4, num_valid=1))
    assert len(data.train) + len(data.valid) == 7
    means = pixels.reshape(6, 4, 2, 4, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    for image in data.train.pixels_NCHW:
        assert min(np.abs(image - mean).max() for mean in [*means, np.full((3, 4, 4), 7.0)]) <= 1.0


def test_grey_is_luma_for_files_as_for_arrays(tmp_path: Path) -> None:
    pixels = random_pixels(12, 5, 4, 3)
    np.save(tmp_path / "set.npy", pixels)
    for index, image in enumerate(pixels):
        save_image(tmp_path / "files" / "train" / f"{index:02}.png", image)
    array = load_data(DataConfig(name="array", path=str(tmp_path / "set.npy"), grey=True, num_valid=2))
    files = load_data(DataConfig(name="folder", path=str(tmp_path / "files"), grey=True, num_valid=2))
    assert array.form.shape == (1, 5, 4)
    assert np.array_equal(array.train.pixels_NCHW, files.train.pixels_NCHW)
    wanted = (pixels @ np.array([0.299, 0.587, 0.114]))[:, None]
    distances = np.abs(array.train.pixels_NCHW[:, None] - wanted[None]).max(axis=(2, 3, 4)).min(axis=1)
    assert distances.max() <= 0.51


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((20, 6, 5), (1, 6, 5)),
        ((20, 6, 5, 3), (3, 6, 5)),
        ((20, 3, 6, 5), (3, 6, 5)),
        ((20, 1, 2, 2), (1, 2, 2)),
        ((20, 8, 8, 4), (4, 8, 8)),
        ((20, 2, 8, 8), (2, 8, 8)),
    ],
)
def test_array_layouts(shape: tuple[int, ...], form: tuple[int, int, int], tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", random_pixels(*shape))
    data = load_data(DataConfig(name="array", path=str(tmp_path / "set.npy")))
    assert data.form.shape == form
    assert data.test is None


def test_an_npz_can_say_its_levels(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train=random_pixels(20, 4, 4, levels=5), levels=5)
    assert load_data(DataConfig(name="array", path=str(tmp_path / "set.npz"))).form.levels == 5


def test_unlabelled_rows_mean_no_labels(tmp_path: Path) -> None:
    config = MAKERS["parquet"](tmp_path)
    assert load_data(config).form.num_classes == 3
    from tests.support.image_sets import png

    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(random_pixels(6, 5, 3))], [-1])
    forget_loaded()
    data = load_data(config)
    assert data.form.num_classes is None
    assert data.train.labels_N is None


OWN_SOURCE = """
import numpy as np
from pixeltune.data import ImageSet, RawData

calls = []

def stripes(config):
    calls.append(config.name)
    pixels = np.tile(np.arange(20, dtype=np.uint8)[:, None, None, None] % 4, (1, 2, 3, 5))
    return RawData(train=ImageSet(pixels), levels=4, version="first")

def kept(config):
    return stripes(config)

kept.files = lambda config: [config.path]
"""


def test_an_own_source_is_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_images.py").write_text(OWN_SOURCE)
    (tmp_path / "content").write_text("images")
    monkeypatch.syspath_prepend(tmp_path)
    data = load_data(DataConfig(name="own_images:stripes"))
    assert data.form.shape == (2, 3, 5)
    assert data.form.levels == 4
    assert data.identity.version == "first"
    for _ in range(2):
        forget_loaded()
        assert load_data(DataConfig(name="own_images:kept", path=str(tmp_path / "content"))).form == data.form
    assert sys.modules["own_images"].calls == ["own_images:stripes", "own_images:kept"]


@pytest.mark.parametrize(
    ("shape", "layout", "form"),
    [
        ((20, 6, 5, 3), "auto", (3, 6, 5)),
        ((20, 6, 5, 1), "auto", (1, 6, 5)),
        ((20, 6, 5), "auto", (1, 6, 5)),
        ((20, 8, 8, 4), "auto", (4, 8, 8)),
        ((20, 3, 6, 5), "auto", (3, 6, 5)),
        ((20, 1, 2, 2), "auto", (1, 2, 2)),
        ((20, 3, 6, 3), "NCHW", (3, 6, 3)),
        ((20, 3, 6, 3), "NHWC", (3, 3, 6)),
        ((20, 12, 8, 8), "NCHW", (12, 8, 8)),
        ((20, 8, 9, 12), "NHWC", (12, 8, 9)),
    ],
)
def test_images_of_an_own_source_have_their_colours_first(
    shape: tuple[int, ...], layout: str, form: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours last would train as 32 colours of 32 by 3 pixels, without a word."""
    pixels = random_pixels(*shape)
    raw = RawData(train=ImageSet(pixels[:12]), valid=ImageSet(pixels[12:]), layout=layout)
    monkeypatch.setattr("pixeltune.data.sources._import", lambda _name: lambda _config: raw)
    data = load_data(DataConfig(name=f"mine:{shape}-{layout}"))
    assert data.form.shape == form
    first = pixels[0] if len(shape) == 4 else pixels[0][None]
    assert np.array_equal(data.train.pixels_NCHW[0], first if first.shape == form else np.moveaxis(first, -1, 0))


@pytest.mark.parametrize("shape", [(20, 3, 6, 3), (20, 3, 5, 1), (20, 8, 9, 12), (20, 32, 32, 5), (20, 2, 5, 2)])
def test_images_of_an_own_source_whose_shape_does_not_decide_are_refused(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = RawData(train=ImageSet(random_pixels(*shape)))
    monkeypatch.setattr("pixeltune.data.sources._import", lambda _name: lambda _config: raw)
    with pytest.raises(DataError, match=r'^train of source mine:.*; give its layout, as RawData\(…, layout="NCHW"\)'):
        load_data(DataConfig(name=f"mine:{shape}"))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (RawData(train=ImageSet(random_pixels(9, 4, 4)), layout="CHWN"), "must be one of auto, NCHW, NHWC"),
        (RawData(train=random_pixels(9, 4, 4)), "must be a pixeltune.data.ImageSet, but got ndarray"),
        (RawData(train=ImageSet(random_pixels(9, 4, 4) / 255)), "must be uint8, but got float64"),
        (RawData(train=ImageSet(random_pixels(9, 4, 4)), levels=None), "2 to 256 levels, a whole number, but got None"),
        (RawData(train=ImageSet(random_pixels(9, 4, 4)), levels=16.5), "2 to 256 levels, a whole number, but got 16.5"),
        (RawData(train=ImageSet(random_pixels(9, 16)), layout="NCHW"), r"of shape \(N, C, H, W\)"),
    ],
)
def test_what_an_own_source_must_not_return(raw: RawData, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.data.sources._import", lambda _name: lambda _config: raw)
    forget_loaded()
    with pytest.raises(DataError, match=says):
        load_data(DataConfig(name="mine:odd"))


@pytest.mark.parametrize("names", [(), ("valid",), ("train", "val"), ("train", "Test")])
def test_no_split_of_raw_data_is_left_out_for_its_name(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"^splits must be train and.* but got {', '.join(names) or 'none'}; rename"):
        RawData.of({name: ImageSet(random_pixels(9, 4, 4)) for name in names})


def test_raw_data_is_exported_for_own_sources() -> None:
    assert RawData(train=ImageSet(np.zeros((1, 1, 1, 1), np.uint8))).levels == 256


def test_real_mnist() -> None:
    data = load_data(DataConfig(name="mnist", path=str(shared("MNIST").parent)))
    assert (len(data.train), len(data.valid), len(data.test or ())) == (50_000, 10_000, 10_000)
    assert data.form.shape == (1, 28, 28)
    assert data.identity.version == "original"
    assert data.test is not None
    assert data.test.labels_N is not None
    assert data.test.labels_N[:5].tolist() == [7, 2, 1, 0, 4]


def test_real_cifar10_jpeg() -> None:
    data = load_data(DataConfig(name="parquet", path=str(shared("cifar10_jpeg")), fraction=0.1))
    assert (len(data.train), len(data.valid), len(data.test or ())) == (4_500, 5_000, 10_000)
    assert data.form.shape == (3, 32, 32)
    assert data.form.num_classes == 10


def test_real_imagenet64_valid_is_our_test() -> None:
    path = str(shared("imagenet64_sample"))
    data = load_data(DataConfig(name="imagenet64", path=path))
    assert (len(data.train), len(data.valid), len(data.test or ())) == (1607, 178, 196)
    assert data.form.shape == (3, 64, 64)
    assert data.form.num_classes is None
    as_folder = load_data(DataConfig(name="folder", path=path))
    assert (len(as_folder.train), len(as_folder.valid), as_folder.test) == (1785, 196, None)
