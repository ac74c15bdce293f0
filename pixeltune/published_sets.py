"""Published data sets: their form, their files, and the size and destination of a download.

`--list`, `--dry-run` and `doctor` answer from this table without images and without a network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from pixeltune.files import expand_home
from pixeltune.format import listed, size_text


def data_root() -> Path:
    """Return the folder of data sets unless `data.path` names another: PIXELTUNE_DATA, else ~/.cache/pixeltune/data."""
    return expand_home(os.environ.get("PIXELTUNE_DATA") or "~/.cache/pixeltune/data")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file as it is published: packed files, or a file that a reader takes as it is.

    Attributes:
        name: Its name at a mirror.
        num_bytes: Its size; 0 where no source states it.
        md5: Its MD5 sum; None where it is not checked.
        sha256: Its SHA-256; None where it is not known.
        git_blob: Its name in a Git repository, a SHA-1 over size and content; None where it is not published in one.
        folder: Where it is stored and unpacked, below the folder of the data set.
        files: The files that it holds, below the folder of the data set; for each the names that a reader accepts.
            Left empty, the file is taken as it is and not unpacked.
    """

    name: str
    num_bytes: int
    md5: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    folder: str = ""
    files: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.files:
            object.__setattr__(self, "files", ((self.path,),))

    @property
    def path(self) -> str:
        """Return where it is stored, below the folder of the data set."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def is_plain(self) -> bool:
        """Return whether it is taken as it is, and never unpacked."""
        return self.files == ((self.path,),)

    @property
    def is_read_packed(self) -> bool:
        """Return whether a reader takes it without unpacking."""
        return any(self.path in names for names in self.files)

    @property
    def has_digest(self) -> bool:
        """Return whether a copy can be recognised as the published file."""
        return any((self.sha256, self.md5, self.git_blob))

    def missing(self, root: Path) -> list[str]:
        """Return the files that are not below `root`, by the first of their names."""
        return [names[0] for names in self.files if _first_present(root, names) is None]

    def fault(self, path: Path) -> str:
        """Return how the file at `path` differs from the published one, or "" if it does not or no digest is known."""
        if self.sha256 is not None:
            return "" if file_digest(path, "sha256") == self.sha256 else f"its SHA-256 is not {self.sha256}"
        if self.md5 is not None:
            return "" if file_digest(path, "md5") == self.md5 else f"its MD5 sum is not {self.md5}"
        if self.git_blob is not None:
            head = f"blob {path.stat().st_size}\0".encode()
            return "" if file_digest(path, "sha1", head) == self.git_blob else f"its Git SHA-1 is not {self.git_blob}"
        return ""


@dataclass(frozen=True)
class FileState:
    """The state of a data set's files on this machine, in words that follow its name.

    Attributes:
        where: Where they are, or are not.
        advice: What to do.
    """

    where: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}; {self.advice}"


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A data set whose published files never change.

    Attributes:
        name: The source in `data.name`.
        title: What it is, in one line.
        page: Where its publishers offer it; "" where the images come with a library.
        shape: (C, H, W) of every image.
        levels: K; pixels are 0..K-1.
        num_train: Images of the published training split.
        num_valid: Images of the published validation split; None where validation is carved from training images.
        num_test: Images of the published split that is our test set.
        num_classes: Classes of the labels; None where the files have none.
        version: The edition, as the rows of the results name it.
        dataset: Its name in the table of published results; "" where that is `name`.
        binarisation: The draw that its two levels are; `none` where it has grey levels.
        archives: What is downloaded; empty where the images come with a library.
        mirrors: URLs in front of the name of an archive, in the order in which they are tried; empty where no program
            can download the archives.
        unpacked_bytes: Size of what the archives hold.
        folder: Folder of its own below the data folder of this machine. `data.path` names this folder itself.
        library: The package that the images come with; "" where they are files.
        other_editions: Editions that the same source reads, recognised by the names of their files.
    """

    name: str
    title: str
    page: str = ""
    shape: tuple[int, int, int]
    levels: int = 256
    num_train: int
    num_valid: int | None = None
    num_test: int
    num_classes: int | None = 10
    version: str = "original"
    dataset: str = ""
    binarisation: str = "none"
    archives: tuple[Archive, ...] = ()
    mirrors: tuple[str, ...] = ()
    unpacked_bytes: int = 0
    folder: str = ""
    library: str = ""
    other_editions: tuple[PublishedSet, ...] = ()

    @property
    def editions(self) -> tuple[PublishedSet, ...]:
        """Return every edition that the source reads, this one first."""
        return (self, *self.other_editions)

    def root(self, path: str | None) -> Path:
        """Return the folder of the data set: `data.path`, or below the data folder of this machine where it is None."""
        return data_root() / self.folder if path is None else expand_home(path)

    def editions_in(self, root: Path) -> list[PublishedSet]:
        """Return the editions with at least one file below `root`."""
        return [each for each in self.editions if any(each.present(root))]

    def edition_in(self, root: Path) -> PublishedSet:
        """Return the first edition with files below `root`, or this one where there are files of none."""
        return next(iter(self.editions_in(root)), self)

    def present(self, root: Path) -> list[Path | None]:
        """Return the path of each file in the order of the archives; None for a file that is not below `root`."""
        return [_first_present(root, names) for archive in self.archives for names in archive.files]

    def missing(self, root: Path) -> list[str]:
        """Return the files that are not below `root`, by the first of their names."""
        return [name for archive in self.archives for name in archive.missing(root)]

    def checked_version(self, root: Path) -> str:
        """Return `version` if every file below `root` is as published, "altered" if one is not.

        "unchecked" where a file has no published digest, or is there unpacked only.
        """
        checked = True
        for archive in self.archives:
            path = root / archive.path
            if not (archive.is_read_packed and archive.has_digest and path.is_file()):
                checked = False
            elif archive.fault(path):
                return "altered"
        return self.version if checked else "unchecked"

    def to_download(self, root: Path) -> list[Archive]:
        """Return the archives to download: files of theirs are missing below `root`, and so are they."""
        return [archive for archive in self.archives if archive.missing(root) and not (root / archive.path).is_file()]

    def state(self, path: str | None, *, download: bool) -> FileState:
        """Return whether the files are there, and else what to do. path, download: as in `data`."""
        if self.library:
            return FileState(f"comes with {self.library}", "nothing to download")
        root = self.root(path)
        edition = self.edition_in(root)
        missing = edition.missing(root)
        if not missing:
            return FileState(f"is in {root}", "nothing to download")
        total = sum(len(archive.files) for archive in edition.archives)
        if len(missing) == total:
            return FileState(f"is not in {root}", self.how_to_get(root, download=download))
        return FileState(
            f"is not all in {root}: {listed(missing, most=2)} missing", edition.how_to_get(root, download=download)
        )

    def how_to_get(self, root: Path, *, download: bool) -> str:
        """Return what to do about missing files. download: whether `data.download` allows a search to download them."""
        archives = self.to_download(root)
        if not self.mirrors:
            editions = (self,) if any(self.present(root)) else self.editions
            what = ", or ".join(each._by_hand(root) for each in editions)
            return f"get {what}, or set `data.path` to the folder that holds the images"
        what = "unpack the archive that is there"
        if archives:
            what = f"download {_size_of(archives)} from {self.mirrors[0]}"
        if download:
            return f"a search will {what}"
        return f"set `data.download=true` to {what}, or set `data.path` to the folder that holds the files"

    def _by_hand(self, root: Path) -> str:
        """Return which archives to get and what to do with them."""
        archives = self.to_download(root) or list(self.archives)
        is_read_packed = all(archive.is_read_packed for archive in archives)
        names = " and ".join(archive.name for archive in archives)
        return f"{names} ({_size_of(archives)}) from {self.page} and {'put' if is_read_packed else 'unpack'} them there"


