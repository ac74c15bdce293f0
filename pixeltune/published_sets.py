"""Published data sets: their form, their files, and the size and destination of a download.

`--list`, `--dry-run` and `doctor` answer from this table without images and without a network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pixeltune.files import expand_home


def data_root() -> Path:
    """Return the folder of data sets unless `data.path` names another: PIXELTUNE_DATA, else ~/.cache/pixeltune/data."""
    return expand_home(os.environ.get("PIXELTUNE_DATA") or "~/.cache/pixeltune/data")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file as it is published.

    Attributes:
        name: Its name at a mirror.
        num_bytes: Its size.
        md5: Its sum; None where it is not checked.
        folder: Where it is stored and unpacked, below the folder of the data set.
        files: The files that it holds, below the folder of the data set; for each the names that a reader accepts.
    """

    name: str
    num_bytes: int
    md5: str | None = None
    folder: str = ""
    files: tuple[tuple[str, ...], ...]

    def missing(self, root: Path) -> list[str]:
        """Return the files that are not below `root`, by the first of their names."""
        return [names[0] for names in self.files if not any((root / name).exists() for name in names)]


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
        shape: (C, H, W) of every image.
        levels: K; pixels are 0..K-1.
        num_train: Images of the published training split.
        num_test: Images of the published split that is our test set.
        num_classes: Classes of the labels; None where the files have none.
        version: The edition, as the rows of the results name it.
        archives: What is downloaded; empty where the images come with a library.
        mirrors: URLs in front of the name of an archive, in the order in which they are tried; empty where no program
            can download the archives.
        unpacked_bytes: Size of what the archives hold.
        folder: Folder of its own below the data folder of this machine. `data.path` names this folder itself.
        library: The package that the images come with; "" where they are files.
    """

    name: str
    shape: tuple[int, int, int]
    levels: int = 256
    num_train: int
    num_test: int
    num_classes: int | None = 10
    version: str = "original"
    archives: tuple[Archive, ...] = ()
    mirrors: tuple[str, ...] = ()
    unpacked_bytes: int = 0
    folder: str = ""
    library: str = ""

    def root(self, path: str | None) -> Path:
        """Return the folder of the data set: `data.path`, or below the data folder of this machine where it is None."""
        return data_root() / self.folder if path is None else expand_home(path)

    def missing(self, root: Path) -> list[str]:
        """Return the files that are not below `root`, by the first of their names."""
        return [name for archive in self.archives for name in archive.missing(root)]

    def to_download(self, root: Path) -> list[Archive]:
        """Return the archives to download: files of theirs are missing below `root`, and so are they."""
        return [
            archive
            for archive in self.archives
            if archive.missing(root) and not (root / archive.folder / archive.name).exists()
        ]

    def state(self, path: str | None, *, download: bool) -> FileState:
        """Return whether the files are there, and else what to do. path, download: as in `data`."""
        if self.library:
            return FileState(f"comes with {self.library}", "nothing to download")
        root = self.root(path)
        missing = self.missing(root)
        if not missing:
            return FileState(f"is in {root}", "nothing to download")
        total = sum(len(archive.files) for archive in self.archives)
        where = f"not in {root}" if len(missing) == total else f"not all in {root}: {_shortened(missing)} missing"
        return FileState(f"is {where}", self.how_to_get(root, download=download))

    def how_to_get(self, root: Path, *, download: bool) -> str:
        """Return what to do about missing files. download: whether `data.download` allows a search to download them."""
        archives = self.to_download(root)
        names, size = " and ".join(archive.name for archive in archives), size_text(sum(a.num_bytes for a in archives))
        if not self.mirrors:
            return f"get {names} ({size}) and unpack them there, or set `data.path` to the folder that holds the images"
        what = f"download {size} from {self.mirrors[0]}" if archives else "unpack the archive that is there"
        if download:
            return f"a search will {what}"
        return f"set `data.download=true` to {what}, or set `data.path` to the folder that holds the files"


def size_text(num_bytes: int) -> str:
    """Return a size in decimal units, as download pages state it."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def _shortened(names: list[str], most: int = 2) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _idx_archive(kind: str, stem: str, num_bytes: int, md5: str) -> Archive:
    """Return one archive of the MNIST family; it is read packed or unpacked."""
    file = f"{kind}/raw/{stem}"
    return Archive(name=f"{stem}.gz", num_bytes=num_bytes, md5=md5, folder=f"{kind}/raw", files=((file, f"{file}.gz"),))


def _imagenet(side: int, train_bytes: int, valid_bytes: int) -> PublishedSet:
    """Return down-sampled ImageNet of van den Oord et al. 2016; its published `valid` is our test set."""
    form = f"{side}x{side}"
    return PublishedSet(
        name=f"imagenet{side}",
        shape=(3, side, side),
        num_train=1_281_149,
        num_test=49_999,
        num_classes=None,
        version="old (van den Oord)",
        archives=(
            Archive(name=f"train_{form}.tar", num_bytes=train_bytes, files=((f"train_{form}", "train"),)),
            Archive(name=f"valid_{form}.tar", num_bytes=valid_bytes, files=((f"valid_{form}", "valid", "val"),)),
        ),
        folder=f"imagenet{side}",
    )


DIGITS = PublishedSet(
    name="digits", shape=(1, 8, 8), levels=17, num_train=1_437, num_test=360,
    version="scikit-learn, 1437 + 360", library="scikit-learn",
)  # fmt: skip

MNIST = PublishedSet(
    name="mnist",
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

IMAGENET32 = _imagenet(32, 4_113_018_880, 161_474_560)
IMAGENET64 = _imagenet(64, 12_112_588_800, 477_255_680)

PUBLISHED_SETS = {each.name: each for each in (DIGITS, MNIST, FASHION_MNIST, CIFAR10, IMAGENET32, IMAGENET64)}
"""By the source's name. The other sources read files of the user's."""
