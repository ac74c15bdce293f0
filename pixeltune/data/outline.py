"""Form and split sizes of a data set, with or without its images. Nothing is downloaded to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixeltune.config import DataConfig, ImageSpec
from pixeltune.data.dataset import DataSet, ImageSet
from pixeltune.data.load import load_data, prepared
from pixeltune.data.raw import RawData
from pixeltune.data.sources import source_of
from pixeltune.errors import MissingDataError, MissingPackageError
from pixeltune.packages import install_command
from pixeltune.published_sets import FileState, PublishedSet


@dataclass(frozen=True, eq=False)
class DataOutline:
    """Form and split sizes of a data set as the model sees it.

    Attributes:
        name: The source.
        version: Which edition.
        title: What it is, in one line; "" for files of the user's own.
        form: The form of every image.
        num_images: Images by split: train, valid and test, as far as there are.
        files: Where the files are or how to get them; None for a source that has no published files.
        can_be_downloaded: Whether a search can download the files itself.
        data: The images; None where they are not on this machine.
    """

    name: str
    version: str
    title: str
    form: ImageSpec
    num_images: Mapping[str, int]
    files: FileState | None
    can_be_downloaded: bool
    data: DataSet | None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a header says of the images, as far as they are here."""
        return () if self.data is None else self.data.notes


def outline_of(config: DataConfig) -> DataOutline:
    """Return the outline of the images on this machine, or else of the published data set; never download.

    Args:
        config: The data section; its options apply to a published form as they apply to images.

    Returns:
        The outline; its `data` is None where the images are not here.

    Raises:
        DataError: The images are not here, and their form is known from them alone; or they are damaged.
        ConfigError: An option does not fit the data set.
    """
    published = source_of(config.name).published
    files = None if published is None else published.state(config.path, download=config.download)
    try:
        data = load_data(config.model_copy(update={"download": False}))
    except (MissingDataError, MissingPackageError):
        if published is None:
            raise
        return _published_outline(published, config)
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    num_images = {name: len(images) for name, images in splits.items() if images is not None}
    return DataOutline(
        name=data.identity.name,
        version=data.identity.version,
        title="" if published is None else published.edition_in(published.root(config.path)).title,
        form=data.form,
        num_images=num_images,
        files=files,
        can_be_downloaded=bool(published and published.mirrors),
        data=data,
    )


def _published_outline(published: PublishedSet, config: DataConfig) -> DataOutline:
    files = published.state(config.path, download=config.download)
    if published.library:
        files = FileState(f"{files.where}, which is not installed", install_command([published.library]))
    edition = published.edition_in(published.root(config.path))
    plan = prepared(config, _blank_images(edition), already_grey=False)
    num_images = {name: part.shape[0] for name, part in plan.parts.items()}
    return DataOutline(
        name=plan.name,
        version=plan.version,
        title=edition.title,
        form=plan.form,
        num_images=num_images,
        files=files,
        can_be_downloaded=bool(published.mirrors),
        data=None,
    )


def _blank_images(published: PublishedSet) -> RawData:
    """Return images that share one byte of memory, so that the usual code plans their splits."""
    label = None if published.num_classes is None else np.int64(published.num_classes - 1)

    def blank(count: int) -> ImageSet:
        pixels = np.broadcast_to(np.uint8(0), (count, *published.shape))
        return ImageSet(pixels, None if label is None else np.broadcast_to(label, count))

    return RawData(
        train=blank(published.num_train),
        valid=None if published.num_valid is None else blank(published.num_valid),
        test=blank(published.num_test),
        levels=published.levels,
        version=published.version,
    )