def file_digest(path: Path, algorithm: str, head: bytes = b"") -> str:
    """Return the hexadecimal digest of `head` followed by a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, head)).hexdigest()


def _size_of(archives: list[Archive]) -> str:
    """Return the size of all, or the names where no source states a size."""
    if any(archive.num_bytes == 0 for archive in archives):
        return " and ".join(archive.name for archive in archives)
    return size_text(sum(archive.num_bytes for archive in archives))


def _first_present(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of these names that is a file or a folder; a pipe or a device does not count."""
    return next((path for path in (root / name for name in names) if path.is_file() or path.is_dir()), None)


def _idx_archive(kind: str, stem: str, num_bytes: int, md5: str) -> Archive:
    """Return one archive of the MNIST family; it is read packed or unpacked."""
    file = f"{kind}/raw/{stem}"
    return Archive(name=f"{stem}.gz", num_bytes=num_bytes, md5=md5, folder=f"{kind}/raw", files=((file, f"{file}.gz"),))


def _amat(part: str, num_bytes: int, sha256: str) -> Archive:
    return Archive(name=f"binarized_mnist_{part}.amat", num_bytes=num_bytes, sha256=sha256)


_Fact = tuple[int, str]
"""Size and SHA-256 of one file."""


def _imagenet(side: int, tars: dict[str, _Fact], zips: dict[str, tuple[tuple[str, ...], _Fact]]) -> PublishedSet:
    """Return down-sampled ImageNet in both versions; the published `valid` of each is our test set.

    The old one has 1,281,149 and 49,999 images, the new one all 1,281,167 and 50,000 of ImageNet, with labels.

    Args:
        side: Side of the square images, in pixels.
        tars: The archives of the old version, by split.
        zips: The archives of the new version, by the name without its suffix, and the files that each holds.
    """
    old = PublishedSet(
        name=f"imagenet{side}",
        title=f"ImageNet at {side}×{side}, down-sampled by van den Oord et al. 2016 (arXiv 1601.06759)",
        page="https://image-net.org/small/ (no longer served; copies are offered as torrents)",
        shape=(3, side, side),
        num_train=1_281_149,
        num_test=49_999,
        num_classes=None,
        version="old (van den Oord)",
        archives=tuple(_imagenet_tar(split, side, fact) for split, fact in tars.items()),
        folder=f"imagenet{side}",
    )
    new = replace(
        old,
        title=f"ImageNet at {side}×{side}, down-sampled by Chrabaszcz et al. 2017 (arXiv 1707.08819)",
        page="https://image-net.org/download-images (needs an account)",
        num_train=1_281_167,
        num_test=50_000,
        num_classes=1000,
        version="new (Chrabaszcz)",
        archives=tuple(_imagenet_zip(stem, names, fact) for stem, (names, fact) in zips.items()),
    )
    return replace(old, other_editions=(new,))


