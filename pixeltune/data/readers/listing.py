"""Which files of a data folder are read, and why the others are not. No file is passed over without a word."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError, MissingDataError
from pixeltune.format import counted, listed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

SPLIT_NAMES = {
    "train": ("train",),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test",),
}
"""The names of a split, as a folder, as a word of a file's name, or as an array."""


@dataclass(frozen=True)
class Ignored:
    """A file or folder below the data folder that is not read. name: relative to it, a folder's with / at its end."""

    name: str
    reason: str


@dataclass(frozen=True)
class SplitFolder:
    """The files of one split. names: sorted, relative to `folder`, with / between the parts."""

    folder: Path
    names: tuple[str, ...]
    ignored: tuple[Ignored, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Return the files' paths."""
        return [self.folder / name for name in self.names]

    def class_names(self) -> list[str] | None:
        """Return the folder directly below the split in which each file is; None if a file is in none."""
        tops = [name.partition("/") for name in self.names]
        return [top for top, _, _ in tops] if all(slash for _, slash, _ in tops) else None


def ignored_line(ignored: Sequence[Ignored], most: int = 3) -> str:
    """Return how many files are not read and the first of them with the reason; "" for none."""
    if not ignored:
        return ""
    names = listed((f"{each.name} ({each.reason})" for each in ignored), most)
    return f"{counted(len(ignored), 'file')} not read: {names}"


def entries_except(names: Collection[str], folder: Path, reason: str) -> list[Ignored]:
    """List what is directly in `folder`, apart from `names`, as not read for this reason."""
    return [
        Ignored(f"{entry.name}/" if entry.is_dir() else entry.name, reason)
        for entry in sorted(folder.iterdir())
        if entry.name not in names
    ]


def split_folders(root: Path, layout: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Return the folder of each split below `root`.

    Raises:
        DataError: Two folders are the same split, or a split is a link to nowhere.
    """
    folders = {}
    for split, names in layout.items():
        for name in names:
            _require_target(root / name)
        found = [root / name for name in names if (root / name).is_dir()]
        if len(found) > 1:
            raise DataError(
                f"{root} must hold one {split} folder, but has {found[0].name} and {found[1].name}; remove one of them"
            )
        if found:
            folders[split] = found[0]
    return folders


def scan_images(
    root: Path, layout: Mapping[str, Sequence[str]], *, follow_links: bool, is_whole: bool = False
) -> tuple[dict[str, SplitFolder], tuple[Ignored, ...]]:
    """List the image files of each split, and everything else below `root` with the reason why it is not read.

    is_whole: whether a folder without splits is taken as the training images.

    Raises:
        MissingDataError: There is no folder of training images.
        DataError: Two folders are one split, a split has no image, or a link leads out of `root`.
    """
    folders = split_folders(root, layout)
    if is_whole and not folders and root.is_dir():
        whole = scan_files(root, root, suffixes=IMAGE_SUFFIXES, kind="image", follow_links=follow_links)
        return {"train": whole}, whole.ignored
    if "train" not in folders:
        raise MissingDataError(
            f"{root} must hold a folder train with images, but has none; put them there, or hold a test set out of a "
            "folder without splits with --set data.test_fraction=0.1"
        )
    splits = {
        split: scan_files(folder, root, suffixes=IMAGE_SUFFIXES, kind="image", follow_links=follow_links)
        for split, folder in folders.items()
    }
    outside = entries_except([folder.name for folder in folders.values()], root, "in no folder of a split")
    return splits, (*outside, *(each for split in splits.values() for each in split.ignored))


def scan_files(folder: Path, root: Path, *, suffixes: tuple[str, ...], kind: str, follow_links: bool) -> SplitFolder:
    """List the files of `folder`, at any depth, whose name ends with one of `suffixes`, and what is not read.

    Hidden files, and folders that hold the folder in which they are, are not read. kind: what the files are, in words.

    Raises:
        DataError: There is no such file, or a link to one leads out of `root` without `follow_links`, or to nowhere.
    """
    walk = Walk(folder, root, suffixes, kind, follow_links)
    walk.run()
    if not walk.names:
        raise DataError(f"{folder} must hold {kind} files ({', '.join(suffixes)}), but has none")
    return SplitFolder(folder, tuple(sorted(walk.names)), tuple(sorted(walk.ignored, key=lambda each: each.name)))


@dataclass
class Walk:
    """One pass over a folder. names: files that are taken, relative to it; ignored: all else, relative to `root`."""

    folder: Path
    root: Path
    suffixes: tuple[str, ...]
    kind: str
    follow_links: bool
    names: list[str] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)

    def run(self) -> None:
        """Fill `names` and `ignored`; DataError where a folder cannot be read or a link must not be followed."""
        try:
            if self.folder != self.root and self.folder.is_symlink():
                self._require_inside(self.folder, self.folder.resolve())
            self._visit(self.folder, "", (self.folder.resolve(),))
        except OSError as error:
            raise DataError(
                f"every folder of {self.root} must be readable, but one is not: {in_one_line(error)}; make it readable"
            ) from error

    def named(self, name: str) -> str:
        """Return a name below `folder` as one below `root`."""
        below = self.folder.relative_to(self.root).as_posix()
        return name if below == "." else f"{below}/{name}"

    def _visit(self, here: Path, below: str, trail: tuple[Path, ...]) -> None:
        """Take what is in a folder. below: its name relative to the split, and /. trail: real paths that led here."""
        with os.scandir(here) as entries:
            for entry in entries:
                self._take(entry, below + entry.name, trail)

    def _take(self, entry: os.DirEntry[str], name: str, trail: tuple[Path, ...]) -> None:
        is_folder = entry.is_dir()
        if entry.name.startswith("."):
            self._ignore(f"{name}/" if is_folder else name, "hidden")
        elif is_folder:
            real = Path(entry.path).resolve() if entry.is_symlink() else trail[-1] / entry.name
            # One of the folders that led here, or above one of them: a loop.
            if any(passed.is_relative_to(real) for passed in trail):
                self._ignore(f"{name}/", "a link to a folder that it is in")
                return
            self._require_kept_in(entry, real)
            self._visit(Path(entry.path), f"{name}/", (*trail, real))
        elif not entry.name.lower().endswith(self.suffixes):
            self._ignore(name, f"no {self.kind} file")
        elif entry.is_file():
            self._require_kept_in(entry, None)
            self.names.append(name)
        else:
            _require_target(Path(entry.path))
            self._ignore(name, "a pipe, a socket or a device")

    def _ignore(self, name: str, reason: str) -> None:
        self.ignored.append(Ignored(self.named(name), reason))

    def _require_kept_in(self, entry: os.DirEntry[str], real: Path | None) -> None:
        if entry.is_symlink():
            self._require_inside(Path(entry.path), real or Path(entry.path).resolve())

    def _require_inside(self, link: Path, real: Path) -> None:
        """Refuse a link that leads out of the data folder, unless `data.follow_links` allows it."""
        if not self.follow_links and not real.is_relative_to(self.root.resolve()):
            raise DataError(
                f"links must stay inside {self.root}, but {link} leads to {real}; "
                "set `data.follow_links=true` to read what it leads to"
            )


def _require_target(path: Path) -> None:
    """Refuse a link to nowhere: what it should lead to may be on a disk that is not mounted."""
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"every link must lead to a file or a folder, but {path} leads to {path.readlink()}, which is not there; "
            "copy it there, or remove the link"
        )