def _imagenet_tar(split: str, side: int, fact: _Fact) -> Archive:
    """Return one archive of the old version; it is read packed or unpacked."""
    stem = f"{split}_{side}x{side}"
    folders = ("valid", "val") if split == "valid" else (split,)
    num_bytes, sha256 = fact
    return Archive(name=f"{stem}.tar", num_bytes=num_bytes, sha256=sha256, files=((stem, *folders, f"{stem}.tar"),))


def _imagenet_zip(stem: str, names: tuple[str, ...], fact: _Fact) -> Archive:
    """Return one archive of the new version; its files may be in a folder of its name or in the set's own."""
    num_bytes, sha256 = fact
    files = tuple((name, f"{stem}/{name}") for name in names)
    return Archive(name=f"{stem}.zip", num_bytes=num_bytes, sha256=sha256, files=files)


def _batches(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"train_data_batch_{number}.npz" for number in range(first, last + 1))


DIGITS = PublishedSet(
    name="digits", title="1,797 handwritten digits of UCI at 8×8",
    shape=(1, 8, 8), levels=17, num_train=1_437, num_test=360,
    version="scikit-learn, 1437 + 360", library="scikit-learn",
)  # fmt: skip

MNIST = PublishedSet(
    name="mnist",
    title="MNIST: handwritten digits of LeCun et al. 1998",
    page="http://yann.lecun.com/exdb/mnist/",
    shape=(1, 28, 28),
    num_train=60_000,
    num_test=10_000,
    archives=(
        _idx_archive("MNIST", "train-images-idx3-ubyte", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        _idx_archive("MNIST", "train-labels-idx1-ubyte", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        _idx_archive("MNIST", "t10k-images-idx3-ubyte", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        _idx_archive("MNIST", "t10k-labels-idx1-ubyte", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    unpacked_bytes=54_950_048,
)

FASHION_MNIST = PublishedSet(
    name="fashion_mnist",
    title="Fashion-MNIST: articles of clothing by Xiao et al. 2017 (arXiv 1708.07747)",
    page="https://github.com/zalandoresearch/fashion-mnist",
    shape=(1, 28, 28),
    num_train=60_000,
    num_test=10_000,
    version="unchecked",
    archives=(
        _idx_archive("FashionMNIST", "train-images-idx3-ubyte", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _idx_archive("FashionMNIST", "train-labels-idx1-ubyte", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        _idx_archive("FashionMNIST", "t10k-images-idx3-ubyte", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        _idx_archive("FashionMNIST", "t10k-labels-idx1-ubyte", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    unpacked_bytes=54_950_048,
)

CIFAR10 = PublishedSet(
    name="cifar10",
    title="CIFAR-10: small photographs of ten classes, Krizhevsky 2009",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    shape=(3, 32, 32),
    num_train=50_000,
    num_test=10_000,
    archives=(
        Archive(
            name="cifar-10-python.tar.gz",
            num_bytes=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
            files=tuple(
                (f"cifar-10-batches-py/{name}",)
                for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
            ),
        ),
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    unpacked_bytes=186_213_000,
)

MNIST_STATIC = PublishedSet(
    name="mnist_static",
    title="MNIST binarised once by Larochelle (Salakhutdinov and Murray 2008): the fixed draw of the literature",
    page="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    shape=(1, 28, 28),
    levels=2,
    num_train=50_000,
    num_valid=10_000,
    num_test=10_000,
    num_classes=None,
    dataset="mnist",
    binarisation="static",
    archives=(
        _amat("train", 78_400_000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
        _amat("valid", 15_680_000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
        _amat("test", 15_680_000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
    ),
    mirrors=("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
    folder="mnist_static",
)
"""Sizes and digests as TensorFlow Datasets lists them (url_checksums/binarized_mnist.txt)."""

IMAGENET32 = _imagenet(
    32,
    tars={
        "train": (4_113_018_880, "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5"),
        "valid": (161_474_560, "862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7"),
    },
    zips={
        "Imagenet32_train_npz": (
            _batches(1, 10),
            (3_580_435_279, "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc"),
        ),
        "Imagenet32_val_npz": (
            ("val_data.npz",),
            (139_697_668, "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a"),
        ),
    },
)
IMAGENET64 = _imagenet(
    64,
    tars={
        "train": (12_112_588_800, "e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7"),
        "valid": (477_255_680, "eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd"),
    },
    zips={
        "Imagenet64_train_part1_npz": (
            _batches(1, 5),
            (6_783_426_789, "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1"),
        ),
        "Imagenet64_train_part2_npz": (
            _batches(6, 10),
            (6_780_506_068, "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30"),
        ),
        "Imagenet64_val_npz": (
            ("val_data.npz",),
            (529_522_927, "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8"),
        ),
    },
)
"""Sizes and digests as TensorFlow Datasets lists them (url_checksums/downsampled_imagenet.txt and
imagenet_resized.txt)."""

SVHN = PublishedSet(
    name="svhn",
    title="Street View House Numbers, cropped digits, Netzer et al. 2011; without the `extra` images",
    page="http://ufldl.stanford.edu/housenumbers/",
    shape=(3, 32, 32),
    num_train=73_257,
    num_test=26_032,
    archives=(
        Archive(
            name="train_32x32.mat",
            num_bytes=182_040_794,
            md5="e26dedcc434d2e4c54c9b2d4a06d8373",
            sha256="435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        Archive(
            name="test_32x32.mat",
            num_bytes=64_275_384,
            md5="eb5a983be6a315427106f1b164d9cef3",
            sha256="cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    folder="svhn",
)

OMNIGLOT = PublishedSet(
    name="omniglot",
    title="Omniglot at 28×28 in the split of Burda et al. 2015 (arXiv 1509.00519), grey levels to be binarised",
    page="https://github.com/yburda/iwae",
    shape=(1, 28, 28),
    num_train=24_345,
    num_test=8_070,
    num_classes=None,
    archives=(Archive(name="chardata.mat", num_bytes=0, git_blob="016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),),
    mirrors=("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",),
    unpacked_bytes=100_000_000,
    folder="omniglot",
)
"""The digest is the file's name in the authors' Git repository; `unpacked_bytes` leaves room for a size that is not
stated."""

EMNIST = PublishedSet(
    name="emnist",
    title="EMNIST, its balanced split of letters and digits, Cohen et al. 2017 (arXiv 1702.05373)",
    page="https://www.nist.gov/itl/products-and-services/emnist-dataset",
    shape=(1, 28, 28),
    num_train=112_800,
    num_test=18_800,
    num_classes=47,
    version="unchecked",
    archives=(
        Archive(
            name="gzip.zip",
            num_bytes=561_753_746,
            md5="58c8d27c78d21e728a6bc7b3cc06412e",
            sha256="fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            folder="EMNIST/raw",
            files=tuple(
                (f"EMNIST/raw/{stem}", f"EMNIST/raw/{stem}.gz", f"EMNIST/raw/gzip/{stem}.gz")
                for stem in (
                    "emnist-balanced-train-images-idx3-ubyte",
                    "emnist-balanced-train-labels-idx1-ubyte",
                    "emnist-balanced-test-images-idx3-ubyte",
                    "emnist-balanced-test-labels-idx1-ubyte",
                )
            ),
        ),
    ),
    mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
    unpacked_bytes=561_753_746,
)

CELEBA64 = PublishedSet(
    name="celeba64",
    title="CelebA, aligned faces of Liu et al. 2015, cropped to 148×148 as by Larsen et al. 2016, at 64×64",
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    shape=(3, 64, 64),
    num_train=162_770,
    num_valid=19_867,
    num_test=19_962,
    num_classes=None,
    version="cropped (Larsen et al. 2016)",
    archives=(
        Archive(
            name="img_align_celeba.zip",
            num_bytes=1_443_490_838,
            md5="00d2c5bc6d35e252742224ab0c1e8fcb",
            sha256="46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
            files=(("img_align_celeba", "celeba/img_align_celeba"),),
        ),
        Archive(
            name="list_eval_partition.txt",
            num_bytes=2_836_386,
            md5="d32c9cbf5e040fd4025c592c306e6668",
            sha256="fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
            files=(("list_eval_partition.txt", "celeba/list_eval_partition.txt"),),
        ),
    ),
    folder="celeba",
)

PUBLISHED_SETS = {
    each.name: each
    for each in (
        DIGITS,
        MNIST,
        MNIST_STATIC,
        FASHION_MNIST,
        EMNIST,
        OMNIGLOT,
        CIFAR10,
        SVHN,
        IMAGENET32,
        IMAGENET64,
        CELEBA64,
    )
}
"""By the source's name. The other sources read files of the user's."""

NO_SOURCE = {
    f"imagenet{side}": "no down-sampled set of this size is published: each paper resizes ImageNet's photographs itself"
    for side in (128, 256, 640)
} | {
    f"lsun_{scene}64": "LSUN is published as photographs in LMDB files: each paper crops and resizes them itself"
    for scene in ("bedroom", "church", "tower")
}
"""Data sets of the table of published results that no source reads, with the reason."""
